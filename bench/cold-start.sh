#!/usr/bin/env bash
# How long the function takes from its start to its readiness for the first event, under AWS's own Runtime Interface
# Emulator, and how large it is:  bench/cold-start.sh [BINARY] [STARTS]
#
# BINARY is target/lambda/bootstrap where infra/lambda/build.sh has made it, else target/release/pgstow. No service is
# needed: the event is one that the function refuses.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../scripts/place.sh"
cd "$ROOT"

BINARY=${1:-target/lambda/bootstrap}
[ -x "$BINARY" ] || BINARY=target/release/pgstow
[ -x "$BINARY" ] || die "no binary: run infra/lambda/build.sh, or cargo build --release"
STARTS=${2:-11}
scripts/tools.sh lambda

WORK=$(mktemp -d)
EMULATOR=
end_emulator() {
    [ -z "$EMULATOR" ] || kill -KILL -- "-$EMULATOR" 2>/dev/null || true
    EMULATOR=
}
trap 'end_emulator; rm -rf "$WORK"' EXIT
ln -s "$(realpath "$BINARY")" "$WORK/bootstrap"

for _ in $(seq "$STARTS"); do
    read -r events runtime <<<"$(python3 scripts/net.py ports 2)"
    # What a deployed function has: a secret, a bucket, a topic; so all clients are made.
    (
        cd "$WORK"
        exec env -i PATH="$PATH" AWS_REGION=eu-central-1 AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none \
            BACKUP_SECRET_ID=prod/shop BACKUP_STORE=s3://acme-backups/pgstow \
            BACKUP_SNS_TOPIC_ARN=arn:aws:sns:eu-central-1:123456789012:backups \
            AWS_LAMBDA_FUNCTION_NAME=pgstow AWS_LAMBDA_FUNCTION_TIMEOUT=60 \
            setsid "$RIE" --runtime-interface-emulator-address "127.0.0.1:$events" \
            --runtime-api-address "127.0.0.1:$runtime" "$WORK/bootstrap"
    ) </dev/null >"$WORK/log" 2>&1 &
    EMULATOR=$!
    disown "$EMULATOR"
    python3 scripts/net.py wait "http://127.0.0.1:$events/" 20
    python3 scripts/net.py post "http://127.0.0.1:$events/2015-03-31/functions/function/invocations" \
        '{"action":"none"}' >"$WORK/answer"
    grep -q CONFIG "$WORK/answer" || die "the function answered: $(cat "$WORK/answer")"
    sed -n 's/.*INIT REPORT(durationMs: \([0-9.]*\)).*/\1/p' "$WORK/log" >>"$WORK/starts"
    end_emulator
done

sort -n "$WORK/starts" | awk -v size="$(stat -L -c %s "$BINARY")" -v binary="$BINARY" '
    { start[NR] = $1 }
    END {
        printf "%s: %.1f MB; ready after %.1f ms (median of %d starts; %.1f to %.1f)\n",
            binary, size / 1e6, start[int((NR + 1) / 2)], NR, start[1], start[NR]
    }'
