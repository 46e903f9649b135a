//! Copies of a backup's tables beside the existing ones: each is a table of another name in the same database.
//!
//! No existing table is changed. The archive's definition of the table is split into its parts and written anew for
//! the other name (`into/definition.rs`). It is sent as single statements, so that nothing else in it can run.
//! Everything is one transaction of a session of ours (`into/making.rs`): until it is committed, other sessions see
//! nothing of it.

mod copies;
pub(super) mod definition;
mod destination;
mod making;

use std::collections::BTreeSet;

use super::choice;
use super::load::Load;
use super::plan::{LeftOut, Plan};
use super::ready::Target;
use super::report::CopyReport;
use super::rows::BlockCopy;
use super::tables::Basis;
use crate::error::{Code, Error, Result};
use crate::job::restore::RestoreRequest;
use crate::postgres::quoting::identifier;
use crate::postgres::{ExistingObject, Room};
use crate::repository::stored_archive::StoredArchive;
use crate::units::count;
use destination::CopyPlace;

pub(super) use making::run;

/// What will be made, known before anything is changed.
#[derive(Debug)]
pub(super) struct Copies {
    schema: String,
    makes_schema: bool,
    tables: Vec<TableCopy>,
    /// The encoding of the archive's text.
    encoding: String,
    check: bool,
    /// `shop/20260131T040500Z-full`
    backup: String,
}

/// One table under another name.
#[derive(Debug)]
struct TableCopy {
    /// In the backup: `app.orders`.
    of: String,
    /// Schema and name.
    place: (String, String),
    /// The existing table, which is replaced.
    replaced: Option<ExistingObject>,
    entry: i64,
    definition: Vec<u8>,
    access_method: Option<String>,
    /// Only its owner can read the copy, since others could read only some rows of the table.
    is_guarded: bool,
    rows: Vec<BlockCopy>,
    count: u64,
    finishing: Vec<Finishing>,
}

/// An index or a key, which is made after the rows are loaded.
#[derive(Debug)]
struct Finishing {
    entry: i64,
    what: String,
    statement: Vec<u8>,
}

impl TableCopy {
    fn name(&self) -> String {
        format!("{}.{}", self.place.0, self.place.1)
    }
}

/// Checks that the options fit together, and that the place is valid.
pub(super) fn check(request: &RestoreRequest) -> Result<()> {
    let Some(into) = &request.into else { return Ok(()) };
    if request.tables.is_empty() {
        return Err(Error::config("--into needs tables that are named, but none is")
            .hint("name each with --table SCHEMA.TABLE"));
    }
    for (given, option, why) in [
        (
            request.data_only,
            "--data-only",
            "which loads rows into tables of their own name",
        ),
        (request.create, "--create", "which makes a database"),
        (
            request.globals,
            "--globals",
            "and a copy belongs to the role that restores",
        ),
    ] {
        if given {
            let what = format!("--into makes copies of tables in an existing database; it excludes {option}, {why}");
            return Err(Error::config(what).hint(format!("leave {option} out, or --into")));
        }
    }
    if request.keep_going {
        return Err(
            Error::config("--keep-going continues after failures, but --into makes copies in one transaction")
                .hint("leave --keep-going out, or --into"),
        );
    }
    if CopyPlace::parse(into)?.name.is_some() && request.tables.len() > 1 {
        return Err(several());
    }
    Ok(())
}

fn several() -> Error {
    Error::config("--into names one table, but --table several").hint("give a schema alone: --into SCHEMA")
}

/// A plain script can only be restored as a whole.
pub(super) fn of_script() -> Error {
    Error::config("--into: this backup is a plain SQL script, from which single tables cannot be restored").hint(
        "restore all of it into a new database with --create, and copy the table from there: pg_dump --table=… | psql; \
         or make backups with --format custom",
    )
}

