# syntax=docker/dockerfile:1
#
#   docker build -t resound .
#   docker run -p 8080:8080 -e REVERB_SERVER_HOST=0.0.0.0 --env-file .env resound
#
# or, to have a Laravel .env read as Laravel reads it (comments, ${OTHER}), mounted; user 10001
# has to be able to read it:
#
#   docker run -p 8080:8080 -e REVERB_SERVER_HOST=0.0.0.0 -v ./.env:/srv/.env:ro resound
#
# It writes nothing, so that --read-only and --cap-drop=ALL do no harm.

FROM rust:1.95.0-slim-bookworm AS build
# For jemalloc.
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# What `resound --version` says: the hash and the day, such as "ceb19b5ab 2026-11-26".
ARG RESOUND_COMMIT=
COPY Cargo.toml Cargo.lock build.rs ./
COPY benches benches
COPY src src
COPY config config
# The registry may be kept from build to build; what is compiled not, since cargo goes by the times of
# files, which another checkout's may have, too. Larger pages: for arm64, where some systems have them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
    && cargo build --release --locked --bin resound \
    && cp target/release/resound /resound

FROM debian:bookworm-slim
ARG RESOUND_VERSION=
ARG RESOUND_REVISION=
LABEL org.opencontainers.image.title="resound" \
      org.opencontainers.image.description="Real-time broadcasting for Laravel, in place of Reverb" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${RESOUND_VERSION}" \
      org.opencontainers.image.revision="${RESOUND_REVISION}"
# Kubernetes' runAsNonRoot wants a number; a name in the list of processes is for people.
RUN groupadd --gid 10001 resound \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /srv --shell /usr/sbin/nologin resound
COPY --from=build /resound /usr/local/bin/resound
# Settings come from the environment or from /srv/.env.
WORKDIR /srv
USER 10001:10001
EXPOSE 8080
# docker stop sends SIGTERM; connections are then closed within shutdown_grace.
STOPSIGNAL SIGTERM
# Reads the same .env and environment as the server; flags it has to be given, too.
HEALTHCHECK --interval=10s --timeout=5s --start-period=2s --retries=3 CMD ["resound", "health"]
ENTRYPOINT ["resound"]
CMD ["start"]
