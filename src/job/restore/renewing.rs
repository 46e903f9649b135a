//! Removes objects and makes the definitions in one transaction of our own session, so that objects disappear only
//! when the new ones exist. pg_restore writes the statements that it would send, and our session sends them.

use std::collections::HashSet;

use memchr::memmem;

use super::around::Surroundings;
use super::context::{ArchiveRun, RestoreRun};
use super::loading::Loader;
use super::plan::{self, Plan};
use super::prepared::PreparedArchive;
use super::ready::Target;
use super::rows;
use super::state::{Milestone, State};
use super::tables::named;
use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::postgres::{Definition, FOR_LOADING, Named, Names, Removal, Renewal, Session};

/// pg_restore writes this before each entry's own statements.
const HEADING: &[u8] = b"\n--\n-- Name: ";
/// At the end of the text, for psql.
const UNRESTRICT: &[u8] = b"\n\\unrestrict ";
/// Commands for psql, and settings that our session makes itself.
const NOT_FOR_US: [&[u8]; 4] = [
    b"\\",
    b"SET client_encoding ",
    b"SET lock_timeout ",
    b"SET transaction_timeout ",
];

/// What pg_restore would send for these lists, one after the other. `None` if that is not text that we can send.
pub(super) async fn definitions(
    archive: &PreparedArchive,
    target: &Target,
    loader: &Loader<'_>,
    lists: &[(&str, &[i64])],
) -> Result<Option<Vec<Definition>>> {
    let mut definitions = Vec::new();
    for (step, list) in lists {
        if list.is_empty() {
            continue;
        }
        let text = loader.text(step, list).await?;
        let Some(parts) = parts(&text, list, &archive.items) else {
            return Ok(None);
        };
        let Some(read) = read(&target.session, &archive.items, parts).await? else {
            return Ok(None);
        };
        definitions.extend(read);
    }
    Ok(Some(definitions))
}

/// An open transaction in which objects were removed and their definitions made again.
pub(super) struct Renewed {
    pub session: Session,
    pub cleaned: usize,
}

/// The definitions that come before rows. `None` if they are not text that we can send.
pub(super) async fn first(
    archive: &PreparedArchive,
    target: &Target,
    loader: &Loader<'_>,
) -> Result<Option<Vec<Definition>>> {
    let plan = &archive.plan;
    // Grants come after everything else of a list.
    let lists: [(&str, &[i64]); 2] = [("ground-text", &plan.ground), ("before-text", &plan.before)];
    let Some(mut definitions) = definitions(archive, target, loader, &lists).await? else {
        return Ok(None);
    };
    // The removal reads objects and compares their text; it runs before these settings hold.
    let settings = Definition {
        what: "the settings of the database".to_owned(),
        statements: FOR_LOADING.to_owned(),
    };
    definitions.insert(0, settings);
    Ok(Some(definitions))
}

/// Returns `None` if the server has no room for everything at once: then everything is as it was.
pub(super) async fn replace(
    steps: ArchiveRun<'_>,
    definitions: &[Definition],
    removal: &Removal<'_>,
) -> Result<Option<Renewed>> {
    let ArchiveRun { run, archive, .. } = steps;
    let RestoreRun {
        job, request, target, ..
    } = run;
    let plan = &archive.plan;
    let names = names(&archive.items, plan);
    let made = match has_the_backups_grants(request) {
        true => made(&archive.items, plan),
        false => Vec::new(),
    };
    let renewal = Renewal {
        definitions,
        names: &names,
        made: &made,
    };
    // A session of its own, since the definitions change its settings.
    let session = Session::connect(&target.info, &job.settings.postgres).await?;
    // A server that checks its clients ends the work of a lost client; not every server can.
    let _ = session.execute("SET client_connection_check_interval = 1000").await;
    let cleaned = session.replace(removal, &renewal).await?;
    Ok(cleaned.map(|cleaned| Renewed { session, cleaned }))
}

impl Renewed {
    /// Until the commit everything is as it was.
    pub async fn commit(self, around: &Surroundings, state: &State) -> Result<()> {
        commit(&self.session, around, state).await?;
        self.session.close().await;
        Ok(())
    }
}

