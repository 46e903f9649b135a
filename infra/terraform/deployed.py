#!/usr/bin/env python3
"""What Terraform has made, read back from where it lies, and held against what was meant.

    deployed.py COMPUTE NAME BUCKET RULES.json     the endpoint is AWS_ENDPOINT_URL

COMPUTE is lambda or fargate; RULES.json is what `pgstow retention show` prints for the bucket and its policy. Ends with 1
and says what differs.

Not seen here, because moto does not do it: that Object Lock holds, that a schedule fires and fills in its time, that an alarm goes off, that a role
is refused (moto checks no policies unless told), that a topic's key lets the alarms in.
"""

import json
import re
import sys
from pathlib import Path

import boto3

# Of the tree that this lies in; Terraform's files are copied elsewhere.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import policy as policies
from policy import listed

REGION = "eu-west-1"
# What test.sh lays over the examples.
SIGN_KEY = f"arn:aws:kms:{REGION}:123456789012:key/519e0000-2222-3333-4444-555555555555"
compute, name, bucket, rules_file = sys.argv[1:]
failures = []


def client(service):
    return boto3.client(service, region_name=REGION)


def holds(what, condition, seen=None):
    if not condition:
        failures.append(f"{what}: found {json.dumps(seen, default=str)}")


def equal(what, seen, wanted):
    holds(f"{what}: wanted {json.dumps(wanted, default=str)}", seen == wanted, seen)


