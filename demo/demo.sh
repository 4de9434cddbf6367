#!/usr/bin/env bash
# Shows what works so far, every step checked. Usage: demo.sh PATH-TO-CANOPUS [--stay]
# With --stay the control plane stays up afterwards until Ctrl-C; either way everything it made is removed at the end.
set -euo pipefail
canopus=$(readlink -f "$1"); stay=${2:-}
here=$(cd "$(dirname "$0")/.." && pwd)
data=${CANOPUS_DATA_DIR:-/var/lib/canopus}
export KUBECONFIG=$data/kubeconfig
k() { "$canopus" kubectl "$@"; }
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
fail() { printf '\ndemo: %s\n' "$*" >&2; exit 1; }
# Tries a command until it succeeds, for at most the given seconds.
within() { local end=$((SECONDS + $1)); shift; until "$@" >/dev/null 2>&1; do [ "$SECONDS" -lt "$end" ] || return 1; sleep 0.1; done; }

[ ! -e "$data" ] || fail "$data exists: this would remove it at the end. Say CANOPUS_DATA_DIR=DIR for another place"
work=$(mktemp -d); server=
cleanup() {
  status=$?; trap - EXIT INT TERM
  if [ "$status" -ne 0 ] && [ -f "$work/log" ]; then echo "--- the last lines of the server's log:" >&2; tail -n 30 "$work/log" >&2; fi
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  "$canopus" reset --yes --data-dir "$data" || status=1
  rm -rf "$work"; exit "$status"
}
trap cleanup EXIT; trap 'exit 130' INT TERM

say "A control plane: store, API server and controllers in one process"
"$canopus" up --data-dir "$data" >"$work/log" 2>&1 & server=$!
within 60 k get namespaces || fail "the API server did not come up"
k get namespaces,services

say "An application: ConfigMap, Deployment, Service"
k apply -f "$here/examples/hello.yaml"
replicas() { [ "$(k get deployment hello -o jsonpath='{.status.replicas}')" = "$1" ]; }
within 30 replicas 3 || fail "the Deployment's pods were not made"
k get deployments,replicasets,pods,services

say "Five replicas"
sed 's/replicas: 3/replicas: 5/' "$here/examples/hello.yaml" | k apply -f - >/dev/null
within 30 replicas 5 || fail "five pods were not made"
k get deployments,pods

say "A mistake gets a clear error and changes nothing"
if sed 's/replicas: 3/replicaas: 3/' "$here/examples/hello.yaml" | k apply -f -; then fail "the mistake was taken"; fi

say "kill -9, and everything is still there"
kill -9 "$server"; wait "$server" 2>/dev/null || true
"$canopus" up --data-dir "$data" >>"$work/log" 2>&1 & server=$!
within 60 k get namespaces || fail "the API server did not come back"
within 30 replicas 5 || fail "the Deployment was lost"

say "Deleted, with all that it owned"
k delete -f "$here/examples/hello.yaml"
gone() { [ -z "$(k get replicasets,pods -o name)" ]; }
within 60 gone || fail "the garbage collector left something"

say "Everything held"
if [ "$stay" = --stay ]; then
  printf 'The control plane stays up until Ctrl-C. In another terminal:\n  export KUBECONFIG=%s\n  kubectl get all -A     (or: %s kubectl get all -A)\n' "$KUBECONFIG" "$canopus"
  wait "$server"
fi
