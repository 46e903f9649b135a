//! What a Lambda function may do, and the container task that takes over the rest.

use super::super::setting::{Setting, ValueKind, flag, kind, plain};

pub const SETTINGS: &[Setting] = &[
    plain(
        "BACKUP_HANDOVER",
        "handover",
        "WHERE",
        "ecs: a Lambda function starts a container task for a backup that it has no time for; none: it does not \
         [default: none]",
    ),
    plain(
        "BACKUP_ECS_CLUSTER",
        "ecs.cluster",
        "NAME",
        "The ECS cluster of that task",
    ),
    plain(
        "BACKUP_ECS_TASK_DEFINITION",
        "ecs.task_definition",
        "NAME",
        "The task definition: family, family:revision or ARN",
    ),
    plain(
        "BACKUP_ECS_CONTAINER",
        "ecs.container",
        "NAME",
        "The container in the task definition that runs pgstow [default: pgstow]",
    ),
    plain(
        "BACKUP_ECS_SUBNETS",
        "ecs.subnets",
        "IDS",
        "The subnets in which the task may run, separated by commas",
    ),
    plain(
        "BACKUP_ECS_SECURITY_GROUPS",
        "ecs.security_groups",
        "IDS",
        "The security groups of the task, separated by commas [default: the VPC's own]",
    ),
    plain(
        "BACKUP_ECS_ASSIGN_PUBLIC_IP",
        "ecs.assign_public_ip",
        "BOOL",
        "Whether the task gets a public address; in a public subnet it needs one [default: false]",
    ),
    plain(
        "BACKUP_ALLOW_RESTORE",
        "allow_restore",
        "BOOL",
        "Whether the Lambda function accepts `restore` events [default: false]",
    ),
    plain(
        "BACKUP_ALLOW_DRILL",
        "allow_drill",
        "BOOL",
        "Whether the Lambda function accepts `verify` events with a drill, which runs functions of the database. Set \
         it to false if the function may read the database's secret and another function runs the drills [default: \
         true]",
    ),
    kind(
        ValueKind::Switch,
        flag(
            "BACKUP_DRILL_UNCONFINED",
            "unconfined",
            "drill_unconfined",
            "BOOL",
            "Run a drill even if this system cannot confine the throwaway server, which runs functions of the \
             database [default: false]",
        ),
    ),
];
