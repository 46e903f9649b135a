"""The policy of template.yaml in accounts that enforce IAM. Started by iam-test.sh, which starts those accounts."""

import argparse
import json
import os
import subprocess
import sys
import urllib.request

import boto3
import rendered
from botocore.config import Config
from botocore.exceptions import ClientError

BUCKET = "shop-backups"
REGION = "us-east-1"


class Account:
    """An account on this machine with what the template would have made: bucket, secret, topic and the role."""

    def __init__(self, name, endpoint, options, only_s3=False):
        self.name, self.endpoint, self.options, self.only_s3 = name, endpoint, options, only_s3
        root = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
        self.root = {
            service: root.client(service, endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"}))
            for service in ("s3", "iam", "sts", "secretsmanager", "sns", "kms")
        }
        self.root["s3"].create_bucket(Bucket=BUCKET)
        self.root["s3"].put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        self.root["s3"].put_bucket_lifecycle_configuration(
            Bucket=BUCKET, LifecycleConfiguration=rendered.lifecycle_rules("standard")
        )
        self.root["s3"].put_object(Bucket=BUCKET, Key="elsewhere/object", Body=b"somebody else's")
        secrets = self.root["secretsmanager"]
        self.secret = secrets.create_secret(Name="shop", SecretString=options.database)["ARN"]
        self.other_secret = secrets.create_secret(Name="payroll", SecretString="not for us")["ARN"]
        self.topic = self.root["sns"].create_topic(Name="backups")["TopicArn"]
        self.other_topic = self.root["sns"].create_topic(Name="payroll")["TopicArn"]
        self.sign_key, self.other_key = ("", "") if only_s3 else (self.make_key(), self.make_key())
        deployment = rendered.Deployment(
            BackupBucket=BUCKET, DatabaseSecretArn=self.secret, BackupTopic=self.topic, SignKeyArn=self.sign_key
        )
        self.policy = {"Version": "2012-10-17", "Statement": rendered.statements(deployment, "BackupRole")}
        self.drills = {"Version": "2012-10-17", "Statement": rendered.statements(deployment, "DrillRole")}

    def make_key(self):
        made = self.root["kms"].create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        return made["KeyMetadata"]["Arn"]

    def credentials(self, role, without=(), policy=None):
        """A session of a role with the template's policy, less the statements named."""
        policy = policy or self.policy
        iam = self.root["iam"]
        trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        arn = iam.create_role(
            RoleName=role, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        )["Role"]["Arn"]
        left = [one for one in policy["Statement"] if one["Sid"] not in without]
        iam.put_role_policy(
            RoleName=role, PolicyName="backup", PolicyDocument=json.dumps(policy | {"Statement": left})
        )
        return self.root["sts"].assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]

    def run(self, credentials, *arguments, source=True):
        """Exit status and report of pgstow under these credentials, and nothing else from our environment."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "AWS_ACCESS_KEY_ID": credentials["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": credentials["SecretAccessKey"],
            "AWS_SESSION_TOKEN": credentials["SessionToken"],
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "BACKUP_STORE": f"s3://{BUCKET}/pgstow",
            "BACKUP_RETENTION": "daily=7,weekly=4,monthly=12",
            "BACKUP_PG_BIN": self.options.pg_bin,
            # Neither account reports checksums for all that it is given.
            "BACKUP_S3_CHECKSUMS": "when_required",
        }
        if not self.only_s3:
            environment["BACKUP_SNS_TOPIC_ARN"] = self.topic
            environment |= {"BACKUP_SIGN_KEY": self.sign_key, "BACKUP_VERIFY_KEYS": self.sign_key}
        if source:
            environment |= {"DATABASE_URL": self.options.database} if self.only_s3 else {"BACKUP_SECRET_ID": self.secret}
        done = subprocess.run(
            [self.options.pgstow, *arguments, "--json"], env=environment, capture_output=True, text=True, timeout=120
        )
        try:
            return done.returncode, json.loads(done.stdout)
        except json.JSONDecodeError:
            sys.exit(f"{self.name}: pgstow {' '.join(arguments)}: no report\n{done.stdout}\n{done.stderr}")

    def clients(self, credentials):
        session = boto3.Session(
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials["SessionToken"],
            region_name=REGION,
        )
        path = Config(s3={"addressing_style": "path"})
        return {
            service: session.client(service, endpoint_url=self.endpoint, config=path)
            for service in ("s3", "secretsmanager", "sns", "iam", "kms")
        }

    def backup_and_verify(self, credentials):
        status, report = self.run(credentials, "backup")
        expect(status == 0, f"{self.name}: the policy is not enough for a backup: {report}")
        expect(self.only_s3 or report["notification"]["sent"], f"{self.name}: the message was not sent: {report}")
        status, checked = self.run(credentials, "verify", "latest", "--database", "shop")
        expect(status == 0, f"{self.name}: the policy is not enough to verify: {checked}")
        say(f"{self.name}: with the template's policy: {report['id']} is made and verified")
        return report["id"]

    def verified_and_drilled(self, credentials, backup):
        """By the other role, which is all that a drill needs, and not more."""
        for drill in ((), ("--drill",)):
            status, report = self.run(credentials, "verify", "latest", *drill, source=False)
            expect(status == 0, f"{self.name}: the policy of drills is not enough to verify {drill}: {report}")
        client, below = self.clients(credentials), f"pgstow/{backup}"
        status, report = self.run(credentials, "backup")
        expect(status != 0, f"{self.name}: the role of drills makes backups: {report}")
        calls = {
            "delete a backup's file": lambda: client["s3"].delete_object(Bucket=BUCKET, Key=f"{below}/manifest.json"),
            "write a manifest": lambda: client["s3"].put_object(Bucket=BUCKET, Key=f"{below}/manifest.json", Body=b"x"),
            "write a dump": lambda: client["s3"].put_object(Bucket=BUCKET, Key=f"{below}/shop.dump", Body=b"x"),
            # Which tags it may give stands in a condition, which these accounts pass over: rendered.py asks for them.
            "tag what is no backup": lambda: client["s3"].put_object_tagging(
                Bucket=BUCKET, Key="elsewhere/object", Tagging={"TagSet": [{"Key": "pgstow-tier", "Value": "latest"}]}
            ),
            "read below another prefix": lambda: client["s3"].get_object(Bucket=BUCKET, Key="elsewhere/object"),
        }
        if not self.only_s3:
            calls["read the secret"] = lambda: client["secretsmanager"].get_secret_value(SecretId=self.secret)
            calls["publish to another topic"] = lambda: client["sns"].publish(TopicArn=self.other_topic, Message="x")
            calls["sign by another key"] = lambda: self.sign(client, self.other_key)
            result = f"{below}/verification.json.minisig"
            expect(client["s3"].head_object(Bucket=BUCKET, Key=result), f"{self.name}: the result is not signed")
        for what, call in calls.items():
            self.is_refused(f"drill and {what}", call)
        say(f"{self.name}: with the policy of drills: verified and drilled; refused: a backup, {', '.join(calls)}")

    def sign(self, client, key):
        client["kms"].sign(KeyId=key, Message=b"x", MessageType="RAW", SigningAlgorithm="ECDSA_SHA_256")

    def refused(self, credentials, backup):
        """What a stolen role must not do."""
        client = self.clients(credentials)
        s3, key = client["s3"], f"pgstow/{backup}/manifest.json"
        version = self.root_version(key)
        for what, call in {
            "delete a backup's file": lambda: s3.delete_object(Bucket=BUCKET, Key=key),
            "delete one version of it": lambda: s3.delete_object(Bucket=BUCKET, Key=key, VersionId=version),
            "write below another prefix": lambda: s3.put_object(Bucket=BUCKET, Key="elsewhere/new", Body=b"x"),
            "write beside the prefix": lambda: s3.put_object(Bucket=BUCKET, Key="pgstow-too/new", Body=b"x"),
            "read below another prefix": lambda: s3.get_object(Bucket=BUCKET, Key="elsewhere/object"),
            "take the lifecycle away": lambda: s3.delete_bucket_lifecycle(Bucket=BUCKET),
            "suspend the versions": lambda: s3.put_bucket_versioning(
                Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"}
            ),
            "delete the bucket": lambda: s3.delete_bucket(Bucket=BUCKET),
            "read another secret": lambda: client["secretsmanager"].get_secret_value(SecretId=self.other_secret),
            "change its own secret": lambda: client["secretsmanager"].put_secret_value(
                SecretId=self.secret, SecretString="x"
            ),
            "publish to another topic": lambda: client["sns"].publish(TopicArn=self.other_topic, Message="x"),
            "sign by another key": lambda: self.sign(client, self.other_key),
            "take its key away": lambda: client["kms"].schedule_key_deletion(KeyId=self.sign_key),
            "give itself more": lambda: client["iam"].put_role_policy(
                RoleName="whole", PolicyName="more", PolicyDocument=json.dumps(self.policy)
            ),
        }.items():
            if not (self.only_s3 and what in OTHER_SERVICES):
                self.is_refused(what, call)
        more = "" if self.only_s3 else ", another secret, topic and key"
        say(f"{self.name}: refused: a delete, another prefix, the bucket's rules{more}")

    def is_refused(self, what, call):
        try:
            call()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            expect("AccessDenied" in code or "AuthorizationError" in code, f"{self.name}: to {what} fails of {error}")
        else:
            sys.exit(f"{self.name}: the role may {what}")

    def root_version(self, key):
        return self.versions[key]


def expect(holds, what):
    if not holds:
        sys.exit(what)


def say(what):
    print(what, file=sys.stderr, flush=True)


OTHER_SERVICES = (
    "read another secret",
    "change its own secret",
    "publish to another topic",
    "sign by another key",
    "take its key away",
    "give itself more",
)

# What a backup meets where a statement is missing: the error's code, or None for a backup that is made with a
# complaint; and the action that the hint or the complaint names. KeepFailedEvents and WriteTheLog are for Lambda.
MISSING = {
    "WriteAndReadBackups": ("STORE", "s3:GetObject"),
    "ListBackups": ("STORE", "s3:ListBucket"),
    "SeeUnfinishedUploadsAndRules": (None, "s3:ListBucketMultipartUploads"),
    "SignManifests": ("SIGNATURE", "kms:"),
    "ReadTheSecret": ("SECRET", "secretsmanager:GetSecretValue"),
    "SendTheMessage": (None, "sns:Publish"),
}


def main():
    parser = argparse.ArgumentParser()
    for name in ("pgstow", "pg-bin", "database", "moto", "ministack"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()

    moto = Account("moto", options.moto, options, only_s3=True)
    whole, drills = moto.credentials("whole"), moto.credentials("drills", policy=moto.drills)
    # From here on, for everybody.
    request = urllib.request.Request(
        f"{options.moto}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(request).read()
    made = moto.backup_and_verify(whole)
    # Counting ends nobody's checks: the next request is checked again.
    key = f"pgstow/{made}/manifest.json"
    moto.versions = {key: moto.clients(whole)["s3"].head_object(Bucket=BUCKET, Key=key)["VersionId"]}
    moto.refused(whole, made)
    moto.verified_and_drilled(drills, made)

    ministack = Account("ministack", options.ministack, options)
    whole = ministack.credentials("whole")
    made = ministack.backup_and_verify(whole)
    key = f"pgstow/{made}/manifest.json"
    ministack.versions = {key: ministack.clients(whole)["s3"].head_object(Bucket=BUCKET, Key=key)["VersionId"]}
    ministack.refused(whole, made)
    ministack.verified_and_drilled(ministack.credentials("drills", policy=ministack.drills), made)
    s3 = ministack.clients(whole)["s3"]
    ministack.is_refused("list another prefix", lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix="elsewhere/"))
    expect(s3.list_objects_v2(Bucket=BUCKET, Prefix="pgstow/")["KeyCount"] > 0, "the role may not list its own prefix")
    say("ministack: refused: a listing of another prefix")
    doctor(ministack, whole)
    for sid, (code, action) in MISSING.items():
        status, report = ministack.run(ministack.credentials(f"without-{sid}", [sid]), "backup")
        met = report["error"]["code"] if status else None
        # The action is in the account's own words too: where there is a hint, it is to be found there.
        said = report["error"]["hint"] if status else json.dumps([report.get("warnings"), report.get("notification")])
        expect(met == code, f"without {sid} a backup meets {met}, not {code}: {report}")
        expect(action in said, f"without {sid}, {action} is not named: {report}")
        say(f"ministack: without {sid}: {code or 'a backup, with a complaint'} that names {action}")


def doctor(account, credentials):
    """The preflight finds nothing wrong either, and holds the refused delete for right."""
    _, report = account.run(credentials, "doctor")
    wrong = [one for one in report["checks"] if one["state"] == "failed"]
    expect(not wrong, f"{account.name}: doctor is not content: {wrong}")
    states = {one["name"]: one for one in report["checks"]}
    rules = states["lifecycle"]
    expect(rules["state"] == "ok", f"{account.name}: the bucket's rules are not right: {rules}")
    expect("refused" in states["delete"]["detail"], f"{account.name}: a delete is not refused: {states['delete']}")
    say(f"{account.name}: doctor finds nothing that would fail, the bucket's rules right, and a delete refused")


main()
