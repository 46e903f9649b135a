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
ACCOUNT=
clean_up() {
    # The account leads a group of its own, to which the functions that it runs belong.
    [ -z "$ACCOUNT" ] || kill -KILL -- "-$ACCOUNT" 2>/dev/null || true
    scripts/services.sh stop --into "$PLACE/services"
    rm -rf "$WORK"
}
trap clean_up EXIT
failed() {
    say "--- the end of what the account has said:"
    tail -n 30 "$WORK/account.log" >&2
    die "$@"
}

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

# The account's root, as ministack knows it.
aws() {
    AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1 \
        "$PGSTOW_TEST_AWSCLI" --endpoint-url "$ENDPOINT" "$@"
}
s3() {
    AWS_ACCESS_KEY_ID=$PGSTOW_TEST_S3_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$PGSTOW_TEST_S3_SECRET_KEY \
        AWS_DEFAULT_REGION=us-east-1 "$PGSTOW_TEST_AWSCLI" --endpoint-url "$PGSTOW_TEST_S3_ENDPOINT" "$@"
}
json() { python3 -c 'import json, sys; print(eval(sys.argv[1], {"it": json.load(sys.stdin)}))' "$1"; }

# As RDS writes it.
SECRET=$(python3 - "$PGSTOW_TEST_PG17_URL" <<'PY'
import json, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
print(json.dumps({"engine": "postgres", "host": url.hostname, "port": url.port, "username": url.username,
                  "password": urllib.parse.unquote(url.password), "dbname": "shop"}))
PY
)
SECRET_ARN=$(aws secretsmanager create-secret --name shop --secret-string "$SECRET" --query ARN --output text)

say "refused before anything is made: parameters that are wrong or contradict each other"
# In one process, because the command line takes its time to start.
"$AWS_VENV/bin/python" - "$ENDPOINT" "$SECRET_ARN" <<'PY' || failed "what is wrong is not refused"
import re, sys
import boto3
from botocore.exceptions import ClientError

endpoint, secret = sys.argv[1:]
client = boto3.client("cloudformation", endpoint_url=endpoint, region_name="us-east-1",
                      aws_access_key_id="test", aws_secret_access_key="test")
# CloudFormation itself takes no code from this machine.
template = re.sub(r"((?:Code|Content)Uri): .*", r"\1: s3://bucket/key", open("template.yaml").read())
cluster = "arn:aws:ecs:us-east-1:000000000000:cluster/backups"
for wanted, wrong in [
    ("SubnetIds and SecurityGroupIds go together", {"SubnetIds": "subnet-0a"}),
    ("AllowRestore=true and TargetSecretArn go together", {"AllowRestore": "true"}),
    ("AllowRestore=true and TargetSecretArn go together", {"TargetSecretArn": secret}),
    ("HandoverClusterArn needs HandoverTaskFamily", {"HandoverClusterArn": cluster}),
    ("The Handover parameters need HandoverClusterArn", {"HandoverTaskFamily": "pgstow"}),
    ("DrillSchedule needs the layer", {"DrillSchedule": "rate(7 days)"}),
    ("need TlsRootCertificate", {"TlsMode": "verify-full"}),
    ("DatabaseSecretArn", {"DatabaseSecretArn": "shop"}),
    ("BackupSchedule", {"BackupSchedule": "every day"}),
    ("MemorySize", {"MemorySize": "128"}),
    ("Retention", {"Retention": "31d"}),
]:
    given = {"DatabaseSecretArn": secret} | wrong
    try:
        client.create_stack(
            StackName="refused", TemplateBody=template, Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()])
        sys.exit(f"not refused: {wrong}")
    except ClientError as error:
        if wanted not in str(error):
            sys.exit(f"{wrong} is refused for another reason than {wanted!r}: {error}")
PY

say "infra/deploy.sh"
# A copy of what is deployed, so that a bootstrap that was built for a real account stays where it is.
mkdir -p "$WORK/copy/target/lambda" "$WORK/copy/target/layer"
cp -r template.yaml infra scripts "$WORK/copy/"
strip -o "$WORK/copy/target/lambda/bootstrap" "$PGSTOW"
python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1], "w").writestr("pgsql/stand-in", "")' \
    "$WORK/copy/target/layer/clients.zip"
