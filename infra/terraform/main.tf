# What the other files share. Each of them is one noun: bucket, function, task, schedules, …

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  # Not `.name`, which newer providers call `.region`; `.id` is the same in all.
  region = data.aws_region.current.id

  has_function = var.compute != "fargate"
  has_task     = var.compute != "lambda"
  hands_over   = var.compute == "lambda_with_handover"

  store = "s3://${aws_s3_bucket.backups.bucket}/${var.prefix}"

  # Who signs is trusted.
  verify_keys = compact(concat([var.sign_key_arn], var.verify_keys))

  # What the function and the task are both told. No secrets: BACKUP_SECRET_ID only names one.
  settings = merge(
    {
      BACKUP_SECRET_ID       = var.secret_arn
      BACKUP_STORE           = local.store
      BACKUP_RETENTION       = var.retention
      BACKUP_KEEP_LAST       = tostring(var.keep_last)
      BACKUP_MAX_AGE         = "${var.max_age_hours}h"
      BACKUP_COMPRESSION     = var.compression
      BACKUP_SNS_TOPIC_ARN   = aws_sns_topic.messages.arn
      BACKUP_METRICS         = "emf"
      BACKUP_METRICS_SERVICE = var.name
      LOG_FORMAT             = "json"
      PGSSLMODE              = "require" # unless the secret asks for more, or var.environment says otherwise
      RUST_LOG               = "info"
    },
    var.restore_secret_arn == null ? {} : { BACKUP_TARGET_SECRET_ID = var.restore_secret_arn },
    var.sign_key_arn == null ? {} : { BACKUP_SIGN_KEY = var.sign_key_arn },
    length(local.verify_keys) == 0 ? {} : { BACKUP_VERIFY_KEYS = join(" ", local.verify_keys) },
    var.environment,
  )
}
