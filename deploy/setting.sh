#!/usr/bin/env bash
# Print what a variable is set to: setting.sh NAME DEFAULT. The environment wins over .env of the current folder.
set -euo pipefail

value=${!1:-}
if [ -z "$value" ] && [ -f .env ]; then
    value=$(sed -n "s/^$1=//p" .env | tail -n 1)
fi
echo "${value:-$2}"
