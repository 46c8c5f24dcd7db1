#!/usr/bin/env bash
# Run a command beside a Docker engine of its own, for machines that reach no image registry: with_docker.sh COMMAND...
#
# Needs Debian and root. The engine is Debian's docker.io, started by hand and ended with the command. Stand-ins for
# the base images are made of Debian packages, under the names that the Dockerfile and docker-compose.yml ask for; they
# know this machine's certificates and pip configuration, so that builds reach the same package index.
# DOCKER_FOLDER=FOLDER keeps the engine's data for the next time. Ends with 75 where no engine can run.
set -euo pipefail

[ $# -gt 0 ] || { sed -n '2,7p' "$0"; exit 2; }
[ "$(id -u)" = 0 ] || { echo "with_docker.sh needs root: it starts a Docker engine."; exit 1; }

kept=${DOCKER_FOLDER:-}
folder=${kept:-$(mktemp -d /tmp/docker.XXXXXX)}
mkdir -p "$folder/bin" "$folder/data"
export DOCKER_HOST=unix://$folder/docker.sock

install_engine() {
    [ -x /usr/bin/docker ] && [ -x /usr/sbin/dockerd ] && [ -x /usr/sbin/iptables ] && [ -x /usr/sbin/debootstrap ] && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io debootstrap iptables >/dev/null
}

outside_mtu() {
    local interface
    interface=$(awk '$2 == "00000000" { print $1; exit }' /proc/net/route)
    cat "/sys/class/net/${interface:-lo}/mtu"
}

engine_runs() {
    local waited
    # In a session of its own, so that Ctrl-C ends the command first.
    setsid dockerd --host "$DOCKER_HOST" --data-root "$folder/data" --exec-root "$folder/run" \
        --pidfile "$folder/dockerd.pid" --mtu "$(outside_mtu)" >"$folder/dockerd.log" 2>&1 &
    engine=$!
    for waited in $(seq 180); do
        ! /usr/bin/docker version >/dev/null 2>&1 || return 0
        kill -0 "$engine" 2>/dev/null || break
        sleep 1
    done
    echo "The Docker engine did not start within ${waited} s; its log ends with:"
    tail -n 5 "$folder/dockerd.log"
    return 1
}

# On a busy machine the engine gives up waiting for its own parts after 15 s; trying again is all that it takes.
start_engine() {
    engine_runs || engine_runs || engine_runs || exit 75
}

end_engine() {
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
    [ -n "$kept" ] || rm -rf "$folder"
}

# One Debian for both: redis is added to what Python has.
make_base_images() {
    /usr/bin/docker image inspect python:3.11-slim redis:7-alpine >/dev/null 2>&1 && return
    echo "Making stand-ins for python:3.11-slim and redis:7-alpine of Debian packages"
    root=$folder/root
    rm -rf "$root"
    debootstrap --variant=minbase --include=ca-certificates,netbase,tzdata,python3.11,python3-pip,python3-venv \
        bookworm "$root" >"$folder/debootstrap.log" || { tail -n 20 "$folder/debootstrap.log"; exit 1; }
    ln -sf python3.11 "$root/usr/bin/python"
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
    rm -rf "$root"/var/cache/apt/archives/*.deb
    tar -C "$root" -c . | /usr/bin/docker import - python:3.11-slim >/dev/null
    DOCKER_BUILDKIT=1 /usr/bin/docker build --quiet --tag redis:7-alpine - >/dev/null <<'END'
FROM python:3.11-slim
# Installing a server does not start it; its folder belongs to the user that the official image has.
RUN printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d && \
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server && \
    install --directory --owner=999 --group=1000 /data
END
    rm -rf "$root"
}

install_engine || exit 75
ln -sf /usr/bin/docker "$folder/bin/docker" # another client in PATH may want plugins that Debian does not have
trap end_engine EXIT
start_engine
make_base_images
PATH=$folder/bin:$PATH "$@"
