//! Single tables: chosen, held against what the target has, and planned.

use std::collections::{HashMap, HashSet};

use super::Job;
use super::choice::{self, Choice};
use super::plan::{self, Plan};
use super::ready::Target;
use crate::archive::Item;
use crate::command::RestoreRequest;
use crate::error::{Code, Error, Result};
use crate::postgres::Named;
use crate::postgres::quoting::qualified;
use crate::stored_archive::StoredArchive;

pub(super) async fn plan(
    job: &Job<'_>,
    target: &Target,
    stored: &StoredArchive,
    items: &[Item],
    request: &RestoreRequest,
) -> Result<Plan> {
    let relations = choice::relations(stored, items, &request.tables)?;
    let named: Vec<Named<'_>> = items.iter().map(named).collect();
    let exist = target.session.exist(&named).await?;
    let exists: HashMap<i64, bool> = items.iter().map(|item| item.entry.dump_id).zip(exist).collect();
    let is_there = |item: &Item| exists.get(&item.entry.dump_id).copied().unwrap_or_default();
    let Choice {
        entries,
        prerequisites,
        left_out,
    } = if request.data_only {
        rows_of(items, &relations)
    } else {
        choice::choose(items, &relations, is_there)?
    };
    let chosen = entries.union(&prerequisites).copied().collect();
    let mut plan = plan::plan(stored, items, &chosen, super::without(request), job.settings.jobs);
    plan.left_out = left_out;
    plan.copies = choice::by_themselves(items, &relations);
    let (joins, with_them) = choice::joins(items, &relations, &entries);
    plan.before.retain(|id| !joins.contains(id));
    plan.after.retain(|id| !with_them.contains(id));
    plan.joins = joins;
    let tables: Vec<&Item> = items
        .iter()
        .filter(|item| relations.contains(&item.entry.dump_id))
        .collect();
    if request.data_only {
        plan.emptied = make_room(target, stored, &plan, &tables, is_there, request).await?;
    } else {
        let there: Vec<&str> = tables
            .iter()
            .filter(|item| is_there(item))
            .map(|item| item.entry.tag.as_str())
            .collect();
        if !there.is_empty() && !request.clean {
            return Err(
                Error::new(Code::RestoreErr, format!("the target has {} already", there.join(", "))).hint(
                    "replace it with --clean, load rows into it with --data-only, or restore into another database",
                ),
            );
        }
        if request.clean {
            plan.drops = plan::drops(items, &relations);
        }
    }
    Ok(plan)
}

fn named(item: &Item) -> Named<'_> {
    Named {
        kind: &item.entry.desc,
        schema: item.entry.namespace.as_deref().unwrap_or_default(),
        name: &item.entry.tag,
    }
}

/// Rows, and where the tables' sequences stand.
fn rows_of(items: &[Item], relations: &HashSet<i64>) -> Choice {
    let of = |item: &Item, kind: &str, owners: &HashSet<i64>| {
        item.entry.desc == kind && item.details.dependencies.iter().any(|id| owners.contains(id))
    };
    let ids = |kind: &str, owners: &HashSet<i64>| -> HashSet<i64> {
        items
            .iter()
            .filter(|item| of(item, kind, owners))
            .map(|item| item.entry.dump_id)
            .collect()
    };
    let sequences = ids("SEQUENCE", relations);
    let mut entries = ids("TABLE DATA", relations);
    entries.extend(ids("SEQUENCE SET", &sequences));
    Choice {
        entries,
        ..Choice::default()
    }
}

/// Rows go into tables that are there and empty; with `--clean` those that are not are emptied first.
async fn make_room(
    target: &Target,
    stored: &StoredArchive,
    plan: &Plan,
    tables: &[&Item],
    is_there: impl Fn(&Item) -> bool,
    request: &RestoreRequest,
) -> Result<Vec<String>> {
    let refused = |what: String| Error::new(Code::RestoreErr, what);
    if let Some(lacking) = tables.iter().find(|item| !is_there(item)) {
        return Err(refused(format!("the target lacks {}", lacking.entry)).hint("leave --data-only out to make it"));
    }
    let mut full = Vec::new();
    for (schema, name) in plan.blocks().filter_map(|index| stored.tables[index].as_ref()) {
        if target.session.holds_rows(schema, name).await? {
            full.push(qualified(schema, name));
        }
    }
    if full.is_empty() {
        return Ok(Vec::new());
    }
    if !request.clean {
        return Err(
            refused(format!("the target has rows in {} already", full.join(", "))).hint("empty it first with --clean")
        );
    }
    Ok(full)
}
