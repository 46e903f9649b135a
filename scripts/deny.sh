#!/usr/bin/env bash
# What pgstow takes from others: licences, sources and second versions (deny.toml), and whether all of it is used.
#
#   [ADVISORY_DB=DIR] scripts/deny.sh
#
# Known vulnerabilities are looked up where there is a database of them: a clone of RustSec's advisory-db in
# ADVISORY_DB, or what `cargo deny fetch` has left. Without one that is not checked, and the last line says so.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
cd "$ROOT"

scripts/tools.sh deny
LOG=$(mktemp)
DATABASES=$(mktemp -d)
trap 'rm -rf "$LOG" "$DATABASES"' EXIT

check() {
    "$@" >"$LOG" 2>&1 || {
        cat "$LOG" >&2
        die "failed: $*"
    }
}

# The name that cargo-deny gives to RustSec's own among its databases.
RUSTSEC=advisory-db-3157b0e258782691
advisories() {
    local database=${ADVISORY_DB:-${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/$RUSTSEC}
    if [ ! -d "$database/crates" ]; then
        [ -z "${ADVISORY_DB:-}" ] || die "ADVISORY_DB=$ADVISORY_DB is no clone of RustSec's advisory-db"
        ADVISORIES="ADVISORIES WERE NOT CHECKED: there is no database (see scripts/deny.sh)"
        return
    fi
    ln -s "$(realpath "$database")" "$DATABASES/$RUSTSEC"
    sed "s|^\[advisories\]|&\ndb-path = '$DATABASES'|" deny.toml >"$DATABASES/deny.toml"
    check "$DENY/cargo-deny" --frozen --config "$DATABASES/deny.toml" check -D warnings advisories
    ADVISORIES="no advisory of $(git -C "$database" log -1 --format=%cs) applies"
}

# With the few crates that are compiled for other systems alone: both programs want to see all of Cargo.lock.
check cargo fetch --locked
check "$DENY/cargo-deny" --frozen check -D warnings licenses bans sources
check "$DENY/cargo-shear" --frozen --deny-warnings
# A workspace of its own, whose lock has to follow ours: cargo update --workspace --manifest-path fuzz/Cargo.toml
check cargo fetch --locked --manifest-path fuzz/Cargo.toml
check "$DENY/cargo-shear" --frozen --deny-warnings fuzz
# What a release contains can be said of both architectures that it is built for.
for target in x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu; do
    check scripts/sbom.sh --target "$target" -o "$DATABASES/$target.json"
done
advisories
say "dependencies: licences, sources and versions are as in deny.toml, none is unused; $ADVISORIES"
