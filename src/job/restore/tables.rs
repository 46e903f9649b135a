//! Single tables: chooses them, compares them with the target, and plans the restore.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::choice::{self, Choice};
use super::partitions::{self, Through};
use super::plan::{self, Plan};
use super::ready::{Target, some_of};
use crate::error::{Code, Error, Result};
use crate::format::archive::{Item, Loading};
use crate::job::restore::RestoreRequest;
use crate::postgres::quoting::{identifier, qualified};
use crate::postgres::{Named, ObjectKind};
use crate::repository::manifest::Manifest;
use crate::repository::stored_archive::StoredArchive;

/// What the plan for single tables is made from.
#[derive(Clone, Copy)]
pub(super) struct Basis<'a> {
    pub target: &'a Target,
    pub manifest: &'a Manifest,
    pub stored: &'a StoredArchive,
    pub items: &'a [Item],
    pub excluded: &'a HashSet<i64>,
    pub request: &'a RestoreRequest,
}

pub(super) async fn plan(basis: Basis<'_>, jobs: usize) -> Result<Plan> {
    let Basis {
        target,
        stored,
        items,
        excluded,
        request,
        ..
    } = basis;
    let relations = basis.relations()?;
    let exists = exists(target, items).await?;
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
    let mut plan = plan::plan(stored, items, &chosen, request.without(), jobs);
    plan.kept.clone_from(excluded);
    plan.left_out = left_out;
    plan.already_there = already_there(items, &there);
    plan.copies = partitions::by_themselves(items, &relations);
    let (joins, with_them) = choice::joins(items, &relations, &entries);
    plan.before.retain(|id| !joins.contains(id));
    plan.after.retain(|id| !with_them.contains(id));
    let older = choice::older::than_keys(items, &with_them);
    plan.before.extend(plan.after.iter().filter(|id| older.contains(id)));
    let first = first_keys(target, items, &with_them).await?;
    plan.before.extend(first.iter().filter(|id| plan.after.contains(id)));
    plan.after.retain(|id| !older.contains(id) && !first.contains(id));
    plan.joins = joins.into_iter().filter(|id| !excluded.contains(id)).collect();
    plan.part_events(items);
    fits_by_itself(basis, &relations, &plan).await?;
    let mut tables: Vec<&Item> = items
        .iter()
        .filter(|item| relations.contains(&item.entry.dump_id))
        .collect();
    if request.data_only {
        basis.check_rows(&mut plan, &relations, &tables).await?;
    } else {
        tables.retain(|item| is_there(item));
        if !tables.is_empty() && !request.clean {
            return Err(in_the_way(&tables));
        }
        if request.clean {
            (plan.drops, plan.partings) = plan::drops(items, &relations);
        }
    }
    Ok(plan)
}

impl Basis<'_> {
    /// The tables that the request names, without those that it excludes.
    fn relations(&self) -> Result<HashSet<i64>> {
        let (stored, items, excluded, request) = (self.stored, self.items, self.excluded, self.request);
        let mut relations = choice::relations(stored, items, &request.tables)?;
        relations.retain(|id| !excluded.contains(id));
        if let Some(stays) = choice::named(stored, items, &request.tables)?
            .iter()
            .find(|(_, id)| excluded.contains(id))
        {
            let what = format!("--table names {}.{}, but --exclude leaves it out", stays.0.0, stays.0.1);
            return Err(Error::config(what).hint("leave one of the two out"));
        }
        Ok(relations)
    }

    /// Checks that the tables of the target can take the rows, and plans which of them are emptied first.
    async fn check_rows(&self, plan: &mut Plan, relations: &HashSet<i64>, tables: &[&Item]) -> Result<()> {
        let (target, stored, items, request) = (self.target, self.stored, self.items, self.request);
        let roots = partitions::loaded_through(items, relations, &plan.copies);
        let place = RowsTarget {
            target,
            items,
            plan,
            named: choice::named(stored, items, &request.tables)?,
        };
        place.check(tables).await?;
        plan.emptied = make_room(target, stored, plan, &roots, request).await?;
        Ok(())
    }
}

