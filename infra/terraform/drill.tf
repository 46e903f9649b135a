# Who verifies and drills, as a task. A drill runs functions of the database (docs/security.md), so its role reads the
# store, writes its result and tells of it, and cannot read the secret.

locals {
  # By its name, so that it is known before it is made.
  drill_role_arn = "arn:${local.partition}:iam::${local.account}:role/${var.name}-drill"
}

resource "aws_iam_role" "drill" {
  count = local.has_task ? 1 : 0

  name               = "${var.name}-drill"
  description        = "What ${var.name} may do when it verifies and drills"
  assume_role_policy = data.aws_iam_policy_document.task_trust.json
  tags               = var.tags
}

resource "aws_iam_role_policy" "drill" {
  count = local.has_task ? 1 : 0

  name   = "drill"
  role   = aws_iam_role.drill[0].id
  policy = data.aws_iam_policy_document.drill.json
}

data "aws_iam_policy_document" "drill" {
  statement {
    sid       = "ReadBackups"
    actions   = ["s3:GetObject", "s3:GetObjectTagging"]
    resources = ["${aws_s3_bucket.backups.arn}/${var.prefix}/*"]
  }

  statement {
    sid     = "WriteTheResult"
    actions = ["s3:PutObject", "s3:PutObjectTagging"]
    resources = [
      "${aws_s3_bucket.backups.arn}/${var.prefix}/*/verification.json",
      "${aws_s3_bucket.backups.arn}/${var.prefix}/*/verification.json.minisig",
    ]
  }

  statement {
    sid       = "ListBackups"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.backups.arn]

    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = [var.prefix, "${var.prefix}/*"]
    }
  }

  statement {
    sid       = "SendTheMessage"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.messages.arn]
  }

  dynamic "statement" {
    for_each = {
      for sid, use in {
        UseTheBucketsKey = { key = var.kms_key_arn, service = "s3" }
        UseTheTopicsKey  = { key = local.topic_key_arn, service = "sns" }
      } : sid => use if use.key != null
    }

    content {
      sid       = statement.key
      actions   = ["kms:GenerateDataKey", "kms:Decrypt"]
      resources = [statement.value.key]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["${statement.value.service}.${local.region}.amazonaws.com"]
      }
    }
  }
}
