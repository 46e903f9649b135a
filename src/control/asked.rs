//! What a run is asked to do, and the command that it becomes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::run::{Action, Run, RunId, RunState};
use crate::command::{BackupRequest, Command, PruneRequest, VerifyRequest, VerifySelection};
use crate::error::{Error, Result};
use crate::repository::backup_id::BackupKind;
use crate::repository::trigger::Trigger;

/// The body of `POST /api/v1/runs`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// What to do.
    pub action: Action,
    /// The database, where there are several.
    #[serde(default)]
    pub database: Option<String>,
    /// `full` (the default) or `incremental`, for a backup.
    #[serde(default)]
    pub kind: Option<String>,
    /// An id or `latest` (the default), for a verification or a drill.
    #[serde(default)]
    pub backup: Option<String>,
    /// Show what would be removed, for `prune`.
    #[serde(default)]
    pub dry_run: bool,
    /// The id of a restore's plan.
    #[serde(default)]
    pub plan: Option<String>,
    /// The text that the plan wants to be typed.
    #[serde(default)]
    pub confirm: Option<String>,
}

impl RunRequest {
    /// A request that says nothing but the action.
    pub fn of(action: Action) -> Self {
        Self {
            action,
            database: None,
            kind: None,
            backup: None,
            dry_run: false,
            plan: None,
            confirm: None,
        }
    }

    /// What does the same has the same likeness.
    pub(super) fn likeness(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The command. The id of the run becomes that of the event, so that a backup that is asked for twice is made once.
    pub(super) fn command(&self, event: &str, trigger: Trigger) -> Result<Command> {
        self.check()?;
        let backup = || self.backup.clone().unwrap_or_else(|| "latest".to_owned());
        Ok(match self.action {
            Action::Backup => Command::Backup(BackupRequest {
                kind: self.backup_kind()?,
                trigger,
                event_id: Some(event.to_owned()),
                ..BackupRequest::default()
            }),
            Action::Verify | Action::Drill => {
                let mut request = VerifyRequest::of(VerifySelection::One(backup()));
                request.drill = self.action == Action::Drill;
                request.database.clone_from(&self.database);
                Command::Verify(request)
            }
            Action::Prune => Command::Prune(PruneRequest {
                dry_run: self.dry_run,
                database: self.database.clone(),
                ..PruneRequest::default()
            }),
            Action::Doctor => Command::Doctor,
            Action::Restore => return Err(Error::internal("a restore is a command of its plan")),
        })
    }

    /// The run that it becomes, as it is while it waits.
    pub(super) fn run(&self, id: RunId, database: &str, by: &Asker, now: Timestamp) -> Result<Run> {
        let kind = match self.action {
            Action::Backup => Some(self.backup_kind()?.name().to_owned()),
            _ => None,
        };
        Ok(Run {
            id,
            action: self.action,
            kind,
            database: Some(database.to_owned()),
            target: None,
            state: RunState::Queued,
            trigger: by.trigger,
            by: by.name.clone(),
            queued_at: now,
            started_at: None,
            finished_at: None,
            backup: self.backup.clone().filter(|backup| backup != "latest"),
            progress: None,
            result: None,
            error: None,
        })
    }

    /// The plan of a restore.
    pub(super) fn plan(&self) -> Result<&str> {
        self.check()?;
        let plan = self.plan.as_deref();
        plan.ok_or_else(|| Error::config("a restore needs a plan").hint(PLAN_FIRST))
    }

    fn backup_kind(&self) -> Result<BackupKind> {
        let Some(kind) = &self.kind else {
            return Ok(BackupKind::Full);
        };
        kind.parse().map_err(|_| {
            Error::config(format!("{kind:?} is no kind of backup")).hint("`kind` is \"full\" or \"incremental\"")
        })
    }

    /// A field that the action does not use is a mistake, and often a dangerous one.
    fn check(&self) -> Result<()> {
        let reads_one = matches!(self.action, Action::Verify | Action::Drill);
        let unused = [
            ("kind", self.kind.is_some() && self.action != Action::Backup),
            ("backup", self.backup.is_some() && !reads_one),
            ("dry_run", self.dry_run && self.action != Action::Prune),
            ("plan", self.plan.is_some() && self.action != Action::Restore),
            ("confirm", self.confirm.is_some() && self.action != Action::Restore),
        ];
        match unused.iter().find(|(_, is_unused)| *is_unused) {
            Some((field, _)) => Err(Error::config(format!("`{field}` has no effect on {}", self.action))
                .hint("leave it out, or ask for another action")),
            None => Ok(()),
        }
    }
}

const PLAN_FIRST: &str = "ask POST /api/v1/restore-plans for one, read it, and send its id with the confirmation";

/// A person, a program or the schedule that asks for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    pub name: String,
    pub trigger: Trigger,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    New(RunId),
    /// A run that does the same waits already, or was asked for with the same key.
    Same(RunId),
}

impl Submitted {
    /// The run, new or not.
    pub fn id(&self) -> &RunId {
        match self {
            Submitted::New(id) | Submitted::Same(id) => id,
        }
    }
}
