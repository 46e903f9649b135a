//! Whether a run's changes lead on from a full backup.

use jiff::Timestamp;

use super::{Base, Break, Full, Moment, NotABase, Run};
use crate::format::{Format, Lsn};
use crate::repository::backup_id::SKEW;

/// The full backup as a base of this run, or why it is none.
pub(super) fn base(full: &Full, run: &Run) -> Result<Base, NotABase> {
    if full.format != Format::Custom {
        return Err(NotABase::Script);
    }
    let (Some(begun), Some(end)) = (position(full), full.snapshot.end) else {
        return Err(NotABase::NoPosition);
    };
    if full.snapshot.hides_transactions() {
        return Err(NotABase::Standby);
    }
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
    let is_settled = begun >= stream.settled.unwrap_or(stream.from)
        && stream.settled_xid.is_none_or(|xid| full.snapshot.xmin >= xid);
    if !is_settled {
        return Err(NotABase::Before);
    }
    let first_needed = run.links().partition_point(|link| link.newest_xid < full.snapshot.xmin);
    // The increments before the run may hold more than the snapshot does. Before a stream's first there are none.
    if first_needed == 0 && *run.begins() != Break::Beginning {
        return Err(match begun < stream.from {
            true => NotABase::Before,
            false => NotABase::Open,
        });
    }
    Ok(Base {
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
