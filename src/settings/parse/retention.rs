//! How long pgstow keeps backups, and when they should be made.

use std::time::Duration;

use super::Reader;
use crate::settings::specs;
use crate::settings::{Policy, Retention, Schedule};

const RETENTION_DAYS: u32 = 30;
/// One backup each night, and two hours to make it.
const MAX_AGE: Duration = Duration::from_secs(26 * 3_600);
/// An increment each hour, and an hour for one that failed.
const INCREMENTAL_MAX_AGE: Duration = Duration::from_secs(2 * 3_600);

impl Reader<'_> {
    /// The older systems' variables. pgstow does not run by them yet: it only reads and shows them.
    pub(super) fn schedule(&self) -> Schedule {
        let text = |variable| {
            let text = self.values.get(variable)?.text().trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        Schedule {
            full: text("FULL_BACKUP_SCHEDULE"),
            incremental: text("INCREMENTAL_BACKUP_SCHEDULE"),
            cleanup: text("CLEANUP_SCHEDULE"),
        }
    }

    pub(super) fn policy(&mut self) -> Policy {
        let days = self.read("BACKUP_RETENTION_DAYS", |text| {
            specs::retention(text).and_then(|policy| match policy {
                Policy::Days(_) => Ok(policy),
                Policy::Tiers(_) => Err("expected a number of days".to_owned()),
            })
        });
        let spec = self.read("BACKUP_RETENTION", specs::retention);
        let (Some(spec), Some(days)) = (&spec, &days) else {
            return spec.or(days).unwrap_or(Policy::Days(RETENTION_DAYS));
        };
        match (
            self.values.get("BACKUP_RETENTION"),
            self.values.get("BACKUP_RETENTION_DAYS"),
        ) {
            (Some(one), Some(other)) if one.layer == other.layer && spec != days => {
                self.problems.conflict(one, other, "they give different times");
                spec.clone()
            }
            (Some(one), Some(other)) if other.layer < one.layer => days.clone(),
            _ => spec.clone(),
        }
    }

    pub(super) fn retention(&mut self) -> Retention {
        let retention = Retention {
            keep_last: self.count("BACKUP_KEEP_LAST", 1..=10_000).unwrap_or(1),
            ..Retention::of(self.of("BACKUP_RETENTION", Self::policy))
        };
        match self.read("BACKUP_PITR", specs::age) {
            Some(pitr) => {
                let retention = Retention { pitr, ..retention };
                if let Some(why) = retention.conflict() {
                    let hint = "give --pitr less, or keep full backups longer with --retention";
                    self.problems
                        .add_of("BACKUP_PITR", format!("BACKUP_PITR: {why}: {hint}"));
                }
                retention
            }
            // The default gives way to a retention that a user has chosen.
            None => retention.with_fitting_pitr(),
        }
    }

    pub(super) fn max_age(&mut self) -> Duration {
        self.read("BACKUP_MAX_AGE", specs::age).unwrap_or(MAX_AGE)
    }

    pub(super) fn incremental_max_age(&mut self) -> Duration {
        self.read("BACKUP_INCREMENTAL_MAX_AGE", specs::age)
            .unwrap_or(INCREMENTAL_MAX_AGE)
    }
}
