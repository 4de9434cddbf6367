#!/usr/bin/env bash
# Runs every test of the workspace and ends with a plain summary. Arguments go to `cargo test`.
set -uo pipefail
cd "$(dirname "$0")/.."
# A user's own settings would change what commands do.
unset CANOPUS_DATA_DIR CANOPUS_LOG DESTDIR KUBECONFIG
log=$(mktemp)
trap 'rm -f "$log"' EXIT
started=$SECONDS
cargo test --workspace --no-fail-fast "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

echo
echo "== Summary"
awk '
  /^ +(Running|Doc-tests) / { suites++ }
  /^test result:/ { passed += $4; failed += $6; ignored += $8 }
  END { printf "%d tests passed, %d failed, %d ignored, in %d suites", passed, failed, ignored, suites }
' "$log"
echo ", $((SECONDS - started)) s"
grep -E '^test .* \.\.\. FAILED$' "$log" | sort -u
[ "$status" -eq 0 ] && echo "All tests passed." || echo "There were failures (exit status $status)."
exit "$status"