/// Commits the removal that is open in this session. If the answer is lost, or is not awaited, the objects may be gone.
pub(super) async fn commit(session: &Session, around: &Surroundings, state: &State) -> Result<()> {
    state.set(Milestone::CommittingRemoval);
    state.remind(around.reminder());
    let committed = session.execute("COMMIT").await;
    if committed.as_ref().is_err_and(|error| error.code() != Code::ConnErr) {
        // The server refused it.
        state.set(Milestone::Cleaning);
        state.remind(None);
    }
    committed
}

/// The names of all relations and indexes that a plan makes.
pub(super) fn names(items: &[Item], plan: &Plan) -> Vec<(String, String)> {
    let made: HashSet<i64> = plan
        .ground
        .iter()
        .chain(&plan.before)
        .chain(&plan.after)
        .copied()
        .collect();
    plan::names(items, &made)
}

/// Whether new objects get only the backup's grants. A whole restore without `--clean` behaves like pg_restore:
/// default privileges of the target apply to new objects.
pub(super) fn has_the_backups_grants(request: &RestoreRequest) -> bool {
    !request.no_privileges && !request.create && (request.clean || !request.tables.is_empty())
}

/// The new objects that default privileges of the target must not change. Schemas that already have their grants keep
/// them.
pub(super) fn made<'a>(items: &'a [Item], plan: &Plan) -> Vec<Named<'a>> {
    let made: HashSet<i64> = plan.before.iter().copied().collect();
    // An identity column's sequence is made by an ALTER TABLE.
    let is_made = |item: &&Item| item.entry.desc == "SEQUENCE" || item.details.definition.contains("CREATE");
    let made = items
        .iter()
        .filter(|item| made.contains(&item.entry.dump_id))
        .filter(is_made);
    made.map(named).collect()
}

/// The same for large objects, which are made with the rows.
pub(super) fn made_objects(request: &RestoreRequest, items: &[Item], plan: &Plan) -> Vec<u32> {
    if !has_the_backups_grants(request) {
        return Vec::new();
    }
    let loaded: HashSet<i64> = plan
        .loads
        .iter()
        .flat_map(|load| &load.list)
        .chain(&plan.before)
        .copied()
        .collect();
    plan::large_objects(items, &loaded)
}

/// pg_restore's own three passes over a list.
fn pass(item: &Item) -> u8 {
    match item.entry.desc.as_str() {
        _ if item.is_grant() => 1,
        "MATERIALIZED VIEW DATA" | "EVENT TRIGGER" => 2,
        _ => 0,
    }
}

/// The text in pieces: settings, then one piece for each entry, which ends with the entry's definition. What follows
/// the definition (its owner) is in the next piece.
fn parts(text: &[u8], list: &[i64], items: &[Item]) -> Option<Vec<(String, Vec<u8>)>> {
    let begin = memmem::find(text, HEADING)?;
    let mut settings = Vec::new();
    for line in text[..begin].split_inclusive(|byte| *byte == b'\n') {
        if !NOT_FOR_US.iter().any(|word| line.starts_with(word)) {
            settings.extend_from_slice(line);
        }
    }
    let end = memmem::rfind(text, UNRESTRICT).filter(|at| is_key(&text[at + UNRESTRICT.len()..]));
    let mut rest = &text[begin..end.unwrap_or(text.len())];
    let mut parts = vec![("the settings of the archive".to_owned(), settings)];
    let mut last = "the last definition".to_owned();
    let listed: HashSet<i64> = list.iter().copied().collect();
    let mut listed: Vec<&Item> = items
        .iter()
        .filter(|item| listed.contains(&item.entry.dump_id))
        .collect();
    listed.sort_by_key(|item| pass(item));
    for item in listed {
        let definition = item.definition();
        last = item.entry.to_string();
        if let Some(at) = memmem::find(rest, definition).filter(|_| !definition.is_empty()) {
            let (part, further) = rest.split_at(at + definition.len());
            parts.push((last.clone(), part.to_vec()));
            rest = further;
        }
    }
    parts.push((last, rest.to_vec()));
    Some(parts)
}

