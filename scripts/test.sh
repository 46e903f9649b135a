#!/usr/bin/env bash
# The tests against real services:  scripts/test.sh [ARGUMENTS OF cargo nextest run]...
#
# Services that somebody started by hand (scripts/services.sh start) are used and left running;
# otherwise they are started for this run alone.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
cd "$ROOT"

SERVICES=$ROOT/target/services
mkdir -p "$SERVICES"
# Two runs in one checkout would stop each other's services.
exec 9>"$SERVICES/lock"
flock -n 9 || {
    say "another test run holds this checkout: waiting"
    flock 9
}

scripts/tools.sh postgres majors s3 aws lambda minisign zstd gpg rust
PATH=$NEXTEST:$PATH
scripts/build.sh

if ! { scripts/services.sh alive && [ ! -e "$SERVICES/pids/watcher" ]; }; then
    say "starting PostgreSQL 15-18, SeaweedFS and moto"
    trap 'scripts/services.sh stop' EXIT
    scripts/services.sh start --owner $$
fi
# shellcheck source=/dev/null
. "$SERVICES/env"

# What the tests write, they write there.
export TMPDIR=${PGSTOW_TEST_TMP:-/tmp}

# More at once than there are processors, since most tests wait most of the time (.config/nextest.toml).
export NEXTEST_TEST_THREADS=${NEXTEST_TEST_THREADS:-$((2 * $(nproc) + 1))}

# In the background, because a trap waits for a foreground program to end by itself.
cargo nextest run "$@" 9>&- &
tests=$!
trap 'kill -INT $tests 2>/dev/null; wait $tests; exit 130' INT
trap 'kill -TERM $tests 2>/dev/null; wait $tests; exit 143' TERM
wait $tests