/// The error if the target has tables that the restore would make.
fn in_the_way(tables: &[&Item]) -> Error {
    let there: Vec<String> = tables.iter().map(|item| item.entry.name()).collect();
    let what = format!("the target has {} already", there.join(", "));
    Error::new(Code::RestoreErr, what)
        .hint("replace it with --clean, load rows into it with --data-only, or restore into another database")
}

/// Whether the target has them, by dump ids.
async fn exists(target: &Target, items: &[Item]) -> Result<HashMap<i64, bool>> {
    let named: Vec<Named<'_>> = items.iter().map(named).collect();
    let exist = target.session.exist(&named).await?;
    let mut exists: HashMap<i64, bool> = items.iter().map(|item| item.entry.dump_id).zip(exist).collect();
    for item in items.iter().filter(|item| item.entry.desc == "OPERATOR") {
        if let (Some(is_there), Some(operator)) = (exists.get_mut(&item.entry.dump_id), operator(item)) {
            *is_there = *is_there && target.session.has_operator(&operator).await?;
        }
    }
    Ok(exists)
}

/// The keys of a partition that are on the same columns, without the one that must be the youngest, in the order of
/// the keys above them in the target.
async fn first_keys(target: &Target, items: &[Item], attaches: &HashSet<i64>) -> Result<Vec<i64>> {
    let mut first = Vec::new();
    for keys in choice::older::alike(items, attaches) {
        let above: Vec<[String; 2]> = keys.iter().map(|(_, above)| above.clone()).collect();
        let ages = target.session.ages(&above).await?;
        let known = ages.into_iter().zip(&keys);
        let mut by_age: Vec<(u32, i64)> = known.filter_map(|(age, (id, _))| Some((age?, *id))).collect();
        by_age.sort_unstable();
        by_age.pop();
        first.extend(by_age.into_iter().map(|(_, id)| id));
    }
    Ok(first)
}

pub(super) fn named(item: &Item) -> Named<'_> {
    Named {
        kind: &item.entry.desc,
        schema: item.entry.namespace.as_deref().unwrap_or_default(),
        name: &item.entry.tag,
    }
}

/// An operator with its types, which are not in its entry's name.
fn operator(item: &Item) -> Option<String> {
    let definition = &item.details.definition;
    let argument = |side: &str| {
        let (_, rest) = definition.split_once(&format!("\n    {side} = "))?;
        rest.split(['\n', ',']).next()
    };
    let (left, right) = (argument("LEFTARG").unwrap_or("NONE"), argument("RIGHTARG")?);
    let schema = identifier(item.entry.namespace.as_deref()?);
    Some(format!("{schema}.{}({left},{right})", item.entry.tag))
}

/// What the tables need and the target has, in the archive's order. Objects that every database has are not listed,
/// nor are tables and views.
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

/// pg_dump may load a partition's rows through the root. They belong into this partition alone only if the enums are
/// the very ones that were backed up: the values of other enums have other hashes. This matters if the table is a
/// partition in the target too.
async fn fits_by_itself(basis: Basis<'_>, relations: &HashSet<i64>, plan: &Plan) -> Result<()> {
    let Basis {
        target,
        manifest,
        items,
        request,
        ..
    } = basis;
    let loaded = items.iter().filter(|item| {
        let id = item.entry.dump_id;
        plan.copies.contains_key(&id) && plan.loads.iter().any(|load| load.list.contains(&id))
    });
    let joins = |table: &Item| {
        let mut joins = items.iter().filter(|item| plan.joins.contains(&item.entry.dump_id));
        joins.any(|join| join.details.dependencies.contains(&table.entry.dump_id))
    };
    let cluster = &target.session.server().system_identifier;
    let same_cluster = cluster.is_some() && *cluster == manifest.server.system_identifier;
    for item in loaded {
        let Some(table) = partitions::goes_by_hashes(items, relations, item) else {
            continue;
        };
        if !request.data_only && !joins(table) {
            continue;
        }
        let mut same = same_cluster;
        // If no type is the database's own: the table itself.
        let types = partitions::types_of(items, item);
        let (kind, asked) = match types.is_empty() {
            true => (ObjectKind::Table, vec![item]),
            false => (ObjectKind::Type, types),
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
                "{}: its rows may belong into other partitions of {root} here: the partitions use hashes that differ \
                 from database to database",
                item.entry
            ),
        )
        .hint(format!("load all of them: --table {root}")));
    }
    Ok(())
}

