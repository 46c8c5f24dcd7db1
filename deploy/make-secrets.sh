#!/usr/bin/env bash
# Give every secret that an .env file lacks a random value: make-secrets.sh [FILE]. What is set already stays.
set -euo pipefail

file=${1:-.env}
folder=$(dirname "$0")
names=(JWT_SECRET LORAMILL_AUDIT_KEY LORAMILL_INFERENCE_KEY LORAMILL_ADMIN_PASSWORD
    REDIS_PASSWORD POSTGRES_PASSWORD GRAFANA_PASSWORD FLOWER_PASSWORD)
made=()

random_hex() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

set_if_empty() { # NAME VALUE
    [ -z "$("$folder/setting.sh" "$1" "" "$file")" ] || return 1
    local line="^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*="
    if grep -qE "$line" "$file"; then
        sed -E "s/$line.*/$1=$2/" "$file" >"$file.new"
    else
        { awk 1 "$file" && echo "$1=$2"; } >"$file.new"
    fi
    mv "$file.new" "$file"
}

umask 077
[ -e "$file" ] || cp "$folder/../.env.example" "$file"
for name in "${names[@]}"; do
    if set_if_empty "$name" "$(random_hex)"; then
        made+=("$name")
    fi
done
set_if_empty LORAMILL_ADMIN_USER admin || true
if [ ${#made[@]} -gt 0 ]; then
    echo "Random secrets were written to $file: ${made[*]}"
    echo "Keep that file: without it nobody can sign in, and the audit log cannot be verified."
fi
