#!/usr/bin/env bash
# Shows a cluster at work, every step checked. Usage: demo.sh PATH-TO-CANOPUS [--stay]
# With --stay the cluster stays up afterwards until Ctrl-C; either way everything it made is removed at the end.
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

work=$(mktemp -d); server=
cleanup() {
  status=$?; trap - EXIT INT TERM
  if [ "$status" -ne 0 ] && [ -f "$work/log" ]; then echo "--- the last lines of the server's log:" >&2; tail -n 30 "$work/log" >&2; fi
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  "$canopus" reset --yes --data-dir "$data" || status=1
  rm -rf "$work"; exit "$status"
}
trap cleanup EXIT; trap 'exit 130' INT TERM

[ "$(id -u)" = 0 ] || fail "must run as root: containers, networks and mounts need it (try: sudo make run)"
say "An image: Debian's busybox, packed as an OCI archive"
"$canopus" image busybox --name canopus-demo:1 --output "$work/demo.tar"
"$canopus" image import --data-dir "$data" "$work/demo.tar"

say "A cluster: control plane and node in one process"
"$canopus" up --data-dir "$data" >"$work/log" 2>&1 & server=$!
within 60 k get nodes || fail "the API server did not come up"
k wait --for=condition=Ready node --all --timeout=60s

say "The application"
k apply -f "$here/examples/hello.yaml"
k wait --for=condition=Available deployment/hello --timeout=90s
k get nodes,pods,services -o wide

say "The page, through the Service's address from the host"
vip=$(k get service hello -o jsonpath='{.spec.clusterIP}')
page() { busybox wget -q -T 2 -O - "http://$vip/index.html"; }
within 20 page || fail "the Service does not answer"
page | grep -q "Hello from Canopus" || fail "unexpected page"; page

say "The page, by DNS name from inside a pod"
pod=$(k get pods -l app=hello -o name | head -n 1)
within 20 k exec "$pod" -- wget -q -T 2 -O - http://hello.default.svc.cluster.local/index.html || fail "DNS or the Service fails inside the pod"
k exec "$pod" -- wget -q -T 2 -O - http://hello/index.html

say "A changed ConfigMap shows in the mounted file"
sed 's/Hello from Canopus\./Hello again from Canopus./' "$here/examples/hello.yaml" | k apply -f - >/dev/null
changed() { page | grep -q "Hello again"; }
within 10 changed || fail "the mounted file did not change"; page

say "Five replicas"
sed -e 's/replicas: 3/replicas: 5/' -e 's/Hello from/Hello again from/' "$here/examples/hello.yaml" | k apply -f - >/dev/null
five() { [ "$(k get deployment hello -o jsonpath='{.status.readyReplicas}')" = 5 ]; }
within 60 five || fail "five replicas did not become ready"; k get pods

say "A rolling update, with requests all the while"
( failed=0; count=0
  until [ -e "$work/stop" ]; do count=$((count + 1)); page >/dev/null || failed=$((failed + 1)); done
  echo "$count $failed" >"$work/requests" ) & requests=$!
sed -e 's/replicas: 3/replicas: 5/' -e 's/Hello from/Hello again from/' -e 's/value: "1"/value: "2"/' "$here/examples/hello.yaml" | k apply -f - >/dev/null
rolled() { [ "$(k get deployment hello -o jsonpath='{.status.updatedReplicas}/{.status.replicas}/{.status.availableReplicas}')" = 5/5/5 ]; }
within 120 rolled || { touch "$work/stop"; fail "the rollout did not finish"; }
touch "$work/stop"; wait "$requests"; read -r count failed <"$work/requests"
echo "$count requests, $failed failed"; [ "$failed" = 0 ] || fail "$failed requests failed during the rollout"

say "Everything held"
if [ "$stay" = --stay ]; then
  cat <<TEXT
The cluster stays up until Ctrl-C. In another terminal:
  export KUBECONFIG=$KUBECONFIG
  kubectl get pods -A          (or: $canopus kubectl get pods -A)
  curl http://$vip/
TEXT
  wait "$server"
fi
