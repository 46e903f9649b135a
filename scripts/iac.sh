#!/usr/bin/env bash
# Checks what is neither Rust nor run by a test: the scripts, and all that pgstow is deployed by, from the very files that
# users deploy.
#
#   scripts/iac.sh [PART]...      all parts when none is named; scripts/iac.sh --list names them
#
# Each part is a script of its own and can be run alone; they use target/debug/pgstow, or the binary in PGSTOW. Several run
# at once, IAC_JOBS of them, and share nothing: each has ports, folders and servers of its own. What a part says goes to
# target/iac/PART.log, and is shown if the part fails.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
cd "$ROOT"

# Those that mostly wait come first: deploy for a schedule, terraform for what its provider takes for granted only after
# ten looks.
PARTS=(deploy terraform container layer checkov iam systemd sam shellcheck kubernetes)

# What a part runs; and as what, where it needs no binary.
script_of() {
    case $1 in
    deploy | iam) echo "infra/sam/$1-test.sh" ;;
    terraform | container | layer | systemd | sam | kubernetes) echo "infra/$1/test.sh" ;;
    checkov) echo infra/checkov.sh ;;
    shellcheck) echo scripts/shellcheck.sh ;;
    *) die "no such part: $1 (${PARTS[*]})" ;;
    esac
}

if [ "${1:-}" = --list ]; then
    printf '%s\n' "${PARTS[@]}"
    exit
fi
[ $# -gt 0 ] || set -- "${PARTS[@]}"
build=
for part in "$@"; do
    script_of "$part" >/dev/null
    case $part in checkov | layer | shellcheck) ;; *) build=yes ;; esac
done
# As the tests have it built: what they need beside it changes how a library is built, so that a build of the
# program alone would compile all of pgstow once more.
[ -z "$build" ] || [ -n "${PGSTOW:-}" ] || scripts/build.sh --quiet

LOGS=$ROOT/target/iac
mkdir -p "$LOGS"
# Two of them wait most of their time.
JOBS=${IAC_JOBS:-$(($(nproc) + 2))}
# By pid: the part. And when each began.
declare -A RUNNING=() BEGAN=()
failed=()

# A part leads a session of its own: so an interrupt meets it once, from here, with all that it has started. And it has
# ports of its own, because one that is free when it is chosen may be another's by the time it is used.
start() {
    local part=$1 place=0
    while [ "${PARTS[place]}" != "$part" ]; do place=$((place + 1)); done
    PGSTOW_PORTS=$((18000 + 400 * place))-$((18400 + 400 * place)) \
        setsid "$(script_of "$part")" >"$LOGS/$part.log" 2>&1 </dev/null &
    RUNNING[$!]=$part
    BEGAN[$part]=$SECONDS
}

# Waits for the next part that ends.
finish() {
    local pid part took code=0
    wait -n -p pid "${!RUNNING[@]}" || code=$?
    part=${RUNNING[$pid]}
    unset "RUNNING[$pid]"
    took=$((SECONDS - BEGAN[$part]))
    if [ "$code" = 0 ]; then
        say "$part: $took s$(sed -n 's/.*NOT TESTED: */: NOT TESTED: /p' "$LOGS/$part.log" | head -n 1)"
    else
        failed+=("$part")
        say "--- $part: FAILED after $took s, with $code: $(script_of "$part")"
        cat "$LOGS/$part.log" >&2
        say "--- end of $part"
    fi
}

# Whether anything of a part's group lives; what waits to be buried does not.
lives() {
    # Some go while it reads.
    { cat /proc/[0-9]*/stat 2>/dev/null || true; } |
        awk -v group="$1" '{ sub(/.*\) /, "") } $3 == group && $1 !~ /[ZX]/ { found = 1 } END { exit !found }'
}

# Each part stops the servers that it has started, and its leader may be gone before those that do it.
stop() {
    local pid until=$((SECONDS + 60))
    trap - EXIT
    # A second one would leave behind what the first has not yet ended.
    trap '' INT TERM HUP
    for pid in "${!RUNNING[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
    for pid in "${!RUNNING[@]}"; do
        while lives "$pid" && [ $SECONDS -lt $until ]; do sleep 0.2; done
        kill -KILL -- "-$pid" 2>/dev/null || true
    done
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

for part in "$@"; do
    while [ ${#RUNNING[@]} -ge "$JOBS" ]; do finish; done
    start "$part"
done
while [ ${#RUNNING[@]} -gt 0 ]; do finish; done
# Once more, where whoever reads an output's end finds it.
for part in ${failed[@]+"${failed[@]}"}; do
    say "--- $part failed; the last that it said:"
    tail -n 15 "$LOGS/$part.log" >&2
done
[ ${#failed[@]} = 0 ] || die "failed: ${failed[*]}"
say "${*}: all well, in $SECONDS s"
