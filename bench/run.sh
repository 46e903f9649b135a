#!/usr/bin/env bash
# pgstow beside PostgreSQL's programs with the AWS command line, on one generated database and
# with one S3 server: the way there, and the way back. Settings, as environment variables:
#
#   BENCH_GB=1          size of the database in gigabytes; several ("1 4") one after the other
#   BENCH_ROUNDS=3      how often each is run; the order alternates
#   BENCH_MAJOR=17      PostgreSQL's major: 15, 16, 17 or 18
#   BENCH_WAYS="there back"         what to measure
#   BENCH_COMPRESS="auto gzip:6"    pgstow's settings to measure
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../scripts/place.sh"
cd "$ROOT"
export PYTHONDONTWRITEBYTECODE=1

MAJOR=${BENCH_MAJOR:-17}
BENCH=$ROOT/target/bench
scripts/tools.sh postgres majors s3 aws bench
say "building pgstow (release)"
cargo build --locked --release --quiet

trap 'scripts/services.sh stop --into "$BENCH/services"' EXIT
mkdir -p "$BENCH"
for gb in ${BENCH_GB:-1}; do
    # Servers of its own for every size: neither finds the other's leavings.
    scripts/services.sh start --into "$BENCH/services" --owner $$ "pg$MAJOR" s3
    # shellcheck source=/dev/null
    . "$BENCH/services/env"
    url="PGSTOW_TEST_PG${MAJOR}_URL"
    bin="PGSTOW_TEST_PG_BIN_$MAJOR"
    # Encryption on the loopback would cost all of them the same, and tell nothing.
    database="${!url%/*}/bench?sslmode=disable"

    say "generating $gb GB"
    "${!bin}/psql" -X -q -d "${!url}" -c 'CREATE DATABASE bench'
    "${!bin}/psql" -X -q -d "$database" -v gb="$gb" -f bench/generate.sql
    # So that no checkpoint and no autovacuum falls into a measured run.
    "${!bin}/psql" -X -q -d "$database" -c 'ALTER SYSTEM SET autovacuum = off' -c 'SELECT pg_reload_conf()' -c 'VACUUM FREEZE' -c 'CHECKPOINT' >/dev/null

    for way in ${BENCH_WAYS:-there back}; do
        options=(--database "$database" --postgres "${!bin}" --major "$MAJOR" --gb "$gb" --rounds "${BENCH_ROUNDS:-3}"
            --pgstow target/release/pgstow --aws "$PGSTOW_TEST_AWSCLI" --result "$BENCH/$way-pg$MAJOR-${gb}gb.json")
        if [ "$way" = there ]; then
            options+=(--compress "${BENCH_COMPRESS:-auto gzip:6}")
        fi
        "bench/$way.py" "${options[@]}"
    done
    scripts/services.sh stop --into "$BENCH/services"
done
