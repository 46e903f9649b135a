//! Full backups, and what makes one the base of increments.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::{Format, Lsn};
use crate::repository::backup_id::BackupId;
use crate::repository::manifest::{Figures, Position, Server};

/// A position in the source's log, with the time of the source's clock there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    pub lsn: Lsn,
    pub time: Timestamp,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.time, self.lsn)
    }
}

/// A full backup, as far as increments can follow it.
#[derive(Debug, Clone, PartialEq)]
pub struct Full {
    pub id: BackupId,
    pub bytes: u64,
    pub server: Server,
    pub format: Format,
    pub snapshot: Position,
    pub timestamp: Timestamp,
    pub finished_at: Timestamp,
}

impl Full {
    pub fn of(figures: &Figures, bytes: u64) -> Self {
        Self {
            id: figures.id.clone(),
            bytes,
            server: figures.server.clone(),
            format: figures.format,
            snapshot: figures.snapshot.clone(),
            timestamp: figures.timestamp,
            finished_at: figures.finished_at,
        }
    }
}

/// A full backup in a run: any moment from its end to the run's can be restored from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    pub id: BackupId,
    pub bytes: u64,
    /// The first moment: all commits that its snapshot holds are at or before it.
    pub end: Moment,
    /// The position before its snapshot.
    pub(crate) begun: Lsn,
    /// The first link with a commit that its snapshot may not hold: it can be earlier than the one that reaches the
    /// end, since a commit is in the log before others see it. The number of links if there is none.
    pub(crate) first_needed: usize,
}

/// Why a full backup is not a base in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotABase {
    Unusable(String),
    Script,
    /// Its manifest does not say where its snapshot lies.
    NoPosition,
    /// Its manifest does not say which transactions its snapshot lacks.
    Standby,
    OtherSource,
    /// It was made before the run begins.
    Before,
    /// It was made after the run ends.
    After,
    /// A transaction that it does not hold may be in an increment that is gone.
    Open,
}

impl fmt::Display for NotABase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotABase::Unusable(why) => why,
            NotABase::Script => "a plain script cannot be a base: use --format custom",
            NotABase::NoPosition => {
                "its manifest does not say where its snapshot lies in the log: an older pgstow made it, or the service \
                 hides the position"
            }
            NotABase::Standby => {
                "it was made of a standby while transactions ran, and a standby does not say which ones a snapshot lacks: \
                 make the base of the primary"
            }
            NotABase::OtherSource => "it is of another server, database or timeline than the increments",
            NotABase::Before => "it was made before the increments begin",
            NotABase::After => "it was made after the last increment",
            NotABase::Open => {
                "transactions that ran when it was made may be in increments that have expired or are missing"
            }
        })
    }
}