/// The entries of rows, and those that set the tables' sequences.
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
    let mut sequences = ids("SEQUENCE", relations);
    // A sequence that no table owns counts too if a default takes its numbers from it.
    let is_sequence = |id: &&i64| {
        items
            .iter()
            .any(|item| item.entry.dump_id == **id && item.entry.desc == "SEQUENCE")
    };
    let takes = |item: &&Item| relations.contains(&item.entry.dump_id) || of(item, "DEFAULT", relations);
    let taken = items.iter().filter(takes).flat_map(|item| &item.details.dependencies);
    sequences.extend(taken.filter(is_sequence));
    let mut entries = ids("TABLE DATA", relations);
    entries.extend(ids("SEQUENCE SET", &sequences));
    Choice {
        entries,
        ..Choice::default()
    }
}

/// The target of a restore of rows alone.
struct RowsTarget<'a> {
    target: &'a Target,
    items: &'a [Item],
    plan: &'a Plan,
    named: Vec<choice::Named>,
}

impl RowsTarget<'_> {
    /// Checks that the target has what the backup has: tables of the same kind, their partitions, and their
    /// sequences.
    async fn check(&self, tables: &[&Item]) -> Result<()> {
        let refused = |what: String| Error::new(Code::RestoreErr, what);
        let session = &self.target.session;
        self.has_rows(tables)?;
        let names: Vec<(String, String)> = tables.iter().map(|item| path(item)).collect();
        let occupants = session.occupants(&names).await?;
        let lacking = tables.iter().zip(&occupants).filter(|(_, occupant)| occupant.is_none());
        let lacking: Vec<String> = lacking.map(|(item, _)| item.entry.to_string()).collect();
        if !lacking.is_empty() {
            let what = format!("the target lacks {}", some_of(&lacking, lacking.len() as u64));
            return Err(refused(what).hint("leave --data-only out, so that the missing objects are made"));
        }
        for (item, occupant) in tables.iter().zip(occupants.into_iter().flatten()) {
            let kind = if item.is_partitioned() { 'p' } else { 'r' };
            if occupant.kind != kind {
                let what = format!(
                    "{} is {} in the target, but a different kind of object in the backup",
                    item.entry.name(),
                    occupant.what()
                );
                return Err(refused(what).hint("replace it with --clean and without --data-only, or rename it first"));
            }
        }
        self.has_partitions().await?;
        self.has_sequences().await
    }

    /// Checks that there are rows to load for each named table.
    fn has_rows(&self, tables: &[&Item]) -> Result<()> {
        let refused = |what: String, hint: &str| Err(Error::new(Code::RestoreErr, what).hint(hint));
        if let Some(other) = tables.iter().find(|item| item.entry.desc != "TABLE") {
            let (kind, name) = (other.entry.desc.to_lowercase(), other.entry.name());
            let what = format!("--data-only loads rows, but the {kind} {name} has none of its own");
            return match other.entry.desc.as_str() {
                "MATERIALIZED VIEW" => refused(
                    what,
                    "leave it out, and run REFRESH MATERIALIZED VIEW after the tables have their rows",
                ),
                _ => refused(what, "leave it out; or restore its definition without --data-only"),
            };
        }
        let loaded = self.loaded();
        for (_, id) in &self.named {
            let family = choice::with_partitions(self.items, HashSet::from([*id]));
            let mut rows = loaded.iter().flat_map(|item| &item.details.dependencies);
            if !rows.any(|id| family.contains(id)) {
                let item = tables.iter().find(|item| item.entry.dump_id == *id);
                let name = item.map_or_else(String::new, |item| item.entry.name());
                return refused(
                    format!("the backup has no rows of {name}"),
                    "leave it out; `left_out` in the backup's manifest lists what the backup lacks",
                );
            }
        }
        Ok(())
    }

    /// The entries whose rows are loaded.
    fn loaded(&self) -> Vec<&Item> {
        let list: HashSet<i64> = self.plan.loads.iter().flat_map(|load| &load.list).copied().collect();
        let rows = self.items.iter().filter(|item| item.entry.desc == "TABLE DATA");
        rows.filter(|item| list.contains(&item.entry.dump_id)).collect()
    }

    /// Refuses a partition that the target has detached: its rows would be loaded, but would not be in its table.
    async fn has_partitions(&self) -> Result<()> {
        let named: HashSet<i64> = self.named.iter().map(|(_, id)| *id).collect();
        let mut known: HashMap<i64, HashSet<(String, String)>> = HashMap::new();
        for (leaf, root) in partitions::attached(self.items, &named, &self.loaded()) {
            let (schema, name) = path(root);
            let leaves = match known.entry(root.entry.dump_id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let leaves = self.target.session.leaves(&schema, &name).await?;
                    place.insert(leaves.into_iter().collect())
                }
            };
            if !leaves.contains(&path(leaf)) {
                let (leaf, root) = (leaf.entry.name(), root.entry.name());
                let what = format!("{leaf} is a partition of {root} in the backup, but not in the target");
                return Err(Error::new(Code::RestoreErr, what).hint(format!(
                    "attach it again (ALTER TABLE {root} ATTACH PARTITION …), or name the partitions one by one: \
                     --table {leaf}"
                )));
            }
        }
        Ok(())
    }

    /// Sequences are set after the commit. What would fail then is found now.
    async fn has_sequences(&self) -> Result<()> {
        let list: HashSet<i64> = self.plan.loads.iter().flat_map(|load| &load.list).copied().collect();
        let set = |item: &&Item| item.entry.desc == "SEQUENCE SET" && list.contains(&item.entry.dump_id);
        let set: Vec<&Item> = self.items.iter().filter(set).collect();
        let named: Vec<Named<'_>> = set.iter().map(|item| named(item)).collect();
        let session = &self.target.session;
        for (item, (exists, may_set)) in set.iter().zip(session.sequences(&named).await?) {
            let name = item.entry.name();
            let leave = format!("or leave its position as it is: --exclude SEQUENCE-SET:{name}");
            if !exists {
                let what =
                    format!("the target lacks the sequence {name}, from which a table that is loaded takes numbers");
                let hint = format!("rename it back if it has another name now; {leave}");
                return Err(Error::new(Code::RestoreErr, what).hint(hint));
            }
            if !may_set {
                let user = &session.server().user;
                let what = format!("the role {user} may not set the sequence {name}");
                let hint = format!("GRANT SELECT, UPDATE ON SEQUENCE {name} TO this role; {leave}");
                return Err(Error::new(Code::Permission, what).hint(hint));
            }
        }
        Ok(())
    }
}