deploy() {
    env PGSTOW_TOOLS_DIR="$TOOLS" AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1 \
        AWS_ENDPOINT_URL="$ENDPOINT" "$WORK/copy/infra/deploy.sh" --no-build --arch x86_64 --stack shop-backups \
        --secret "$SECRET_ARN" "$@" >"$WORK/deploy.log" 2>&1 || {
        tail -n 40 "$WORK/deploy.log" >&2
        failed "infra/deploy.sh failed"
    }
}
deploy Retention=long NotificationEmail=dba@example.com SubnetIds=subnet-0a SecurityGroupIds=sg-0a
output() {
    aws cloudformation describe-stacks --stack-name shop-backups --output text \
        --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue"
}
FUNCTION=$(output Function)
BUCKET=$(output Bucket)
QUEUE=$(output DeadLetterQueue)
TOPIC=$(output Topic)
s3 s3 mb "s3://$BUCKET" >/dev/null
# To see what the topic gets.
python3 - "$TOPIC" >"$WORK/attributes.json" <<'PY'
import json, sys
print(json.dumps({"Policy": json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": "*",
     "Condition": {"ArnEquals": {"aws:SourceArn": sys.argv[1]}}}]})}))
PY
MESSAGES=$(aws sqs create-queue --queue-name messages --attributes "file://$WORK/attributes.json" \
    --query QueueUrl --output text)
aws sns subscribe --topic-arn "$TOPIC" --protocol sqs \
    --notification-endpoint arn:aws:sqs:us-east-1:000000000000:messages >/dev/null

say "what is there: function, layer, log group, role, queue for failed events, alarms, schedules"
aws lambda get-function-configuration --function-name "$FUNCTION" >"$WORK/function.json"
json 'it["Runtime"], it["Timeout"], len(it["Layers"]), it["Environment"]["Variables"]["BACKUP_RETENTION"]' \
    <"$WORK/function.json" | grep -qF "('provided.al2023', 900, 1, 'daily=14,weekly=8,monthly=12,yearly=7')" ||
    failed "the function is not as the template says: $(cat "$WORK/function.json")"
# shellcheck disable=SC2016 # it is called so
aws lambda get-function-event-invoke-config --function-name "$FUNCTION" --qualifier '$LATEST' |
    json 'it["MaximumRetryAttempts"], it["DestinationConfig"]["OnFailure"]["Destination"].split(":")[2]' |
    grep -qxF "(1, 'sqs')" || failed "a failed event would not go to the queue"
aws cloudwatch describe-alarms --alarm-name-prefix shop-backups- >"$WORK/alarms.json"
json '[one for one in it["MetricAlarms"] if one["AlarmActions"] != [it["MetricAlarms"][0]["AlarmActions"][0]]]' \
    <"$WORK/alarms.json" | grep -qxF '[]' || failed "an alarm goes elsewhere"
json '[(one["TreatMissingData"], one["EvaluationPeriods"], one["Dimensions"][0]["Value"]) for one in it["MetricAlarms"]
    if one["AlarmName"] == "shop-backups-no-good-backup"], len(it["MetricAlarms"])' <"$WORK/alarms.json" |
    grep -qxF "([('breaching', 26, '$FUNCTION')], 8)" || failed "the alarms are not as the template says"
[ "$(aws scheduler list-schedules --group-name "$(output ScheduleGroup)" --query 'length(Schedules)')" = 2 ] ||
    failed "there should be a schedule for backups and one for verification"

