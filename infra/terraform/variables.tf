# What must be given: the secret, the artefact of the chosen compute, and the network.

variable "secret_arn" {
  description = "Secrets Manager secret with the database's credentials: RDS-style JSON, or a connection URL."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[^*]+$", var.secret_arn))
    error_message = "secret_arn must be the whole ARN of one Secrets Manager secret, arn:aws:secretsmanager:…:secret:NAME-xxxxxx."
  }
}

variable "compute" {
  description = "What runs the backups: lambda, fargate, or lambda_with_handover (the function hands a backup that cannot fit into its time to a Fargate task)."
  type        = string
  default     = "lambda"

  validation {
    condition     = contains(["lambda", "fargate", "lambda_with_handover"], var.compute)
    error_message = "compute must be lambda, fargate or lambda_with_handover."
  }
}

variable "function_zip" {
  description = "Path of the zip with the function's binary, named `bootstrap`. Either this or function_s3 where compute has a function."
  type        = string
  default     = null

  validation {
    condition     = var.compute == "fargate" || (var.function_zip == null) != (var.function_s3 == null)
    error_message = "compute = \"${var.compute}\" needs the function's code: set function_zip or function_s3, and not both."
  }
}

variable "function_s3" {
  description = "The same zip in a bucket: { bucket, key, version }; version is the object's version, or null."
  type = object({
    bucket  = string
    key     = string
    version = optional(string)
  })
  default = null
}

variable "layer_arns" {
  description = "Layer versions with PostgreSQL's programs below /opt/pgsql/<major>/bin; a second one with the server's programs for drills."
  type        = list(string)
  default     = []

  validation {
    condition     = var.compute == "fargate" || length(var.layer_arns) > 0
    error_message = "compute = \"${var.compute}\" needs layer_arns: without a layer the function has no pg_dump."
  }

  validation {
    condition     = alltrue([for arn in var.layer_arns : can(regex("^arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:layer:[^:]+:[0-9]+$", arn))])
    error_message = "layer_arns must be ARNs of layer versions, with their number: arn:aws:lambda:…:layer:NAME:1."
  }
}

variable "image" {
  description = "The container's image, with its tag or digest. Needed where compute has a task; in ECR, its repository is the only one that may be pulled from."
  type        = string
  default     = null

  validation {
    condition     = var.compute == "lambda" || try(length(var.image), 0) > 0
    error_message = "compute = \"${var.compute}\" needs image."
  }

  validation {
    condition     = var.image == null || can(regex("^[^\\s]+(:[A-Za-z0-9_][A-Za-z0-9_.-]*|@sha256:[0-9a-f]{64})$", var.image))
    error_message = "image must name a tag or a digest, such as 123456789012.dkr.ecr.eu-west-1.amazonaws.com/pgstow:1.0."
  }
}

variable "subnet_ids" {
  description = "Subnets from which the database, S3, Secrets Manager, SNS and CloudWatch Logs can be reached. A task needs one; a function without any runs outside the VPC."
  type        = list(string)
  default     = []

  validation {
    condition     = var.compute == "lambda" || length(var.subnet_ids) > 0
    error_message = "compute = \"${var.compute}\" needs subnet_ids: a Fargate task runs in a subnet."
  }
}

variable "security_group_ids" {
  description = "Security groups that the database lets in. Needed along with subnet_ids."
  type        = list(string)
  default     = []

  validation {
    condition     = (length(var.subnet_ids) == 0) == (length(var.security_group_ids) == 0)
    error_message = "subnet_ids and security_group_ids belong together: set both, or neither."
  }
}

variable "assign_public_ip" {
  description = "Whether the task gets a public address: for public subnets without a NAT gateway or endpoints."
  type        = bool
  default     = false
}

# Names.

variable "name" {
  description = "What everything is called, and the metrics' dimension Service. One module per database: give each its own."
  type        = string
  default     = "pgstow"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 32 lower-case letters, digits and hyphens, beginning with a letter."
  }
}

variable "tags" {
  description = "Tags for everything that can bear them."
  type        = map(string)
  default     = {}
}

# Where the backups go, and how long they stay.

