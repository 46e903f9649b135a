//! What a restore leaves out on request: by kind, or by kind and name.

mod keeping;
mod leaving;
mod members;
mod ours;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use super::plan::LeftOut;
use crate::error::Result;
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::postgres::Session;

use keeping::Keeping;
use leaving::Leaving;
use rule::named;

/// Kinds for which the target is asked, and that others can need.
const SOUGHT: [&str; 22] = [
    "AGGREGATE",
    "CAST",
    "COLLATION",
    "DOMAIN",
    "EXTENSION",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "FUNCTION",
    "MATERIALIZED VIEW",
    "OPERATOR",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "PROCEDURE",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "TABLE",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TYPE",
    "VIEW",
];
/// The entries that a restore leaves out, with the reasons: the named entries, and those that need them.
#[derive(Debug, Default)]
pub struct Exclusion {
    pub entries: HashSet<i64>,
    pub left_out: Vec<LeftOut>,
    /// The session's database does not show which entries are about members of extensions that are left out.
    pub has_open_members: bool,
}

/// The entries for members of extensions that are left out, as a session in the restore's own new database shows them.
/// `excluded`: entries that are left out already.
pub(super) async fn open_members(
    items: &[Item],
    excluded: &HashSet<i64>,
    session: &Session,
) -> Result<(HashSet<i64>, Vec<LeftOut>)> {
    let orphans = members::orphans(items, excluded, session).await?.unwrap_or_default();
    let told = items.iter().filter(|item| orphans.contains(&item.entry.dump_id));
    let told = told.map(|item| LeftOut {
        what: item.entry.to_string(),
        why: NEEDS.into(),
    });
    let told = told.collect();
    Ok((orphans, told))
}

const NEEDS: &str = "it needs an object that is left out";

/// Compares the options with the archive. An entry that needs one that is left out is left out too, unless the target
/// has that object already. With `--clean` these objects stay in the target, with everything that belongs to them.
///
/// The publications of pgstow's streams are always left out: a database with them, and without their slot, would only
/// make updates fail when a key is dropped.
pub async fn exclusion(request: &RestoreRequest, items: &[Item], session: &Session) -> Result<Exclusion> {
    let mut exclusion = requested(request, items, session).await?;
    ours::leave_out(request, items, &mut exclusion);
    Ok(exclusion)
}

async fn requested(request: &RestoreRequest, items: &[Item], session: &Session) -> Result<Exclusion> {
    let asked = named(request, items)?;
    if asked.is_empty() {
        return Ok(Exclusion::default());
    }
    if request.clean && !request.create && request.into.is_none() {
        return kept(request, items, session, &asked).await;
    }
    let excluded: Vec<&Item> = items
        .iter()
        .filter(|item| asked.contains(&item.entry.dump_id))
        .collect();
    let named: Vec<_> = excluded.iter().map(|item| super::tables::named(item)).collect();
    // A database that does not exist yet contains nothing.
    let there = match request.create {
        true => vec![false; named.len()],
        false => session.exist(&named).await?,
    };
    let kinds = |item: &Item| SOUGHT.contains(&item.entry.desc.as_str());
    let there = excluded.iter().zip(there).filter(|(item, there)| *there && kinds(item));
    let there: HashSet<i64> = there.map(|(item, _)| item.entry.dump_id).collect();
    let leaving = Leaving {
        request,
        items,
        asked: &asked,
        kept: &BTreeMap::new(),
    };
    leaving.with_orphans(&there, session).await
}

async fn kept(request: &RestoreRequest, items: &[Item], session: &Session, asked: &HashSet<i64>) -> Result<Exclusion> {
    let named: Vec<_> = items.iter().map(super::tables::named).collect();
    let exist = items.iter().zip(session.exist(&named).await?);
    let exist: HashSet<i64> = exist
        .filter_map(|(item, is_there)| is_there.then_some(item.entry.dump_id))
        .collect();
    let mut keeping = Keeping::of(items, asked, &exist);
    // With single tables, only these are removed; with rows alone, nothing is removed.
    if request.tables.is_empty() && !request.data_only {
        keeping.need(items, &exist)?;
    }
    for id in members::rows_and_grants(items, &keeping.entries, session).await? {
        keeping.keep(id);
    }
    keeping.without_lacking(items, &exist);
    let there = keeping.standing(items, &exist);
    let leaving = Leaving {
        request,
        items,
        asked,
        kept: &keeping.why,
    };
    leaving.with_orphans(&there, session).await
}

/// Whether an entry belongs to another one without a dependency in the archive.
fn names_it(item: &Item, other: &Item) -> bool {
    let (tag, name) = (&item.entry.tag, &other.entry.tag);
    match (item.entry.desc.as_str(), other.entry.desc.as_str()) {
        ("PUBLICATION TABLE" | "PUBLICATION TABLES IN SCHEMA", "PUBLICATION") => tag.starts_with(&format!("{name} ")),
        ("USER MAPPING", "SERVER") => tag.ends_with(&format!(" SERVER {name}")),
        _ => false,
    }
}
