# Private, TLS only, encrypted, versioned; it expires old backups by itself, and never the last good one.

resource "aws_s3_bucket" "backups" {
  #checkov:skip=CKV_AWS_18:Access logs need a bucket of the account's own; CloudTrail's data events serve as well, and neither is this module's to choose.
  #checkov:skip=CKV_AWS_144:A copy in another region is a second store (BACKUP_STORE takes several), which pgstow writes and proves in the same pass.
  #checkov:skip=CKV2_AWS_62:pgstow tells the topic of every run; an event per object would add nothing.
  #checkov:skip=CKV_AWS_145:kms_key_arn gives the bucket a key of the account's; AES256 is the default because a lost key is a lost backup.
  bucket        = coalesce(var.bucket_name, "${var.name}-${local.account}-${local.region}")
  force_destroy = var.force_destroy
  tags          = var.tags
}

resource "aws_s3_bucket_public_access_block" "backups" {
  bucket                  = aws_s3_bucket.backups.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "backups" {
  bucket = aws_s3_bucket.backups.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "backups" {
  bucket = aws_s3_bucket.backups.id

  rule {
    bucket_key_enabled = var.kms_key_arn == null ? null : true

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_versioning" "backups" {
  bucket = aws_s3_bucket.backups.id

  versioning_configuration {
    status = "Enabled"
  }
}

# The bucket has no `object_lock_enabled` of its own: changed later, that would replace the bucket. A versioned one takes
# the lock at any time.
resource "aws_s3_bucket_object_lock_configuration" "backups" {
  count = var.object_lock_days == null ? 0 : 1

  bucket              = aws_s3_bucket_versioning.backups.bucket
  object_lock_enabled = "Enabled"

  rule {
    default_retention {
      mode = var.object_lock_mode
      days = var.object_lock_days
    }
  }
}

# The rules that `pgstow retention show` prints, in its order: the test holds one against the other. (The provider adds
# "larger than 0 bytes" to each filter with a tag; pgstow writes nothing that is empty.)
locals {
  tier_days   = { daily = 1, weekly = 7, monthly = 31, yearly = 366 }
  tier_order  = ["daily", "weekly", "monthly", "yearly"]
  rule_prefix = "${var.prefix}/"
  # Ids are unique in a bucket, in which other stores may lie.
  rule_id = "pgstow-${substr(sha256(local.rule_prefix), 0, 8)}"

  # Days for which each tier of the policy is kept. A time alone is the tier `daily`; `weekly=0` says that there is none.
  days   = tonumber(regex("[0-9]+", var.retention)) * (endswith(var.retention, "w") ? 7 : 1)
  counts = strcontains(var.retention, "=") ? var.retention : "daily=${local.days}"
  policy = {
    for part in split(",", local.counts) :
    split("=", part)[0] => tonumber(split("=", part)[1]) * local.tier_days[split("=", part)[0]]
    if tonumber(split("=", part)[1]) > 0
  }

  # A tier that the policy lacks has its rule too, or backups that an older policy gave it would stay for ever: as long
  # as anything is kept, and not below what one of it means.
  expiry = merge(
    { for tier in local.tier_order : tier => lookup(local.policy, tier, max(local.tier_days[tier], values(local.policy)...)) },
    { increment = local.increment_days, pending = 2 },
  )

  # Two days longer than any moment can be restored: BACKUP_PITR is 7d by default, or less if the full backups of the
  # shortest tier go sooner.
  shortest       = [for tier in local.tier_order : tier if contains(keys(local.policy), tier)][0]
  increment_days = min(7, max(local.policy[local.shortest] - 2, 1)) + 2
}

resource "aws_s3_bucket_lifecycle_configuration" "backups" {
  #checkov:skip=CKV_AWS_300:The rule for uploads below does it, after 7 days; beside a dynamic block checkov does not always see it.
  bucket = aws_s3_bucket_versioning.backups.bucket

  # One rule per tier. None matches the tag `latest`, which the newest good backups bear: when backups stop, the last one
  # stays. Nor the lease, which bears no tag.
  dynamic "rule" {
    for_each = concat(local.tier_order, ["increment", "pending"])

    content {
      id     = "${local.rule_id}-${rule.value}"
      status = "Enabled"

      filter {
        and {
          prefix = local.rule_prefix
          tags   = { pgstow-tier = rule.value }
        }
      }

      expiration {
        days = local.expiry[rule.value]
      }

      # For `pending` no less than for the tiers: whoever has stolen the writer's role can give any backup any tag.
      noncurrent_version_expiration {
        noncurrent_days = 7
      }
    }
  }

  rule {
    id     = "${local.rule_id}-uploads"
    status = "Enabled"

    filter {
      prefix = local.rule_prefix
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }

    noncurrent_version_expiration {
      noncurrent_days = 30
    }
  }
}

resource "aws_s3_bucket_policy" "backups" {
  bucket = aws_s3_bucket.backups.id
  policy = data.aws_iam_policy_document.bucket.json

  # S3 refuses a policy while it is being told to block public ones.
  depends_on = [aws_s3_bucket_public_access_block.backups]
}

data "aws_iam_policy_document" "bucket" {
  statement {
    sid       = "EncryptedConnectionsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.backups.arn, "${aws_s3_bucket.backups.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  # pgstow gives `pending` to new objects, and to those that bore `latest`; never to a backup that has its tier.
  statement {
    sid       = "NoTierBecomesPending"
    effect    = "Deny"
    actions   = ["s3:PutObjectTagging", "s3:PutObjectVersionTagging"]
    resources = ["${aws_s3_bucket.backups.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "s3:ExistingObjectTag/pgstow-tier"
      values   = concat(local.tier_order, ["increment"])
    }

    condition {
      test     = "StringEquals"
      variable = "s3:RequestObjectTag/pgstow-tier"
      values   = ["pending"]
    }
  }

  # Their policies name no delete. This holds even if somebody attaches a wider one to them.
  statement {
    sid    = "WritersNeverDelete"
    effect = "Deny"
    actions = [
      "s3:DeleteObject",
      "s3:DeleteObjectVersion",
      "s3:BypassGovernanceRetention",
      "s3:PutObjectVersionTagging",
      "s3:PutLifecycleConfiguration",
      "s3:PutBucketVersioning",
      "s3:DeleteBucket",
    ]
    resources = [aws_s3_bucket.backups.arn, "${aws_s3_bucket.backups.arn}/*"]

    principals {
      type        = "AWS"
      identifiers = concat(aws_iam_role.function[*].arn, aws_iam_role.task[*].arn, [aws_iam_role.drill.arn])
    }
  }
}
