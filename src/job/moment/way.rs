//! The backups that lead to a moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::{StreamExt, TryStreamExt};

use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::catalog::{self, Demand, Located};
use crate::repository::chain::{History, Member, Moment, Run};
use crate::repository::manifest::Manifest;
use crate::repository::route::{RecoveryTarget, StopPoint, route};
use crate::repository::signature::Trust;
use crate::store::Store;

/// How many manifests are read at once.
const AT_ONCE: usize = 16;

/// The increments after a full, and where they stop.
pub(crate) struct Way {
    /// The first moment that the base allows.
    pub base_end: Moment,
    /// In the order of the stream, without a hole.
    pub increments: Vec<Manifest>,
    pub target: RecoveryTarget,
    pub stop: StopPoint,
}

/// `wanted` is `latest`, or the exact id of the full to begin with. The `demand` is made of the full; the increments
/// have to be signed like it.
pub(crate) async fn find(
    stores: &[Arc<dyn Store>],
    wanted: &str,
    database: Option<&str>,
    target: RecoveryTarget,
    demand: &Demand<'_>,
) -> Result<(Located, Way)> {
    let named = catalog::find(stores, wanted, database, demand).await?;
    let id = named.manifest.id.clone();
    if id.kind() != BackupKind::Full {
        let what = format!("{id} is an increment: a restore to a moment begins with a full backup");
        return Err(
            Error::config(what).hint("name a full backup, or `latest`: pgstow then finds the increments itself")
        );
    }
    let store = Arc::clone(&named.store);
    let history = history(&*store, id.database(), demand.trust).await?;
    let mut unfit = BTreeSet::new();
    if wanted != "latest" {
        let bases = history.runs().iter().flat_map(Run::bases);
        unfit.extend(bases.map(|base| base.id.clone()).filter(|other| *other != id));
    }
    let chosen = route(&history, target, &unfit, demand.now);
    let chosen = chosen.map_err(|refused| refused.into_error(id.database()))?;
    let base = match chosen.base == id {
        true => named,
        false => catalog::find(std::slice::from_ref(&store), &chosen.base.to_string(), None, demand).await?,
    };
    let of_any = Demand {
        trust: demand.trust,
        manifest: None,
        now: demand.now,
        altered: demand.altered,
    };
    let increments = manifests(&store, &chosen.increments, &of_any).await?;
    unbroken(&increments)?;
    let way = Way {
        base_end: chosen.base_end,
        increments,
        target,
        stop: chosen.stop,
    };
    Ok((base, way))
}

/// What a store has of a database.
pub(crate) async fn history(store: &dyn Store, database: &str, trust: &Trust) -> Result<History> {
    let listed = catalog::backups(store, Some(database)).await?;
    let overviews = catalog::overviews(store, listed, trust).await?;
    let members = overviews.iter().map(|overview| match overview.figures() {
        Some(figures) => {
            let flaw = (!overview.is_good()).then(|| {
                let missing = || "a file is missing, it lacks a signature, or a check found it damaged".to_owned();
                overview.flaw().unwrap_or_else(missing)
            });
            Member::of(figures, overview.listed.bytes(), flaw)
        }
        None => Member::Unusable(overview.id().clone(), overview.flaw().unwrap_or_default()),
    });
    Ok(History::of(members))
}

/// The manifests of these increments, in their order.
pub(crate) async fn manifests(store: &Arc<dyn Store>, ids: &[BackupId], demand: &Demand<'_>) -> Result<Vec<Manifest>> {
    let one = |id: String| async move {
        let located = catalog::find(std::slice::from_ref(store), &id, None, demand).await?;
        Ok::<_, Error>(located.manifest)
    };
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    futures::stream::iter(ids.into_iter().map(one))
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// The route was chosen from figures; the manifests have to say the same.
pub(crate) fn unbroken(increments: &[Manifest]) -> Result<()> {
    let mut before: Option<(&BackupId, crate::format::Lsn)> = None;
    for manifest in increments {
        let Some(increment) = &manifest.increment else {
            return Err(Error::new(Code::Integrity, format!("{} is no increment", manifest.id)));
        };
        if let Some((id, to)) = before
            && increment.stream.from != to
        {
            let what = format!(
                "{} begins at {}, but {id} before it ends at {to}",
                manifest.id, increment.stream.from
            );
            return Err(Error::new(Code::Integrity, what));
        }
        before = Some((&manifest.id, increment.stream.to));
    }
    Ok(())
}
