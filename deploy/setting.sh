#!/usr/bin/env bash
# Print what a variable is set to: setting.sh NAME DEFAULT [FILE]. The environment wins over .env of the current folder;
# with FILE, that file alone is asked. Lines are read as Compose reads them: `export`, quotes, comments and CRLF.
set -euo pipefail

value_in() { # FILE NAME
    tr -d '\r' <"$1" | sed -nE "s/^[[:space:]]*(export[[:space:]]+)?$2[[:space:]]*=[[:space:]]*//p" | tail -n 1 |
        sed -E -e "s/^\"([^\"]*)\".*/\\1/" -e t -e "s/^'([^']*)'.*/\\1/" -e t -e 's/(^|[[:space:]]+)#.*//' \
            -e 's/[[:space:]]+$//'
}

file=${3:-.env}
value=
[ -n "${3:-}" ] || value=${!1:-}
if [ -z "$value" ] && [ -f "$file" ]; then
    value=$(value_in "$file" "$1")
fi
echo "${value:-$2}"
