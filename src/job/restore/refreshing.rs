//! Materialized views are filled after everything else. A query may read another view through a function, and the
//! archive records no dependency for that: a refused view is tried again after others are filled.

use std::collections::HashSet;

use super::loading::Loader;
use super::prepared::PreparedArchive;
use crate::error::{Code, Result};

const REFRESH: &str = "MATERIALIZED VIEW DATA";

/// Whether an entry, as errors name it, fills a materialized view.
pub(super) fn is_refresh(what: &str) -> bool {
    what.starts_with(REFRESH)
}

/// Splits the entries that are made after the rows: those that fill materialized views come second, with everything
/// that needs them.
pub(super) fn divide(archive: &PreparedArchive) -> (Vec<i64>, Vec<i64>) {
    let of_kind = archive.items.iter().filter(|item| item.entry.desc == REFRESH);
    let mut late: HashSet<i64> = of_kind.map(|item| item.entry.dump_id).collect();
    loop {
        let before = late.len();
        let needs = archive
            .items
            .iter()
            .filter(|item| item.details.dependencies.iter().any(|id| late.contains(id)));
        let needs: Vec<i64> = needs.map(|item| item.entry.dump_id).collect();
        late.extend(needs);
        if late.len() == before {
            break;
        }
    }
    archive.plan.after.iter().partition(|id| !late.contains(id))
}

pub(super) async fn finish(loader: &Loader<'_>, list: &[i64], jobs: usize) -> Result<()> {
    let Err(error) = loader.finish("refreshes", list, jobs).await else {
        return Ok(());
    };
    if error.code() != Code::RestoreErr || list.len() < 2 {
        return Err(error);
    }
    tracing::debug!("tried again after others are filled: {}", error.message());
    let mut open = list.to_vec();
    for round in 0..list.len() {
        let end = loader.finish_past(&format!("refreshes-{round}"), &open).await?;
        let failed: HashSet<i64> = end.refused.iter().filter_map(|one| one.entry).collect();
        let tried = open.len();
        open.retain(|id| failed.contains(id));
        if open.is_empty() && end.refused.is_empty() {
            return Ok(());
        }
        if open.is_empty() || open.len() == tried {
            break;
        }
    }
    match open.is_empty() {
        true => Err(error),
        false => loader.finish("refreshes-last", &open, 1).await,
    }
}
