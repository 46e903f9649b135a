# What the module makes of its variables, and what it refuses. No account: the provider is a stand-in.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { id = "eu-west-1" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
}

variables {
  secret_arn         = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/shop-AbCdEf"
  function_s3        = { bucket = "artefacts", key = "pgstow.zip" }
  layer_arns         = ["arn:aws:lambda:eu-west-1:123456789012:layer:pgstow-clients:3"]
  image              = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/pgstow:1.0"
  subnet_ids         = ["subnet-0a"]
  security_group_ids = ["sg-0a"]
}

# Which compute brings what.

run "a_function_alone" {
  command = plan

  variables {
    image = null
  }

  assert {
    condition     = length(aws_lambda_function.this) == 1 && length(aws_ecs_task_definition.this) == 0 && length(aws_ecs_cluster.this) == 0
    error_message = "compute = lambda must make the function and no task"
  }
  assert {
    condition     = length(aws_lambda_function.drill) == 1 && length(setintersection(keys(aws_lambda_function.drill[0].environment[0].variables), ["BACKUP_SECRET_ID", "BACKUP_TARGET_SECRET_ID", "PGSSLMODE"])) == 0
    error_message = "a function of its own drills, and knows nothing of the database"
  }
  assert {
    condition     = length(setintersection(keys(aws_lambda_function.this[0].environment[0].variables), ["BACKUP_SIGN_KEY", "BACKUP_VERIFY_KEYS"])) == 0
    error_message = "without a key nothing is said of signatures"
  }
  assert {
    condition     = aws_lambda_function.this[0].environment[0].variables["BACKUP_ALLOW_DRILL"] == "false"
    error_message = "the function that may read the secret refuses drills"
  }
  assert {
    condition     = toset(keys(aws_scheduler_schedule.this)) == toset(["full", "verify"])
    error_message = "by default there is a schedule for the full backup and one for verify"
  }
  assert {
    condition     = jsondecode(aws_scheduler_schedule.this["full"].target[0].input) == { action = "backup", kind = "full", trigger = "schedule", event_id = "full-<aws.scheduler.scheduled-time>" }
    error_message = "the schedule's event must be the one that the function understands"
  }
  assert {
    condition     = !strcontains(aws_scheduler_schedule.this["full"].target[0].input, "\\u003c")
    error_message = "Scheduler fills in <aws.scheduler.scheduled-time> only where it stands as it is"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["no-good-backup"].evaluation_periods == 26 && aws_cloudwatch_metric_alarm.this["no-good-backup"].treat_missing_data == "breaching"
    error_message = "silence must be an alarm"
  }
}

run "a_task_alone" {
  command = plan

  variables {
    compute              = "fargate"
    function_s3          = null
    layer_arns           = []
    drill_schedule       = "rate(7 days)"
    incremental_schedule = "rate(1 hour)"
  }

  assert {
    condition     = length(aws_lambda_function.this) == 0 && length(aws_lambda_function.drill) == 0 && length(aws_ecs_task_definition.this) == 1 && length(aws_ecs_cluster.this) == 1
    error_message = "compute = fargate must make the task and its cluster, and no function"
  }
  assert {
    condition     = alltrue([for schedule in aws_scheduler_schedule.this : schedule.target[0].ecs_parameters[0].launch_type == "FARGATE"])
    error_message = "without a function every schedule starts the task"
  }
  assert {
    condition     = jsondecode(aws_scheduler_schedule.this["drill"].target[0].input).containerOverrides[0].command == ["verify", "latest", "--drill", "--json"]
    error_message = "the drill's command"
  }
  assert {
    condition     = endswith(jsondecode(aws_scheduler_schedule.this["drill"].target[0].input).taskRoleArn, "-drill") && !can(jsondecode(aws_scheduler_schedule.this["full"].target[0].input).taskRoleArn)
    error_message = "a drill has a role of its own, a backup the task's"
  }
  assert {
    condition     = contains(jsondecode(aws_scheduler_schedule.this["incremental"].target[0].input).containerOverrides[0].command, "incremental-<aws.scheduler.scheduled-time>")
    error_message = "an incremental backup has an event id of its own"
  }
  assert {
    condition     = !contains(keys(aws_cloudwatch_metric_alarm.this), "function-errors") && length(aws_cloudwatch_event_rule.task_failed) == 1
    error_message = "a task's failure is an event, not a metric of Lambda's"
  }
}

