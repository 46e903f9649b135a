#!/usr/bin/env bash
# One backup into a real S3 server by the command line, then one by the Lambda function under
# AWS's own emulator, with its credentials from Secrets Manager and its message through SNS to a
# queue; and back by stock pg_restore.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
# shellcheck source=scripts/sample.sh
. "$ROOT/scripts/sample.sh"
cd "$ROOT"

scripts/tools.sh postgres majors s3 aws lambda
build_pgstow

DEMO=$ROOT/target/demo-s3
mkdir -p "$DEMO/function"
FUNCTION=
clean_up() {
    # The emulator leads a group of its own, to which the function belongs.
    [ -z "$FUNCTION" ] || kill -KILL -- "-$FUNCTION" 2>/dev/null || true
    scripts/services.sh stop --into "$DEMO/services"
}
trap clean_up EXIT
scripts/services.sh start --into "$DEMO/services" --owner $$ pg17 s3 aws
# shellcheck source=/dev/null
. "$DEMO/services/env"
SERVER=$PGSTOW_TEST_PG17_URL
BIN=$PGSTOW_TEST_PG_BIN_17

# S3 is SeaweedFS; everything else of AWS is moto, which takes any credentials.
export AWS_ENDPOINT_URL_S3=$PGSTOW_TEST_S3_ENDPOINT AWS_ENDPOINT_URL=$PGSTOW_TEST_AWS_ENDPOINT
export AWS_ACCESS_KEY_ID=$PGSTOW_TEST_S3_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$PGSTOW_TEST_S3_SECRET_KEY
export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
# The programs of this server's major are not where pgstow looks by itself.
export BACKUP_PG_BIN=$BIN

# The address is always given: this command line ignores AWS_ENDPOINT_URL for SQS and would turn
# to AWS itself.
aws() {
    case $1 in
    s3 | s3api) "$PGSTOW_TEST_AWSCLI" --endpoint-url "$AWS_ENDPOINT_URL_S3" "$@" ;;
    *) "$PGSTOW_TEST_AWSCLI" --endpoint-url "$AWS_ENDPOINT_URL" "$@" ;;
    esac
}
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

BUCKET=demo-backups
list() { aws s3 ls --recursive "s3://$BUCKET/" | awk '{ printf "%10d  %s\n", $3, $4 }'; }
newest() { list | awk '/\/manifest\.json$/ { print $2 }' | sort | tail -n 1 | xargs dirname; }

show_object() {
    echo "tags of $1:"
    aws s3api get-object-tagging --bucket "$BUCKET" --key "$1" --query 'TagSet[].[Key,Value]' --output text | sed 's/^/    /'
}

restore() {
    local key=$1
    "$BIN/psql" -X -q -d "$SERVER" -c 'DROP DATABASE shop_restored' -c 'CREATE DATABASE shop_restored'
    printf '$ aws s3 cp s3://%s/%s - | pg_restore --exit-on-error -d …/shop_restored\n' "$BUCKET" "$key"
    aws s3 cp --quiet "s3://$BUCKET/$key" - | "$BIN/pg_restore" --exit-on-error -d "$(database_url "$SERVER" shop_restored)"
    compare_counts "$BIN" "$SERVER"
}

heading "A PostgreSQL $("$BIN/psql" -X -A -t -d "$SERVER" -c 'SHOW server_version') with a small shop in it, and an S3 server with an empty bucket"
load_sample "$BIN" "$SERVER"
aws s3 mb "s3://$BUCKET"

heading "Back it up into the bucket, by the command line"
DATABASE_URL=$(database_url "$SERVER" shop)
export DATABASE_URL
shown "$BUILT" backup --store "s3://$BUCKET/nightly"
unset DATABASE_URL
list
FIRST=$(newest)
show_object "$FIRST/shop.dump"

heading "Restore it with stock pg_restore, straight from the bucket"
restore "$FIRST/shop.dump"

heading "Now as the Lambda function: a secret, a topic and its queue"
# As RDS writes it.
SECRET=$(python3 - "$SERVER" <<'PY'
import json, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
print(json.dumps({"engine": "postgres", "host": url.hostname, "port": url.port, "username": url.username,
                  "password": urllib.parse.unquote(url.password), "dbname": "shop"}))
PY
)
SECRET_ARN=$(aws secretsmanager create-secret --name demo/shop --secret-string "$SECRET" --query ARN --output text)
TOPIC_ARN=$(aws sns create-topic --name demo-backups --query TopicArn --output text)
QUEUE_URL=$(aws sqs create-queue --queue-name demo-backups --query QueueUrl --output text)
aws sns subscribe --topic-arn "$TOPIC_ARN" --protocol sqs --notification-endpoint "${TOPIC_ARN/:sns:/:sqs:}" >/dev/null
printf 'secret  %s\ntopic   %s\nqueue   %s\n' "$SECRET_ARN" "$TOPIC_ARN" "$QUEUE_URL"

heading "Invoke it with {} under AWS's Runtime Interface Emulator"
ln -sf "$BUILT" "$DEMO/function/bootstrap"
read -r EVENTS RUNTIME <<<"$(python3 scripts/net.py ports 2)"
(
    cd "$DEMO/function"
    exec env BACKUP_SECRET_ID="$SECRET_ARN" BACKUP_STORE="s3://$BUCKET/nightly" \
        BACKUP_SNS_TOPIC_ARN="$TOPIC_ARN" AWS_LAMBDA_FUNCTION_NAME=pgstow AWS_LAMBDA_FUNCTION_TIMEOUT=300 \
        setsid "$PGSTOW_TEST_RIE" --runtime-interface-emulator-address "127.0.0.1:$EVENTS" \
        --runtime-api-address "127.0.0.1:$RUNTIME" "$DEMO/function/bootstrap"
) </dev/null >"$DEMO/function.log" 2>&1 &
FUNCTION=$!
# So that the shell says nothing when it is killed at the end.
disown "$FUNCTION"
python3 scripts/net.py wait "http://127.0.0.1:$EVENTS/" 20
python3 scripts/net.py post "http://127.0.0.1:$EVENTS/2015-03-31/functions/function/invocations" '{}' >"$DEMO/response.json"
python3 -m json.tool "$DEMO/response.json"
if grep -q '"errorType"' "$DEMO/response.json"; then
    cat "$DEMO/function.log" >&2
    die "the function failed"
fi

heading "The message in the queue"
aws sqs receive-message --queue-url "$QUEUE_URL" --wait-time-seconds 5 --query 'Messages[0].Body' --output text >"$DEMO/message.json"
printf 'subject  %s\n\n' "$(field Subject <"$DEMO/message.json")"
field Message <"$DEMO/message.json"

heading "The bucket now: the newer backup bears 'latest', the one before it the tier of its manifest"
list
SECOND=$(newest)
[ "$SECOND" != "$FIRST" ] || die "the function has left no new backup in the bucket"
show_object "$FIRST/shop.dump"
show_object "$SECOND/shop.dump"

heading "The manifest, written last: without it there is no backup"
aws s3 cp --quiet "s3://$BUCKET/$SECOND/manifest.json" -
echo

heading "Restore what the function has made, with stock pg_restore"
restore "$SECOND/shop.dump"

heading "Done. The servers, the bucket and the databases are gone."