fn path(item: &Item) -> (String, String) {
    (item.entry.namespace.clone().unwrap_or_default(), item.entry.tag.clone())
}

/// Rows go into existing empty tables. With `--clean`, a table is emptied first even if it is empty now, since it may
/// have rows when it is locked.
async fn make_room(
    target: &Target,
    stored: &StoredArchive,
    plan: &Plan,
    roots: &[Through],
    request: &RestoreRequest,
) -> Result<Vec<String>> {
    let mut full = Vec::new();
    let through_root = |index: &usize| {
        let id = stored.head.data[*index].dump_id;
        roots.iter().any(|root| root.rows.contains(&id))
    };
    let tables = plan.blocks().filter(|index| !through_root(index));
    let tables: Vec<(String, String)> = tables.filter_map(|index| stored.tables[index].clone()).collect();
    let hold = match request.clean {
        true => vec![true; tables.len()],
        false => target.session.holding_rows(&tables).await?,
    };
    for ((schema, name), _) in tables.iter().zip(hold).filter(|(_, holds)| *holds) {
        full.push(format!("ONLY {}", qualified(schema, name)));
    }
    // Rows may go into any partition of such a root, also into one that the backup does not have.
    for Through { schema, name, .. } in roots {
        let holds = request.clean || {
            let leaves = target.session.leaves(schema, name).await?;
            target.session.holding_rows(&leaves).await?.contains(&true)
        };
        if holds {
            full.push(qualified(schema, name));
        }
    }
    if full.is_empty() {
        return Ok(Vec::new());
    }
    if !request.clean {
        let what = format!(
            "the target has rows in {} already",
            full.join(", ").replace("ONLY ", "")
        );
        return Err(Error::new(Code::RestoreErr, what).hint("empty it first with --clean"));
    }
    Ok(full)
}