variable "bucket_name" {
  description = "Name of the bucket that is made; by default <name>-<account>-<region>."
  type        = string
  default     = null

  validation {
    condition     = var.bucket_name == null || can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "bucket_name must be a name that S3 takes: 3 to 63 lower-case letters, digits, hyphens and dots."
  }
}

variable "prefix" {
  description = "Folder in the bucket under which the backups are kept."
  type        = string
  default     = "pgstow"

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$", var.prefix)) && !can(regex("(^|/)\\.\\.?(/|$)", var.prefix))
    error_message = "prefix must be a path such as pgstow or team/pg, without a slash at either end."
  }
}

variable "retention" {
  description = "How long backups are kept (BACKUP_RETENTION): 30d, 4w, or daily=7,weekly=4,monthly=12,yearly=3. The bucket's rules follow from it."
  type        = string
  default     = "30d"

  validation {
    condition = can(regex("^[1-9][0-9]{0,4}[dw]?$", var.retention)) || (
      can(regex("^(daily|weekly|monthly|yearly)=[0-9]{1,4}(,(daily|weekly|monthly|yearly)=[0-9]{1,4})*$", var.retention))
      && can(regex("=0*[1-9]", var.retention))
    )
    error_message = "retention must be a number of days or weeks (30d, 4w), or tiers such as daily=7,weekly=4,monthly=12,yearly=3, one of them above 0."
  }

  validation {
    condition = alltrue([
      for part in split(",", var.retention) :
      try(tonumber(regex("[0-9]+", part)), 0) * (
        startswith(part, "yearly") ? 366 : startswith(part, "monthly") ? 31 : startswith(part, "weekly") || endswith(part, "w") ? 7 : 1
      ) <= 36500
    ])
    error_message = "retention is at most a hundred years."
  }

  validation {
    condition = alltrue([
      for tier in ["daily", "weekly", "monthly", "yearly"] : length(regexall("${tier}=", var.retention)) <= 1
    ])
    error_message = "retention names a tier twice."
  }
}

variable "keep_last" {
  description = "So many of the newest good backups never expire, whatever the retention says."
  type        = number
  default     = 1

  validation {
    condition     = var.keep_last >= 1 && floor(var.keep_last) == var.keep_last
    error_message = "keep_last must be a whole number, 1 or more."
  }
}

variable "kms_key_arn" {
  description = "KMS key for the bucket. By default S3's own (AES256). The key's policy must let this account's IAM policies decide."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key, not of an alias: arn:aws:kms:…:key/…."
  }
}

variable "sign_key_arn" {
  description = "KMS key that signs manifests and results, of the spec ECC_NIST_P256 or ECC_NIST_EDWARDS25519 and for SIGN_VERIFY; it is trusted as well. Its policy must let this account's IAM policies decide."
  type        = string
  default     = null

  validation {
    condition     = var.sign_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[a-z0-9-]+$", var.sign_key_arn))
    error_message = "sign_key_arn must be the ARN of a key, not of an alias: arn:aws:kms:…:key/…."
  }
}

variable "verify_keys" {
  description = "Further public keys that are trusted, in base64, such as one that signed before. What none of them and not sign_key_arn has signed is refused."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for key in var.verify_keys : can(regex("^[A-Za-z0-9+/]{40,}={0,2}$", key))])
    error_message = "verify_keys must be public keys in base64, as `pgstow keygen` and `pgstow doctor` print them."
  }
}

variable "object_lock_days" {
  description = "Days for which Object Lock keeps every version from being removed by anybody; null for no lock. It cannot be taken off the bucket again."
  type        = number
  default     = null

  validation {
    condition     = var.object_lock_days == null ? true : var.object_lock_days >= 1 && floor(var.object_lock_days) == var.object_lock_days
    error_message = "object_lock_days must be a whole number, 1 or more."
  }
}

variable "object_lock_mode" {
  description = "GOVERNANCE (those with s3:BypassGovernanceRetention may lift it) or COMPLIANCE (nobody may)."
  type        = string
  default     = "GOVERNANCE"

  validation {
    condition     = contains(["GOVERNANCE", "COMPLIANCE"], var.object_lock_mode)
    error_message = "object_lock_mode must be GOVERNANCE or COMPLIANCE."
  }
}

variable "force_destroy" {
  description = "Whether `terraform destroy` may remove the bucket with the backups in it."
  type        = bool
  default     = false
}

