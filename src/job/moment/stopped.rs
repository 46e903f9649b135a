//! The exact transaction after which a restore to a moment stops.

use jiff::Timestamp;

use super::Way;
use super::place::Place;
use crate::error::Result;
use crate::format::Lsn;
use crate::format::changes::{Selection, Transaction};
use crate::format::pgoutput::Message;
use crate::repository::manifest::Manifest;
use crate::repository::route::StopPoint;
use crate::repository::stored_changes::StoredChanges;
use crate::run::threads::apart;

/// Where the changes stop being applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// Transactions whose commit begins here or later are not applied. `None`: all of them are.
    pub cut: Option<Lsn>,
    pub place: Place,
    /// The last one that is applied. `None`: there is none in the increments.
    pub last: Option<Transaction>,
    /// The first one that is not. `None`: it is not in the increments.
    pub next: Option<Transaction>,
}

impl Stopped {
    /// Reads the few frames that tell.
    pub async fn find(way: &Way, increments: &[StoredChanges]) -> Result<Self> {
        let end = increments.last().map(|last| last.index.to).unwrap_or_default();
        let mut next = None;
        let cut = match way.stop {
            StopPoint::Lsn(lsn) => Some(lsn),
            StopPoint::Time(time) => {
                for increment in increments {
                    next = increment.first_later(time).await?;
                    if next.is_some() {
                        break;
                    }
                }
                next.map(|next| next.final_lsn)
            }
        };
        let last = last_before(increments, cut).await?;
        let latest = cut.map_or(end, |cut| cut.min(end));
        let place = match way.stop {
            StopPoint::Lsn(_) => Place::at(latest),
            StopPoint::Time(time) => Place {
                earliest: passed(way, last.as_ref(), time).min(latest),
                latest,
            },
        };
        Ok(Self { cut, place, last, next })
    }
}

/// A position that the server had reached at this time: the end of the last transaction that is applied, or a later one
/// that a backup has noted.
fn passed(way: &Way, last: Option<&Transaction>, time: Timestamp) -> Lsn {
    let reached = way.increments.iter().filter_map(|manifest: &Manifest| {
        let stream = &manifest.increment.as_ref()?.stream;
        stream
            .reached
            .is_some_and(|reached| reached <= time)
            .then_some(stream.to)
    });
    let base = (way.base_end.time <= time).then_some(way.base_end.lsn);
    let end = last.and_then(|last| last.end);
    reached.chain(base).chain(end).max().unwrap_or_default()
}

/// The last transaction whose commit begins before the position.
async fn last_before(increments: &[StoredChanges], cut: Option<Lsn>) -> Result<Option<Transaction>> {
    let is_before = move |lsn: Lsn| cut.is_none_or(|cut| lsn < cut);
    for increment in increments.iter().rev() {
        for (number, frame) in increment.index.frames.iter().enumerate().rev() {
            let (Some((first, _)), Some((since, until))) = (frame.ends, frame.times) else {
                continue;
            };
            if cut.is_some_and(|cut| first > cut) {
                continue;
            }
            let selection = Selection {
                // Other frames may have these times too; they are passed over.
                since: Some(since),
                until: Some(until),
                ..Selection::default()
            };
            let mut reading = increment.read(selection)?;
            let found = apart("last before", move || {
                let mut last = None;
                while let Some(item) = reading.next()? {
                    if item.frame > number {
                        break;
                    }
                    if let (true, Message::Commit(_), Some(transaction)) =
                        (item.frame == number, &item.message, item.transaction)
                        && is_before(transaction.final_lsn)
                    {
                        last = Some(transaction);
                    }
                }
                Ok::<_, crate::error::Error>(last)
            });
            if let Some(last) = found.await?? {
                return Ok(Some(last));
            }
        }
    }
    Ok(None)
}
