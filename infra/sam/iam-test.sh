#!/usr/bin/env bash
# Whether the policy of template.yaml is enough, and no more:  infra/sam/iam-test.sh
#
# A role with the very policy of the template makes a whole backup and verifies it, and is refused what a thief would
# want: a delete, another prefix, another secret or topic. Then each statement that a backup needs is taken away in turn,
# to see the error that is met. Two emulated accounts enforce IAM, each in its own way: moto for S3 alone (it knows no
# resources of other services, and no conditions); ministack for all, conditions and the key that signs included. The keys that encrypt
# are enforced by neither, and neither answers AccessDenied for a key that is not there, as S3 does to who may not list.
# The binary is $PGSTOW, or target/debug/pgstow; nothing is built here.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../../scripts/place.sh"
# shellcheck source=scripts/sample.sh
. "$ROOT/scripts/sample.sh"
cd "$ROOT"

PGSTOW=${PGSTOW:-$ROOT/target/debug/pgstow}
[ -x "$PGSTOW" ] || die "no pgstow at $PGSTOW: run cargo build, or set PGSTOW"
scripts/tools.sh postgres majors aws ministack

PLACE=$ROOT/target/sam-iam
mkdir -p "$PLACE"
WORK=$(mktemp -d /tmp/pgstow-iam.XXXXXX)
ACCOUNT=
clean_up() {
    [ -z "$ACCOUNT" ] || kill -KILL -- "-$ACCOUNT" 2>/dev/null || true
    scripts/services.sh stop --into "$PLACE/services"
    rm -rf "$WORK"
}
trap clean_up EXIT
scripts/services.sh start --into "$PLACE/services" --owner $$ pg17 aws
# shellcheck source=/dev/null
. "$PLACE/services/env"
load_sample "$PGSTOW_TEST_PG_BIN_17" "$PGSTOW_TEST_PG17_URL"

# Our own: moto's checks are on for all its clients at once.
read -r PORT <<<"$(python3 scripts/net.py ports 1)"
env -i PATH="$PATH" HOME="$WORK" TMPDIR="$WORK" AUTH=true BIND_HOST=127.0.0.1 GATEWAY_PORT="$PORT" \
    setsid "$MINISTACK_VENV/bin/ministack" </dev/null >"$WORK/account.log" 2>&1 &
ACCOUNT=$!
disown "$ACCOUNT"
python3 scripts/net.py wait "http://127.0.0.1:$PORT/_ministack/health" 60

"$AWS_VENV/bin/python" infra/sam/iam_test.py --pgstow "$PGSTOW" --pg-bin "$PGSTOW_TEST_PG_BIN_17" \
    --database "$(database_url "$PGSTOW_TEST_PG17_URL" shop)" \
    --moto "$PGSTOW_TEST_AWS_ENDPOINT" --ministack "http://127.0.0.1:$PORT"
