# Nightly backups, a weekly verification and a weekly drill by a Fargate task, for a database of any size.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }
}

variable "region" {
  description = "Region of the database."
  type        = string
}

variable "secret_arn" {
  description = "Secret with the database's credentials."
  type        = string
}

variable "image" {
  description = "pgstow's image, with its tag or digest."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets from which the database can be reached."
  type        = list(string)
}

variable "security_group_ids" {
  description = "Security groups that the database lets in."
  type        = list(string)
}

variable "notification_emails" {
  description = "Who is told."
  type        = set(string)
  default     = []
}

provider "aws" {
  region = var.region
}

module "pgstow" {
  source = "../.."

  compute             = "fargate"
  secret_arn          = var.secret_arn
  image               = var.image
  subnet_ids          = var.subnet_ids
  security_group_ids  = var.security_group_ids
  retention           = "daily=7,weekly=4,monthly=12,yearly=3"
  time_zone           = "Europe/Berlin"
  drill_schedule      = "cron(0 6 ? * SUN *)"
  task_storage_gib    = 100
  notification_emails = var.notification_emails
}

output "pgstow" {
  description = "What was made, and the commands to go on with."
  value       = module.pgstow
}
