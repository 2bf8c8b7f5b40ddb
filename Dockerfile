# syntax=docker/dockerfile:1
#
#   docker build -t resound .
#   docker run -p 8080:8080 --env-file .env resound
#
# or, to have a Laravel .env read as Laravel reads it (comments, ${OTHER}), mounted;
# user 10001 has to be able to read it:
#
#   docker run -p 8080:8080 -v ./.env:/srv/.env:ro resound

FROM rust:1.95-slim-bookworm AS build
# For jemalloc.
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY src src
COPY config config
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin resound \
    && strip -o /resound target/release/resound

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --home-dir /srv --shell /usr/sbin/nologin resound
COPY --from=build /resound /usr/local/bin/resound
# Settings come from the environment or from /srv/.env.
WORKDIR /srv
USER resound
EXPOSE 8080
# docker stop sends SIGTERM; connections are then closed within shutdown_grace.
STOPSIGNAL SIGTERM
# Reads the same .env and environment as the server; flags it has to be given, too.
HEALTHCHECK --interval=10s --timeout=5s --start-period=2s --retries=3 CMD ["resound", "health"]
ENTRYPOINT ["resound"]
CMD ["start"]
