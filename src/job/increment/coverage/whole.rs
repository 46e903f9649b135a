//! The tables that an increment reads whole: how large they are, what they wait for, and their baselines.

use std::collections::BTreeSet;
use std::time::Duration;

use super::large_objects::CoveredObjects;
use super::{Settled, WARNED};
use crate::error::Result;
use crate::job::backup::answered;
use crate::job::backup::replicas::Replicas;
use crate::job::increment::baselines::{self, Chosen};
use crate::job::increment::context::Context;
use crate::job::increment::difference::{Action, Decision};
use crate::postgres::OlderTransactions;
use crate::units::{human_bytes, some_of};

/// How long the transactions that are older than a table's publication may go on at most, before its baseline is left
/// to the next increment.
const OLDER_TRANSACTIONS: Duration = Duration::from_secs(60);
/// Baselines of fewer bytes never make a new full better.
const CHEAP: u64 = 64 << 20;
/// Neither do baselines of at most this part of the database.
const PART: u64 = 5;
/// The most baselines of one increment: each is an argument of pg_dump.
const BASELINES: usize = 5_000;

/// Finds the sizes of the tables that are to be read.
pub(super) async fn measure(context: &Context<'_>, settled: &mut Settled) -> Result<()> {
    let tables = settled.readings();
    if tables.is_empty() {
        return Ok(());
    }
    let sizes = answered(context.job, context.source.session.sizes_of(&tables)).await?;
    for decision in &mut settled.decisions {
        if let Some(bytes) = sizes.get(&decision.oid) {
            decision.bytes = *bytes;
        }
    }
    Ok(())
}

/// Why a new full is better than these baselines.
pub(super) async fn too_much(context: &Context<'_>, settled: &Settled) -> Result<Option<String>> {
    let tables = settled.readings();
    let bytes = settled.bytes_of(&tables);
    if tables.len() > BASELINES {
        let count = tables.len();
        return Ok(Some(format!(
            "{count} tables are new or changed, and would have to be read whole"
        )));
    }
    if bytes <= CHEAP {
        return Ok(None);
    }
    let session = &context.source.session;
    let all = answered(context.job, async { Ok(session.database_bytes().await) }).await?;
    Ok(all.filter(|all| bytes > all / PART).map(|all| {
        format!(
            "tables that are new or changed have {}, more than a fifth of the database's {}, and would have to be read \
             whole",
            human_bytes(bytes),
            human_bytes(all)
        )
    }))
}

/// Waits for the transactions that may change new tables unseen; tables that cannot wait as long are postponed.
pub(super) async fn wait(context: &Context<'_>, settled: &mut Settled) -> Result<()> {
    let waits = |decision: &&Decision| matches!(&decision.action, Action::Read(reading) if reading.waits);
    let waiting: BTreeSet<u32> = settled.decisions.iter().filter(waits).map(|one| one.oid).collect();
    if waiting.is_empty() {
        return Ok(());
    }
    let session = &context.source.session;
    let stop = context.job.stop;
    let limit = match context.job.settings.postgres.lock_wait {
        Duration::ZERO => OLDER_TRANSACTIONS,
        wait => wait.min(OLDER_TRANSACTIONS),
    };
    if let OlderTransactions::Running(oldest) = session.wait_for_older(limit, stop).await? {
        let why = format!(
            "a transaction that is older than its publication goes on ({oldest}); its baseline is left to the next \
             increment"
        );
        settled.postpone(&waiting.into_iter().collect::<Vec<_>>(), &why);
    }
    Ok(())
}

/// A table that the role may not read must not stop the increments of all others: then the server keeps its log until
/// the slot is lost. The next full backup fails because of it.
async fn leave_closed(context: &Context<'_>, settled: &mut Settled) -> Result<()> {
    let tables = settled.readings();
    let closed = answered(context.job, context.source.session.closed_tables(&tables)).await?;
    if closed.is_empty() {
        return Ok(());
    }
    let named = closed.iter().filter_map(|oid| settled.looked.catalog.table(*oid));
    let names: Vec<String> = named.map(|table| format!("{}.{}", table.schema, table.name)).collect();
    let user = &context.source.session.server().user;
    settled.warnings.push(format!(
        "the role {user} may not read all rows of {}, so a full backup would fail (GRANT SELECT, BYPASSRLS)",
        some_of(&names, WARNED)
    ));
    settled.postpone(&closed, "the role may not read all of its rows");
    Ok(())
}

/// Reads the tables and the large objects that this increment has whole into the stores.
pub(super) async fn store(context: &Context<'_>, replicas: &mut Replicas, settled: &mut Settled) -> Result<()> {
    leave_closed(context, settled).await?;
    let tables = settled.readings();
    let before = settled.previous.as_ref();
    let before = before.and_then(|previous| previous.large_objects.as_ref());
    settled.large_objects = CoveredObjects::look(context, before).await?;
    let with_large_objects = settled.large_objects.are_read();
    if tables.is_empty() && !with_large_objects {
        return Ok(());
    }
    let chosen = Chosen {
        tables: &tables,
        bytes: settled.bytes_of(&tables),
        with_large_objects,
    };
    match baselines::read(context, replicas, &chosen).await? {
        Ok(stored) => {
            settled.at = Some(stored.at);
            settled.baselines = Some(stored);
        }
        Err(why) => {
            let why = format!("its baseline is left to the next increment: {why}");
            settled.postpone(&tables, &why);
            if with_large_objects {
                settled.large_objects.postpone(&why);
            }
        }
    }
    Ok(())
}