# The database's secret, and what the run is told.

variable "secret_kms_key_arn" {
  description = "KMS key of the secret, where it is not Secrets Manager's own."
  type        = string
  default     = null

  validation {
    condition     = var.secret_kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.secret_kms_key_arn))
    error_message = "secret_kms_key_arn must be the ARN of a key, not of an alias: arn:aws:kms:…:key/…."
  }
}

variable "restore_secret_arn" {
  description = "Secret with the credentials of the database into which restores may go. With it the function takes `restore` events; by default it refuses them."
  type        = string
  default     = null

  validation {
    condition     = var.restore_secret_arn == null || can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[^*]+$", var.restore_secret_arn))
    error_message = "restore_secret_arn must be the whole ARN of one Secrets Manager secret."
  }
}

variable "compression" {
  description = "BACKUP_COMPRESSION: auto, zstd, zstd:1..19, gzip, gzip:1..9 or none."
  type        = string
  default     = "auto"

  validation {
    condition     = can(regex("^(auto|none|zstd(:(1[0-9]|[1-9]))?|gzip(:[1-9])?)$", var.compression))
    error_message = "compression must be auto, none, zstd, zstd:1..19, gzip or gzip:1..9."
  }
}

variable "environment" {
  description = "Further settings, as environment variables of the function and the task. No credentials: they belong into the secret."
  type        = map(string)
  default     = {}

  validation {
    condition = alltrue([
      for name, value in var.environment :
      !can(regex("PASSWORD|PASSPHRASE|SECRET_KEY|ACCESS_KEY|SESSION_TOKEN|^(DATABASE|BACKUP_TARGET)_URL$", name)) && !can(regex("(?i)^postgres(ql)?://", value))
    ])
    error_message = "environment must hold no credentials (passwords, keys, connection URLs): put them into the secret."
  }
}

# The function.

variable "architecture" {
  description = "arm64 or x86_64: that of the binary, the layers and the image."
  type        = string
  default     = "x86_64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture must be arm64 or x86_64."
  }
}

variable "function_memory_mb" {
  description = "The function's memory in MB; it buys processor for the compression, two cores at 3538."
  type        = number
  default     = 3538

  validation {
    condition     = var.function_memory_mb >= 512 && var.function_memory_mb <= 10240
    error_message = "function_memory_mb must be 512 to 10240."
  }
}

variable "function_timeout_seconds" {
  description = "The function's time; 900 s is the most that Lambda gives."
  type        = number
  default     = 900

  validation {
    condition     = var.function_timeout_seconds >= 60 && var.function_timeout_seconds <= 900
    error_message = "function_timeout_seconds must be 60 to 900."
  }
}

variable "function_storage_mb" {
  description = "/tmp in MB of the function that drills: room for the database."
  type        = number
  default     = 512

  validation {
    condition     = var.function_storage_mb >= 512 && var.function_storage_mb <= 10240
    error_message = "function_storage_mb must be 512 to 10240."
  }
}

variable "reserved_concurrency" {
  description = "Concurrency that is set aside for the function; null for none. The lease in the store keeps two runs of one database apart without it."
  type        = number
  default     = null

  validation {
    condition     = var.reserved_concurrency == null ? true : var.reserved_concurrency >= 1
    error_message = "reserved_concurrency must be 1 or more; 0 would switch the function off."
  }
}

# The container task.

variable "cluster" {
  description = "ECS cluster for the task, { arn }; by default one is made."
  type        = object({ arn = string })
  default     = null

  validation {
    condition     = var.cluster == null ? true : can(regex("^arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]{12}:cluster/.+$", var.cluster.arn))
    error_message = "cluster must hold the ARN of an ECS cluster."
  }
}

variable "task_cpu" {
  description = "The task's processor in units of 1/1024: 256, 512, 1024, 2048, 4096, 8192 or 16384."
  type        = number
  default     = 2048

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096, 8192, 16384], var.task_cpu)
    error_message = "task_cpu must be 256, 512, 1024, 2048, 4096, 8192 or 16384."
  }
}

variable "task_memory_mb" {
  description = "The task's memory in MB. Fargate wants two to eight times as many GB as processors."
  type        = number
  default     = 4096

  validation {
    condition     = var.task_memory_mb >= var.task_cpu * 2 && var.task_memory_mb <= var.task_cpu * 8
    error_message = "task_memory_mb must be 2 to 8 times task_cpu, as Fargate wants it."
  }
}

