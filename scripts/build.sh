#!/usr/bin/env bash
# Builds the program and its tests:  scripts/build.sh [ARGUMENTS OF cargo build]...
#
# The crates below pgstow take most of the time and change seldom. What was built of them is kept outside of the
# checkout, by toolchain, Cargo.toml and Cargo.lock, and a checkout that has built nothing yet begins with a copy.
# Without that, all is built here. PGSTOW_BUILD_CACHE names another folder, or is empty for none.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
cd "$ROOT"

target=${CARGO_TARGET_DIR:-$ROOT/target}/debug
cache=${PGSTOW_BUILD_CACHE-${XDG_CACHE_HOME:-$HOME/.cache}/pgstow/build}
key=$({
    rustc -vV
    cat Cargo.toml Cargo.lock
    printf '%s\n' "${RUSTFLAGS:-}"
} | sha256sum | cut -c 1-16)
kept=$cache/$key

if [ -n "$cache" ] && [ ! -e "$target" ] && [ -d "$kept" ]; then
    say "beginning with the crates in $kept"
    mkdir -p "$target"
    cp -a --reflink=auto "$kept/." "$target/" || rm -rf "$target"
fi

cargo build --locked --tests "$@"

if [ -n "$cache" ] && [ ! -d "$kept" ]; then
    mkdir -p "$cache"
    half=$(mktemp -d "$cache/half.XXXXXX")
    trap 'rm -rf "$half"' EXIT
    cp -a --reflink=auto "$target"/{deps,build,.fingerprint} "$half/"
    # What is ours changes with every checkout.
    find "$half" -mindepth 2 -maxdepth 2 \( -name '*pgstow*' -o -name 'suite-*' -o -name 'memory-*' -o -name 'levels-*' \
        -o -name 'pipeline-*' \) -exec rm -rf {} +
    chmod 755 "$half"
    # Another may have been quicker; those of other toolchains and locks are not wanted for long.
    mv -T "$half" "$kept" 2>/dev/null || true
    find "$cache" -mindepth 1 -maxdepth 1 ! -path "$kept" -mtime +7 -exec rm -rf {} +
fi
