# One topic for everything that people should hear: the one message per run, which pgstow sends, and the alarms.

resource "aws_sns_topic" "messages" {
  name              = var.name
  display_name      = var.name
  kms_master_key_id = local.topic_key_arn
  tags              = var.tags
}

resource "aws_sns_topic_subscription" "email" {
  for_each = var.notification_emails

  topic_arn = aws_sns_topic.messages.arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_sns_topic_policy" "messages" {
  arn    = aws_sns_topic.messages.arn
  policy = data.aws_iam_policy_document.topic.json
}

data "aws_iam_policy_document" "topic" {
  statement {
    sid       = "AlarmsOfThisAccount"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.messages.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:cloudwatch:${local.region}:${local.account}:alarm:${var.name}-*"]
    }
  }

  # Without a condition: EventBridge names no source account, and a message that is lost to one is worse than a stranger's
  # rule that says something to this topic.
  dynamic "statement" {
    for_each = local.has_task ? ["EventsOfTheTask"] : []

    content {
      sid       = statement.value
      actions   = ["sns:Publish"]
      resources = [aws_sns_topic.messages.arn]

      principals {
        type        = "Service"
        identifiers = ["events.amazonaws.com"]
      }
    }
  }

  statement {
    sid       = "EncryptedConnectionsOnly"
    effect    = "Deny"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.messages.arn]

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
}

# A key of the account's own, because CloudWatch and EventBridge may not use alias/aws/sns: on a topic under that key
# every alarm would be lost without a word.
locals {
  topic_key_arn = var.topic_kms_key == null ? aws_kms_key.topic[0].arn : var.topic_kms_key.arn
}

resource "aws_kms_key" "topic" {
  count = var.topic_kms_key == null ? 1 : 0

  description         = "${var.name}: messages of the backups"
  enable_key_rotation = true
  policy              = data.aws_iam_policy_document.topic_key.json
  tags                = var.tags
}

resource "aws_kms_alias" "topic" {
  count = var.topic_kms_key == null ? 1 : 0

  name          = "alias/${var.name}-messages"
  target_key_id = aws_kms_key.topic[0].key_id
}

data "aws_iam_policy_document" "topic_key" {
  #checkov:skip=CKV_AWS_109:In a key's own policy `*` is that key, and the account's IAM must be able to manage it, or nobody can.
  #checkov:skip=CKV_AWS_111:The same.
  #checkov:skip=CKV_AWS_356:The same.
  statement {
    sid       = "ThisAccountsPoliciesDecide"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${local.partition}:iam::${local.account}:root"]
    }
  }

  # This key is the topic's and nothing else's; who may publish there is said by the topic's policy.
  statement {
    sid       = "AlarmsUseIt"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }

  # EventBridge names no source account to KMS either.
  dynamic "statement" {
    for_each = local.has_task ? ["EventsUseIt"] : []

    content {
      sid       = statement.value
      actions   = ["kms:Decrypt", "kms:GenerateDataKey*"]
      resources = ["*"]

      principals {
        type        = "Service"
        identifiers = ["events.amazonaws.com"]
      }
    }
  }
}
