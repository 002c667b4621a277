# pprofpy as a container beside the one to look into: docs/containers.md. `make wheel` comes first.
FROM debian:12-slim
COPY scripts/image.sh dist/*.whl /tmp/pprofpy/
RUN /tmp/pprofpy/image.sh /tmp/pprofpy && rm -rf /tmp/pprofpy
ENV PPROFPY_DIR=/profiles
CMD ["pprofpy", "--help"]
