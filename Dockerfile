# A static binary in an empty image: no shell, no package manager, no user but 65532.
#
#   docker build -t weir .
#   docker run --read-only -v ./weir.toml:/etc/weir/weir.toml:ro -v weir-state:/var/lib/weir -p 8080:8080 weir
#
# In the file, `bind` must be "0.0.0.0:8080" to be reached from outside the container. Without tokens the admin API
# answers loopback only, so use it by `docker exec CONTAINER weir status`.

FROM rust:1.95-alpine AS build
# mimalloc is C; the Rust target of this image is musl, which links statically.
RUN apk add --no-cache build-base
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin weir \
    && mkdir -p /out/usr/bin /out/etc/weir /out/var/lib/weir \
    && cp target/release/weir /out/usr/bin/weir \
    && strip /out/usr/bin/weir \
    && chown 65532:65532 /out/var/lib/weir

FROM scratch
COPY --from=build /out /
ENV PATH=/usr/bin STATE_DIRECTORY=/var/lib/weir
USER 65532:65532
VOLUME /var/lib/weir
EXPOSE 8080
# Ready, not merely alive; asks the admin address of the configuration file.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["weir", "status", "-q"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["weir"]
CMD ["run"]
