#!/usr/bin/env bash
# pgstow beside stock pipelines and other tools, on generated databases and with one S3 server: the
# way there, the way back, and how the cost grows. Then docs/performance.md is written anew.
#
#   BENCH_MAJOR=17       PostgreSQL's major: 15, 16, 17 or 18
#   BENCH_ONLY="giant-1gb mixed-1gb"    these cases of bench/cases.py alone [default: all]
#   BENCH_FRESH=1        measure what has been measured before as well
#   BENCH_PGSTOW=PATH    another binary [default: a release build of this tree]
#   BENCH_PROFILE="giant-1gb pgstow 2"  sample this case and way alone ("restore 2" is one, too), and draw a flame graph
#
# What is measured is kept in target/bench/results: a run that was interrupted goes on. While not all
# of it has been measured, what there is goes to target/bench/performance.md.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../scripts/place.sh"
cd "$ROOT"
export PYTHONDONTWRITEBYTECODE=1

MAJOR=${BENCH_MAJOR:-17}
# The last that Debian's pgBackRest reads.
PHYSICAL=15
BENCH=$ROOT/target/bench
scripts/tools.sh postgres majors s3 aws bench
if [ -n "${BENCH_PROFILE:-}" ]; then
    scripts/tools.sh profile
    # The same program, with its names left in.
    export CARGO_PROFILE_RELEASE_STRIP=none CARGO_TARGET_DIR=$BENCH/profiled
fi
if [ -z "${BENCH_PGSTOW:-}" ]; then
    say "building pgstow (release)"
    cargo build --locked --release --quiet
    BENCH_PGSTOW=${CARGO_TARGET_DIR:-$ROOT/target}/release/pgstow
fi

trap 'scripts/services.sh stop --into "$BENCH/services"' EXIT
mkdir -p "$BENCH"
mapfile -t servers < <(printf 'pg%s\n' "$MAJOR" "$PHYSICAL" | sort -u)
scripts/services.sh start --into "$BENCH/services" --owner $$ "${servers[@]}" s3+tls
# shellcheck source=/dev/null
. "$BENCH/services/env"
export BENCH_SERVICES=$BENCH/services

# A program of the benchmark, on the server of one major.
with_server() {
    local major=$1 program=$2 url="PGSTOW_TEST_PG${1}_URL" bin="PGSTOW_TEST_PG_BIN_$1"
    shift 2
    # So that no checkpoint and no autovacuum falls into a measured run.
    "${!bin}/psql" -X -q -d "${!url}" -c 'ALTER SYSTEM SET autovacuum = off' -c "ALTER SYSTEM SET max_wal_size = '16GB'" \
        -c "ALTER SYSTEM SET checkpoint_timeout = '1d'" -c 'SELECT pg_reload_conf()' >/dev/null
    # Encryption on the loopback would cost all of them the same, and tell nothing.
    BENCH_POSTGRES=pg$major "$program" --server "${!url}" --options 'sslmode=disable' --postgres "${!bin}" \
        --pgstow "$BENCH_PGSTOW" --aws "$PGSTOW_TEST_AWSCLI" "$@"
}
if [ -n "${BENCH_PROFILE:-}" ]; then
    read -r database way <<<"$BENCH_PROFILE"
    with_server "$MAJOR" bench/profile.py --database "$database" --way "$way" --plots docs/performance --inferno "$TOOLS/inferno-$INFERNO/bin"
    exit
fi
for kind in "$MAJOR" "$PHYSICAL --physical"; do
    read -ra kind <<<"$kind"
    with_server "${kind[0]}" bench/cases.py --major "${kind[@]}" --results "$BENCH/results" --only "${BENCH_ONLY:-}" \
        ${BENCH_FRESH:+--fresh}
done
if [ ! -s "$BENCH/results/levels.txt" ] || [ -n "${BENCH_FRESH:-}" ]; then
    say "measuring the levels"
    cargo bench --locked --quiet --bench levels >"$BENCH/levels.new"
    mv "$BENCH/levels.new" "$BENCH/results/levels.txt"
fi
bench/report.py --results "$BENCH/results" --document docs/performance.md --plots docs/performance