run "a_function_that_hands_over" {
  command = plan

  variables {
    compute = "lambda_with_handover"
    cluster = { arn = "arn:aws:ecs:eu-west-1:123456789012:cluster/shared" }
  }

  assert {
    condition     = length(aws_lambda_function.this) == 1 && length(aws_ecs_task_definition.this) == 1 && length(aws_ecs_cluster.this) == 0
    error_message = "both are made, and the given cluster is used"
  }
  assert {
    condition     = length(aws_scheduler_schedule.this["full"].target[0].ecs_parameters) == 0 && length(aws_scheduler_schedule.this["verify"].target[0].ecs_parameters) == 1
    error_message = "backups begin in the function; verify reads everything, and goes to the task"
  }
}

run "no_schedule_and_no_network" {
  command = plan

  variables {
    image              = null
    full_schedule      = null
    verify_schedule    = null
    subnet_ids         = []
    security_group_ids = []
  }

  assert {
    condition     = length(aws_scheduler_schedule.this) == 0 && length(aws_lambda_function.this[0].vpc_config) == 0 && length(aws_iam_role_policy_attachment.function_vpc) == 0
    error_message = "a function outside the VPC needs no network interfaces"
  }
}

run "keys_lock_and_restore" {
  command = plan

  variables {
    kms_key_arn        = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
    topic_kms_key      = { arn = "arn:aws:kms:eu-west-1:123456789012:key/66666666-7777-8888-9999-000000000000" }
    restore_secret_arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:stage/shop-AbCdEf"
    object_lock_days   = 14
    sign_key_arn       = "arn:aws:kms:eu-west-1:123456789012:key/519e0000-2222-3333-4444-555555555555"
    verify_keys        = ["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"]
  }

  assert {
    condition     = alltrue([for variables in [aws_lambda_function.this[0].environment[0].variables, aws_lambda_function.drill[0].environment[0].variables] : variables["BACKUP_SIGN_KEY"] == var.sign_key_arn && variables["BACKUP_VERIFY_KEYS"] == join(" ", [var.sign_key_arn, var.verify_keys[0]])])
    error_message = "both functions sign by the key, and trust it and the further ones"
  }
  assert {
    condition     = alltrue([for document in [data.aws_iam_policy_document.run, data.aws_iam_policy_document.drill] : [for one in document.statement : one.resources if contains(one.actions, "kms:Sign")] == [toset([var.sign_key_arn])]])
    error_message = "both roles may sign, by that key alone"
  }

  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.backups.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
    error_message = "the bucket must use the key"
  }
  assert {
    condition     = length(aws_kms_key.topic) == 0 && aws_sns_topic.messages.kms_master_key_id == var.topic_kms_key.arn
    error_message = "the topic must use the given key, and none be made"
  }
  assert {
    condition     = one(aws_s3_bucket_object_lock_configuration.backups[0].rule).default_retention[0].days == 14
    error_message = "the bucket must be locked"
  }
}

# How long each tier is kept: the rules of `retention show`, which test.sh asks for some of these as well.

run "weeks" {
  command = plan
  variables { retention = "4w" }

  assert {
    condition     = local.expiry == { daily = 28, weekly = 28, monthly = 31, yearly = 366, increment = 9, pending = 2 }
    error_message = "4w"
  }
}

run "tiers_with_gaps" {
  command = plan
  variables { retention = "weekly=8,daily=0,yearly=2" }

  assert {
    condition     = local.expiry == { daily = 732, weekly = 56, monthly = 732, yearly = 732, increment = 9, pending = 2 }
    error_message = "weekly=8,daily=0,yearly=2"
  }
}

