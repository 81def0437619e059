# The service as an image: docker build -t gmm-service .
#
# The base is pinned by tag. To pin it by content too, look the digest up once and pass it:
#   docker buildx imagetools inspect python:3.13.16-slim-bookworm
#   docker build --build-arg PYTHON_IMAGE=python:3.13.16-slim-bookworm@sha256:<digest> .
ARG PYTHON_IMAGE=python:3.13.16-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /opt/builder && python -m venv --without-pip /opt/gmm
# Dependencies change seldom: a layer of their own. Both lists are parts of the one lock and every
# file that is installed is checked against its hash.
COPY requirements.lock pyproject.toml ./
COPY .ci/lock_subset.py .ci/
RUN python .ci/lock_subset.py > /tmp/base.txt \
    && python .ci/lock_subset.py analysis formats plots > /tmp/extras.txt \
    && python .ci/lock_subset.py build > /tmp/build.txt \
    && python -m pip --python /opt/gmm/bin/python install --require-hashes -r /tmp/base.txt \
    && python -m pip --python /opt/gmm/bin/python install --require-hashes -r /tmp/extras.txt \
    && python -m pip --python /opt/builder/bin/python install --require-hashes -r /tmp/build.txt
COPY README.md LICENSE ./
COPY gmm_engine gmm_engine
COPY service service
RUN /opt/builder/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheels . \
    && python -m pip --python /opt/gmm/bin/python install --no-index --no-deps /tmp/wheels/*.whl

FROM ${PYTHON_IMAGE} AS runtime
LABEL org.opencontainers.image.title="gmm-service" \
      org.opencontainers.image.description="Gaussian mixture models as a service" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 gmm \
    && useradd --uid 10001 --gid gmm --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gmm \
    && install --directory --owner gmm --group gmm --mode 0700 /var/lib/gmm /var/cache/gmm
COPY --from=build /opt/gmm /opt/gmm
# Nothing is written but the two volumes (and /tmp), so the root file system may be read-only.
# Beyond loopback the service starts only when GMM_ALLOW_UNAUTHENTICATED says so; the image does
# not say so by itself.
ENV PATH=/opt/gmm/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/cache/gmm \
    MPLCONFIGDIR=/var/cache/gmm/matplotlib \
    GMM_HOST=0.0.0.0 \
    GMM_PORT=8000 \
    GMM_REGISTRY_DIR=/var/lib/gmm
EXPOSE 8000
USER 10001:10001
WORKDIR /var/lib/gmm
# The compiled passes, for the processor that builds; another processor compiles its own once.
# Numba keeps a cache only where it can write, hence a volume. Matplotlib's list of fonts goes along.
RUN gmm-service warm-up && python -c "import matplotlib.font_manager"
VOLUME ["/var/lib/gmm", "/var/cache/gmm"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['GMM_PORT'] + '/readyz', timeout=4)"]
ENTRYPOINT ["gmm-service"]
CMD ["serve"]