/// Whether this is the rest of pg_restore's last line for psql. In a definition the same word stands before other text.
fn is_key(rest: &[u8]) -> bool {
    let key = rest.trim_ascii_end();
    !key.is_empty() && key.iter().all(u8::is_ascii_alphanumeric)
}

/// The pieces in UTF-8, which our session uses. `None` if the encoding is not known.
async fn read(session: &Session, items: &[Item], parts: Vec<(String, Vec<u8>)>) -> Result<Option<Vec<Definition>>> {
    let encoding = rows::encoding(items);
    let (whats, texts): (Vec<String>, Vec<Vec<u8>>) = parts.into_iter().unzip();
    let texts = if texts.iter().all(|text| text.is_ascii()) || encoding == "UTF8" {
        texts.into_iter().map(|text| String::from_utf8(text).ok()).collect()
    } else {
        session.texts_of(&encoding, &texts).await?
    };
    if texts.len() != whats.len() {
        return Err(Error::internal("texts are lacking"));
    }
    let both = whats.into_iter().zip(texts);
    let read = both.map(|(what, statements)| statements.map(|statements| Definition { what, statements }));
    Ok(read.collect())
}

/// Schema and name of everything that is removed with the tables of the backup.
pub(super) fn going(items: &[Item], plan: &Plan) -> Vec<(String, String)> {
    let dropped: HashSet<&str> = plan.drops.iter().map(String::as_str).collect();
    let gone = items
        .iter()
        .filter(|item| dropped.contains(item.details.drop_statement.trim()) && !item.entry.tag.is_empty());
    let named = gone.filter_map(|item| Some((item.entry.namespace.clone()?, item.entry.tag.clone())));
    named.collect()
}

/// Checks for names that would still be taken after the tables are removed.
pub(super) async fn check_names(target: &Target, items: &[Item], plan: &Plan) -> Result<()> {
    let names: &Names = &names(items, plan);
    let taken = target.session.taken(names, &going(items, plan)).await?;
    match taken.is_empty() {
        true => Ok(()),
        false => Err(crate::postgres::names_are_taken(&taken)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ends_where_its_definition_ends_whatever_stands_in_it() {
        let item = |id: i64, definition: &str| Item::sample(id, "FUNCTION", &format!("f{id}")).defined(definition);
        let odd = "CREATE f AS '\n--\n-- Name: x\n\n\\unrestrict abc\nDROP';\n";
        let items = [item(1, odd), item(2, "CREATE g;\n")];
        let text = format!(
            "--\n-- dump\n--\n\n\\restrict K\n\nSET lock_timeout = 0;\nSET row_security = off;\n\n--\n-- Name: f1; Type: F\n--\n\n\
             {odd}\n\nALTER f OWNER TO a;\n\n--\n-- Name: f2\n--\n\nCREATE g;\n\n\nALTER g OWNER TO a;\n\n--\n-- complete\n--\n\n\
             \\unrestrict K\n\n"
        );
        let parts = parts(text.as_bytes(), &[1, 2], &items).unwrap();
        let texts: Vec<&str> = parts
            .iter()
            .map(|(_, text)| std::str::from_utf8(text).unwrap())
            .collect();
        assert_eq!(texts.len(), 4);
        assert!(texts[0].contains("row_security") && !texts[0].contains("lock_timeout") && !texts[0].contains('\\'));
        assert!(texts[1].ends_with(odd));
        assert!(texts[2].starts_with("\n\nALTER f OWNER") && texts[2].ends_with("CREATE g;\n"));
        assert!(texts[3].contains("ALTER g OWNER") && !texts[3].contains('\\'));
    }

    #[test]
    fn only_the_last_line_for_psql_is_cut_off() {
        let text =
            |end: &str| format!("SET a = 1;\n\n--\n-- Name: f\n--\n\nCREATE f AS '\n\\unrestrict abc\nEND';\n{end}");
        let last = |end: &str| {
            let parts = parts(text(end).as_bytes(), &[], &[]).unwrap();
            String::from_utf8(parts.last().unwrap().1.clone()).unwrap()
        };
        for end in ["", "\n\\unrestrict K\n\n"] {
            let last = last(end);
            assert!(last.ends_with("\\unrestrict abc\nEND';\n"), "{last}");
        }
    }
}
