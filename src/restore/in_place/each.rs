//! Rows put back table by table within the one transaction: each is as it is in the backup, or as it was.

use std::collections::BTreeMap;

use crate::archive::BlockContent;
use crate::error::{Code, Result};
use crate::postgres::Wire;
use crate::restore::Job;
use crate::restore::failed::{Loss, Losses};
use crate::restore::rows::{self, Backup, Copy, Unloaded};
use crate::script::Sum;

/// Says how many tables were compared, and what was refused.
pub(super) async fn fill(
    job: &Job<'_>,
    backup: Backup<'_>,
    wire: &mut Wire,
    copies: Vec<Copy>,
    (emptied, check): (bool, bool),
) -> Result<(usize, Losses)> {
    // Together what goes through one root.
    let mut places: BTreeMap<Vec<u8>, Vec<Copy>> = BTreeMap::new();
    for copy in copies {
        places.entry(copy.place.clone()).or_default().push(copy);
    }
    let mut losses = Losses::default();
    let mut compared = 0;
    for (place, copies) in &places {
        rows::execute(wire, "SAVEPOINT one").await?;
        let unloaded = match one(job, backup, wire, place, copies, (emptied, check)).await {
            Ok(()) => {
                rows::execute(wire, "RELEASE SAVEPOINT one").await?;
                compared += if check { copies.len() } else { 0 };
                continue;
            }
            Err(unloaded) => unloaded,
        };
        let Unloaded { state, error } = unloaded;
        let about_rows = matches!(error.code(), Code::Integrity | Code::RestoreErr | Code::Permission);
        if state.is_none() && !about_rows {
            return Err(error);
        }
        rows::execute(wire, "ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one").await?;
        for copy in copies {
            let stored = backup.stored;
            losses.note(
                stored.head.data[copy.index].dump_id,
                Loss {
                    code: error.code(),
                    state: state.as_ref().map(|state| state.code().to_owned()),
                    message: format!("{}; its rows are as they were", error.message()),
                    rows: match stored.promises[copy.index].content {
                        BlockContent::Table { rows } => Some(rows),
                        BlockContent::LargeObjects { .. } => None,
                    },
                },
            );
        }
    }
    Ok((compared, losses))
}

async fn one(
    job: &Job<'_>,
    backup: Backup<'_>,
    wire: &mut Wire,
    place: &[u8],
    copies: &[Copy],
    (emptied, check): (bool, bool),
) -> std::result::Result<(), Unloaded> {
    let [first, ..] = copies else { return Ok(()) };
    let name = backup.stored.name(first.index);
    if emptied {
        let emptying = wire.execute(&[b"TRUNCATE TABLE ", place].concat()).await;
        emptying.map_err(|refusal| Unloaded::refused(&format!("cannot empty {name}"), refusal))?;
    }
    let stall = job.settings.postgres.stall;
    let again = |refusal| Unloaded::refused("cannot read the rows again", refusal);
    if check && rows::read_again(wire, first, stall).await.map_err(again)?.sum != Sum::default() {
        return Err(super::not_empty(&name).into());
    }
    let mut expected = Sum::default();
    for copy in copies {
        expected.merge(rows::load(job, backup, wire, copy).await?);
    }
    if check && rows::read_again(wire, first, stall).await.map_err(again)?.sum != expected {
        return Err(super::other_rows(&name).into());
    }
    Ok(())
}
