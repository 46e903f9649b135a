"""What template.yaml comes to with given parameters, as far as the tests need it.

The template is parsed as YAML and its functions are computed; nothing is guessed from its text.
"""

import functools
import json
import re
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import policy
from policy import listed

TEMPLATE = Path(__file__).resolve().parents[2] / "template.yaml"
ACCOUNT, REGION = "123456789012", "us-east-1"
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:shop-AbCdEf"

# What each condition of the template hangs on: every one of these is set in one run of `check` and absent in another.
EVERYTHING = {
    "TlsMode": "verify-full",
    "TlsRootCertificate": "/opt/rds.pem",
    "DatabaseHost": "db.example",
    "DatabasePort": "5433",
    "DatabaseName": "shop",
    "SubnetIds": "subnet-0a,subnet-0b",
    "SecurityGroupIds": "sg-0a",
    "SecretKmsKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/5ec0",
    "BucketKmsKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/b0c0",
    "SignKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/519e",
    "VerifyKeys": "RWQ" + "f" * 53,
    "ObjectLockDays": 14,
    "AccessLogBucket": "logs",
    "NotificationEmail": "dba@example.com",
    "IncrementalSchedule": "rate(1 hour)",
    "DrillSchedule": "rate(7 days)",
    "ExtraLayerArns": f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:server:1",
    "HandoverClusterArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/backups",
    "HandoverTaskFamily": "pgstow",
    "HandoverTaskRoleArn": f"arn:aws:iam::{ACCOUNT}:role/task",
    "HandoverExecutionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/execution",
    "HandoverSubnetIds": "subnet-0a",
    "HandoverSecurityGroupIds": "sg-0a",
    "AllowRestore": "true",
    "TargetSecretArn": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:target-AbCdEf",
}


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML with CloudFormation's short forms, each read as the long one. By the library in C where PyYAML has it."""


def short_form(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


Loader.add_multi_constructor("!", short_form)


@functools.cache
def load():
    """The parsed template, which nobody changes; a key that stands twice would quietly win over the first."""
    text = TEMPLATE.read_text()

    def look(node):
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    sys.exit(f"{TEMPLATE.name}: the key {key} stands twice, at {node.start_mark}")
            for _, value in node.value:
                look(value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                look(value)

    look(yaml.compose(text, Loader))
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader)):
        sys.exit(f"{TEMPLATE.name}: CloudFormation knows no YAML aliases")
    return yaml.load(text, Loader)


ABSENT = object()


class Deployment:
    """The template with its parameters filled in. What is given is a parameter, or a resource whose Ref is to be this."""

    def __init__(self, **given):
        self.template = load()
        self.parameters = {
            name: given.pop(name) if name in given else spec.get("Default", SECRET)
            for name, spec in self.template["Parameters"].items()
        }
        self.overrides = given
        self.pseudo = {
            "AWS::Partition": "aws",
            "AWS::Region": REGION,
            "AWS::AccountId": ACCOUNT,
            "AWS::StackName": "pgstow",
            "AWS::NoValue": ABSENT,
        }

    def resource(self, name):
        """A resource's properties, or None where its condition takes it out."""
        resource = self.template["Resources"][name]
        if "Condition" in resource and not self.condition(resource["Condition"]):
            return None
        return self.value(resource.get("Properties", {}))

    def resources(self, kind):
        names = [name for name, resource in self.template["Resources"].items() if resource["Type"] == kind]
        found = {name: self.resource(name) for name in names}
        return {name: properties for name, properties in found.items() if properties is not None}

    def condition(self, name):
        return self.value(self.template["Conditions"][name])

    def ref(self, name):
        for known in (self.pseudo, self.parameters, self.overrides):
            if name in known:
                return known[name]
        if name not in self.template["Resources"]:
            sys.exit(f"{TEMPLATE.name}: nothing is called {name}")
        return f"arn:aws:of:{REGION}:{ACCOUNT}:{name}" if self.refers_by_arn(name) else f"the-{name.lower()}"

    def refers_by_arn(self, name):
        return self.template["Resources"][name]["Type"] in ("AWS::SNS::Topic", "AWS::Serverless::LayerVersion")

    def attribute(self, name, attribute):
        return self.overrides.get(f"{name}.{attribute}") or f"arn:aws:of:{REGION}:{ACCOUNT}:{name}"

    def value(self, node):
        if isinstance(node, list):
            values = [self.value(item) for item in node]
            return [value for value in values if value is not ABSENT]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            (name, argument), = node.items()
            if name == "Ref":
                return self.ref(argument)
            if name == "Condition" and isinstance(argument, str):
                return self.condition(argument)
            if name.startswith("Fn::"):
                return self.function(name[4:], argument)
        values = {key: self.value(item) for key, item in node.items()}
        return {key: value for key, value in values.items() if value is not ABSENT}

    def function(self, name, argument):
        match name:
            case "If":
                condition, yes, no = argument
                return self.value(yes if self.condition(condition) else no)
            case "Equals":
                left, right = self.value(argument)
                return str(left) == str(right)
            case "Not":
                return not self.value(argument)[0]
            case "And":
                return all(self.value(argument))
            case "Or":
                return any(self.value(argument))
            case "GetAtt":
                return self.attribute(*argument)
            case "Sub":
                text, values = argument if isinstance(argument, list) else (argument, {})
                return re.sub(r"\$\{([^}]+)\}", lambda found: self.substituted(found[1], values), text)
            case "Split":
                separator, text = self.value(argument)
                return text.split(separator)
            case "FindInMap":
                table, first, second = self.value(argument)
                return self.template["Mappings"][table][str(first)][second]
            case _:
                sys.exit(f"{TEMPLATE.name}: Fn::{name} is not known to {Path(__file__).name}")

    def substituted(self, name, values):
        if name in values:
            return str(self.value(values[name]))
        name, _, attribute = name.partition(".")
        return str(self.attribute(name, attribute) if attribute else self.ref(name))


