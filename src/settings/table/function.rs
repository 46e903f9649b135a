//! What a function may do, and who does the rest.

use super::super::setting::{Kind, Setting, flag, kind, plain};

pub const SETTINGS: &[Setting] = &[
    plain(
        "BACKUP_HANDOVER",
        "handover",
        "WHERE",
        "ecs: a Lambda function hands a backup that does not fit its time to a container task; or none [default: none]",
    ),
    plain("BACKUP_ECS_CLUSTER", "ecs.cluster", "NAME", "The cluster of that task"),
    plain(
        "BACKUP_ECS_TASK_DEFINITION",
        "ecs.task_definition",
        "NAME",
        "Its task definition: family, family:revision or ARN",
    ),
    plain(
        "BACKUP_ECS_CONTAINER",
        "ecs.container",
        "NAME",
        "The container of it that runs pgstow [default: pgstow]",
    ),
    plain(
        "BACKUP_ECS_SUBNETS",
        "ecs.subnets",
        "IDS",
        "The subnets that it may run in, separated by commas",
    ),
    plain(
        "BACKUP_ECS_SECURITY_GROUPS",
        "ecs.security_groups",
        "IDS",
        "Its security groups, separated by commas [default: the VPC's own]",
    ),
    plain(
        "BACKUP_ECS_ASSIGN_PUBLIC_IP",
        "ecs.assign_public_ip",
        "BOOL",
        "Whether it gets a public address, as in a public subnet it must [default: false]",
    ),
    plain(
        "BACKUP_ALLOW_RESTORE",
        "allow_restore",
        "BOOL",
        "Whether a Lambda function takes `restore` events [default: false]",
    ),
    plain(
        "BACKUP_ALLOW_DRILL",
        "allow_drill",
        "BOOL",
        "Whether a Lambda function takes `verify` events with a drill, which runs functions of the database: false where \
         the function may read the database's secret and another one drills [default: true]",
    ),
    kind(
        Kind::Switch,
        flag(
            "BACKUP_DRILL_UNCONFINED",
            "unconfined",
            "drill_unconfined",
            "BOOL",
            "Drill although this system cannot confine the throwaway server, which runs functions of the database \
             [default: false]",
        ),
    ),
];