# Refusals. A run passes only if every variable that it lists is refused, and no other; many stand in one run because each
# run starts the provider anew.

run "refuses_what_is_malformed" {
  command = plan

  variables {
    secret_arn               = "prod/shop"
    layer_arns               = ["arn:aws:lambda:eu-west-1:123456789012:layer:without-its-version"]
    image                    = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/without-a-tag"
    cluster                  = { arn = "a-name" }
    name                     = "Capitals"
    bucket_name              = "Under_score"
    prefix                   = "slash/at/its/end/"
    retention                = "3m"
    keep_last                = 0
    kms_key_arn              = "alias/aws/s3"
    sign_key_arn             = "arn:aws:kms:eu-west-1:123456789012:alias/backups"
    verify_keys              = ["keys/backups.pub"]
    topic_kms_key            = { arn = "arn:aws:kms:eu-west-1:123456789012:alias/aws/sns" }
    secret_kms_key_arn       = "alias/secrets"
    restore_secret_arn       = "stage/shop"
    object_lock_days         = 0
    object_lock_mode         = "LEGAL"
    environment              = { DB_PASSWORD = "hunter2" }
    compression              = "zstd:20"
    architecture             = "amd64"
    function_memory_mb       = 128
    function_timeout_seconds = 3600
    function_storage_mb      = 20480
    reserved_concurrency     = 0
    task_memory_mb           = 1024
    task_storage_gib         = 500
    time_zone                = "Berlin time"
    full_schedule            = "0 2 * * *"
    incremental_schedule     = "hourly"
    verify_schedule          = "0 5 * * 0"
    drill_schedule           = ""
    notification_emails      = ["ops"]
    max_age_hours            = 200
    max_size_deviation       = 1
    log_retention_days       = 42
  }

  expect_failures = [
    var.secret_arn, var.layer_arns, var.image, var.cluster, var.name, var.bucket_name, var.prefix, var.retention,
    var.keep_last, var.kms_key_arn, var.topic_kms_key, var.secret_kms_key_arn, var.restore_secret_arn,
    var.sign_key_arn, var.verify_keys,
    var.object_lock_days, var.object_lock_mode, var.environment, var.compression, var.architecture,
    var.function_memory_mb, var.function_timeout_seconds, var.function_storage_mb, var.reserved_concurrency,
    var.task_memory_mb, var.task_storage_gib, var.time_zone, var.full_schedule, var.incremental_schedule,
    var.verify_schedule, var.drill_schedule, var.notification_emails, var.max_age_hours, var.max_size_deviation,
    var.log_retention_days,
  ]
}

run "refuses_a_function_without_code_or_pg_dump" {
  command = plan

  variables {
    function_s3        = null
    layer_arns         = []
    security_group_ids = []
    secret_arn         = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:every/*"
    retention          = "dayly=7"
    prefix             = "pg/../other"
    environment        = { SOURCE = "postgresql://backup:hunter2@db/shop" }
  }

  expect_failures = [
    var.function_zip, var.layer_arns, var.security_group_ids, var.secret_arn, var.retention, var.prefix, var.environment,
  ]
}

run "refuses_a_task_without_image_or_subnet" {
  command = plan

  variables {
    compute            = "fargate"
    image              = null
    subnet_ids         = []
    security_group_ids = []
    retention          = "daily=0,weekly=0"
    environment        = { DATABASE_URL = "shop" }
    task_cpu           = 3000
    task_memory_mb     = 8192
  }

  expect_failures = [var.image, var.subnet_ids, var.retention, var.environment, var.task_cpu]
}

run "refuses_a_tier_twice_and_code_from_two_places" {
  command = plan

  variables {
    retention    = "daily=7,daily=9"
    function_zip = "pgstow.zip"
  }

  expect_failures = [var.retention, var.function_zip]
}

run "refuses_two_hundred_years_and_another_compute" {
  command = plan

  variables {
    retention = "daily=7,yearly=200"
    compute   = "ec2"
  }

  expect_failures = [var.retention, var.compute]
}
