#!/usr/bin/env bash
# Run the demo by the command given and hold its outcome: Q8_0 passes, Q4_0 is caught, in words, exit code 1.
set -euo pipefail
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
code=0
"$@" 2>&1 | tee "$log" || code=$?
grep -q "q4_0" "$log"
grep -Eq "FAIL text, q4_0 against f16" "$log" || { echo "the demo did not catch the 4-bit copy" >&2; exit 1; }
if grep -Eq "FAIL [a-z.]+, q8_0 against f16" "$log"; then echo "the demo failed the 8-bit copy" >&2; exit 1; fi
[ "$code" -ne 0 ] || { echo "the demo's gate should have failed" >&2; exit 1; }
