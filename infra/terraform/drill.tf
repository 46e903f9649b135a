# Who verifies and drills: the task where there is one, otherwise a function of its own. A drill runs functions of the
# database (docs/security.md), so its role reads the store, writes its result and tells of it, and cannot read the secret.

locals {
  # By its name, so that it is known before it is made.
  drill_name     = "${var.name}-drill"
  drill_role_arn = "arn:${local.partition}:iam::${local.account}:role/${local.drill_name}"

  # Nothing of the database, not even the secret's name.
  drill_settings = {
    for name, value in local.settings : name => value
    if !contains(["BACKUP_SECRET_ID", "BACKUP_TARGET_SECRET_ID"], name) && !startswith(name, "PG") && !startswith(name, "DB_")
  }
}

resource "aws_iam_role" "drill" {
  name               = local.drill_name
  description        = "What ${var.name} may do when it verifies and drills"
  assume_role_policy = local.has_task ? data.aws_iam_policy_document.task_trust.json : data.aws_iam_policy_document.function_trust.json
  tags               = var.tags
}

resource "aws_iam_role_policy" "drill" {
  name   = "drill"
  role   = aws_iam_role.drill.id
  policy = data.aws_iam_policy_document.drill.json
}

# Outside of the VPC, so that nothing in it reaches the database.
resource "aws_lambda_function" "drill" {
  #checkov:skip=CKV_AWS_50:Nothing to trace: one program, whose steps and times are in its log and its report.
  #checkov:skip=CKV_AWS_115:Two drills at once do each other no harm.
  #checkov:skip=CKV_AWS_116:The alarms see a run that fails or is killed, and the next one reads the same backup again.
  #checkov:skip=CKV_AWS_117:On purpose: see above.
  #checkov:skip=CKV_AWS_173:The environment holds names and no secrets, by a validation of the variable.
  #checkov:skip=CKV_AWS_272:Signing is the account's to set up; the code comes from where the caller says.
  count = local.has_task ? 0 : 1

  function_name = local.drill_name
  description   = "Verifies backups and restores them into a throwaway server"
  role          = aws_iam_role.drill.arn
  tags          = var.tags

  runtime       = "provided.al2023"
  handler       = "bootstrap"
  architectures = [var.architecture]
  layers        = var.layer_arns

  filename          = var.function_zip
  source_code_hash  = var.function_zip == null ? null : filebase64sha256(var.function_zip)
  s3_bucket         = try(var.function_s3.bucket, null)
  s3_key            = try(var.function_s3.key, null)
  s3_object_version = try(var.function_s3.version, null)

  timeout     = var.function_timeout_seconds
  memory_size = var.function_memory_mb

  ephemeral_storage {
    size = var.function_storage_mb
  }

  environment {
    variables = local.drill_settings
  }

  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.drill[0].name
  }

  # Without its permissions the function would be made, and refused by the log.
  depends_on = [aws_iam_role_policy.drill]
}

resource "aws_lambda_function_event_invoke_config" "drill" {
  count = local.has_task ? 0 : 1

  function_name                = aws_lambda_function.drill[0].function_name
  maximum_retry_attempts       = 1
  maximum_event_age_in_seconds = 3600
}

resource "aws_cloudwatch_log_group" "drill" {
  #checkov:skip=CKV_AWS_158:CloudWatch encrypts every log; this one holds names, counts and digests, and never rows or credentials.
  count = local.has_task ? 0 : 1

  name              = "/aws/lambda/${local.drill_name}"
  retention_in_days = var.log_retention_days
  tags              = var.tags
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

  # After a check that failed, the good backup before the damaged one is kept.
  statement {
    sid       = "KeepTheOneBefore"
    actions   = ["s3:PutObjectTagging"]
    resources = ["${aws_s3_bucket.backups.arn}/${var.prefix}/*"]

    condition {
      test     = "StringEquals"
      variable = "s3:RequestObjectTag/pgstow-tier"
      values   = ["latest"]
    }
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

  # A task's log is written by ECS.
  dynamic "statement" {
    for_each = aws_cloudwatch_log_group.drill

    content {
      sid       = "WriteTheLog"
      actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      resources = ["${statement.value.arn}:*"]
    }
  }

  # Called by pgstow itself, so without a condition on a service.
  dynamic "statement" {
    for_each = var.sign_key_arn[*]

    content {
      sid       = "SignResults"
      actions   = ["kms:Sign", "kms:GetPublicKey"]
      resources = [statement.value]
    }
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
