"""Deploys by infra/deploy.sh and looks whether what was deployed works. Started by deploy-test.sh, which starts the account,
the database and the store.

All is asked for in this one process: AWS's command line takes longer to start than the account to answer. Only what the
stack's outputs tell people to type is typed.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

STACK = "shop-backups"
REGION = "us-east-1"
# The account's root, as ministack knows it.
ROOT = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": REGION}


def say(what):
    print(what, file=sys.stderr, flush=True)


def expect(holds, what):
    if not holds:
        sys.exit(what)


class Account:
    def __init__(self, options):
        self.options, self.work = options, Path(options.work)
        root = boto3.Session(**ROOT)
        for service in ("cloudformation", "cloudwatch", "kms", "logs", "scheduler", "secretsmanager", "sns", "sqs"):
            setattr(self, service, root.client(service, endpoint_url=options.endpoint))
        self.lambdas = root.client("lambda", endpoint_url=options.endpoint)
        self.bucket_of_account = root.client("s3", endpoint_url=options.endpoint)
        self.s3 = boto3.client(
            "s3",
            endpoint_url=options.s3_endpoint,
            region_name=REGION,
            aws_access_key_id=options.s3_key,
            aws_secret_access_key=options.s3_secret,
            config=Config(s3={"addressing_style": "path"}),
        )

    def make_secret(self):
        """As RDS writes it."""
        url = urllib.parse.urlsplit(self.options.server)
        secret = {"engine": "postgres", "host": url.hostname, "port": url.port, "username": url.username}
        secret |= {"password": urllib.parse.unquote(url.password), "dbname": "shop"}
        self.secret = self.secretsmanager.create_secret(Name="shop", SecretString=json.dumps(secret))["ARN"]

    def make_key(self):
        made = self.kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        self.sign_key = made["KeyMetadata"]["Arn"]

    def is_signed(self, key):
        """By the key of the deployment, whose part of the signature names it."""
        text = self.s3.get_object(Bucket=self.bucket, Key=f"{key}.minisig")["Body"].read().decode()
        return "untrusted comment" in text and "trusted comment" in text

    def deploy(self, *parameters):
        """By the documented command."""
        done = subprocess.run(
            [self.work / "copy/infra/deploy.sh", "--no-build", "--arch", "x86_64", "--stack", STACK]
            + ["--secret", self.secret, *parameters],
            env=os.environ
            | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": REGION}
            | {"AWS_ENDPOINT_URL": self.options.endpoint},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        last = "\n".join(done.stdout.splitlines()[-40:])
        expect(done.returncode == 0, f"{last}\ninfra/deploy.sh failed")

    def stack(self):
        [stack] = self.cloudformation.describe_stacks(StackName=STACK)["Stacks"]
        return stack

    def output(self, name):
        [value] = [one["OutputValue"] for one in self.stack()["Outputs"] if one["OutputKey"] == name]
        return value

    def invoke(self, name):
        """The command of an output, with this machine's account; and what the function answers."""
        answer = self.work / "answer.json"
        command = self.output(name)
        # The command line's version 2 wants this, the version 1 that is here does not know it.
        command = command.replace("--cli-binary-format raw-in-base64-out", "")
        expect("/dev/stdout" in command, f"{name} does not show the answer: {command}")
        command = command.replace("/dev/stdout", shlex.quote(str(answer)))
        done = subprocess.run(
            ["bash", "-c", f'aws() {{ "$AWS_COMMAND" --endpoint-url "$ENDPOINT" "$@"; }}\n{command}'],
            env=os.environ
            | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}
            | {"AWS_COMMAND": self.options.aws, "ENDPOINT": self.options.endpoint},
            stdout=subprocess.PIPE,
            text=True,
        )
        expect(done.returncode == 0, f"{name} fails: {command}")
        expect("FunctionError" not in json.loads(done.stdout), f"the function failed: {answer.read_text()}")
        return json.loads(answer.read_text())

    def manifests(self):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix="pgstow/")
        keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return [key for key in keys if key.endswith("/manifest.json")]

    def manifest(self, key):
        return json.load(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"])

    def message(self, queue):
        found = self.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=3).get("Messages")
        return json.loads(found[0]["Body"]) if found else None

    def waiting(self, queue):
        """How many messages are in a queue, those included that somebody has received."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)


def refusals(account):
    """Parameters that are wrong or contradict each other are refused before anything is made."""
    say("refused before anything is made: parameters that are wrong or contradict each other")
    # CloudFormation itself takes no code from this machine.
    template = re.sub(r"((?:Code|Content)Uri): .*", r"\1: s3://bucket/key", Path("template.yaml").read_text())
    cluster = "arn:aws:ecs:us-east-1:000000000000:cluster/backups"
    for wanted, wrong in [
        ("SubnetIds and SecurityGroupIds go together", {"SubnetIds": "subnet-0a"}),
        ("AllowRestore=true and TargetSecretArn go together", {"AllowRestore": "true"}),
        ("AllowRestore=true and TargetSecretArn go together", {"TargetSecretArn": account.secret}),
        ("HandoverClusterArn needs HandoverTaskFamily", {"HandoverClusterArn": cluster}),
        ("The Handover parameters need HandoverClusterArn", {"HandoverTaskFamily": "pgstow"}),
        ("DrillSchedule needs the layer", {"DrillSchedule": "rate(7 days)"}),
        ("need TlsRootCertificate", {"TlsMode": "verify-full"}),
        ("DatabaseSecretArn", {"DatabaseSecretArn": "shop"}),
        ("BackupSchedule", {"BackupSchedule": "every day"}),
        ("SignKeyArn", {"SignKeyArn": "arn:aws:kms:us-east-1:000000000000:alias/backups"}),
        ("VerifyKeys", {"VerifyKeys": "keys/backups.pub"}),
        ("MemorySize", {"MemorySize": "128"}),
        ("Retention", {"Retention": "31d"}),
    ]:
        given = {"DatabaseSecretArn": account.secret} | wrong
        try:
            account.cloudformation.create_stack(
                StackName="refused",
                TemplateBody=template,
                Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
                Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
            )
        except ClientError as error:
            expect(wanted in str(error), f"{wrong} is refused for another reason than {wanted!r}: {error}")
        else:
            sys.exit(f"not refused: {wrong}")


def listen(account):
    """To see what the topic gets."""
    topic = account.output("Topic")
    statement = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage"}
    statement |= {"Resource": "*", "Condition": {"ArnEquals": {"aws:SourceArn": topic}}}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    account.messages = account.sqs.create_queue(QueueName="messages", Attributes={"Policy": policy})["QueueUrl"]
    account.sns.subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:000000000000:messages"
    )


def what_is_there(account):
    say("what is there: function, layer, log group, role, queue for failed events, alarms, schedules")
    function = account.function
    made = account.lambdas.get_function_configuration(FunctionName=function)
    seen = made["Runtime"], made["Timeout"], len(made["Layers"]), made["Environment"]["Variables"]["BACKUP_RETENTION"]
    wanted = "provided.al2023", 900, 1, "daily=14,weekly=8,monthly=12,yearly=7"
    expect(seen == wanted, f"the function is not as the template says: {made}")
    failed = account.lambdas.get_function_event_invoke_config(FunctionName=function, Qualifier="$LATEST")
    seen = failed["MaximumRetryAttempts"], failed["DestinationConfig"]["OnFailure"]["Destination"].split(":")[2]
    expect(seen == (1, "sqs"), f"a failed event would not go to the queue: {failed}")
    alarms = account.cloudwatch.describe_alarms(AlarmNamePrefix=f"{STACK}-")["MetricAlarms"]
    topic = alarms[0]["AlarmActions"][0]
    elsewhere = [one["AlarmName"] for one in alarms if one["AlarmActions"] != [topic]]
    expect(not elsewhere, f"an alarm goes elsewhere: {elsewhere}")
    seen = [
        (one["TreatMissingData"], one["EvaluationPeriods"], one["Dimensions"][0]["Value"])
        for one in alarms
        if one["AlarmName"] == f"{STACK}-no-good-backup"
    ]
    wanted = [("breaching", 26, function)]
    expect(seen == wanted and len(alarms) == 14, f"the alarms are not as the template says: {seen} of {len(alarms)}")
    schedules = account.scheduler.list_schedules(GroupName=account.output("ScheduleGroup"))["Schedules"]
    expect(len(schedules) == 2, f"there should be a schedule for backups and one for verification: {schedules}")
    return alarms


def by_hand(account):
    """Returns the manifest's key."""
    say("invoked by hand, as the outputs say, under the role of the template")
    answer = account.invoke("TryEverything")
    expect(answer["status"] == "ok", f"doctor is not content: {answer}")
    answer = account.invoke("FirstBackup")
    good = answer["status"] == "succeeded" and answer["notification"]["sent"] is True
    expect(good, f"the report is not good: {answer}")
    found = account.manifests()
    expect(len(found) == 1, f"there should be one backup: {found}")
    manifest = account.manifest(found[0])
    seen = manifest["database"], manifest["trigger"], manifest["type"]
    expect(seen == ("shop", "manual", "full"), f"the manifest says something else: {manifest}")
    restore(account, found[0])
    message = account.message(account.messages)
    expect(message and message["Subject"] == "pgstow shop backup SUCCEEDED", f"the topic got no message: {message}")
    say("the topic has the message")
    answer = account.invoke("ListBackups")
    expect(len(answer["backups"]) == 1, f"list does not know of it: {answer}")
    return found[0]


