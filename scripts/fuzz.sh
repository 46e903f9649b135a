#!/usr/bin/env bash
# Made-up input for everything that reads bytes from outside:  [FUZZ_SECONDS=30] [FUZZ_JOBS=2] scripts/fuzz.sh [TARGET]...
#
# All targets (fuzz/fuzz_targets) when none is named, FUZZ_JOBS of them at once, each for FUZZ_SECONDS. A target starts
# from the kept inputs (fuzz/corpus) and from what earlier runs have found (target/fuzz/corpus); what it finds goes there.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
cd "$ROOT"

SECONDS_EACH=${FUZZ_SECONDS:-30}
JOBS=${FUZZ_JOBS:-2}
PLACE=${CARGO_TARGET_DIR:-target}/fuzz

known=()
for file in fuzz/fuzz_targets/*.rs; do known+=("$(basename "$file" .rs)"); done
[ $# -gt 0 ] || set -- "${known[@]}"
for target in "$@"; do
    [ -e "fuzz/fuzz_targets/$target.rs" ] || die "no such target: $target (there are ${known[*]})"
done

scripts/tools.sh fuzz

say "building (target/fuzz)"
RUSTC_WRAPPER=$ROOT/fuzz/rustc.sh cargo build --quiet --locked --manifest-path fuzz/Cargo.toml --target-dir "$PLACE" ||
    die "it does not build; if it says that the lock file needs an update: cargo update --workspace --manifest-path fuzz/Cargo.toml"

mkdir -p "$PLACE/found"
fuzz() {
    mkdir -p "$PLACE/corpus/$1"
    exec "$PLACE/debug/$1" "$PLACE/corpus/$1" "fuzz/corpus/$1" -max_total_time="$SECONDS_EACH" -timeout=20 -rss_limit_mb=1024 \
        -artifact_prefix="$PLACE/found/$1-" -print_final_stats=1 >"$PLACE/$1.log" 2>&1
}

# What libFuzzer's log says, in a line; or what was found, and what to do with it.
report() {
    local target=$1 status=$2 log=$PLACE/$1.log found
    if [ "$status" = 0 ]; then
        say "$(awk -v target="$target" '
            /INITED cov: / { first = $4 }
            / cov: / { last = $4 }
            /number_of_executed_units/ { runs = $2 }
            END { printf "  %-10s %9d inputs, %d edges of the code reached, %d at the start", target, runs, last, first }
        ' "$log")"
        return
    fi
    found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    say "  $target: FOUND ${found:-no input, but it ended with status $status}"
    grep -E -A 3 'panicked at|^==[0-9]+==|SUMMARY' "$log" | cut -c 1-300 | sed 's/^/    /' >&2 || tail -n 5 "$log" >&2
    [ -z "$found" ] || say "    again:    $PLACE/debug/$target $found
    smaller:  $PLACE/debug/$target -minimize_crash=1 -max_total_time=60 -exact_artifact_path=$found.small $found
    to keep:  cp $found fuzz/corpus/$target/NAME-OF-WHAT-IT-IS, which the tests then try in every run
    the log:  $log"
}

say "fuzzing $# targets, $JOBS at once, $SECONDS_EACH s each"
declare -A running=()
stop() {
    kill "${!running[@]}" 2>/dev/null
    wait
    exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM

bad=0
next_end() {
    local pid status=0
    wait -n -p pid "${!running[@]}" || status=$?
    report "${running[$pid]}" "$status"
    [ "$status" = 0 ] || bad=$((bad + 1))
    unset "running[$pid]"
}
for target in "$@"; do
    [ "${#running[@]}" -lt "$JOBS" ] || next_end
    fuzz "$target" &
    running[$!]=$target
done
while [ "${#running[@]}" -gt 0 ]; do next_end; done
[ "$bad" = 0 ] || die "$bad of $# targets found something"
