output "bucket" {
  description = "The bucket with the backups."
  value       = aws_s3_bucket.backups.bucket
}

output "store" {
  description = "What to give to pgstow as --store."
  value       = local.store
}

output "topic_arn" {
  description = "The topic that gets the one message per run, and the alarms."
  value       = aws_sns_topic.messages.arn
}

output "dead_letter_queue_url" {
  description = "The queue with the events that were given up."
  value       = aws_sqs_queue.dead_letters.url
}

output "log_groups" {
  description = "Where the logs are."
  value       = concat(aws_cloudwatch_log_group.function[*].name, aws_cloudwatch_log_group.drill[*].name, aws_cloudwatch_log_group.task[*].name)
}

output "function_name" {
  description = "The function; null where compute is fargate."
  value       = one(aws_lambda_function.this[*].function_name)
}

output "drill_function_name" {
  description = "The function that verifies and drills; null where the task does."
  value       = one(aws_lambda_function.drill[*].function_name)
}

output "drill_role_arn" {
  description = "The role of whoever verifies and drills, for the policies of keys of other accounts."
  value       = aws_iam_role.drill.arn
}

output "function_role_arn" {
  description = "The function's role, for the policies of keys and secrets of other accounts; null where there is no function."
  value       = one(aws_iam_role.function[*].arn)
}

output "task_role_arn" {
  description = "The task's role, for the same; null where there is no task."
  value       = one(aws_iam_role.task[*].arn)
}

output "cluster_arn" {
  description = "The task's cluster; null where compute is lambda."
  value       = local.has_task ? local.cluster_arn : null
}

output "task_definition_arn" {
  description = "The task's definition, with its revision; null where compute is lambda."
  value       = one(aws_ecs_task_definition.this[*].arn)
}

locals {
  network = "awsvpcConfiguration={subnets=[${join(",", var.subnet_ids)}],securityGroups=[${join(",", var.security_group_ids)}],assignPublicIp=${var.assign_public_ip ? "ENABLED" : "DISABLED"}}"
}

output "run_now" {
  description = "The command that makes a backup now. The alarm no-good-backup is on until the first."
  value = local.has_function ? join(" ", [
    "aws lambda invoke --region ${local.region} --function-name ${var.name} --cli-read-timeout 900",
    "--cli-binary-format raw-in-base64-out --payload '{\"action\":\"backup\"}' /dev/stdout",
    ]) : join(" ", [
    "aws ecs run-task --region ${local.region} --cluster ${local.cluster_arn} --launch-type FARGATE",
    "--task-definition ${var.name} --network-configuration '${local.network}'",
  ])
}

output "logs" {
  description = "The command that follows the logs."
  value       = "aws logs tail --region ${local.region} --follow ${local.has_task && !local.has_function ? "/ecs" : "/aws/lambda"}/${var.name}"
}
