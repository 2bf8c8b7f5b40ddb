# syntax=docker/dockerfile:1
#
#   docker build -t resound .
#   docker run -p 8080:8080 --env-file .env resound
#
# docker's --env-file takes quotes as part of the value, unlike Laravel; to have
# a Laravel .env read as Laravel reads it, mount it instead:
#
#   docker run -p 8080:8080 -v ./.env:/srv/.env:ro resound

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
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
# Plain HTTP, and bash alone: the image has no curl. With TLS in the container,
# replace it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=2s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${REVERB_SERVER_PORT:-8080} && printf 'GET /up HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r -t 2 _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["resound"]
CMD ["start"]
