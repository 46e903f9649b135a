#!/usr/bin/env bash
# What continuous integration runs: format, lints, dependencies, templates and scripts, and all tests.  scripts/check.sh
#
# At its end it says how long each part took, beside the budget of docs/testing.md, and repeats the tests' summary.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
cd "$ROOT"

LOGS=$ROOT/target/check
mkdir -p "$LOGS"
rm -f "$LOGS"/*
declare -A BUDGET=([format]=5 [tools]=240 [build]=400 [dependencies]=60 [deployments]=420 [tests]=1300) PID=()

# Runs a part in the background, its output in a file of its name. A signal to the part reaches its script.
begin() {
    local part=$1
    shift
    : >"$LOGS/$part.log"
    (
        began=$SECONDS status=0
        "$@" >>"$LOGS/$part.log" 2>&1 &
        child=$!
        trap 'kill $child 2>/dev/null' TERM
        while wait $child || status=$? && kill -0 $child 2>/dev/null; do :; done
        echo "$((SECONDS - began)) $status" >"$LOGS/$part.done"
        exit "$status"
    ) &
    PID[$part]=$!
}

# Waits for a part; says how it went, and what it printed where it failed.
finish() {
    local part=$1 status=0
    wait "${PID[$part]}" || status=$?
    unset "PID[$part]"
    if [ $status != 0 ]; then
        say "$part failed:"
        cat "$LOGS/$part.log"
        FAILED+=("$part")
    fi
    return $status
}

FAILED=()
# What goes on without us would be in the next run's way.
stop() {
    local pid
    for pid in "${PID[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
}
trap stop EXIT

begin format cargo fmt --check
finish format

# Every script below installs what it needs. Most of that is waiting for the network, and can be done while the compiler
# works; should it fail here, it fails again where it is needed, and says so. It is never cut short, since Debian's
# packages would be left half installed: not by an interrupt either, for which it has a session of its own.
say "installing tools (target/check/tools.log) and building"
begin tools setsid scripts/tools.sh postgres majors s3 aws lambda minisign zstd gpg rust deny iac checkov deploy layer ministack elf
# Clippy is a compiler that says more: so the tests are built by it, and nothing is compiled a second time to be linted.
RUSTC_WORKSPACE_WRAPPER=$(rustc --print sysroot)/bin/clippy-driver
export RUSTC_WORKSPACE_WRAPPER CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__
begin build scripts/build.sh --all-targets
finish build
finish tools || FAILED=()
# Of a failed build there is nothing to test.
export PGSTOW=$ROOT/target/debug/pgstow

begin dependencies scripts/deny.sh
begin deployments scripts/iac.sh
begin tests scripts/test.sh --locked
# The tests' own words as they come, for a person who waits.
tail -n +1 -f --pid="${PID[tests]}" "$LOGS/tests.log" &
follower=$!
finish dependencies || true
finish deployments || true
tests=0
wait "${PID[tests]}" || tests=$?
wait $follower || true
[ $tests = 0 ] || FAILED+=(tests)

printf '\n%-14s %8s %8s\n' part seconds budget
for part in format tools build dependencies deployments tests; do
    read -r took status <"$LOGS/$part.done"
    note=
    [ "$took" -le "${BUDGET[$part]}" ] || note=' over its budget'
    [ "$status" = 0 ] || note=' FAILED'
    printf '%-14s %8d %8d%s\n' "$part" "$took" "${BUDGET[$part]}" "$note"
done
printf '%-14s %8d\n\n' all $SECONDS
for part in ${FAILED[@]+"${FAILED[@]}"}; do
    [ "$part" != tests ] || continue
    say "$part failed; the last that it said:"
    tail -n 20 "$LOGS/$part.log"
done
[ ${#FAILED[@]} = 0 ] || say "failed: ${FAILED[*]}"
# Last, since whoever reads an output's end wants to know this.
grep -A 1 '────' "$LOGS/tests.log" | tail -n 2 || true
[ ${#FAILED[@]} = 0 ]
