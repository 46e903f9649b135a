# When what is started, by EventBridge Scheduler. Backups go to the function where there is one; verify and drill to the
# task where there is one, since they read everything and have no use for a limit of 15 minutes, otherwise to a function of
# their own.

locals {
  # The scheduled time names the event: it is the same for a retry and for a duplicate, which so make one backup.
  event_ids = {
    full        = "full-<aws.scheduler.scheduled-time>"
    incremental = "incremental-<aws.scheduler.scheduled-time>"
  }

  planned = {
    for name, schedule in {
      full = {
        when    = var.full_schedule
        to_task = !local.has_function
        event   = { action = "backup", kind = "full", trigger = "schedule", event_id = local.event_ids.full }
        command = ["backup", "--json", "--kind", "full", "--trigger", "schedule", "--event-id", local.event_ids.full]
      }
      incremental = {
        when    = var.incremental_schedule
        to_task = !local.has_function
        event   = { action = "backup", kind = "incremental", trigger = "schedule", event_id = local.event_ids.incremental }
        command = ["backup", "--json", "--kind", "incremental", "--trigger", "schedule", "--event-id", local.event_ids.incremental]
      }
      verify = {
        when    = var.verify_schedule
        to_task = local.has_task
        event   = { action = "verify", backup = "latest", drill = false }
        command = ["verify", "latest", "--json"]
      }
      drill = {
        when    = var.drill_schedule
        to_task = local.has_task
        event   = { action = "verify", backup = "latest", drill = true }
        command = ["verify", "latest", "--drill", "--json"]
      }
    } : name => schedule if schedule.when != null
  }

  # Who only reads the store has a role for that.
  only_reads = ["verify", "drill"]

  schedules = {
    for name, schedule in local.planned : name => {
      when    = schedule.when
      to_task = schedule.to_task
      target = (
        schedule.to_task ? local.cluster_arn
        : contains(local.only_reads, name) ? aws_lambda_function.drill[0].arn
        : aws_lambda_function.this[0].arn
      )
      input = (
        schedule.to_task
        ? jsonencode(merge(
          { containerOverrides = [{ name = local.container, command = schedule.command }] },
          contains(local.only_reads, name) ? { taskRoleArn = local.drill_role_arn } : {},
        ))
        : jsonencode(schedule.event)
      )
    }
  }
}

resource "aws_scheduler_schedule_group" "this" {
  name = var.name
  tags = var.tags
}

resource "aws_scheduler_schedule" "this" {
  #checkov:skip=CKV_AWS_297:A schedule holds a time and the name of an action, which are no secrets.
  for_each = local.schedules

  name                         = "${var.name}-${each.key}"
  group_name                   = aws_scheduler_schedule_group.this.name
  schedule_expression          = each.value.when
  schedule_expression_timezone = var.time_zone

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = each.value.target
    role_arn = aws_iam_role.schedules.arn
    # jsonencode would write `<` as \u003c, and Scheduler would find nothing to fill in.
    input = replace(replace(each.value.input, "\\u003c", "<"), "\\u003e", ">")

    dynamic "ecs_parameters" {
      for_each = each.value.to_task ? ["Fargate"] : []

      content {
        task_definition_arn = aws_ecs_task_definition.this[0].arn
        launch_type         = "FARGATE"
        platform_version    = "LATEST"
        task_count          = 1

        network_configuration {
          subnets          = var.subnet_ids
          security_groups  = var.security_group_ids
          assign_public_ip = var.assign_public_ip
        }
      }
    }

    retry_policy {
      maximum_retry_attempts       = 5
      maximum_event_age_in_seconds = 3600
    }

    dead_letter_config {
      arn = aws_sqs_queue.dead_letters.arn
    }
  }

  depends_on = [aws_iam_role_policy.schedules]
}

resource "aws_iam_role" "schedules" {
  name               = "${var.name}-schedules"
  description        = "What EventBridge Scheduler needs to start ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.schedules_trust.json
  tags               = var.tags
}

data "aws_iam_policy_document" "schedules_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_scheduler_schedule_group.this.arn]
    }
  }
}

resource "aws_iam_role_policy" "schedules" {
  name   = "start"
  role   = aws_iam_role.schedules.id
  policy = data.aws_iam_policy_document.schedules.json
}

data "aws_iam_policy_document" "schedules" {
  source_policy_documents = data.aws_iam_policy_document.run_task[*].json

  dynamic "statement" {
    for_each = local.has_function ? ["InvokeTheFunction"] : []

    content {
      sid       = statement.value
      actions   = ["lambda:InvokeFunction"]
      resources = concat(aws_lambda_function.this[*].arn, aws_lambda_function.drill[*].arn)
    }
  }

  statement {
    sid       = "GiveUpAnEvent"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.dead_letters.arn]
  }
}