/// Looks at the target, refuses what cannot be done there, and returns what will be done, with warnings.
pub(super) async fn prepare(basis: Basis<'_>) -> Result<(Copies, Plan, Vec<String>)> {
    let Basis {
        target,
        manifest,
        stored,
        items,
        excluded,
        request,
    } = basis;
    let place = CopyPlace::parse(request.into.as_deref().unwrap_or_default())?;
    let named = choice::named(stored, items, &request.tables)?;
    if place.name.is_some() && named.len() > 1 {
        return Err(several());
    }
    let session = &target.session;
    let room = session.room(&place.schema).await?;
    check_room(target, &place, &room)?;
    let (wanted, taken) = wanted(basis, &place, named, &room).await?;
    let asked: Vec<_> = items.iter().map(super::tables::named).collect();
    let exist = session.exist(&asked).await?;
    let lacking = items.iter().zip(exist).filter(|(_, exists)| !exists);
    let mut archive = copies::CopySource {
        stored,
        items,
        lacking: lacking.map(|(item, _)| item.entry.dump_id).collect(),
        excluded,
        encoding: super::rows::encoding(items),
        owner: &session.server().user,
        is_published: room.publication.is_some(),
        taken,
        left_out: Vec::new(),
    };
    let mut tables = Vec::new();
    for one in wanted {
        tables.push(archive.copy(one)?);
    }
    let plan = planned(stored, &tables, archive.left_out);
    let warnings = room.publication.map(|publication| {
        format!(
            "the publication {publication} would send every new table in {} to its subscribers: the copies are \
             unlogged, which keeps them here; they are empty after a crash of the server",
            place.schema
        )
    });
    let copies = Copies {
        makes_schema: !room.exists,
        schema: place.schema,
        tables,
        encoding: archive.encoding,
        check: !request.no_check,
        backup: manifest.id.to_string(),
    };
    Ok((copies, plan, warnings.into_iter().collect()))
}

/// The copies, each with its place, and the names that the place cannot give to others.
async fn wanted(
    basis: Basis<'_>,
    place: &CopyPlace,
    named: Vec<choice::Named>,
    room: &Room,
) -> Result<(Vec<copies::Wanted>, BTreeSet<String>)> {
    let Basis { target, request, .. } = basis;
    let session = &target.session;
    let known: BTreeSet<(String, String)> = choice::relation_names(basis.stored, basis.items)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let mut taken = room.taken.clone();
    let mut wanted = Vec::new();
    let mut places = BTreeSet::new();
    for (source, entry) in named {
        let to = (place.schema.clone(), place.name.clone().unwrap_or(source.1.clone()));
        let shown = format!("{}.{}", to.0, to.1);
        if to == source {
            return Err(Error::config(format!("--into: {shown} is the table itself"))
                .hint("give another schema or name; or leave --into out to restore the table itself"));
        }
        if !places.insert(to.clone()) {
            return Err(Error::config(format!("--into: two of the tables would become {shown}"))
                .hint("restore them one by one"));
        }
        let replaced = session.standing(&to.0, &to.1).await?;
        match &replaced {
            Some(there) => {
                check_replaced(target, there, &to, known.contains(&to), request)?;
                taken.retain(|name| !there.indexes.contains(name));
            }
            None if room.taken.contains(&to.1) => {
                let what = format!("the target has a type {shown}, but a table of this name needs a type of this name");
                return Err(Error::new(Code::RestoreErr, what).hint("choose another name"));
            }
            None => {}
        }
        let live = session.standing(&source.0, &source.1).await?;
        let has_row_security = live.is_some_and(|live| live.has_row_security);
        wanted.push(copies::Wanted {
            of: source,
            entry,
            place: to,
            replaced,
            has_row_security,
        });
    }
    taken.extend(wanted.iter().map(|one| one.place.1.clone()));
    Ok((wanted, taken))
}

