#!/usr/bin/env bash
# The campaigns of tests/suite/torture, many rounds of each:  scripts/torture.sh [ARGUMENTS OF cargo nextest run]...
#
#   TORTURE_TIMES   so many times the rounds of the gate (default 25)
#   TORTURE_SEED    the same seed gives the same rounds (default: a new one)
#   TORTURE_SECONDS how long each load of torture::load lasts (default 150)
#   TORTURE_ROUND   this round alone, of the campaign that is named:
#                   TORTURE_SEED=7 TORTURE_ROUND=12 scripts/torture.sh torture::storms
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
cd "$ROOT"

export TORTURE_TIMES=${TORTURE_TIMES:-25} TORTURE_SEED=${TORTURE_SEED:-$(date +%s)}
export TORTURE_SECONDS=${TORTURE_SECONDS:-150}
export TORTURE_REPORT=$ROOT/target/torture.jsonl
mkdir -p target
: >"$TORTURE_REPORT"
# Two at once: each waits most of its time.
export NEXTEST_TEST_THREADS=${NEXTEST_TEST_THREADS:-2}
say "seed $TORTURE_SEED, $TORTURE_TIMES times the rounds of the gate"
status=0
scripts/test.sh --profile torture "${@:-torture::}" || status=$?

say "what the rounds came to (seed $TORTURE_SEED; lost ones by their number):"
python3 - "$TORTURE_REPORT" <<'PY'
import json
import sys

print(f"{'campaign':18} {'tried':>6} {'survived':>9} {'lost':>5} {'time':>6}  came to")
for line in open(sys.argv[1]):
    one = json.loads(line)
    lost = len(one["lost"])
    came_to = ", ".join(f"{what} {count}" for what, count in sorted(one["came_to"].items()))
    numbers = f"  LOST {one['lost']}" if lost else ""
    print(f"{one['campaign']:18} {one['tried']:6} {one['tried'] - lost:9} {lost:5} {one['seconds']:5}s  {came_to}{numbers}")
PY
exit "$status"
