# shellcheck shell=bash
# Sourced by the demos, after place.sh: the sample database, and how it is looked at.

# shellcheck disable=SC2034 # set here for the demos
{
    BUILT=$ROOT/target/debug/pgstow
    LINE=----------------------------------------------------------------------------------------
}

heading() { printf '\n%s\n%s\n%s\n' "$LINE" "$*" "$LINE"; }

# What is shown is what was run.
shown() {
    printf '$ %s\n' "$*"
    "$@"
}

# Rewrites the URL of a server to one of its databases.
database_url() { echo "${1%/*}/$2"; }

load_sample() {
    local bin=$1 server=$2
    "$bin/psql" -X -q -v ON_ERROR_STOP=1 -d "$server" -c 'CREATE DATABASE shop' -c 'CREATE DATABASE shop_restored'
    # Its statements return rows that nobody wants to see here.
    "$bin/psql" -X -q -v ON_ERROR_STOP=1 -d "$(database_url "$server" shop)" -f "$ROOT/tests/fixtures/shop.sql" >/dev/null
}

counts() {
    "$1/psql" -X -A -t -F ' ' -d "$2" <<'SQL'
SELECT format('SELECT %L, count(*) FROM %I.%I', c.relname, n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname = 'public' ORDER BY 1 \gexec
SELECT 'large_objects', count(*) FROM pg_largeobject_metadata;
SQL
}

# Row counts of the source and of what was restored, side by side; fails where they differ.
compare_counts() {
    local bin=$1 server=$2 source restored
    source=$(counts "$bin" "$(database_url "$server" shop)")
    restored=$(counts "$bin" "$(database_url "$server" shop_restored)")
    printf '%-16s %10s %10s\n' table source restored
    join <(echo "$source") <(echo "$restored") | awk '{ printf "%-16s %10d %10d\n", $1, $2, $3 }'
    if [ -z "$source" ] || [ "$source" != "$restored" ]; then die "the restored database differs from its source"; fi
    echo "equal"
}

build_pgstow() {
    say "building pgstow (the first time takes some minutes)"
    cargo build --locked --quiet
}
