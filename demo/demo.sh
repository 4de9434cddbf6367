#!/usr/bin/env bash
# A whole cluster at work, every step checked. Usage: demo.sh PATH-TO-CANOPUS [--stay]
# With --stay the cluster stays up afterwards until Ctrl-C. Either way everything it made is removed at the end.
set -euo pipefail
canopus=$(readlink -f "$1")
stay=${2:-}
here=$(cd "$(dirname "$0")/.." && pwd)
app=$here/examples/hello.yaml
data=${CANOPUS_DATA_DIR:-/var/lib/canopus}
export KUBECONFIG=$data/kubeconfig
work= server= clients=() number=0 title= started=0
begun=$EPOCHREALTIME
bold='' green='' red='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'; fi

# --- What is shown

since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", to - from }'; }
step() {
  finish
  number=$((number + 1)) title=$1 started=$EPOCHREALTIME
  printf '\n%s%2d. %s%s\n' "$bold" "$number" "$title" "$plain"
}
finish() { [ -z "$title" ] || printf '    %s✓ %s%s\n' "$green" "$(since "$started")" "$plain"; title=; }
indented() { sed 's/^/    /'; }
# Shows a command as a user would type it, and what it prints.
show() { printf '    $ canopus %s\n' "$*"; "$canopus" "$@" 2>&1 | indented || fail "canopus $* failed"; }
k() { "$canopus" kubectl "$@"; }
fail() { printf '\n%sdemo: %s%s\n' "$red" "$*" "$plain" >&2; exit 1; }
# Tries a command until it succeeds, for at most so many seconds.
within() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    [ -z "$server" ] || kill -0 "$server" 2>/dev/null || fail "canopus up has ended"
    sleep 0.1
  done
}

# --- What is asked

# Not wget's own -T, with which Debian 12's static busybox crashes.
page() { timeout 5 busybox wget -q -O - "http://$vip/"; }
says() { [[ $(page) == *"$1"* ]]; }
# The application with its text, its number of replicas and its version as given.
application() { sed -e "s/Hello from Canopus/$1/" -e "s/replicas: 3/replicas: $2/" -e "s/canopus-demo:1/canopus-demo:$3/" "$app"; }
deployment() { k get deployment hello -o "jsonpath=$1"; }
ready() { [ "$(deployment '{.status.readyReplicas}')" = "$1" ]; }
rolled() {
  [ "$(deployment '{.status.observedGeneration}')" = "$(deployment '{.metadata.generation}')" ] &&
    [ "$(deployment '{.status.updatedReplicas}/{.status.replicas}/{.status.availableReplicas}')" = 5/5/5 ]
}
# Asks for the page again and again, once each time, until told to stop; counts what was answered and what was not.
client() {
  local count=0 failed=0
  until [ -e "$work/stop" ]; do
    count=$((count + 1))
    says 'Hello again' || failed=$((failed + 1))
  done
  echo "$count $failed" >"$work/client-$1"
}
# What a cluster makes outside its data directory. Nothing of it may be left.
traces() {
  grep -F " $data" /proc/self/mountinfo || true
  nft list tables 2>/dev/null | grep -w canopus || true
  ip -o link show type bridge | grep -w cni0 || true
  find /sys/fs/cgroup -type d -name canopus 2>/dev/null || true
  find /proc -maxdepth 2 -name exe -lname "$data/*" 2>/dev/null || true
  [ ! -e "$data" ] || echo "$data"
}

# --- The end, however it comes

cleanup() {
  status=$?
  trap - EXIT INT TERM
  set +e
  if [ "$status" -ne 0 ] && [ "$status" -ne 130 ] && [ -s "$work/log" ]; then
    echo "What the cluster says of itself:" >&2
    timeout 5 "$canopus" kubectl get pods,events -A >&2
    echo "The end of the cluster's log:" >&2
    tail -n 30 "$work/log" >&2
  fi
  touch "$work/stop"
  if [ -n "$server" ]; then
    printf '\n%sRemoving everything%s\n' "$bold" "$plain"
    started=$EPOCHREALTIME
    kill "$server" 2>/dev/null; wait "$server" 2>/dev/null
    "$canopus" reset --yes --data-dir "$data" || status=1
    left=$(traces | grep -vxF -e "$before")
    if [ -n "$left" ]; then
      printf '%sdemo: canopus reset left something:%s\n%s\n' "$red" "$plain" "$left" >&2
      status=1
    else
      printf '    no process, mount, network interface, firewall rule, control group or file is left\n'
      printf '    %s✓ %s%s\n' "$green" "$(since "$started")" "$plain"
    fi
  fi
  rm -rf "$work"
  if [ "$status" -eq 0 ]; then printf '\n%sEverything held.%s %s in all.\n' "$green" "$plain" "$(since "$begun")"; fi
  exit "$status"
}