say "invoked by hand, as the outputs say, under the role of the template"
manifests() { s3 s3 ls --recursive "s3://$BUCKET/pgstow/" | awk '/\/manifest\.json$/ { print $4 }'; }
invoke() {
    # The command of the output, with this machine's account.
    local command
    command=$(output "$1")
    # The command line's version 2 wants this, the version 1 that is here does not know it.
    command=${command/--cli-binary-format raw-in-base64-out/}
    eval "${command/\/dev\/stdout/\"\$WORK/answer.json\"}" >"$WORK/invoked.json"
    [ "$(json 'it.get("FunctionError", "none")' <"$WORK/invoked.json")" = none ] ||
        failed "the function failed: $(cat "$WORK/answer.json")"
}
invoke TryEverything
[ "$(json 'it["status"]' <"$WORK/answer.json")" = ok ] || failed "doctor is not content: $(cat "$WORK/answer.json")"
invoke FirstBackup
[ "$(json 'it["status"], it["notification"]["sent"]' <"$WORK/answer.json")" = "('succeeded', True)" ] ||
    failed "the report is not good: $(cat "$WORK/answer.json")"
FIRST=$(manifests)
[ "$(wc -w <<<"$FIRST")" = 1 ] || failed "there should be one backup: $FIRST"
s3 s3 cp --quiet "s3://$BUCKET/$FIRST" "$WORK/manifest.json"
[ "$(json 'it["database"], it["trigger"], it["type"]' <"$WORK/manifest.json")" = "('shop', 'manual', 'full')" ] ||
    failed "the manifest says something else: $(cat "$WORK/manifest.json")"
# Stock pg_restore and the manifest's own count, not only that a file is there.
s3 s3 cp --quiet "s3://$BUCKET/${FIRST%manifest.json}shop.dump" - |
    "$PGSTOW_TEST_PG_BIN_17/pg_restore" --exit-on-error -d "$(database_url "$PGSTOW_TEST_PG17_URL" shop_restored)"
compare_counts "$PGSTOW_TEST_PG_BIN_17" "$PGSTOW_TEST_PG17_URL" >"$WORK/counts"
say "the backup $(dirname "$FIRST") restores, with all rows"

message() {
    aws sqs receive-message --queue-url "$1" --wait-time-seconds 3 --query 'Messages[0].Body' --output text
}
message "$MESSAGES" | json 'it["Subject"]' | grep -qxF 'pgstow shop backup SUCCEEDED' ||
    failed "the topic got no message"
say "the topic has the message"

invoke ListBackups
[ "$(json 'len(it["backups"])' <"$WORK/answer.json")" = 1 ] ||
    failed "list does not know of it: $(cat "$WORK/answer.json")"

say "deployed again, with another retention and a schedule of one minute: updated in place"
deploy Retention=30d "BackupSchedule=rate(1 minute)"
DEPLOYED=$SECONDS
[ "$(output Function) $(output Bucket)" = "$FUNCTION $BUCKET" ] ||
    failed "the update has replaced the function or the bucket"
[ "$(aws lambda get-function-configuration --function-name "$FUNCTION" --output text \
    --query Environment.Variables.BACKUP_RETENTION)" = 30d ] || failed "the update has not taken the parameter"
[ "$(aws cloudformation describe-stacks --stack-name shop-backups --output text \
    --query "Stacks[0].Parameters[?ParameterKey=='SubnetIds'].ParameterValue")" = subnet-0a ] ||
    failed "the update has lost a parameter of the first deployment"

say "fired by the schedule"
until [ "$(manifests | wc -l)" = 2 ]; do
    [ $((SECONDS - DEPLOYED)) -lt 110 ] || failed "the schedule has made no backup"
    sleep 1
done
SECOND=$(manifests | grep -vxF "$FIRST")
s3 s3 cp --quiet "s3://$BUCKET/$SECOND" "$WORK/manifest.json"
[ "$(json 'it["trigger"]' <"$WORK/manifest.json")" = schedule ] || failed "the manifest says something else"
[ "$(s3 s3api get-object-tagging --bucket "$BUCKET" --key "${SECOND%manifest.json}shop.dump" --output text \
    --query "TagSet[?Key=='pgstow-tier'].Value")" = latest ] || failed "the newest backup does not bear the tag latest"

say "verified, by the very input of the schedule Verification"
VERIFICATION=$(aws scheduler list-schedules --group-name "$(output ScheduleGroup)" --output text \
    --query "Schedules[?contains(Name, 'Verification')].Name")
