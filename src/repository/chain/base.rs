//! Whether a run's changes lead on from a full backup.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Break, Run};
use crate::format::{Format, Lsn};
use crate::repository::backup_id::{BackupId, SKEW};
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
            NotABase::OtherSource => "it is of another server, database or timeline than the increments",
            NotABase::Before => "it was made before the increments begin",
            NotABase::After => "it was made after the last increment",
            NotABase::Open => {
                "transactions that ran when it was made may be in increments that have expired or are missing"
            }
        })
    }
}

impl Base {
    pub(super) fn of(full: &Full, run: &Run) -> Result<Self, NotABase> {
        if full.format != Format::Custom {
            return Err(NotABase::Script);
        }
        let (Some(begun), Some(end)) = (position(full), full.snapshot.end) else {
            return Err(NotABase::NoPosition);
        };
        if is_of_another_source(full, run) {
            return Err(NotABase::OtherSource);
        }
        let Some(reached) = run.reaching(end.lsn) else {
            return Err(NotABase::After);
        };
        if !has_proved_source(full) && !fits_in_time(full, run, reached) {
            return Err(NotABase::OtherSource);
        }
        let stream = &run.first().stream;
        if begun < stream.settled.unwrap_or(stream.from) {
            return Err(NotABase::Before);
        }
        let first_needed = run
            .links()
            .partition_point(|link| link.newest_xid < full.snapshot.xmin);
        // The increments before the run may hold more than the snapshot does. Before a stream's first there are none.
        if first_needed == 0 && *run.begins() != Break::Beginning {
            return Err(NotABase::Open);
        }
        Ok(Self {
            id: full.id.clone(),
            bytes: full.bytes,
            end: Moment {
                lsn: end.lsn,
                time: end.at.unwrap_or(run.links()[reached].until),
            },
            begun,
            first_needed,
        })
    }
}

/// The position before the snapshot.
fn position(full: &Full) -> Option<Lsn> {
    full.snapshot.lsn.as_deref()?.parse().ok()
}

fn is_of_another_source(full: &Full, run: &Run) -> bool {
    let stream = &run.first().stream;
    let system = full.server.system_identifier.as_ref();
    let timeline = full.snapshot.end.and_then(|end| end.timeline);
    system.is_some_and(|system| *system != stream.system_identifier)
        || full.server.database_oid.is_some_and(|oid| oid != stream.database_oid)
        || timeline.is_some_and(|timeline| timeline != stream.timeline)
}

/// Whether its manifest has all that [`is_of_another_source`] compares.
fn has_proved_source(full: &Full) -> bool {
    let timeline = full.snapshot.end.and_then(|end| end.timeline);
    full.server.system_identifier.is_some() && full.server.database_oid.is_some() && timeline.is_some()
}

/// Whether the run was at this link when the full backup was made: after a failover, the positions of another server
/// can be the same, but not at the same time.
fn fits_in_time(full: &Full, run: &Run, reached: usize) -> bool {
    let links = run.links();
    let apart = |later: Timestamp, earlier: Timestamp| later.duration_since(earlier) > SKEW;
    let is_later = apart(full.timestamp, links[reached].until);
    let is_earlier = reached
        .checked_sub(1)
        .is_some_and(|before| apart(links[before].until, full.finished_at));
    !is_later && !is_earlier
}