def restore(account, key):
    """By stock pg_restore; and the rows are counted, not only seen that a file is there."""
    options = account.options
    dump = account.s3.get_object(Bucket=account.bucket, Key=key.replace("manifest.json", "shop.dump"))["Body"].read()
    target = options.server.rpartition("/")[0] + "/shop_restored"
    subprocess.run([f"{options.pg_bin}/pg_restore", "--exit-on-error", "-d", target], input=dump, check=True)
    count = '. scripts/place.sh && . scripts/sample.sh && compare_counts "$@" >/dev/null'
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", count, "compare", options.pg_bin, options.server])
    expect(done.returncode == 0, "the restored database differs from its source")
    say(f"the backup {key.removesuffix('/manifest.json')} restores, with all rows")


def again(account):
    say("deployed again, with another retention and a schedule of one minute: updated in place")
    account.deploy("Retention=30d", "BackupSchedule=rate(1 minute)")
    seen = account.output("Function"), account.output("Bucket")
    expect(seen == (account.function, account.bucket), f"the update has replaced the function or the bucket: {seen}")
    made = account.lambdas.get_function_configuration(FunctionName=account.function)
    retention = made["Environment"]["Variables"]["BACKUP_RETENTION"]
    expect(retention == "30d", f"the update has not taken the parameter: {retention}")
    parameters = {one["ParameterKey"]: one["ParameterValue"] for one in account.stack()["Parameters"]}
    expect(parameters["SubnetIds"] == "subnet-0a", "the update has lost a parameter of the first deployment")


