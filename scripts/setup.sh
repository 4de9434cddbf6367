#!/usr/bin/env bash
# Installs the Debian packages of debian-packages.txt that are missing, and says so.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
while read -r package; do
  # ${db:Status-Status} is dpkg-query's, not the shell's.
  # shellcheck disable=SC2016
  if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" != installed ]; then
    missing+=("$package")
  fi
done < <(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' debian-packages.txt)

if [ "${#missing[@]}" -eq 0 ]; then
  echo "setup: every Debian package of debian-packages.txt is installed"
  exit 0
fi
echo "setup: installing ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "setup: this needs root, and there is no sudo: run it as root" >&2; exit 1; }
  as_root=(sudo)
fi
# A new machine has no package lists, or stale ones.
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