def presets(template):
    return {name: line["Spec"] for name, line in template["Mappings"]["Retention"].items()}


def lifecycle_rules(preset):
    """In the form in which S3 gives them back, from CloudFormation's."""
    rules = []
    for rule in Deployment(Retention=preset).resource("BackupBucket")["LifecycleConfiguration"]["Rules"]:
        rule = dict(rule)
        known = {"ID": rule.pop("Id"), "Status": rule.pop("Status")}
        prefix, tags = rule.pop("Prefix"), rule.pop("TagFilters", None)
        known["Filter"] = {"And": {"Prefix": prefix, "Tags": tags}} if tags else {"Prefix": prefix}
        if "ExpirationInDays" in rule:
            known["Expiration"] = {"Days": rule.pop("ExpirationInDays")}
        for same in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
            if same in rule:
                known[same] = rule.pop(same)
        # A property that this does not know must not pass as equal.
        known |= rule
        rules.append(known)
    return {"Rules": rules}


def statements(deployment, role):
    return [one for policy in deployment.resource(role)["Policies"] for one in policy["PolicyDocument"]["Statement"]]


def check_policy(deployment, expect):
    bucket = "arn:aws:s3:::the-backupbucket"
    parameters = deployment.parameters
    for role in deployment.resources("AWS::IAM::Role"):
        found = statements(deployment, role)
        sids = [one["Sid"] for one in found]
        expect(len(set(sids)) == len(sids), f"{role}: two statements have the same Sid")
        by_sid = {one["Sid"]: one for one in found}
        for sid, one in by_sid.items():
            actions, resources = listed(one["Action"]), listed(one["Resource"])
            network = sid in ("AttachToTheNetwork", "ButNotByTheCode")
            expect("NotAction" not in one and "NotResource" not in one, f"{role}: {sid} says what it is not about")
            expect(not any("*" in action for action in actions), f"{role}: {sid} has a wildcard in an action")
            if network:
                continue
            expect(one["Effect"] == "Allow", f"{role}: {sid} is not an Allow")
            expect(
                not any(word in action for action in actions for word in ("Delete", "Remove", "Bypass")),
                f"{role}: {sid} allows a delete",
            )
            expect("*" not in resources and not any(r.endswith(":*:*") for r in resources), f"{role}: {sid} is about *")
            for action in actions:
                service, _, name = action.partition(":")
                if service == "s3":
                    on_bucket = name.startswith("List") and "Parts" not in name or name.startswith("GetBucket")
                    on_bucket = on_bucket or name == "GetLifecycleConfiguration"
                    if on_bucket:
                        expect(resources == [bucket], f"{role}: {sid} is about {resources}, not {bucket}")
                    else:
                        below = all(resource.startswith(f"{bucket}/pgstow/") for resource in resources)
                        expect(below, f"{role}: {sid} is about {resources}, not {bucket}/pgstow/*")
                elif service == "secretsmanager":
                    secrets = [parameters["DatabaseSecretArn"], parameters["TargetSecretArn"]]
                    expect(resources[0] in secrets and len(resources) == 1, f"{role}: {sid} is about {resources}")
                elif sid in ("SignManifests", "SignResults"):
                    expect(
                        resources == [parameters["SignKeyArn"]] and set(actions) == set(policy.SIGN),
                        f"{role}: {sid} allows more than to sign by the one key: {actions} on {resources}",
                    )
                elif service == "kms":
                    expect("kms:ViaService" in str(one.get("Condition")), f"{role}: {sid} is not bound to a service")
        if "AttachToTheNetwork" in by_sid:
            allowed, barred = by_sid["AttachToTheNetwork"], by_sid["ButNotByTheCode"]
            bars = allowed["Action"] == barred["Action"] and barred["Effect"] == "Deny"
            expect(bars, "the function's code is not barred from EC2")
    in_network = parameters["SubnetIds"] != ""
    sids = {one["Sid"] for one in statements(deployment, "BackupRole")}
    for sid, wanted in {
        "AttachToTheNetwork": in_network,
        "EncryptBackups": parameters["BucketKmsKeyArn"] != "",
        "DecryptTheSecret": parameters["SecretKmsKeyArn"] != "",
        "SignManifests": parameters["SignKeyArn"] != "",
        "ReadTheTargetsSecret": parameters["AllowRestore"] == "true",
        "StartTheTask": parameters["HandoverClusterArn"] != "",
        "GiveTheTaskItsRoles": parameters["HandoverClusterArn"] != "",
        "EncryptTheMessage": parameters["EncryptMessages"] == "true",
    }.items():
        expect((sid in sids) == wanted, f"BackupRole: {sid} is {'missing' if wanted else 'there'}")
    pass_role = [one for one in statements(deployment, "BackupRole") if one["Action"] == "iam:PassRole"]
    for one in pass_role:
        expect(
            one["Resource"] == [parameters["HandoverTaskRoleArn"], parameters["HandoverExecutionRoleArn"]]
            and one["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
            "iam:PassRole is not bound to the task's two roles and ECS",
        )


def check_drill(deployment, expect):
    """Who verifies and drills has an identity of its own; nothing of the database is in it, or around it."""
    function = deployment.resource("DrillFunction")
    expect(function["Role"] == deployment.attribute("DrillRole", "Arn"), "DrillFunction has another role")
    expect("VpcConfig" not in function, "DrillFunction is in the database's network")
    variables = function["Environment"]["Variables"]
    wanted = {"BACKUP_STORE", "BACKUP_SNS_TOPIC_ARN", "BACKUP_METRICS_SERVICE", "LOG_FORMAT"}
    wanted |= set(signing(deployment))
    expect(set(variables) == wanted, f"DrillFunction has other settings than {wanted}: {set(variables)}")
    expect(deployment.parameters["DatabaseSecretArn"] not in str(function), "DrillFunction knows of the secret")
    writer = deployment.resource("BackupFunction")["Environment"]["Variables"]
    expect(writer["BACKUP_ALLOW_DRILL"] == "false", "BackupFunction takes drills")
    encrypts = deployment.parameters["EncryptMessages"] == "true"
    logs = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{deployment.ref('DrillLogs')}:*"
    wanted = policy.drill(
        "arn:aws:s3:::the-backupbucket",
        deployment.ref("BackupTopic"),
        bucket_key=deployment.parameters["BucketKmsKeyArn"],
        topic_key=deployment.attribute("TopicKey", "Arn") if encrypts else None,
        log=logs,
        sign_key=deployment.parameters["SignKeyArn"],
    )
    for wrong in policy.misjudged_keeping(statements(deployment, "DrillRole"), "arn:aws:s3:::the-backupbucket"):
        expect(False, f"DrillRole: {wrong}")
    found = policy.allowed(statements(deployment, "DrillRole"))
    expect(found == wanted, f"DrillRole: too much: {sorted(found - wanted)}; lacking: {sorted(wanted - found)}")
    listing, writers = (
        [one.get("Condition") for one in statements(deployment, role) if one["Sid"] == "ListBackups"]
        for role in ("DrillRole", "BackupRole")
    )
    expect(listing == writers, f"DrillRole lists by another condition than BackupRole: {listing}")
    for name in ("Verification", "Drill"):
        schedule = deployment.resource(name)
        if schedule:
            target = schedule["Target"]["Arn"]
            expect(target == deployment.attribute("DrillFunction", "Arn"), f"{name} starts {target}")


def signing(deployment):
    """The settings of signatures, which are the same for both functions: who signs is trusted."""
    signs, trusted = deployment.parameters["SignKeyArn"], deployment.parameters["VerifyKeys"]
    settings = {"BACKUP_SIGN_KEY": signs, "BACKUP_VERIFY_KEYS": " ".join(key for key in (signs, trusted) if key)}
    return {name: value for name, value in settings.items() if value}


def check_signatures(deployment, expect):
    for name in ("BackupFunction", "DrillFunction"):
        variables = deployment.resource(name)["Environment"]["Variables"]
        found = {key: value for key, value in variables.items() if key in ("BACKUP_SIGN_KEY", "BACKUP_VERIFY_KEYS")}
        expect(found == signing(deployment), f"{name} signs and trusts by {found}, not {signing(deployment)}")


def check_bucket_policy(deployment, expect):
    found = deployment.resource("BackupBucketPolicy")["PolicyDocument"]["Statement"]
    bucket = deployment.attribute("BackupBucket", "Arn")
    for wrong in policy.misjudged_tags(found, bucket):
        expect(False, f"BackupBucketPolicy: {wrong}")
    key = f"{bucket}/pgstow/shop/one/manifest.json"
    for role in ("BackupRole", "DrillRole"):
        for action in ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObjectVersionTagging"):
            refused = policy.denied(found, deployment.attribute(role, "Arn"), action, key, {"aws:SecureTransport": "true"})
            expect(refused, f"BackupBucketPolicy: {role} is not denied {action}")
    clear = policy.denied(found, "anybody", "s3:GetObject", key, {"aws:SecureTransport": "false"})
    expect(clear, "BackupBucketPolicy: clear text is not denied")


def check_rest(deployment, expect):
    topic, queue = deployment.ref("BackupTopic"), deployment.attribute("DeadLetters", "Arn")
    alarms = deployment.resources("AWS::CloudWatch::Alarm")
    for name, alarm in alarms.items():
        expect(alarm["AlarmActions"] == [topic], f"{name} does not go to the topic")
    silence = alarms["NoGoodBackup"]
    expect(silence["TreatMissingData"] == "breaching", "silence raises no alarm")
    hours = deployment.parameters["MaxAgeHours"]
    expect(silence["EvaluationPeriods"] == hours, "the alarm on silence has its own time")
    limit = int(deployment.parameters["Timeout"])
    expect(alarms["NearTheTimeLimit"]["Threshold"] == limit * 800, "the alarm on the time limit has its own limit")
    for name, schedule in deployment.resources("AWS::Scheduler::Schedule").items():
        event = json.loads(schedule["Target"]["Input"])
        expect(schedule["Target"]["DeadLetterConfig"]["Arn"] == queue, f"{name} loses what cannot be delivered")
        expect(schedule["FlexibleTimeWindow"]["Mode"] == "OFF", f"{name} is not punctual")
        if event["action"] == "backup":
            expect("<aws.scheduler.scheduled-time>" in event["event_id"], f"{name}: an event may make two backups")
            expect(event["trigger"] == "schedule", f"{name}: the trigger is not the schedule")
    function = deployment.resource("BackupFunction")
    environment = function["Environment"]["Variables"]
    expect(environment["BACKUP_STORE"] == "s3://the-backupbucket/pgstow", "the store is elsewhere")
    expect(not any("*" in str(value) or value == "" for value in environment.values()), "an empty variable is set")
    bucket = deployment.resource("BackupBucket")
    expect(all(bucket["PublicAccessBlockConfiguration"].values()), "the bucket may become public")
    expect(bucket["VersioningConfiguration"]["Status"] == "Enabled", "the bucket is not versioned")


def check(document):
    """What every deployment must hold, whatever its parameters; and the document names all of the template."""
    template = load()
    broken = []

    def expect(holds, what):
        if not holds and what not in broken:
            broken.append(what)

    # All at once and nothing at all, then each setting alone, in case one hides another.
    groups = [{}, EVERYTHING, EVERYTHING | {"EncryptMessages": "false"}]
    together = ("Handover", "Target", "Allow")
    groups += [{name: value} for name, value in EVERYTHING.items() if not name.startswith(together)]
    for given in groups:
        deployment = Deployment(**given)
        check_policy(deployment, expect)
        check_drill(deployment, expect)
        check_signatures(deployment, expect)
        check_bucket_policy(deployment, expect)
        check_rest(deployment, expect)
    for seconds in template["Parameters"]["Timeout"]["AllowedValues"]:
        check_rest(Deployment(Timeout=seconds), expect)
    missing = [name for name in EVERYTHING if name not in template["Parameters"]]
    expect(not missing, f"not parameters of the template: {missing}")
    required = [name for name, spec in template["Parameters"].items() if "Default" not in spec]
    expect(required == ["DatabaseSecretArn"], f"more than one required parameter: {required}")
    expect(
        list(presets(template)) == template["Parameters"]["Retention"]["AllowedValues"],
        "the presets of Mappings and of the parameter Retention differ",
    )
    text = Path(document).read_text()
    deployment = Deployment(**EVERYTHING)
    sids = {one["Sid"] for role in deployment.resources("AWS::IAM::Role") for one in statements(deployment, role)}
    for name in [*template["Parameters"], *sids, *template["Outputs"]]:
        expect(f"`{name}`" in text, f"{document} does not name `{name}`")
    return broken