variable "task_storage_gib" {
  description = "The task's disk in GiB, 21 to 200; null for Fargate's 20. A backup needs none of it; a drill needs room for the database."
  type        = number
  default     = null

  validation {
    condition     = var.task_storage_gib == null ? true : var.task_storage_gib >= 21 && var.task_storage_gib <= 200
    error_message = "task_storage_gib must be 21 to 200."
  }
}

# When.

variable "time_zone" {
  description = "Time zone of the schedules, such as Europe/Berlin."
  type        = string
  default     = "UTC"

  validation {
    condition     = can(regex("^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$", var.time_zone))
    error_message = "time_zone must be the name of a time zone, such as UTC or Europe/Berlin."
  }
}

variable "full_schedule" {
  description = "When to make a full backup: cron(…) or rate(…) of EventBridge Scheduler; null for never."
  type        = string
  default     = "cron(0 2 * * ? *)"

  validation {
    condition     = var.full_schedule == null || can(regex("^(cron|rate)\\(.+\\)$", var.full_schedule))
    error_message = "full_schedule must be cron(…) or rate(…), or null."
  }
}

variable "incremental_schedule" {
  description = "When to make an increment, such as rate(15 minutes); null for never. First run `pgstow incremental start`: until then the run fails with CONFIG. Run `pgstow incremental stop` before you take it away."
  type        = string
  default     = null

  validation {
    condition     = var.incremental_schedule == null || can(regex("^(cron|rate)\\(.+\\)$", var.incremental_schedule))
    error_message = "incremental_schedule must be cron(…) or rate(…), or null."
  }
}

variable "verify_schedule" {
  description = "When to read the newest backup back, every byte; null for never."
  type        = string
  default     = "cron(0 5 ? * SUN *)"

  validation {
    condition     = var.verify_schedule == null || can(regex("^(cron|rate)\\(.+\\)$", var.verify_schedule))
    error_message = "verify_schedule must be cron(…) or rate(…), or null."
  }
}

variable "drill_schedule" {
  description = "When to restore the newest backup into a throwaway server and compare; null for never. It needs the server's programs: the second layer, or an image with them."
  type        = string
  default     = null

  validation {
    condition     = var.drill_schedule == null || can(regex("^(cron|rate)\\(.+\\)$", var.drill_schedule))
    error_message = "drill_schedule must be cron(…) or rate(…), or null."
  }
}

# Who is told, and of what.

variable "notification_emails" {
  description = "Addresses that get the one message per run and every alarm. Each must confirm its subscription."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.notification_emails : can(regex("^[^@\\s]+@[^@\\s]+$", address))])
    error_message = "notification_emails must be e-mail addresses."
  }
}

variable "topic_kms_key" {
  description = "KMS key for the topic, { arn }; by default one is made. Its policy must let cloudwatch.amazonaws.com and events.amazonaws.com use it, or alarms are lost."
  type        = object({ arn = string })
  default     = null

  validation {
    condition     = var.topic_kms_key == null ? true : can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.topic_kms_key.arn))
    error_message = "topic_kms_key must hold the ARN of a key, not of an alias. AWS's own alias/aws/sns would lose every alarm."
  }
}

variable "max_age_hours" {
  description = "The alarm on silence: so many hours without a good backup. A little more than the time between two."
  type        = number
  default     = 26

  validation {
    condition     = var.max_age_hours >= 1 && var.max_age_hours <= 168 && floor(var.max_age_hours) == var.max_age_hours
    error_message = "max_age_hours must be a whole number from 1 to 168: CloudWatch looks back seven days at most."
  }
}

variable "max_size_deviation" {
  description = "The alarm on size: the factor, either way, by which a backup may differ from the median of the last good ones."
  type        = number
  default     = 2

  validation {
    condition     = var.max_size_deviation > 1
    error_message = "max_size_deviation must be above 1."
  }
}

variable "log_retention_days" {
  description = "Days for which the logs are kept: one of the numbers that CloudWatch Logs knows."
  type        = number
  default     = 365

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be one of CloudWatch's: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, …."
  }
}