# --- The demonstration

[ "$(id -u)" = 0 ] || fail "this must run as root: containers, networks and mounts need it (try: sudo make run)"
command -v busybox >/dev/null || fail "busybox is missing: run \`make setup\`, which installs what is needed"
[ ! -e "$data" ] || fail "$data exists, and this would remove it at the end. Remove it yourself (canopus reset), or say CANOPUS_DATA_DIR=DIR for another place"
before=$(traces)
work=$(mktemp -d)
trap cleanup EXIT
trap 'exit 130' INT TERM

step "A cluster: control plane and node in one process"
printf '    $ canopus up\n'
setsid "$canopus" up --data-dir "$data" >"$work/log" 2>&1 & server=$!
within 60 k get namespaces || fail "the API server did not come up"
within 60 k wait --for=condition=Ready node --all --timeout=10s || fail "the node did not become ready"
show kubectl get nodes

step "Images: Debian's busybox and a small application, in two versions"
for version in 1 2; do
  "$canopus" image busybox --name "canopus-demo:$version" --env "VERSION=$version" --output "$work/demo-$version.tar" \
    --file "$here/demo/image/serve:/bin/serve" --file "$here/demo/image/page:/www/cgi-bin/index.cgi" >/dev/null
  "$canopus" image import --data-dir "$data" "$work/demo-$version.tar" >/dev/null
done
show image ls --data-dir "$data"

step "The application: a ConfigMap, a Deployment of three replicas, a Service"
show kubectl apply -f "$app"
show kubectl wait --for=condition=Available deployment/hello --timeout=90s
ready 3 || within 30 ready 3 || fail "three replicas did not become ready"
show kubectl get nodes,pods,services

step "Its page, by the Service's address from this host"
vip=$(k get service hello -o 'jsonpath={.spec.clusterIP}')
within 20 says 'Hello from Canopus' || fail "the Service at $vip does not answer"
printf '    $ wget -q -O - http://%s/\n' "$vip"
page | indented

step "Its page, by name from inside a pod"
pod=$(k get pods -l app=hello -o name | head -n 1)
inside() { k exec "$pod" -- timeout 5 wget -q -O - http://hello.default.svc.cluster.local/ | grep 'Hello from Canopus'; }
within 20 inside || fail "the name hello.default.svc.cluster.local does not lead to the page"
show kubectl exec "$pod" -- wget -q -O - http://hello/

step "The ConfigMap is edited, and the file in every pod changes"
application 'Hello again from Canopus' 3 1 | k apply -f - >/dev/null
everywhere() {
  local each
  for each in $(k get pods -l app=hello -o name); do k exec "$each" -- grep -q 'Hello again' /config/greeting || return 1; done
}
within 10 everywhere || fail "the mounted file did not change"
page | indented

step "Five replicas"
application 'Hello again from Canopus' 5 1 | k apply -f - >/dev/null
within 60 ready 5 || fail "five replicas did not become ready"
show kubectl get pods

step "Version two, one replica after another, with requests all the while"
for each in 1 2 3 4; do client "$each" & clients+=($!); done
application 'Hello again from Canopus' 5 2 | k apply -f - >/dev/null
within 120 rolled || fail "the rollout did not finish"
# Replicas of version one that are still leaving belong to it.
gone() { [ "$(k get pods -l app=hello -o name | wc -l)" = 5 ]; }
within 60 gone || fail "the replicas of version one did not go"
touch "$work/stop"
wait "${clients[@]}"
show kubectl get pods,replicasets -o wide
read -r count failed < <(awk '{ count += $1; failed += $2 } END { print count, failed }' "$work"/client-*)
printf '    %d requests, %d of them failed\n' "$count" "$failed"
[ "$count" -gt 0 ] && [ "$failed" -eq 0 ] || fail "$failed of $count requests failed during the rollout"
says 'version 2' || fail "the page is not version two's"

if [ "$stay" = --stay ]; then
  finish
  cat <<TEXT

${bold}The cluster is up and stays up until Ctrl-C, which removes everything.${plain} In another terminal, as root:

    export KUBECONFIG=$KUBECONFIG
    $canopus kubectl get pods -A -o wide        # or the real kubectl, unchanged
    $canopus kubectl exec -it deployment/hello -- sh
    $canopus kubectl logs -f deployment/hello
    $canopus kubectl delete pod --all           # they come back
    curl http://$vip/
TEXT
  trap 'exit 0' INT TERM
  # In turns, so that a signal is not kept waiting.
  while kill -0 "$server" 2>/dev/null; do sleep 1 & wait $! || true; done
  fail "canopus up has ended"
fi

step "The application goes"
show kubectl delete -f "$app"
nothing() { [ -z "$(k get pods,replicasets -o name)" ]; }
within 60 nothing || fail "pods or replica sets were left"
finish
