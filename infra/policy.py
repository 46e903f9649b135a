"""What policies say, asked as AWS would ask them: for the tests of the template and of the Terraform module.

It knows the conditions that our policies use, and ends at any other: what is not understood must not count as a refusal.
"""

import fnmatch
import sys

TIERS = ("daily", "weekly", "monthly", "yearly", "increment")
PENDING = "pending"

# All that a drill and a verification may do: the database is in none of it, no backup can be written, and nothing deleted.
# By statement, actions and resources; `bucket` is the bucket's ARN.
READ = ("s3:GetObject", "s3:GetObjectTagging")
WRITE = ("s3:PutObject", "s3:PutObjectTagging")
RESULTS = ("verification.json", "verification.json.minisig")
KEY = ("kms:Decrypt", "kms:GenerateDataKey")
SIGN = ("kms:GetPublicKey", "kms:Sign")
LOG = ("logs:CreateLogStream", "logs:PutLogEvents")


def drill(bucket, topic, bucket_key=None, topic_key=None, log=None, sign_key=None):
    """The pairs of action and resource that the identity of drills may have: exactly these."""
    wanted = {(action, f"{bucket}/pgstow/*") for action in READ}
    wanted |= {(action, f"{bucket}/pgstow/*/{name}") for action in WRITE for name in RESULTS}
    # For `latest` alone: see misjudged_keeping.
    wanted.add(("s3:PutObjectTagging", f"{bucket}/pgstow/*"))
    wanted |= {("s3:ListBucket", bucket), ("sns:Publish", topic)}
    wanted |= {(action, key) for action in KEY for key in (bucket_key, topic_key) if key}
    wanted |= {(action, sign_key) for action in SIGN if sign_key}
    return wanted | ({(action, log) for action in LOG} if log else set())


def allowed(statements):
    """What statements allow, as pairs of action and resource."""
    pairs = set()
    for one in statements:
        if one["Effect"] == "Allow":
            pairs |= {(action, resource) for action in listed(one["Action"]) for resource in listed(one["Resource"])}
    return pairs


def listed(value):
    return value if isinstance(value, list) else [value]


def denied(statements, principal, action, resource, context):
    """Whether one of a resource's statements denies the request."""
    return any(
        one["Effect"] == "Deny"
        and is_about(one["Principal"], principal)
        and matches(one["Action"], action)
        and matches(one["Resource"], resource)
        and all(holds(operator, keys, context) for operator, keys in one.get("Condition", {}).items())
        for one in statements
    )


def permitted(statements, action, resource, context):
    """Whether one of an identity's statements allows the request; none of ours denies."""
    return any(
        one["Effect"] == "Allow"
        and matches(one["Action"], action)
        and matches(one["Resource"], resource)
        and all(holds(operator, keys, context) for operator, keys in one.get("Condition", {}).items())
        for one in statements
    )


def misjudged_keeping(statements, bucket):
    """The tags on which the identity of drills decides wrongly: it makes a backup stay, and never lets one go."""
    wrong = []
    for after in (*TIERS, PENDING, "latest", None):
        context = {"s3:RequestObjectTag/pgstow-tier": after} if after else {}
        for action in ("s3:PutObjectTagging", "s3:PutObjectVersionTagging"):
            allows = permitted(statements, action, f"{bucket}/pgstow/shop/one/shop.dump", context)
            if allows != (after == "latest" and action == "s3:PutObjectTagging"):
                wrong.append(f"{action} to {after} is {'allowed' if allows else 'not allowed'}")
    return wrong


def is_about(principals, principal):
    return principals == "*" or matches(principals.get("AWS", []), principal)


def matches(patterns, value):
    return any(fnmatch.fnmatchcase(value, pattern) for pattern in listed(patterns))


def holds(operator, keys, context):
    if operator not in ("StringEquals", "Bool"):
        sys.exit(f"policy.py does not know the condition {operator}")
    return all(key in context and context[key] in listed(values) for key, values in keys.items())


def misjudged_tags(statements, bucket):
    """The changes of a tag on which a bucket's policy decides wrongly: nobody gives `pending` to what has its tier, and
    what pgstow itself does stays allowed."""
    tags = (*TIERS, PENDING, "latest", None)
    wrong = []
    for action in ("s3:PutObjectTagging", "s3:PutObjectVersionTagging"):
        for before in tags:
            for after in tags:
                context = {"aws:SecureTransport": "true"}
                if before:
                    context["s3:ExistingObjectTag/pgstow-tier"] = before
                if after:
                    context["s3:RequestObjectTag/pgstow-tier"] = after
                refused = denied(statements, "anybody", action, f"{bucket}/pgstow/shop/one/shop.dump", context)
                if refused != (before in TIERS and after == PENDING):
                    wrong.append(f"{action} from {before} to {after} is {'denied' if refused else 'not denied'}")
    return wrong
