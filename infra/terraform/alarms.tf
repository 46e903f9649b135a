# What calls for a person. All go to the topic. The metrics of the namespace `pgstow` come out of the run's own log lines
# (CloudWatch's embedded metric format); a run that does not happen sends none, which is what the first alarm is for.

locals {
  alarms = merge(
    {
      # So many hours, each without a good backup. What is missing counts as none: silence is the alarm. It begins in
      # ALARM, and ends with the first good backup.
      no-good-backup = {
        says       = "No good backup of ${var.name} within ${var.max_age_hours} hours."
        namespace  = "pgstow"
        metric     = "BackupSucceeded"
        statistic  = "Sum"
        comparison = "LessThanThreshold"
        threshold  = 1
        period     = 3600
        periods    = var.max_age_hours
        missing    = "breaching"
      }
      size-anomaly = {
        says       = "The newest backup of ${var.name} is ${var.max_size_deviation} times larger or smaller than the last ones."
        namespace  = "pgstow"
        metric     = "BackupSizeDeviation"
        statistic  = "Maximum"
        comparison = "GreaterThanThreshold"
        threshold  = var.max_size_deviation
      }
      verify-failed = {
        says      = "A backup of ${var.name} is not what its manifest says."
        namespace = "pgstow"
        metric    = "VerifyFailed"
      }
      drill-failed = {
        says      = "A backup of ${var.name} could not be restored to what it was."
        namespace = "pgstow"
        metric    = "DrillFailed"
      }
      chain-broken = {
        says      = "The increments of ${var.name} have a hole: moments in it cannot be restored."
        namespace = "pgstow"
        metric    = "ChainBroken"
      }
      chain-proof-failed = {
        says      = "The increments of ${var.name} do not lead from one full backup to the next."
        namespace = "pgstow"
        metric    = "ChainProofFailed"
      }
      increment-failed = {
        says      = "An increment of ${var.name} could not be made: until one is, the server keeps its log."
        namespace = "pgstow"
        metric    = "IncrementFailed"
      }
      recovery-point-age = {
        says       = "The newest increment of ${var.name} ends more than two hours ago."
        namespace  = "pgstow"
        metric     = "RecoveryPointAge"
        statistic  = "Maximum"
        comparison = "GreaterThanThreshold"
        threshold  = 7200
      }
      slot-wal-safe = {
        says       = "The server of ${var.name} is about to give up the slot of the increments."
        namespace  = "pgstow"
        metric     = "SlotWalSafe"
        statistic  = "Minimum"
        comparison = "LessThanThreshold"
        threshold  = 1073741824
      }
      notifications-failed = {
        says      = "${var.name} could not send its message; the run itself may be well."
        namespace = "pgstow"
        metric    = "NotificationsFailed"
      }
      dead-letters = {
        says       = "An event of ${var.name} was given up: a schedule could not start it, or the function failed of it twice."
        namespace  = "AWS/SQS"
        metric     = "ApproximateNumberOfMessagesVisible"
        statistic  = "Maximum"
        dimensions = { QueueName = aws_sqs_queue.dead_letters.name }
      }
    },
    { for name, alarm in {
      function-errors = {
        says       = "The function ${var.name} failed."
        namespace  = "AWS/Lambda"
        metric     = "Errors"
        dimensions = { FunctionName = var.name }
      }
      function-duration = {
        says       = "The function ${var.name} used 80 % of its time: the next backup may not fit."
        namespace  = "AWS/Lambda"
        metric     = "Duration"
        statistic  = "Maximum"
        comparison = "GreaterThanThreshold"
        threshold  = var.function_timeout_seconds * 1000 * 0.8
        dimensions = { FunctionName = var.name }
      }
    } : name => alarm if local.has_function },
    { for name, alarm in {
      drill-function-errors = {
        says       = "The function ${local.drill_name} failed, or was killed for want of time or memory."
        namespace  = "AWS/Lambda"
        metric     = "Errors"
        dimensions = { FunctionName = local.drill_name }
      }
    } : name => alarm if !local.has_task },
  )
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = try(each.value.dimensions, { Service = var.name })
  statistic           = try(each.value.statistic, "Sum")
  comparison_operator = try(each.value.comparison, "GreaterThanOrEqualToThreshold")
  threshold           = try(each.value.threshold, 1)
  period              = try(each.value.period, 300)
  evaluation_periods  = try(each.value.periods, 1)
  datapoints_to_alarm = try(each.value.periods, 1)
  # All is well where nothing is said, but for the alarm on silence.
  treat_missing_data = try(each.value.missing, "notBreaching")
  alarm_actions      = [aws_sns_topic.messages.arn]
  ok_actions         = try(each.value.missing, "") == "breaching" ? [aws_sns_topic.messages.arn] : []
  tags               = var.tags
}
