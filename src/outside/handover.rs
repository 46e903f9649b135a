//! Hands a backup that takes longer than a function may run to a container task: ECS starts the task with the same
//! request. The task has its own settings and reports its own result.

use std::fmt;

use aws_sdk_ecs::Client;
use aws_sdk_ecs::operation::run_task::RunTaskOutput;
use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, ContainerOverride, LaunchType, NetworkConfiguration, TaskOverride,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result};
use crate::outside::aws;
use crate::repository::backup_id::BackupKind;
use crate::repository::trigger::Trigger;

/// A task of ECS on Fargate that runs pgstow with settings of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerTask {
    pub cluster: String,
    /// `family`, `family:revision` or an ARN.
    pub definition: String,
    /// The container in it that gets the command.
    pub container: String,
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    pub public_ip: bool,
}

/// The backup that the task should make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub kind: BackupKind,
    pub trigger: Trigger,
    pub event_id: Option<String>,
    pub database: Option<String>,
}

pub struct Handover {
    client: Client,
    task: ContainerTask,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HandoverStatus {
    HandedOver,
}

/// A backup that a container task makes now.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct HandoverReport {
    /// `handed_over`.
    pub status: HandoverStatus,
    /// ARN of the task that makes the backup.
    pub task: String,
    pub cluster: String,
    /// Why it was not made here.
    pub reason: String,
}

impl Handover {
    pub fn new(client: Client, task: ContainerTask) -> Self {
        Self { client, task }
    }

    /// Starts the task. If the same request comes twice, as with a retried event, only one task starts: ECS
    /// recognises it by its token.
    pub async fn start(&self, asked: &Asked, why: &Error) -> Result<HandoverReport> {
        let task = &self.task;
        let network = AwsVpcConfiguration::builder()
            .set_subnets(Some(task.subnets.clone()))
            .set_security_groups((!task.security_groups.is_empty()).then(|| task.security_groups.clone()))
            .assign_public_ip(match task.public_ip {
                true => AssignPublicIp::Enabled,
                false => AssignPublicIp::Disabled,
            })
            .build()
            .map_err(|error| Error::internal("cannot build the task's network").source(error))?;
        let container = ContainerOverride::builder()
            .name(&task.container)
            .set_command(Some(command(asked)))
            .build();
        let started = self
            .client
            .run_task()
            .cluster(&task.cluster)
            .task_definition(&task.definition)
            .launch_type(LaunchType::Fargate)
            .network_configuration(NetworkConfiguration::builder().awsvpc_configuration(network).build())
            .overrides(TaskOverride::builder().container_overrides(container).build())
            .set_client_token(asked.event_id.as_deref().map(token))
            .started_by("pgstow")
            .send()
            .await
            .map_err(|error| {
                let what = format!("cannot hand the backup over to {}", task.definition);
                aws::error_needing(Code::Deadline, &what, &error, &["ecs:RunTask"], &task.definition)
            })?;
        Ok(HandoverReport {
            status: HandoverStatus::HandedOver,
            task: self.arn(&started)?,
            cluster: task.cluster.clone(),
            reason: why.message(),
        })
    }

    /// The request can succeed although ECS did not start the task.
    fn arn(&self, started: &RunTaskOutput) -> Result<String> {
        if let Some(arn) = started.tasks().first().and_then(|task| task.task_arn()) {
            return Ok(arn.to_owned());
        }
        let failures = started.failures().iter().map(|failure| {
            let detail = failure.detail().unwrap_or_default();
            format!("{} {detail}", failure.reason().unwrap_or("no reason given"))
        });
        let failures: Vec<String> = failures.map(|failure| failure.trim().to_owned()).collect();
        Err(Error::new(
            Code::Deadline,
            format!("ECS has not started {}: {}", self.task.definition, failures.join("; ")),
        )
        .hint("check the cluster's capacity, the subnets and the task definition"))
    }
}

/// The command of the task's container. It holds no secret: secrets are in the task's own settings.
fn command(asked: &Asked) -> Vec<String> {
    let trigger = match asked.trigger {
        // The command line has no trigger `api`.
        Trigger::Api => Trigger::Manual,
        trigger => trigger,
    };
    let mut words = vec!["backup".to_owned(), "--json".to_owned(), format!("--trigger={trigger}")];
    if asked.kind != BackupKind::Full {
        words.push(format!("--kind={}", asked.kind));
    }
    // As one word, so that a value that begins with a dash is not read as an option.
    words.extend(asked.event_id.iter().map(|id| format!("--event-id={id}")));
    words.extend(asked.database.iter().map(|name| format!("--database={name}")));
    words
}

/// A token for ECS, which takes at most 64 characters, and not all that an id may have.
fn token(event_id: &str) -> String {
    hex::encode(Sha256::digest(event_id))
}

impl fmt::Display for HandoverReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "handed over to {}: {}", self.task, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_is_asked_for_the_same_backup() {
        let mut asked = Asked {
            kind: BackupKind::Full,
            trigger: Trigger::Schedule,
            event_id: Some("full-2026-01-31T04:05:00Z".into()),
            database: Some("-shop".into()),
        };
        let expected = "backup --json --trigger=schedule --event-id=full-2026-01-31T04:05:00Z --database=-shop";
        assert_eq!(command(&asked).join(" "), expected);
        asked.kind = BackupKind::Incremental;
        let expected = "backup --json --trigger=schedule --kind=incremental";
        assert!(command(&asked).join(" ").starts_with(expected));
        assert_eq!(token("full-2026-01-31T04:05:00Z").len(), 64);
    }
}
