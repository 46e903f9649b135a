# What a run may do, be it the function or the task: write and read backups below the prefix, read the one secret, send
# to the one topic. No delete anywhere: expiry is the bucket's work.

data "aws_iam_policy_document" "run" {
  statement {
    sid = "WriteAndReadBackups"
    actions = [
      "s3:PutObject",
      "s3:PutObjectTagging",
      "s3:GetObject",
      "s3:GetObjectTagging",
      "s3:AbortMultipartUpload",
      "s3:ListMultipartUploadParts",
    ]
    resources = ["${aws_s3_bucket.backups.arn}/${var.prefix}/*"]
  }

  statement {
    sid       = "ListBackups"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.backups.arn]

    # IfExists, because S3 asks for this permission also when a key that is read is not there, and such a request has no
    # prefix: without it, the answer would be AccessDenied in place of NoSuchKey.
    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = [var.prefix, "${var.prefix}/*"]
    }
  }

  # None of these knows the condition on a prefix. They tell names and settings, and no content.
  statement {
    sid       = "SeeUnfinishedUploadsAndRules"
    actions   = ["s3:ListBucketMultipartUploads", "s3:GetLifecycleConfiguration", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.backups.arn]
  }

  statement {
    sid       = "ReadTheSecret"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = compact([var.secret_arn, var.restore_secret_arn])
  }

  statement {
    sid       = "SendTheMessage"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.messages.arn]
  }

  # Called by pgstow itself, so without a condition on a service.
  dynamic "statement" {
    for_each = var.sign_key_arn[*]

    content {
      sid       = "SignManifests"
      actions   = ["kms:Sign", "kms:GetPublicKey"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = {
      for sid, use in {
        UseTheBucketsKey = { key = var.kms_key_arn, actions = ["kms:GenerateDataKey", "kms:Decrypt"], service = "s3" }
        UseTheSecretsKey = { key = var.secret_kms_key_arn, actions = ["kms:Decrypt"], service = "secretsmanager" }
        UseTheTopicsKey  = { key = local.topic_key_arn, actions = ["kms:GenerateDataKey", "kms:Decrypt"], service = "sns" }
      } : sid => use if use.key != null
    }

    content {
      sid       = statement.key
      actions   = statement.value.actions
      resources = [statement.value.key]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["${statement.value.service}.${local.region}.amazonaws.com"]
      }
    }
  }
}
