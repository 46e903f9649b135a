#!/usr/bin/env bash
# Deploys by the documented command (infra/deploy.sh) into an AWS account that lives on this machine, and looks whether
# what was deployed works:  infra/sam/deploy-test.sh
#
# The account is ministack's: CloudFormation with SAM's transform, Lambda (which runs the real binary), the Scheduler,
# Secrets Manager, SNS, SQS and IAM, which it enforces. S3 is SeaweedFS, because ministack's is no judge of checksums,
# and the database a real PostgreSQL. The binary is $PGSTOW, or target/debug/pgstow; nothing is built here.
#
# What this account cannot show:
#   - it forgets the bucket's lifecycle, encryption and Object Lock (infra/sam/test.sh compares the rules);
#   - a layer is kept, but not laid under /opt: the programs come by BACKUP_PG_BIN, and clients.zip is a stand-in;
#   - the Scheduler forgets the time zone, puts nothing in place of <aws.scheduler.scheduled-time> (so every firing is
#     the same event, and makes one backup), and calls the function without Lambda's queue of events, so that its
#     retries and dead letters are shown by an event sent with --invocation-type Event;
#   - there is no network to be in, and memory is not limited.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../../scripts/place.sh"
# shellcheck source=scripts/sample.sh
. "$ROOT/scripts/sample.sh"
cd "$ROOT"

PGSTOW=${PGSTOW:-$ROOT/target/debug/pgstow}
[ -x "$PGSTOW" ] || die "no pgstow at $PGSTOW: run cargo build, or set PGSTOW"
scripts/tools.sh postgres majors s3 aws iac ministack elf

PLACE=$ROOT/target/sam
mkdir -p "$PLACE"
WORK=$(mktemp -d /tmp/pgstow-deploy.XXXXXX)
# For a drill, whose server runs as a user of its own.
chmod 711 "$WORK"
ACCOUNT=
clean_up() {
    # The account leads a group of its own, to which the functions that it runs belong.
    [ -z "$ACCOUNT" ] || kill -KILL -- "-$ACCOUNT" 2>/dev/null || true
    scripts/services.sh stop --into "$PLACE/services"
    rm -rf "$WORK"
}
trap clean_up EXIT
say "starting PostgreSQL 17, SeaweedFS and the account"
scripts/services.sh start --into "$PLACE/services" --owner $$ pg17 s3
# shellcheck source=/dev/null
. "$PLACE/services/env"
load_sample "$PGSTOW_TEST_PG_BIN_17" "$PGSTOW_TEST_PG17_URL"

read -r PORT <<<"$(python3 scripts/net.py ports 1)"
ENDPOINT=http://127.0.0.1:$PORT
S3_ADDRESS=${PGSTOW_TEST_S3_ENDPOINT#http://}
# A function inherits the account's own environment, below the variables of the template. So what only this test needs
# (where S3 is, its keys, where PostgreSQL's programs are) stands here, and the template is deployed as it is.
env -i PATH="$PATH" HOME="$WORK" TMPDIR="$WORK" LAMBDA_EXECUTOR=local AUTH=true \
    BIND_HOST=127.0.0.1 GATEWAY_PORT="$PORT" AWS_ENDPOINT_URL="$ENDPOINT" \
    BACKUP_MINIO=true MINIO_END_POINT="${S3_ADDRESS%:*}" MINIO_PORT="${S3_ADDRESS#*:}" MINIO_USE_SSL=false \
    MINIO_ACCESS_KEY="$PGSTOW_TEST_S3_ACCESS_KEY" MINIO_SECRET_KEY="$PGSTOW_TEST_S3_SECRET_KEY" \
    BACKUP_PG_BIN="$PGSTOW_TEST_PG_BIN_17" \
    setsid "$MINISTACK_VENV/bin/ministack" </dev/null >"$WORK/account.log" 2>&1 &
ACCOUNT=$!
# So that the shell says nothing when it is killed at the end.
disown "$ACCOUNT"
python3 scripts/net.py wait "$ENDPOINT/_ministack/health" 60

# A copy of what is deployed, so that a bootstrap that was built for a real account stays where it is.
mkdir -p "$WORK/copy/target/lambda" "$WORK/copy/target/layer"
cp -r template.yaml infra scripts "$WORK/copy/"
strip -o "$WORK/copy/target/lambda/bootstrap" "$PGSTOW"
python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1], "w").writestr("pgsql/stand-in", "")' \
    "$WORK/copy/target/layer/clients.zip"

env PGSTOW_TOOLS_DIR="$TOOLS" "$AWS_VENV/bin/python" infra/sam/deploy_test.py --endpoint "$ENDPOINT" --work "$WORK" \
    --s3-endpoint "$PGSTOW_TEST_S3_ENDPOINT" --s3-key "$PGSTOW_TEST_S3_ACCESS_KEY" \
    --s3-secret "$PGSTOW_TEST_S3_SECRET_KEY" --server "$PGSTOW_TEST_PG17_URL" --pg-bin "$PGSTOW_TEST_PG_BIN_17" \
    --aws "$PGSTOW_TEST_AWSCLI" || {
    say "--- the end of what the account has said:"
    tail -n 30 "$WORK/account.log" >&2
    die "what is deployed does not work"
}
say "deployed, invoked, updated, fired, verified, failed and deleted, in $SECONDS s"
