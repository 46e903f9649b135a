//! Puts rows back table by table within one transaction: each table is as in the backup, or as it was.

use std::collections::VecDeque;

use super::{FilledTables, Refill};
use crate::error::{Code, Result};
use crate::format::script::Sum;
use crate::job::restore::failed::{Loss, Losses};
use crate::job::restore::rows::{self, BlockCopy, Unloaded};
use crate::postgres::Wire;

pub(super) async fn fill(
    refill: Refill<'_>,
    wire: &mut Wire,
    copies: Vec<BlockCopy>,
    emptied: bool,
) -> Result<FilledTables> {
    let Refill { backup, work, .. } = refill;
    let mut places = places(copies);
    let mut losses = Losses::default();
    let mut compared = 0;
    let mut replaced = 0;
    // How many in a row were refused: they wait for others to be loaded.
    let mut waiting = 0;
    while let Some(copies) = places.pop_front() {
        rows::execute(wire, "SAVEPOINT one").await?;
        let unloaded = match one(refill, wire, &copies, emptied).await {
            Ok(gone) => {
                rows::execute(wire, "RELEASE SAVEPOINT one").await?;
                replaced += gone;
                compared += if work.check { copies.len() } else { 0 };
                waiting = 0;
                continue;
            }
            Err(unloaded) => unloaded,
        };
        if unloaded.may_wait() && waiting < places.len() {
            rows::execute(wire, "ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one").await?;
            places.push_back(copies);
            waiting += 1;
            continue;
        }
        let Unloaded { state, error } = unloaded;
        let about_rows = matches!(error.code(), Code::Integrity | Code::RestoreErr | Code::Permission);
        if state.is_none() && !about_rows {
            return Err(error);
        }
        rows::execute(wire, "ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one").await?;
        for copy in &copies {
            let stored = backup.stored;
            losses.note(
                stored.head.data[copy.index].dump_id,
                Loss {
                    code: error.code(),
                    state: state.as_ref().map(|state| state.code().to_owned()),
                    message: format!("{}; its rows are as they were", error.message()),
                    rows: stored.rows(copy.index),
                },
            );
        }
    }
    Ok(FilledTables {
        compared,
        losses,
        replaced: (emptied && work.check).then_some(replaced),
    })
}

/// Tables that are loaded through one root are loaded together.
fn places(copies: Vec<BlockCopy>) -> VecDeque<Vec<BlockCopy>> {
    let mut places: VecDeque<Vec<BlockCopy>> = VecDeque::new();
    for copy in copies {
        match places.iter_mut().find(|others| others[0].place == copy.place) {
            Some(others) => others.push(copy),
            None => places.push_back(vec![copy]),
        }
    }
    places
}

/// Returns how many rows were there before.
async fn one(
    refill: Refill<'_>,
    wire: &mut Wire,
    copies: &[BlockCopy],
    emptied: bool,
) -> std::result::Result<u64, Unloaded> {
    let Refill { job, backup, work } = refill;
    let [first, ..] = copies else { return Ok(0) };
    let name = backup.stored.name(first.index);
    let stall = job.settings.postgres.stall;
    let mut gone = 0;
    if emptied {
        if work.check {
            let counted = rows::count(wire, first, stall).await;
            gone = counted.map_err(|refusal| Unloaded::refused("cannot count the rows that are replaced", refusal))?;
        }
        let emptying = wire.execute(&[b"TRUNCATE TABLE ", &*first.place].concat()).await;
        emptying.map_err(|refusal| Unloaded::refused(&format!("cannot empty {name}"), refusal))?;
    }
    let again = |refusal| Unloaded::refused("cannot read the rows again", refusal);
    if work.check && rows::read_between(wire, first, stall).await.map_err(again)?.sum != Sum::default() {
        return Err(super::not_empty(&name).into());
    }
    let mut expected = Sum::default();
    for copy in copies {
        expected.merge(work.acting.load(job, backup, wire, copy).await?);
    }
    if work.check && rows::read_between(wire, first, stall).await.map_err(again)?.sum != expected {
        return Err(super::other_rows(&name).into());
    }
    Ok(gone)
}
