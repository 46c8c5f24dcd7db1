#!/usr/bin/env bash
# The services in containers: services.sh start|stop|restart|logs|build. The Makefile's targets call it.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "$*" >&2
    exit 1
}

require_docker() {
    command -v docker >/dev/null ||
        fail "docker is not installed; it is needed for this. Without containers, the same services start with: make up"
    docker version --format '{{.Server.Version}}' >/dev/null 2>&1 ||
        fail "docker is installed, but its engine does not answer. Start Docker, or set DOCKER_HOST."
}

find_compose() {
    if docker compose version >/dev/null 2>&1; then
        compose=(docker compose)
    elif command -v docker-compose >/dev/null; then
        compose=(docker-compose)
    else
        fail "docker is there, and Docker Compose is not: install docker-compose-plugin, or docker-compose 2.20 or newer."
    fi
}

setting() { # NAME DEFAULT
    deploy/setting.sh "$@"
}

image() {
    echo "$(setting IMAGE_PREFIX loramill)-$1:$(setting IMAGE_TAG latest)"
}

# Quick: the images for CPUs, with every layer that is still right. FULL=1: those for GPUs as well, over the newest base.
# WHEELHOUSE: a folder of wheels, or an image that holds one. PYTHON_IMAGE, TORCH_CPU_INDEX, SAMPLES, PIP_NO_INDEX: see
# the Dockerfile.
build() {
    require_docker
    local name arguments=() same=() wheelhouse
    wheelhouse=$(setting WHEELHOUSE scratch)
    if [ -d "$wheelhouse" ]; then
        echo "Making the image loramill-wheelhouse of the folder $wheelhouse"
        # The same wheels make the same image, so that what was built with them before is found again.
        ! tar --version | grep -q GNU || same=(--sort=name --mtime=@0 --owner=0 --group=0)
        tar -C "$wheelhouse" ${same[@]+"${same[@]}"} -c . | docker import - loramill-wheelhouse:latest >/dev/null
        wheelhouse=loramill-wheelhouse:latest
    fi
    arguments+=(--build-arg "WHEELHOUSE=$wheelhouse")
    for name in PYTHON_IMAGE TORCH_CPU_INDEX TORCH_CUDA_INDEX SAMPLES PIP_NO_INDEX; do
        [ -z "${!name+set}" ] || arguments+=(--build-arg "$name=${!name}")
    done
    arguments+=(--build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)")
    # A wheelhouse's image is on this machine alone, and cannot be pulled.
    [ -z "${FULL:-}" ] || [ "$wheelhouse" != scratch ] || arguments+=(--pull)
    [ $# -gt 0 ] || set -- api ui worker inference ${FULL:+worker-cuda inference-cuda}
    for name in "$@"; do
        echo "Building $(image "$name")"
        DOCKER_BUILDKIT=1 docker build "${arguments[@]}" --target "$name" --tag "$(image "$name")" .
    done
}

start() {
    require_docker
    find_compose
    deploy/make-secrets.sh .env
    local image prefix missing=()
    prefix=$(setting IMAGE_PREFIX loramill)-
    for image in $("${compose[@]}" config --images); do # those of COMPOSE_FILE; others than ours are pulled
        if [[ $image = "$prefix"* ]] && ! docker image inspect "$image" >/dev/null 2>&1; then
            image=${image#"$prefix"}
            missing+=("${image%:*}")
        fi
    done
    [ ${#missing[@]} -eq 0 ] || build "${missing[@]}"
    "${compose[@]}" up --detach --wait
    echo
    echo "page       http://localhost:$(setting UI_PORT 8501)"
    echo "API        http://localhost:$(setting API_PORT 8000)/docs"
    echo "inference  http://localhost:$(setting INFERENCE_PORT 8002)/docs"
    echo "Sign in as $(setting LORAMILL_ADMIN_USER admin); the password is LORAMILL_ADMIN_PASSWORD in .env."
}

case ${1:-} in
    start) start ;;
    stop)
        require_docker
        find_compose
        "${compose[@]}" down
        ;;
    restart)
        require_docker
        find_compose
        "${compose[@]}" restart ${2:+"$2"}
        ;;
    logs)
        require_docker
        find_compose
        "${compose[@]}" logs --tail 100 ${FOLLOW:+--follow} ${2:+"$2"}
        ;;
    build)
        shift
        build "$@"
        ;;
    *) fail "usage: $0 start|stop|restart [SERVICE]|logs [SERVICE]|build [TARGET...]" ;;
esac