fn check_room(target: &Target, place: &CopyPlace, room: &Room) -> Result<()> {
    let user = &target.session.server().user;
    let refused = |what: String, grant: String| {
        let to = identifier(user);
        Err(Error::new(Code::Permission, format!("the role {user} may not {what}")).hint(format!("{grant} TO {to}")))
    };
    let schema = identifier(&place.schema);
    match room.exists {
        true if room.may_create => Ok(()),
        true => refused(
            format!("make tables in the schema {}", place.schema),
            format!("GRANT USAGE, CREATE ON SCHEMA {schema}"),
        ),
        false if target.found.may_create => Ok(()),
        false => refused(
            format!("make the schema {}, which the target lacks", place.schema),
            format!(
                "make it (CREATE SCHEMA {schema} AUTHORIZATION {}); or GRANT CREATE ON DATABASE {}",
                identifier(user),
                identifier(target.name())
            ),
        ),
    }
}

/// Whether the existing relation of this name may be replaced. `is_known`: the backup has a relation of this name.
fn check_replaced(
    target: &Target,
    there: &ExistingObject,
    (schema, name): &(String, String),
    is_known: bool,
    request: &RestoreRequest,
) -> Result<()> {
    let what = format!("the target has the {} {schema}.{name} already", there.kind);
    let refused = |why: &str| Error::new(Code::RestoreErr, format!("{what}{why}"));
    if !request.clean {
        return Err(refused("").hint(match there.is_table {
            true => "choose another place; or replace that table with --clean",
            false => "choose another place",
        }));
    }
    if !there.is_table {
        return Err(refused(": --clean replaces only tables").hint("choose another place, or drop it yourself"));
    }
    if there.is_bound {
        return Err(
            refused(", which is a partition or has parent or child tables: it is not replaced")
                .hint("choose another place"),
        );
    }
    if is_known && !there.is_copy {
        return Err(
            refused(", which is a table of the backup and not a copy: it is not replaced")
                .hint("choose another place; or drop it yourself, if you do not need it"),
        );
    }
    if !there.is_ours {
        let user = &target.session.server().user;
        let what = format!("the role {user} may not replace {schema}.{name}, which it does not own");
        return Err(Error::new(Code::Permission, what).hint("choose another place, or restore as its owner"));
    }
    Ok(())
}

/// The plan for reports, and for what has to be read.
fn planned(stored: &StoredArchive, tables: &[TableCopy], left_out: Vec<LeftOut>) -> Plan {
    let mut blocks: Vec<usize> = tables
        .iter()
        .flat_map(|table| table.rows.iter().map(|rows| rows.index))
        .collect();
    blocks.sort_unstable();
    let load = |index: usize| Load {
        blocks: vec![index],
        stored_bytes: stored.places[index].length,
        ..Load::default()
    };
    let finishing = tables.iter().flat_map(|table| &table.finishing);
    Plan {
        before: tables.iter().map(|table| table.entry).collect(),
        loads: blocks.into_iter().map(load).collect(),
        after: finishing.map(|finishing| finishing.entry).collect(),
        left_out,
        ..Plan::default()
    }
}

impl Copies {
    /// The steps in words, for a dry run.
    pub fn steps(&self) -> Vec<String> {
        let mut steps = Vec::new();
        if self.makes_schema {
            steps.push(format!("make the schema {}", self.schema));
        }
        for table in &self.tables {
            let name = table.name();
            if table.replaced.is_some() {
                steps.push(format!("remove the table {name}"));
            }
            steps.push(format!("make {name} as {} was, for the restoring role alone", table.of));
        }
        for table in &self.tables {
            steps.push(format!("load {} into {}", count(table.count, "row"), table.name()));
        }
        if self.check {
            steps.push("read the copies again and compare them with the backup".to_owned());
        }
        for finishing in self.tables.iter().flat_map(|table| &table.finishing) {
            steps.push(format!("make {}", finishing.what));
        }
        steps.push("commit: until then other sessions see nothing of it".to_owned());
        steps
    }

    /// The numbers of rows are those after the changes, as far as these are known.
    pub fn report(&self, stored: &StoredArchive) -> Vec<CopyReport> {
        let rows = |table: &TableCopy| -> u64 { table.rows.iter().filter_map(|rows| stored.rows(rows.index)).sum() };
        let report = |table: &TableCopy| CopyReport {
            table: table.of.clone(),
            copy: table.name(),
            rows: rows(table),
        };
        self.tables.iter().map(report).collect()
    }
}
