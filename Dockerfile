# streamgauge in a small image: no shell tools beyond Debian's base, no root, a health check.
#   docker build -t streamgauge --build-arg STREAMGAUGE_COMMIT=$(git rev-parse --short=12 HEAD) .
#   docker run -p 127.0.0.1:8080:8080 -v streamgauge:/data -e STREAMGAUGE_TOKEN=$(openssl rand -hex 16) streamgauge
FROM rust:1.90-slim-bookworm AS build
ARG STREAMGAUGE_COMMIT
ENV STREAMGAUGE_COMMIT=$STREAMGAUGE_COMMIT
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
# Cargo.toml names the benches; the binary does not need them.
COPY benches benches
RUN cargo build --release --locked --bin streamgauge

FROM debian:bookworm-slim
COPY --from=build /build/target/release/streamgauge /usr/local/bin/streamgauge
RUN useradd --system --uid 10001 --home-dir /data --create-home streamgauge
USER streamgauge
VOLUME /data
EXPOSE 8080
# /readyz answers without a token.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /readyz HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nConnection: close\\r\\n\\r\\n' >&3 && head -1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["streamgauge"]
CMD ["run", "--listen", "0.0.0.0:8080", "--data-dir", "/data"]
