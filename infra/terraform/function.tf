# The Lambda function, its role and its log.

resource "aws_lambda_function" "this" {
  #checkov:skip=CKV_AWS_50:Nothing to trace: one program, whose steps and times are in its log and its report.
  #checkov:skip=CKV_AWS_115:reserved_concurrency sets it where wanted; the lease in the store keeps two runs apart.
  #checkov:skip=CKV_AWS_116:The failure destination below takes what a dead-letter queue would, and says why as well.
  #checkov:skip=CKV_AWS_117:In the VPC where subnet_ids are given; a database that is reached from outside needs none.
  #checkov:skip=CKV_AWS_173:The environment holds names and no secrets, by a validation of the variable.
  #checkov:skip=CKV_AWS_272:Signing is the account's to set up; the code comes from where the caller says.
  count = local.has_function ? 1 : 0

  function_name = var.name
  description   = "Backs up one PostgreSQL database"
  role          = aws_iam_role.function[0].arn
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

  timeout                        = var.function_timeout_seconds
  memory_size                    = var.function_memory_mb
  reserved_concurrent_executions = var.reserved_concurrency

  environment {
    variables = merge(
      # A drill runs functions of the database: not beside the secret.
      { BACKUP_ALLOW_DRILL = "false" },
      local.settings,
      var.restore_secret_arn == null ? {} : { BACKUP_ALLOW_RESTORE = "true" },
      local.hands_over ? {
        BACKUP_HANDOVER             = "ecs"
        BACKUP_ECS_CLUSTER          = local.cluster_arn
        BACKUP_ECS_TASK_DEFINITION  = aws_ecs_task_definition.this[0].arn
        BACKUP_ECS_CONTAINER        = local.container
        BACKUP_ECS_SUBNETS          = join(",", var.subnet_ids)
        BACKUP_ECS_SECURITY_GROUPS  = join(",", var.security_group_ids)
        BACKUP_ECS_ASSIGN_PUBLIC_IP = tostring(var.assign_public_ip)
      } : {},
    )
  }

  dynamic "vpc_config" {
    for_each = length(var.subnet_ids) > 0 ? ["in the VPC"] : []

    content {
      subnet_ids         = var.subnet_ids
      security_group_ids = var.security_group_ids
    }
  }

  logging_config {
    # Its lines are JSON already, and those with metrics must stay as they are.
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.function[0].name
  }

  # Without its permissions the function would be made, and refused by the VPC or the log.
  depends_on = [aws_iam_role_policy.function, aws_iam_role_policy_attachment.function_vpc]
}

resource "aws_lambda_function_event_invoke_config" "this" {
  count = local.has_function ? 1 : 0

  function_name = aws_lambda_function.this[0].function_name
  # The same event again finds its own finished backup, so that one retry is safe.
  maximum_retry_attempts       = 1
  maximum_event_age_in_seconds = 3600

  destination_config {
    on_failure {
      destination = aws_sqs_queue.dead_letters.arn
    }
  }

  # Lambda tries the destination when it is set.
  depends_on = [aws_iam_role_policy.function]
}

resource "aws_cloudwatch_log_group" "function" {
  #checkov:skip=CKV_AWS_158:CloudWatch encrypts every log; this one holds names, counts and digests, and never rows or credentials.
  count = local.has_function ? 1 : 0

  name              = "/aws/lambda/${var.name}"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

resource "aws_iam_role" "function" {
  count = local.has_function ? 1 : 0

  name               = "${var.name}-function"
  description        = "What ${var.name} may do as a Lambda function"
  assume_role_policy = data.aws_iam_policy_document.function_trust.json
  tags               = var.tags
}

# No condition on the source account: only a function of this account can be given the role, since iam:PassRole ends at
# the account, and Lambda does not promise to name its account when it tries the role while the function is made.
data "aws_iam_policy_document" "function_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy" "function" {
  count = local.has_function ? 1 : 0

  name   = "backup"
  role   = aws_iam_role.function[0].id
  policy = data.aws_iam_policy_document.function[0].json
}

data "aws_iam_policy_document" "function" {
  count = local.has_function ? 1 : 0

  source_policy_documents = concat(
    [data.aws_iam_policy_document.run.json],
    local.hands_over ? [data.aws_iam_policy_document.run_task[0].json] : [],
  )

  statement {
    sid       = "WriteTheLog"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.function[0].arn}:*"]
  }

  statement {
    sid       = "GiveUpAnEvent"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.dead_letters.arn]
  }

  # Lambda itself needs the network interfaces, with the function's role; the function's code does not. AWS's managed
  # policy for them names `*`, since the interfaces have no names beforehand.
  dynamic "statement" {
    for_each = length(var.subnet_ids) > 0 ? ["NetworkIsLambdasAlone"] : []

    content {
      sid    = statement.value
      effect = "Deny"
      actions = [
        "ec2:CreateNetworkInterface",
        "ec2:DeleteNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
        "ec2:DetachNetworkInterface",
        "ec2:AssignPrivateIpAddresses",
        "ec2:UnassignPrivateIpAddresses",
      ]
      resources = ["*"]

      condition {
        test     = "ArnEquals"
        variable = "lambda:SourceFunctionArn"
        values   = ["arn:${local.partition}:lambda:${local.region}:${local.account}:function:${var.name}"]
      }
    }
  }
}

resource "aws_iam_role_policy_attachment" "function_vpc" {
  count = local.has_function && length(var.subnet_ids) > 0 ? 1 : 0

  role       = aws_iam_role.function[0].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AWSLambdaENIManagementAccess"
}
