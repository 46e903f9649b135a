//! The record of a backup that exists: its manifest, and the warnings for people.

use super::notes::Notes;
use crate::job::backup::BackupReport;
use crate::job::backup::replicas::Replicas;
use crate::job::backup::report;
use crate::repository::backup_id::BackupId;
use crate::repository::lease::Previous;
use crate::repository::leftovers::LeftOver;
use crate::repository::manifest::Manifest;

pub(in crate::job::backup) struct Committed {
    /// The manifest that was put in the primary.
    pub(super) manifest: Manifest,
    pub(super) took_over: Option<Previous>,
    pub(super) leftovers: Vec<LeftOver>,
    pub(super) notes: Notes,
}

impl Committed {
    pub(in crate::job::backup) fn id(&self) -> &BackupId {
        &self.manifest.id
    }

    pub(in crate::job::backup) fn warn(&mut self, warning: String) {
        self.notes.warn(warning);
    }

    pub(in crate::job::backup) fn report(self, replicas: &Replicas) -> BackupReport {
        BackupReport {
            manifest_sha256: replicas.manifest_sha256(),
            signed_by: replicas.signed_by(),
            took_over: self.took_over,
            leftovers: self.leftovers,
            warnings: self.notes.warnings,
            ..report::of(&self.manifest, replicas.report())
        }
    }
}
