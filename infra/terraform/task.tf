# The Fargate task: its definition, its cluster, its roles and its log, and what happens when it fails.

locals {
  container   = "pgstow"
  cluster_arn = var.cluster == null ? one(aws_ecs_cluster.this[*].arn) : var.cluster.arn
  # Every revision of this family, and of no other.
  task_family_arn = "arn:${local.partition}:ecs:${local.region}:${local.account}:task-definition/${var.name}"

  # The image's repository, where it lies in ECR: account, region, name.
  ecr = try(regex("^([0-9]{12})\\.dkr\\.ecr\\.([a-z0-9-]+)\\.amazonaws\\.com(?:\\.cn)?/([^:@]+)[:@]", var.image), null)
}

resource "aws_ecs_cluster" "this" {
  #checkov:skip=CKV_AWS_65:Container insights are paid for by the metric; pgstow sends its own.
  count = local.has_task && var.cluster == null ? 1 : 0

  name = var.name
  tags = var.tags
}

resource "aws_ecs_task_definition" "this" {
  count = local.has_task ? 1 : 0

  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.task_cpu
  memory                   = var.task_memory_mb
  task_role_arn            = aws_iam_role.task[0].arn
  execution_role_arn       = aws_iam_role.task_start[0].arn
  tags                     = var.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture == "arm64" ? "ARM64" : "X86_64"
  }

  dynamic "ephemeral_storage" {
    for_each = var.task_storage_gib[*]

    content {
      size_in_gib = ephemeral_storage.value
    }
  }

  # The only place that can be written, on the task's own disk, which is encrypted and goes with it. Fargate gives it the
  # owner and the mode that /tmp has in the image, where the image declares it as a volume.
  volume {
    name = "tmp"
  }

  container_definitions = jsonencode([
    {
      name                   = local.container
      image                  = var.image
      essential              = true
      entryPoint             = ["/usr/local/bin/pgstow"]
      command                = ["backup", "--json"]
      user                   = "65532:65532"
      readonlyRootFilesystem = true
      # A run that is told to stop aborts its upload and gives back its lease; that takes seconds, 120 is the most.
      stopTimeout = 120
      linuxParameters = {
        capabilities = { add = [], drop = ["ALL"] }
        # pgstow is not the first process, so that what pg_dump leaves is buried.
        initProcessEnabled = true
      }
      mountPoints = [{ sourceVolume = "tmp", containerPath = "/tmp", readOnly = false }]
      # In the order of the names, as AWS gives it back: otherwise every plan would show a change.
      environment = [
        for name, value in merge(local.settings, { AWS_REGION = local.region, TMPDIR = "/tmp" }) : { name = name, value = value }
      ]
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = aws_cloudwatch_log_group.task[0].name
          awslogs-region        = local.region
          awslogs-stream-prefix = "run"
        }
      }
      portMappings   = []
      systemControls = []
      volumesFrom    = []
    }
  ])
}

resource "aws_cloudwatch_log_group" "task" {
  #checkov:skip=CKV_AWS_158:CloudWatch encrypts every log; this one holds names, counts and digests, and never rows or credentials.
  count = local.has_task ? 1 : 0

  name              = "/ecs/${var.name}"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

# Two roles: what pgstow may do, and what ECS needs to start it.

resource "aws_iam_role" "task" {
  count = local.has_task ? 1 : 0

  name               = "${var.name}-task"
  description        = "What ${var.name} may do as a container task"
  assume_role_policy = data.aws_iam_policy_document.task_trust.json
  tags               = var.tags
}

resource "aws_iam_role" "task_start" {
  count = local.has_task ? 1 : 0

  name               = "${var.name}-task-start"
  description        = "What ECS needs to start ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.task_trust.json
  tags               = var.tags
}

data "aws_iam_policy_document" "task_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    # Not for another account's task, whatever ECS is asked on its behalf.
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:ecs:${local.region}:${local.account}:*"]
    }
  }
}

resource "aws_iam_role_policy" "task" {
  count = local.has_task ? 1 : 0

  name   = "backup"
  role   = aws_iam_role.task[0].id
  policy = data.aws_iam_policy_document.run.json
}

resource "aws_iam_role_policy" "task_start" {
  count = local.has_task ? 1 : 0

  name   = "start"
  role   = aws_iam_role.task_start[0].id
  policy = data.aws_iam_policy_document.task_start[0].json
}

data "aws_iam_policy_document" "task_start" {
  #checkov:skip=CKV_AWS_356:ecr:GetAuthorizationToken names no resource, so AWS takes `*` alone for it.
  count = local.has_task ? 1 : 0

  statement {
    sid       = "WriteTheLog"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.task[0].arn}:*"]
  }

  dynamic "statement" {
    for_each = local.ecr == null ? [] : ["LogInToTheRegistry"]

    content {
      sid       = statement.value
      actions   = ["ecr:GetAuthorizationToken"]
      resources = ["*"]
    }
  }

  dynamic "statement" {
    for_each = local.ecr == null ? [] : ["PullTheImage"]

    content {
      sid       = statement.value
      actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      resources = ["arn:${local.partition}:ecr:${local.ecr[1]}:${local.ecr[0]}:repository/${local.ecr[2]}"]
    }
  }
}

# What it takes to start the task: for the schedules, and for a function that hands over.
data "aws_iam_policy_document" "run_task" {
  count = local.has_task ? 1 : 0

  statement {
    sid       = "RunTheTask"
    actions   = ["ecs:RunTask"]
    resources = ["${local.task_family_arn}:*"]

    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [local.cluster_arn]
    }
  }

  statement {
    sid       = "GiveTheTaskItsRoles"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.task[0].arn, aws_iam_role.task_start[0].arn, aws_iam_role.drill.arn]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }
}

# A task that ends other than well, or does not even start, can send no message of its own.

resource "aws_cloudwatch_event_rule" "task_failed" {
  count = local.has_task ? 1 : 0

  name        = "${var.name}-task-failed"
  description = "A task of ${var.name} did not start, was stopped, or ended with an error"
  tags        = var.tags

  event_pattern = jsonencode({
    source      = ["aws.ecs"]
    detail-type = ["ECS Task State Change"]
    detail = {
      clusterArn        = [local.cluster_arn]
      taskDefinitionArn = [{ prefix = "${local.task_family_arn}:" }]
      lastStatus        = ["STOPPED"]
      "$or" = [
        # Of a backup that only lacks a copy (3) pgstow tells by itself.
        { containers = { exitCode = [{ anything-but = [0, 3] }] } },
        # Any end but that of the container itself: not started, stopped by a person or by AWS.
        { stopCode = [{ anything-but = "EssentialContainerExited" }] },
      ]
    }
  })
}

resource "aws_cloudwatch_event_target" "task_failed" {
  count = local.has_task ? 1 : 0

  rule = aws_cloudwatch_event_rule.task_failed[0].name
  arn  = aws_sns_topic.messages.arn

  input_transformer {
    input_paths = {
      exit   = "$.detail.containers[0].exitCode"
      reason = "$.detail.stoppedReason"
      code   = "$.detail.stopCode"
      task   = "$.detail.taskArn"
    }
    input_template = <<-TEXT
      "${var.name}: a task ended with exit code <exit> (<code>): <reason>"
      "task <task>, log group ${aws_cloudwatch_log_group.task[0].name}"
    TEXT
  }
}