def the_bucket():
    s3 = client("s3")
    with open(rules_file) as file:
        wanted = json.load(file)["Rules"]
    rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    # Terraform's provider says so where nothing is said of a size; nothing that pgstow writes is empty.
    sizes = [rule["Filter"]["And"].pop("ObjectSizeGreaterThan", 0) for rule in rules if "And" in rule["Filter"]]
    equal("lifecycle: no object is too small", sizes, [0] * 6)
    # One by one and in order: ids, prefixes, tags, days.
    equal("lifecycle rules", rules, wanted)
    holds("lifecycle: no rule for `latest`", "latest" not in json.dumps(wanted), wanted)
    equal(
        "public access block",
        s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"],
        {key: True for key in ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")},
    )
    equal("versioning", s3.get_bucket_versioning(Bucket=bucket).get("Status"), "Enabled")
    rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    equal("encryption", rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"], "AES256")
    owner = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    equal("owner of the objects", owner[0]["ObjectOwnership"], "BucketOwnerEnforced")

    policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    policy = {statement["Sid"]: statement for statement in policy}
    plain = policy["EncryptedConnectionsOnly"]
    equal("without TLS", [plain["Effect"], plain["Action"], plain["Principal"]], ["Deny", "s3:*", "*"])
    equal("without TLS, when", plain["Condition"], {"Bool": {"aws:SecureTransport": "false"}})
    arn = f"arn:aws:s3:::{bucket}"
    equal("without TLS, where", sorted(plain["Resource"]), [arn, f"{arn}/*"])
    never = policy["WritersNeverDelete"]
    role = "function" if compute == "lambda" else "task"
    equal(
        "never deletes: who",
        sorted(never["Principal"]["AWS"]),
        sorted(f"arn:aws:iam::123456789012:role/{name}-{one}" for one in (role, "drill")),
    )
    equal("changes of tags that are misjudged", policies.misjudged_tags(list(policy.values()), arn), [])
    holds("never deletes: what", {"s3:DeleteObject", "s3:DeleteObjectVersion"} <= set(never["Action"]), never["Action"])


def roles():
    iam = client("iam")
    wanted = ["drill", "schedules"] + (["function"] if compute == "lambda" else ["task", "task-start"])
    found = {role["RoleName"]: role for role in iam.list_roles()["Roles"]}
    equal("roles", sorted(found), sorted(f"{name}-{role}" for role in wanted))
    for role_name, role in found.items():
        trust = listed(role["AssumeRolePolicyDocument"]["Statement"])
        for statement in trust:
            # Lambda gives a role only to functions of its own account.
            if statement["Principal"]["Service"] != "lambda.amazonaws.com":
                account = statement.get("Condition", {}).get("StringEquals", {}).get("aws:SourceAccount")
                equal(f"{role_name}: whose account", account, "123456789012")
        for policy in iam.list_role_policies(RoleName=role_name)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=role_name, PolicyName=policy)["PolicyDocument"]
            for statement in document["Statement"]:
                if statement["Effect"] == "Allow":
                    signs(f"{role_name}/{statement.get('Sid')}", statement)
                    least(f"{role_name}/{statement.get('Sid')}", statement)
    if compute == "lambda":
        attached = iam.list_attached_role_policies(RoleName=f"{name}-function")["AttachedPolicies"]
        equal("managed policies", [one["PolicyName"] for one in attached], ["AWSLambdaENIManagementAccess"])


def signs(where, statement):
    """Nobody may do more with the key that signs, or sign by another."""
    actions, resources = listed(statement["Action"]), listed(statement["Resource"])
    if SIGN_KEY in resources or "kms:Sign" in actions:
        equal(f"{where}: what signs", [sorted(actions), resources], [sorted(policies.SIGN), [SIGN_KEY]])


def signing(where, variables):
    seen = [variables.get(key) for key in ("BACKUP_SIGN_KEY", "BACKUP_VERIFY_KEYS")]
    equal(f"{where}: signs, and trusts who signs", seen, [SIGN_KEY, SIGN_KEY])


def least(where, statement):
    actions, resources = listed(statement["Action"]), listed(statement["Resource"])
    for action in actions:
        holds(f"{where}: a whole action", "*" not in action, action)
        holds(f"{where}: no delete", not re.search("delete|remove|putlifecycle|putbucket", action, re.I), action)
        if action.startswith("s3:") and ("Object" in action or "Multipart" in action and action != "s3:ListBucketMultipartUploads"):
            below = all(resource.startswith(f"arn:aws:s3:::{bucket}/pgstow/") for resource in resources)
            holds(f"{where}: below the prefix", below, resources)
    if "s3:ListBucket" in actions:
        prefixes = statement["Condition"]["StringLikeIfExists"]["s3:prefix"]
        equal(f"{where}: listed prefixes", sorted(prefixes), ["pgstow", "pgstow/*"])
    for resource in resources:
        # The one action for which AWS takes no resource.
        if actions != ["ecr:GetAuthorizationToken"]:
            holds(f"{where}: every resource is named", resource != "*" and not resource.endswith(":*:*"), resource)


def drills():
    """Who verifies and drills: exactly what its identity may do, and who has it."""
    iam = client("iam")
    group = f"/aws/lambda/{name}-drill"
    key = client("sns").get_topic_attributes(TopicArn=f"arn:aws:sns:{REGION}:123456789012:{name}")["Attributes"]["KmsMasterKeyId"]
    wanted = policies.drill(
        f"arn:aws:s3:::{bucket}",
        f"arn:aws:sns:{REGION}:123456789012:{name}",
        topic_key=key,
        log=f"arn:aws:logs:{REGION}:123456789012:log-group:{group}:*" if compute == "lambda" else None,
        sign_key=SIGN_KEY,
    )
    equal("the drill's policies", iam.list_role_policies(RoleName=f"{name}-drill")["PolicyNames"], ["drill"])
    equal("the drill's managed policies", iam.list_attached_role_policies(RoleName=f"{name}-drill")["AttachedPolicies"], [])
    document = iam.get_role_policy(RoleName=f"{name}-drill", PolicyName="drill")["PolicyDocument"]
    wrong = policies.misjudged_keeping(listed(document["Statement"]), f"arn:aws:s3:::{bucket}")
    equal("tags on which the drill's policy decides wrongly", wrong, [])
    equal("what a drill may do", sorted(policies.allowed(listed(document["Statement"]))), sorted(wanted))
    if compute != "lambda":
        return
    function = client("lambda").get_function_configuration(FunctionName=f"{name}-drill")
    equal("the drill's role", function["Role"], f"arn:aws:iam::123456789012:role/{name}-drill")
    holds("the drill is in no network", not function.get("VpcConfig", {}).get("SubnetIds"), function.get("VpcConfig"))
    variables = function["Environment"]["Variables"]
    no_secrets("the drill's function", variables)
    signing("the drill's function", variables)
    odd = [key for key, value in variables.items() if "SECRET" in key or "secretsmanager" in value or key.startswith(("DB_", "PG"))]
    equal("the drill's function knows nothing of the database", odd, [])
    writer = client("lambda").get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    equal("the function that makes backups takes drills", writer.get("BACKUP_ALLOW_DRILL"), "false")
    logs(group)


def schedules():
    scheduler = client("scheduler")
    queue = f"arn:aws:sqs:{REGION}:123456789012:{name}-dead-letters"
    names = [one["Name"] for one in scheduler.list_schedules(GroupName=name)["Schedules"]]
    wanted = ["full", "verify"] if compute == "lambda" else ["drill", "full", "verify"]
    equal("schedules", sorted(names), [f"{name}-{one}" for one in wanted])
    for schedule_name in names:
        schedule = scheduler.get_schedule(GroupName=name, Name=schedule_name)
        target = schedule["Target"]
        zone = "UTC" if compute == "lambda" else "Europe/Berlin"
        equal(f"{schedule_name}: time zone", schedule["ScheduleExpressionTimezone"], zone)
        equal(f"{schedule_name}: given up to", target["DeadLetterConfig"], {"Arn": queue})
        holds(f"{schedule_name}: tried again", target["RetryPolicy"]["MaximumRetryAttempts"] > 0, target["RetryPolicy"])
        equal(f"{schedule_name}: at the minute", schedule["FlexibleTimeWindow"]["Mode"], "OFF")
        holds(f"{schedule_name}: readable input", "\\u003c" not in target["Input"], target["Input"])
    full = scheduler.get_schedule(GroupName=name, Name=f"{name}-full")["Target"]
    event_id = "full-<aws.scheduler.scheduled-time>"
    if compute == "lambda":
        event = {"action": "backup", "kind": "full", "trigger": "schedule", "event_id": event_id}
        equal("the event of the full backup", json.loads(full["Input"]), event)
        equal("its target", full["Arn"], f"arn:aws:lambda:{REGION}:123456789012:function:{name}")
        verify = scheduler.get_schedule(GroupName=name, Name=f"{name}-verify")["Target"]["Arn"]
        equal("the target of verify", verify, f"arn:aws:lambda:{REGION}:123456789012:function:{name}-drill")
    else:
        command = ["backup", "--json", "--kind", "full", "--trigger", "schedule", "--event-id", event_id]
        overrides = {"containerOverrides": [{"name": "pgstow", "command": command}]}
        equal("the task of the full backup", json.loads(full["Input"]), overrides)
        equal("its target", full["Arn"], f"arn:aws:ecs:{REGION}:123456789012:cluster/{name}")
        equal("its launch type", full["EcsParameters"]["LaunchType"], "FARGATE")
        drill = json.loads(scheduler.get_schedule(GroupName=name, Name=f"{name}-drill")["Target"]["Input"])
        equal("the drill's role", drill["taskRoleArn"], f"arn:aws:iam::123456789012:role/{name}-drill")


def alarms():
    found = {one["AlarmName"].removeprefix(f"{name}-"): one for one in client("cloudwatch").describe_alarms()["MetricAlarms"]}
    wanted = {"no-good-backup", "size-anomaly", "verify-failed", "drill-failed", "notifications-failed", "dead-letters"}
    wanted |= {"increment-failed", "chain-broken", "chain-proof-failed", "recovery-point-age", "slot-wal-safe"}
    if compute == "lambda":
        wanted |= {"function-errors", "function-duration", "drill-function-errors"}
    equal("alarms", sorted(found), sorted(wanted))
    topic = f"arn:aws:sns:{REGION}:123456789012:{name}"
    for alarm_name, alarm in found.items():
        equal(f"{alarm_name}: who is told", alarm["AlarmActions"], [topic])
    silence = found["no-good-backup"]
    seen = [silence[key] for key in ("Namespace", "MetricName", "Statistic", "Period", "EvaluationPeriods", "Threshold")]
    equal("the alarm on silence", seen, ["pgstow", "BackupSucceeded", "Sum", 3600, 26, 1.0])
    seen = [silence["ComparisonOperator"], silence["TreatMissingData"], silence["Dimensions"]]
    equal("the alarm on silence", seen, ["LessThanThreshold", "breaching", [{"Name": "Service", "Value": name}]])


def topic():
    attributes = client("sns").get_topic_attributes(TopicArn=f"arn:aws:sns:{REGION}:123456789012:{name}")["Attributes"]
    key = client("kms").describe_key(KeyId=attributes["KmsMasterKeyId"])["KeyMetadata"]
    equal("the topic's key", [key["KeyManager"], key["Enabled"]], ["CUSTOMER", True])
    document = json.loads(client("kms").get_key_policy(KeyId=key["KeyId"], PolicyName="default")["Policy"])
    users = {one["Principal"].get("Service"): one.get("Condition") for one in document["Statement"]}
    account = {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    equal("the alarms may use it, for this account", users.get("cloudwatch.amazonaws.com"), account)
    equal("so may events of the task", "events.amazonaws.com" in users, compute != "lambda")
    publishers = [one["Principal"].get("Service") for one in json.loads(attributes["Policy"])["Statement"] if one["Effect"] == "Allow"]
    wanted = ["cloudwatch.amazonaws.com"] + ([] if compute == "lambda" else ["events.amazonaws.com"])
    equal("who may send", publishers, wanted)


def logs(group):
    found = client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    kept = [one.get("retentionInDays") for one in found if one["logGroupName"] == group]
    equal(f"{group} is kept for", kept, [365])


def no_secrets(where, variables):
    equal(f"{where}: where the backups go", variables["BACKUP_STORE"], f"s3://{bucket}/pgstow")
    equal(f"{where}: metrics", [variables["BACKUP_METRICS"], variables["BACKUP_METRICS_SERVICE"]], ["emf", name])
    odd = [key for key, value in variables.items() if re.search("PASSWORD|DATABASE_URL|ACCESS_KEY", key) or "postgres" in value]
    equal(f"{where}: no secrets", odd, [])


def may_sign(role):
    document = client("iam").get_role_policy(RoleName=f"{name}-{role}", PolicyName="backup")["PolicyDocument"]
    allowed = policies.allowed(listed(document["Statement"]))
    holds(f"{name}-{role}: may sign", {(action, SIGN_KEY) for action in policies.SIGN} <= allowed, sorted(allowed))


def the_function():
    function = client("lambda").get_function_configuration(FunctionName=name)
    seen = [function[key] for key in ("Runtime", "Handler", "Timeout", "Architectures")]
    equal("the function", seen, ["provided.al2023", "bootstrap", 900, ["x86_64"]])
    no_secrets("the function", function["Environment"]["Variables"])
    signing("the function", function["Environment"]["Variables"])
    may_sign("function")
    equal("its layers", len(function["Layers"]), 1)
    equal("its subnets", function["VpcConfig"]["SubnetIds"], ["subnet-0a"])
    failed = client("lambda").get_function_event_invoke_config(FunctionName=name)
    queue = f"arn:aws:sqs:{REGION}:123456789012:{name}-dead-letters"
    equal("its failures go to", failed["DestinationConfig"]["OnFailure"]["Destination"], queue)
    equal("its retries", failed["MaximumRetryAttempts"], 1)
    equal("its log", function["LoggingConfig"], {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}"})
    logs(f"/aws/lambda/{name}")


def the_task():
    task = client("ecs").describe_task_definition(taskDefinition=name)["taskDefinition"]
    container = task["containerDefinitions"][0]
    equal("root file system", container["readonlyRootFilesystem"], True)
    equal("its user", container["user"], "65532:65532")
    equal("its capabilities", container["linuxParameters"]["capabilities"]["drop"], ["ALL"])
    equal("what can be written", [one["containerPath"] for one in container["mountPoints"]], ["/tmp"])
    equal("its command", container["entryPoint"] + container["command"], ["/usr/local/bin/pgstow", "backup", "--json"])
    equal("its disk", task["ephemeralStorage"], {"sizeInGiB": 100})
    holds("its roles differ", task["taskRoleArn"] != task["executionRoleArn"], task["taskRoleArn"])
    no_secrets("the task", {one["name"]: one["value"] for one in container["environment"]})
    signing("the task", {one["name"]: one["value"] for one in container["environment"]})
    may_sign("task")
    pattern = json.loads(client("events").describe_rule(Name=f"{name}-task-failed")["EventPattern"])
    equal("failures of the task", pattern["detail"]["lastStatus"], ["STOPPED"])
    logs(f"/ecs/{name}")


the_bucket()
roles()
drills()
schedules()
alarms()
topic()
the_function() if compute == "lambda" else the_task()
for failure in failures:
    print(f"deployed.py: {compute}: {failure}", file=sys.stderr)
sys.exit(1 if failures else 0)
