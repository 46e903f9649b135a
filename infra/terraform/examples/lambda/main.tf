# Nightly backups by a Lambda function, for a database that is read within 15 minutes.

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

variable "function_zip" {
  description = "Zip with the function's binary, named bootstrap."
  type        = string
}

variable "layer_arn" {
  description = "Layer version with PostgreSQL's programs."
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

provider "aws" {
  region = var.region
}

module "pgstow" {
  source = "../.."

  compute            = "lambda"
  secret_arn         = var.secret_arn
  function_zip       = var.function_zip
  layer_arns         = [var.layer_arn]
  subnet_ids         = var.subnet_ids
  security_group_ids = var.security_group_ids
}

output "pgstow" {
  description = "What was made, and the commands to go on with."
  value       = module.pgstow
}