def fired(account, first):
    """Returns the key of the manifest that the schedule has made."""
    say("fired by the schedule")
    until = time.monotonic() + 110
    while len(found := account.manifests()) != 2:
        expect(time.monotonic() < until, "the schedule has made no backup")
        time.sleep(0.5)
    [second] = set(found) - {first}
    manifest = account.manifest(second)
    expect(manifest["trigger"] == "schedule", f"the manifest says something else: {manifest}")
    expect(account.is_signed(second), "the backup's manifest is not signed")
    dump = second.replace("manifest.json", "shop.dump")
    tags = account.s3.get_object_tagging(Bucket=account.bucket, Key=dump)["TagSet"]
    tags = {one["Key"]: one["Value"] for one in tags}
    expect(tags.get("pgstow-tier") == "latest", f"the newest backup does not bear the tag latest: {tags}")
    return second


def verified(account, key):
    say("verified, by the very target and input of the schedule Verification")
    group = account.output("ScheduleGroup")
    names = [one["Name"] for one in account.scheduler.list_schedules(GroupName=group)["Schedules"]]
    [name] = [name for name in names if "Verification" in name]
    target = account.scheduler.get_schedule(GroupName=group, Name=name)["Target"]
    drills = account.output("DrillFunction")
    expect(target["Arn"].endswith(f":{drills}"), f"the verification is another function's: {target}")
    answer = account.lambdas.invoke(FunctionName=drills, Payload=target["Input"])
    answer = json.load(answer["Payload"])
    backup = key.removeprefix("pgstow/").removesuffix("/manifest.json")
    good = answer.get("status") == "ok" and answer.get("id") == backup
    expect(good, f"the newest backup is not verified: {answer}")
    say("drilled, by that function alone, which knows no database")
    event = json.dumps({"action": "verify", "drill": True})
    answer = json.load(account.lambdas.invoke(FunctionName=account.function, Payload=event)["Payload"])
    refused = answer.get("errorType") == "CONFIG" and "BACKUP_ALLOW_DRILL" in answer["errorMessage"]
    expect(refused, f"the function that may read the secret takes a drill: {answer}")
    answer = json.load(account.lambdas.invoke(FunctionName=drills, Payload=event)["Payload"])
    expect(answer.get("drill", {}).get("status") == "ok", f"the newest backup is not drilled: {answer}")
    result = key.replace("manifest.json", "verification.json")
    expect(account.is_signed(result), "the drill's result is not signed")
    signature = account.s3.get_object(Bucket=account.bucket, Key=f"{key}.minisig")["Body"].read()
    account.s3.delete_object(Bucket=account.bucket, Key=f"{key}.minisig")
    answer = json.load(account.lambdas.invoke(FunctionName=drills, Payload=event)["Payload"])
    account.s3.put_object(Bucket=account.bucket, Key=f"{key}.minisig", Body=signature)
    expect(answer.get("errorType") == "SIGNATURE", f"what nobody has signed is drilled: {answer}")
    answer = json.load(account.lambdas.invoke(FunctionName=drills, Payload="{}")["Payload"])
    expect(answer.get("errorType") == "CONFIG", f"the function that drills makes a backup: {answer}")