aws scheduler get-schedule --group-name "$(output ScheduleGroup)" --name "$VERIFICATION" --output text \
    --query Target.Input >"$WORK/input.json"
aws lambda invoke --function-name "$FUNCTION" --payload "file://$WORK/input.json" "$WORK/answer.json" >/dev/null
ID=${SECOND#pgstow/}
ID=${ID%/manifest.json}
[ "$(json 'it["status"], it["id"]' <"$WORK/answer.json")" = "('ok', '$ID')" ] ||
    failed "the newest backup is not verified: $(cat "$WORK/answer.json")"

say "made to fail: without its secret, an event lands in the dead-letter queue after one more try"
aws secretsmanager delete-secret --secret-id "$SECRET_ARN" --force-delete-without-recovery >/dev/null
aws sqs purge-queue --queue-url "$MESSAGES"
[ "$(message "$QUEUE")" = None ] || failed "something is in the dead-letter queue already"
aws lambda invoke --function-name "$FUNCTION" --invocation-type Event \
    --payload '{"event_id":"doomed"}' "$WORK/answer.json" >/dev/null
LETTER=None
until [ "$LETTER" != None ]; do
    [ $((SECONDS - DEPLOYED)) -lt 200 ] || failed "the failed event is not in the dead-letter queue"
    LETTER=$(message "$QUEUE")
done
json 'it["requestPayload"], it["responsePayload"]["errorType"]' <<<"$LETTER" |
    grep -qxF "({'event_id': 'doomed'}, 'SECRET')" || failed "the dead letter says something else: $LETTER"
message "$MESSAGES" >"$WORK/message.json"
json 'it["Subject"]' <"$WORK/message.json" | grep -qxF 'pgstow shop backup FAILED' ||
    failed "the topic got no message of the failure: $(cat "$WORK/message.json")"
[ "$(manifests | wc -l)" = 2 ] || failed "a failed run has left a backup"

say "the numbers in its log are those that the alarms look at"
LOGS=$(aws cloudformation describe-stack-resource --stack-name shop-backups --logical-resource-id BackupLogs \
    --query StackResourceDetail.PhysicalResourceId --output text)
aws logs filter-log-events --log-group-name "$LOGS" --query 'events[].message' >"$WORK/log.json"
python3 - "$WORK/log.json" "$WORK/alarms.json" "$FUNCTION" <<'PY' || failed "the alarms would never see a number"
import json, sys
log, alarms, function = sys.argv[1:]
seen = {}
for line in "\n".join(json.load(open(log))).splitlines():
    if line.startswith("{") and '"_aws"' in line:
        numbers = json.loads(line)
        for metrics in numbers["_aws"]["CloudWatchMetrics"]:
            if ["Service"] in metrics["Dimensions"] and numbers["Service"] == function:
                for metric in metrics["Metrics"]:
                    seen.setdefault((metrics["Namespace"], metric["Name"]), []).append(numbers[metric["Name"]])
ours = {(one["Namespace"], one["MetricName"]) for one in json.load(open(alarms))["MetricAlarms"]}
ours = {one for one in ours if one[0] == "pgstow"}
# Too few backups for a median, and no drill.
missing = ours - seen.keys() - {("pgstow", "BackupSizeDeviation"), ("pgstow", "DrillFailed")}
if missing or sum(seen["pgstow", "BackupSucceeded"]) != 2 or sum(seen["pgstow", "BackupFailed"]) < 2:
    sys.exit(f"missing: {missing}; seen: {seen}")
PY

say "deleted: the bucket stays"
aws cloudformation delete-stack --stack-name shop-backups
aws cloudformation wait stack-delete-complete --stack-name shop-backups
aws s3api head-bucket --bucket "$BUCKET" >/dev/null || failed "the bucket was deleted with the stack"
! aws lambda get-function-configuration --function-name "$FUNCTION" >/dev/null 2>&1 ||
    failed "the function was not deleted"
say "deployed, invoked, updated, fired, verified, failed and deleted, in $SECONDS s"
