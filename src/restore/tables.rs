//! Single tables: chosen, held against what the target has, and planned.

use std::collections::{HashMap, HashSet};

use super::Job;
use super::choice::{self, Choice, Through};
use super::plan::{self, Plan};
use super::ready::Target;
use crate::archive::{Item, Loading};
use crate::command::RestoreRequest;
use crate::error::{Code, Error, Result};
use crate::manifest::Manifest;
use crate::postgres::quoting::qualified;
use crate::postgres::{Kind, Named};
use crate::stored_archive::StoredArchive;

pub(super) async fn plan(
    job: &Job<'_>,
    target: &Target,
    manifest: &Manifest,
    stored: &StoredArchive,
    items: &[Item],
    excluded: &HashSet<i64>,
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
        there,
        left_out,
    } = if request.data_only {
        rows_of(items, &relations)
    } else {
        choice::choose(items, &relations, is_there)?
    };
    let chosen = entries.union(&prerequisites).copied();
    let chosen = chosen.filter(|id| !excluded.contains(id)).collect();
    let mut plan = plan::plan(
        stored,
        items,
        &chosen,
        super::prepared::without(request),
        job.settings.jobs,
    );
    plan.left_out = left_out;
    plan.already_there = already_there(items, &there);
    plan.copies = choice::by_themselves(items, &relations);
    let (joins, with_them) = choice::joins(items, &relations, &entries);
    plan.before.retain(|id| !joins.contains(id));
    plan.after.retain(|id| !with_them.contains(id));
    plan.joins = joins.into_iter().filter(|id| !excluded.contains(id)).collect();
    plan.part_events(items);
    let tables: Vec<&Item> = items
        .iter()
        .filter(|item| relations.contains(&item.entry.dump_id))
        .collect();
    if request.data_only {
        fits_by_itself(target, manifest, items, &plan).await?;
        let roots = choice::loaded_through(items, &relations);
        plan.emptied = make_room(target, stored, &plan, &tables, &roots, is_there, request).await?;
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
            (plan.drops, plan.partings) = plan::drops(items, &relations);
        }
    }
    Ok(plan)
}

pub(super) fn named(item: &Item) -> Named<'_> {
    Named {
        kind: &item.entry.desc,
        schema: item.entry.namespace.as_deref().unwrap_or_default(),
        name: &item.entry.tag,
    }
}

/// What the tables need and the target has, in the archive's order; but for what every database has, and for relations,
/// which are named with what belongs to them.
fn already_there(items: &[Item], there: &HashSet<i64>) -> Vec<String> {
    const TOLD: [&str; 9] = [
        "SCHEMA",
        "EXTENSION",
        "TYPE",
        "DOMAIN",
        "FUNCTION",
        "PROCEDURE",
        "AGGREGATE",
        "SEQUENCE",
        "SERVER",
    ];
    let told = items.iter().filter(|item| {
        there.contains(&item.entry.dump_id)
            && TOLD.contains(&item.entry.desc.as_str())
            && !matches!(
                (item.entry.desc.as_str(), item.entry.tag.as_str()),
                ("SCHEMA", "public") | ("EXTENSION", "plpgsql")
            )
    });
    told.map(|item| item.entry.to_string()).collect()
}

/// A partition's rows that pg_dump loads through the root belong into it alone where the enums are the very ones that
/// were backed up: the values of others have other hashes.
async fn fits_by_itself(target: &Target, manifest: &Manifest, items: &[Item], plan: &Plan) -> Result<()> {
    let alone = items
        .iter()
        .filter(|item| plan.copies.contains_key(&item.entry.dump_id));
    let alone = alone.filter(|item| plan.loads.iter().any(|load| load.list.contains(&item.entry.dump_id)));
    let cluster = &target.session.server().system_identifier;
    let same_cluster = cluster.is_some() && *cluster == manifest.server.system_identifier;
    for item in alone {
        let mut same = same_cluster;
        // Without any type of the database's own, the table itself.
        let types = choice::types_of(items, item);
        let (kind, asked) = match types.is_empty() {
            true => (Kind::Table, vec![item]),
            false => (Kind::Type, types),
        };
        for one in asked {
            let schema = one.entry.namespace.as_deref().unwrap_or_default();
            same = same && target.session.oid(kind, schema, &one.entry.tag).await? == Some(one.entry.oid);
        }
        if same {
            continue;
        }
        let root = Loading::parse(&item.details.copy_statement).map(|loading| loading.path());
        let root: Vec<String> = root
            .unwrap_or_default()
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        let root = root.join(".");
        return Err(Error::new(
            Code::RestoreErr,
            format!(
                "{}: its rows may belong into other partitions of {root} here: they go by hashes that differ from \
                 database to database",
                item.entry
            ),
        )
        .hint(format!("load all of them: --table {root}")));
    }
    Ok(())
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

/// Rows go into tables that are there and empty; with `--clean` they are emptied first, since
/// what is empty now may have rows when it is locked.
async fn make_room(
    target: &Target,
    stored: &StoredArchive,
    plan: &Plan,
    tables: &[&Item],
    roots: &[Through],
    is_there: impl Fn(&Item) -> bool,
    request: &RestoreRequest,
) -> Result<Vec<String>> {
    let refused = |what: String| Error::new(Code::RestoreErr, what);
    if let Some(lacking) = tables.iter().find(|item| !is_there(item)) {
        return Err(refused(format!("the target lacks {}", lacking.entry)).hint("leave --data-only out to make it"));
    }
    let mut full = Vec::new();
    for index in plan.blocks() {
        let through_root = roots
            .iter()
            .any(|root| root.rows.contains(&stored.head.data[index].dump_id));
        if let Some((schema, name)) = stored.tables[index].as_ref().filter(|_| !through_root)
            && (request.clean || target.session.holds_rows(schema, name).await?)
        {
            full.push(format!("ONLY {}", qualified(schema, name)));
        }
    }
    // Rows may come into any partition of such a root, also into one that the backup does not know.
    for Through { schema, name, .. } in roots {
        if request.clean || target.session.holds_rows_below(schema, name).await? {
            full.push(qualified(schema, name));
        }
    }
    if full.is_empty() {
        return Ok(Vec::new());
    }
    if !request.clean {
        return Err(refused(format!(
            "the target has rows in {} already",
            full.join(", ").replace("ONLY ", "")
        ))
        .hint("empty it first with --clean"));
    }
    Ok(full)
}
