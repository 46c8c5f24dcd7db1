#!/bin/sh
# `make setup-conda`: a conda environment in the place of .venv, so that every other target runs in it.
set -eu

environment=${CONDA_ENV:-loramill}

if ! command -v conda >/dev/null 2>&1; then
    echo "conda is not installed here. Install Miniforge or Miniconda first, or do without: make setup" >&2
    exit 1
fi
if [ -e .venv ] && [ ! -L .venv ]; then
    echo ".venv is there already (from make setup). Remove it first: rm -r .venv" >&2
    exit 1
fi

if nvidia-smi -L >/dev/null 2>&1; then
    device="CUDA"
elif [ "$(uname -s) $(uname -m)" = "Darwin arm64" ]; then
    device="MPS (Apple silicon)"
else
    device="CPU"
fi
echo "Device: $device"
if [ "$(uname -s) $device" = "Linux CPU" ] && [ -z "${TORCH_ARGS:-}" ]; then
    echo "pip's usual build of torch for Linux carries several GB for CUDA; TORCH_ARGS can name an index without it."
fi

if ! conda run --name "$environment" python --version >/dev/null 2>&1; then
    conda create --yes --name "$environment" python=3.12 pip
fi
prefix=$(conda run --name "$environment" python -c "import sys; print(sys.prefix)")
ln -sfn "$prefix" .venv
touch .venv/.installed-python
"${MAKE:-make}" setup
echo "Ready: every make target uses the conda environment $environment. For a shell: conda activate $environment"
