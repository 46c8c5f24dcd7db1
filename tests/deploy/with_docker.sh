#!/usr/bin/env bash
# Run a command beside a Docker engine of its own, for machines that reach no image registry: with_docker.sh COMMAND...
#
# Needs Debian and root. The engine is Debian's docker.io, started by hand and ended with the command. Stand-ins for
# the base images are made of Debian packages, under the names that the Dockerfile and docker-compose.yml ask for; they
# know this machine's certificates and pip configuration, so that builds reach the same package index.
# DOCKER_FOLDER=FOLDER keeps the engine's data for the next time.
set -euo pipefail

[ $# -gt 0 ] || { sed -n '2,8p' "$0"; exit 2; }
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

start_engine() {
    # In a session of its own, so that Ctrl-C ends the command first.
    setsid dockerd --host "$DOCKER_HOST" --data-root "$folder/data" --exec-root "$folder/run" \
        --pidfile "$folder/dockerd.pid" --mtu "$(outside_mtu)" >"$folder/dockerd.log" 2>&1 &
    engine=$!
    local waited
    for waited in $(seq 60); do
        /usr/bin/docker version >/dev/null 2>&1 && return
        kill -0 "$engine" 2>/dev/null || break
        sleep 1
    done
    echo "The Docker engine did not start (${waited} s). Its log ends with:"
    tail -n 20 "$folder/dockerd.log"
    exit 1
}

end_engine() {
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
    [ -n "$kept" ] || rm -rf "$folder"
}

import_image() { # NAME PACKAGES COMMAND-IN-ROOT
    /usr/bin/docker image inspect "$1" >/dev/null 2>&1 && return
    echo "Making a stand-in for $1 of Debian packages"
    local root=$folder/root
    rm -rf "$root"
    debootstrap --variant=minbase --include="$2" bookworm "$root" >"$folder/debootstrap.log" ||
        { tail -n 20 "$folder/debootstrap.log"; exit 1; }
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
    (cd "$root" && eval "$3")
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    tar -C "$root" -c . | /usr/bin/docker import - "$1" >/dev/null
    rm -rf "$root"
}

install_engine
ln -sf /usr/bin/docker "$folder/bin/docker" # another client in PATH may want plugins that Debian does not have
start_engine
trap end_engine EXIT
import_image python:3.11-slim ca-certificates,netbase,tzdata,python3.11,python3-venv,python3-pip 'ln -sf python3.11 usr/bin/python'
import_image redis:7-alpine ca-certificates,redis-server,tzdata 'mkdir -p data && chown 999:1000 data'
PATH=$folder/bin:$PATH "$@"