def made_to_fail(account):
    say("made to fail: without its secret, an event lands in the dead-letter queue after one more try")
    queue = account.output("DeadLetterQueue")
    account.secretsmanager.delete_secret(SecretId=account.secret, ForceDeleteWithoutRecovery=True)
    account.sqs.purge_queue(QueueUrl=account.messages)
    expect(account.waiting(queue) == 0, "something is in the dead-letter queue already")
    account.lambdas.invoke(
        FunctionName=account.function, InvocationType="Event", Payload=json.dumps({"event_id": "doomed"})
    )
    until = time.monotonic() + 90
    while not (letter := account.message(queue)):
        expect(time.monotonic() < until, "the failed event is not in the dead-letter queue")
    seen = letter["requestPayload"], letter["responsePayload"]["errorType"]
    expect(seen == ({"event_id": "doomed"}, "SECRET"), f"the dead letter says something else: {letter}")
    message = account.message(account.messages)
    told = message and message["Subject"] == "pgstow shop backup FAILED"
    expect(told, f"the topic got no message of the failure: {message}")
    expect(len(account.manifests()) == 2, "a failed run has left a backup")


def numbers(account, alarms):
    say("the numbers in the logs are those that the alarms look at")
    text, seen = "", {}
    for name in ("BackupLogs", "DrillLogs"):
        found = account.cloudformation.describe_stack_resource(StackName=STACK, LogicalResourceId=name)
        group = found["StackResourceDetail"]["PhysicalResourceId"]
        pages = account.logs.get_paginator("filter_log_events").paginate(logGroupName=group)
        text += "".join(event["message"] + "\n" for page in pages for event in page["events"])
    for line in text.splitlines():
        if line.startswith("{") and '"_aws"' in line:
            told = json.loads(line)
            for metrics in told["_aws"]["CloudWatchMetrics"]:
                if ["Service"] in metrics["Dimensions"] and told["Service"] == account.function:
                    for metric in metrics["Metrics"]:
                        seen.setdefault((metrics["Namespace"], metric["Name"]), []).append(told[metric["Name"]])
    ours = {(one["Namespace"], one["MetricName"]) for one in alarms}
    ours = {one for one in ours if one[0] == "pgstow"}
    # Too few backups for a median.
    missing = ours - seen.keys() - {("pgstow", "BackupSizeDeviation")}
    # No increment is made here.
    of_increments = ("ChainBroken", "ChainProofFailed", "IncrementFailed", "RecoveryPointAge", "SlotWalSafe")
    missing -= {("pgstow", name) for name in of_increments}
    good = not missing and sum(seen["pgstow", "BackupSucceeded"]) == 2 and sum(seen["pgstow", "BackupFailed"]) >= 2
    expect(good, f"the alarms would never see a number: missing: {missing}; seen: {seen}")


def deleted(account):
    say("deleted: the bucket stays")
    account.cloudformation.delete_stack(StackName=STACK)
    gone = account.cloudformation.get_waiter("stack_delete_complete")
    gone.wait(StackName=STACK, WaiterConfig={"Delay": 0.5, "MaxAttempts": 240})
    try:
        account.bucket_of_account.head_bucket(Bucket=account.bucket)
    except ClientError as error:
        sys.exit(f"the bucket was deleted with the stack: {error}")
    try:
        account.lambdas.get_function_configuration(FunctionName=account.function)
    except ClientError:
        return
    sys.exit("the function was not deleted")


def main():
    parser = argparse.ArgumentParser()
    for name in ("endpoint", "s3-endpoint", "s3-key", "s3-secret", "server", "pg-bin", "aws", "work"):
        parser.add_argument(f"--{name}", required=True)
    account = Account(parser.parse_args())

    account.make_secret()
    account.make_key()
    refusals(account)
    say("infra/deploy.sh")
    account.deploy(
        "Retention=long",
        "NotificationEmail=dba@example.com",
        "SubnetIds=subnet-0a",
        "SecurityGroupIds=sg-0a",
        f"SignKeyArn={account.sign_key}",
    )
    account.function, account.bucket = account.output("Function"), account.output("Bucket")
    account.s3.create_bucket(Bucket=account.bucket)
    listen(account)
    alarms = what_is_there(account)
    first = by_hand(account)
    again(account)
    second = fired(account, first)
    verified(account, second)
    made_to_fail(account)
    numbers(account, alarms)
    deleted(account)


main()
