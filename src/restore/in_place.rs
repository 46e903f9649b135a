//! Rows put back into tables that are there: in one transaction of a session of ours, so that a failure at any
//! point leaves the target as it was.
//!
//! Foreign keys from and to the tables are dropped before, since a table that others refer to cannot be emptied,
//! and made again after the rows are there: which proves that every reference holds. Triggers do not fire: rows
//! arrive as they are in the backup. Before the transaction is committed, the tables are read again and compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::{self, Sender};
use tokio_postgres::error::SqlState;

use super::plan::Plan;
use super::ready::Target;
use super::state::{Stage, State};
use super::{Archive, Job};
use crate::archive::{ArchiveError, BlockContent, BlockSink, Blocks, Check, Item, Loading, Unpack};
use crate::command::RestoreRequest;
use crate::error::{Code, Error, Result};
use crate::postgres::quoting::{literal, qualified};
use crate::postgres::{ForeignKey, Piece, Refusal, Rows, Session, Trigger, Wire, not_locked};
use crate::script::{RowSum, Sum};
use crate::store::Store;
use crate::store::reading::{Reading, our_error};
use crate::stored_archive::StoredArchive;

/// Rows travel to the server in pieces of about this size.
const PIECE: usize = 128 << 10;
/// Pieces that wait for the server.
const AHEAD: usize = 8;

/// What will be done, known before anything is changed.
#[derive(Debug, Default)]
pub(super) struct InPlace {
    /// Quoted, with their schemas, without their heirs where `ONLY` stands before them: what is emptied first.
    emptied: Vec<String>,
    foreign_keys: Vec<ForeignKey>,
    triggers: Vec<Trigger>,
    /// The triggers are silenced by the session and not one by one.
    as_replica: bool,
    check: bool,
}

/// Looks at the target, and refuses what cannot be done there.
pub(super) async fn prepare(
    target: &Target,
    stored: &StoredArchive,
    plan: &Plan,
    request: &RestoreRequest,
) -> Result<InPlace> {
    let names = tables(stored, plan)?;
    let emptied = plan.emptied.clone();
    let session = &target.session;
    if !request.no_check && !emptied.is_empty() {
        keeps_columns(session, stored, plan).await?;
    }
    let foreign_keys = session.foreign_keys(&names).await?;
    let triggers = session.triggers(&names, !emptied.is_empty()).await?;
    let may_not = |what: String| {
        let user = &session.server().user;
        Error::new(Code::Permission, format!("the role {user} may not {what}"))
    };
    if let Some(key) = foreign_keys.iter().find(|key| !key.is_ours) {
        let what = format!("drop and make again the foreign key {} of {}", key.name, key.table);
        return Err(may_not(what).hint(format!(
            "restore as the owner of {}, or as a member of that role",
            key.table
        )));
    }
    let as_replica = triggers.iter().any(|trigger| !trigger.is_ours);
    if as_replica {
        // In such a session those of replicas fire, and those that always do.
        let silent = triggers.iter().all(|trigger| trigger.state == "ENABLE") && session.may_replicate().await;
        if !silent {
            let strangers: Vec<String> = triggers
                .iter()
                .filter(|trigger| !trigger.is_ours)
                .map(|trigger| format!("{} on {}", trigger.name, trigger.table))
                .collect();
            let what = format!("keep these triggers from changing the rows: {}", strangers.join(", "));
            return Err(may_not(what).hint(
                "restore as the tables' owner, or GRANT SET ON PARAMETER session_replication_role to this role",
            ));
        }
    }
    Ok(InPlace {
        emptied,
        foreign_keys,
        triggers,
        as_replica,
        check: !request.no_check,
    })
}

/// A table that is emptied loses the values of columns that the backup does not have.
async fn keeps_columns(session: &Session, stored: &StoredArchive, plan: &Plan) -> Result<()> {
    let copies = stored.head.copy_statements().map_err(|error| broken(&error))?;
    for index in plan.blocks() {
        let (Some((schema, name)), Some(loading)) = (&stored.tables[index], Loading::parse(&copies[index])) else {
            continue;
        };
        let known = loading.column_names();
        let mut columns = session.stored_columns(schema, name).await?;
        columns.retain(|column| !known.iter().any(|name| String::from_utf8_lossy(name) == **column));
        if !columns.is_empty() {
            let what = format!(
                "{schema}.{name} has columns that the backup does not have, and would lose their values: {}",
                columns.join(", ")
            );
            return Err(Error::new(Code::RestoreErr, what).hint(
                "restore the table into another database and copy the rows that are missing; or give --no-check to \
                 lose those values",
            ));
        }
    }
    Ok(())
}

/// The tables that rows are loaded into: of partitions that are loaded through their root, that one too.
fn tables(stored: &StoredArchive, plan: &Plan) -> Result<Vec<(String, String)>> {
    let copies = stored.head.copy_statements().map_err(|error| broken(&error))?;
    let mut names = Vec::new();
    for index in plan.blocks() {
        names.extend(stored.tables[index].clone());
        let loading = Loading::parse(&copies[index]);
        if let Some(loading) = loading.filter(|loading| loading.is_through_another(&stored.head.data[index])) {
            let path = loading.path();
            let mut path = path.iter().map(|name| String::from_utf8_lossy(name).into_owned());
            names.extend(path.next().zip(path.next()));
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn broken(error: &ArchiveError) -> Error {
    Error::new(Code::Integrity, error.to_string())
}

impl InPlace {
    /// In words, for a dry run.
    pub fn steps(&self, plan: &Plan) -> Vec<String> {
        let mut steps = Vec::new();
        for key in &self.foreign_keys {
            steps.push(format!("drop the foreign key {} of {}", key.name, key.table));
        }
        for trigger in &self.triggers {
            steps.push(format!("silence the trigger {} on {}", trigger.name, trigger.table));
        }
        if !self.emptied.is_empty() {
            steps.push(format!("empty {}", self.emptied.join(", ").replace("ONLY ", "")));
        }
        steps.push(format!("load {} blocks of data", plan.blocks().count()));
        if !self.foreign_keys.is_empty() {
            steps.push("make the foreign keys again, and so check every reference".to_owned());
        }
        if self.check {
            steps.push("read the tables again and compare them with the backup".to_owned());
        }
        steps.push("commit: until then everything is as it was".to_owned());
        steps
    }
}

/// What [`run`] needs of the backup.
struct Source<'a> {
    store: &'a Arc<dyn Store>,
    stored: &'a Arc<StoredArchive>,
    items: &'a [Item],
    plan: &'a Plan,
}

/// One COPY: a block, and how it is read again.
struct Copy {
    index: usize,
    statement: Vec<u8>,
    /// Where its rows are found again; several blocks may go through one root.
    place: Vec<u8>,
    /// Their columns, quoted as the archive has them.
    columns: Vec<u8>,
    names: Vec<Vec<u8>>,
}

/// Says how many tables were compared with the backup.
pub(super) async fn run(
    job: &Job<'_>,
    archive: &Archive,
    store: &Arc<dyn Store>,
    target: &Target,
    work: &InPlace,
    state: &State,
) -> Result<usize> {
    let source = Source {
        store,
        stored: &archive.stored,
        items: &archive.items,
        plan: &archive.plan,
    };
    let session = Session::connect(&target.info, &job.settings.postgres).await?;
    let mut wire = session.open_wire().await?;
    let compared = filled(job, &source, &session, &mut wire, work, state).await;
    if compared.is_err() {
        // The server rolls back what it has; an error of it is no news.
        drop(wire.execute(b"ROLLBACK").await);
    }
    let compared = compared?;
    wire.close().await;
    Ok(compared)
}

async fn filled(
    job: &Job<'_>,
    source: &Source<'_>,
    session: &Session,
    wire: &mut Wire,
    work: &InPlace,
    state: &State,
) -> Result<usize> {
    let (plan, stored) = (source.plan, source.stored);
    let wait = job.settings.postgres.lock_wait;
    let names = tables(stored, plan)?;
    let encoding = encoding(source.items);
    // A server that checks its clients ends the work of one that is gone; not every one can.
    if let Err(refusal @ Refusal::Broken(_)) = wire.execute(b"SET client_connection_check_interval = 1000").await {
        return Err(refusal.into_error());
    }
    let begin = format!(
        "SET client_encoding = 'UTF8'; SET client_min_messages = error; SET statement_timeout = 0; \
         SET idle_in_transaction_session_timeout = 0; SET row_security = off; SET lock_timeout = {}; \
         BEGIN",
        wait.as_millis()
    );
    execute(wire, &begin).await?;
    let locked = lock_all(wire, &names, work).await;
    if let Err(refusal) = locked {
        if !refusal.is(&SqlState::LOCK_NOT_AVAILABLE) {
            return Err(refused("cannot lock the tables", refusal));
        }
        let mut all = names.clone();
        all.extend(work.foreign_keys.iter().map(|key| key.of.clone()));
        return Err(not_locked(wait, "the tables", &session.holders(&all).await));
    }
    job.observer.phase("emptying the tables");
    if work.as_replica {
        execute(wire, "SET LOCAL session_replication_role = replica").await?;
    } else {
        for trigger in &work.triggers {
            execute(wire, &trigger.disabling()).await?;
        }
    }
    for key in &work.foreign_keys {
        execute(wire, &key.dropping()).await?;
    }
    if !work.emptied.is_empty() {
        // Together, since they may refer to each other.
        let emptied = format!("TRUNCATE TABLE {}", work.emptied.join(", "));
        execute(wire, &emptied).await?;
    }

    execute(wire, &format!("SET client_encoding = {}", literal(&encoding))).await?;
    let copies = copies(source)?;
    let mut expected: BTreeMap<Vec<u8>, Sum> = BTreeMap::new();
    if work.check {
        // They were empty when they were looked at.
        for copy in &copies {
            if !expected.contains_key(&copy.place) {
                let there = read_again(wire, copy).await?;
                if there != Sum::default() {
                    let what = format!("{} has rows by now", stored.name(copy.index));
                    return Err(Error::new(Code::RestoreErr, what).hint("empty it first with --clean"));
                }
                expected.insert(copy.place.clone(), there);
            }
        }
    }
    job.observer.phase("loading the data");
    job.observer.estimate(plan.stored_bytes());
    for copy in &copies {
        let sum = load(job, source, wire, copy).await?;
        expected.entry(copy.place.clone()).or_default().merge(sum);
    }
    let mut compared = 0;
    if work.check {
        job.observer.phase("comparing the rows");
        let mut seen = BTreeMap::new();
        for copy in &copies {
            if seen.insert(copy.place.clone(), ()).is_none() && read_again(wire, copy).await? != expected[&copy.place] {
                let table = stored.name(copy.index);
                let what = format!(
                    "{table} would not hold the rows of the backup: its columns' types, or a rule, change them"
                );
                return Err(Error::new(Code::RestoreErr, what).hint(
                    "restore the table under its own definition (without --data-only); or waive this with --no-check",
                ));
            }
        }
        compared = copies.len();
    }

    execute(wire, "SET client_encoding = 'UTF8'").await?;
    if !work.as_replica {
        for trigger in &work.triggers {
            execute(wire, &trigger.enabling()).await?;
        }
    }
    if !work.foreign_keys.is_empty() {
        job.observer.phase("checking the references");
    }
    for key in &work.foreign_keys {
        let made = wire.execute(key.making().as_bytes()).await;
        made.map_err(|refusal| {
            if !refusal.is(&SqlState::FOREIGN_KEY_VIOLATION) {
                let what = format!("the foreign key {} of {} could not be made again", key.name, key.table);
                return refused(&what, refusal);
            }
            let what = format!("the foreign key {} of {} would not hold", key.name, key.table);
            let to = qualified(&key.to.0, &key.to.1);
            refused(&what, refusal).hint(format!(
                "the rows of {} and of {to} have to be of one moment: name both with --table",
                key.table
            ))
        })?;
    }
    state.set(Stage::Committing);
    match wire.execute(b"COMMIT").await {
        Err(refusal @ Refusal::Server { .. }) => {
            state.set(Stage::Untouched);
            return Err(refused("the rows could not be committed", refusal));
        }
        Err(refusal) => return Err(refusal.into_error()),
        Ok(()) => state.set(Stage::Committed),
    }
    positions(source, wire, &encoding).await?;
    Ok(compared)
}

async fn execute(wire: &mut Wire, statement: &str) -> Result<()> {
    wire.execute(statement.as_bytes())
        .await
        .map_err(|refusal| refused(statement, refusal))
}

fn refused(what: &str, refusal: Refusal) -> Error {
    if refusal.is(&SqlState::LOCK_NOT_AVAILABLE) {
        return Error::new(Code::RestoreErr, format!("{what}: a lock was not to be had in time"))
            .hint("let others end their transactions, or wait longer: BACKUP_LOCK_WAIT_SECONDS");
    }
    let (code, message) = match refusal {
        Refusal::Broken(error) => (error.code(), error.message()),
        Refusal::Server { state, error, .. } => match error.code() {
            Code::Permission => (Code::Permission, error.message()),
            // What is wrong with a value ends with it.
            _ if state.code().starts_with("22") => {
                let message = error.message();
                let told = message.rfind(": \"").map_or(&*message, |at| &message[..at]);
                (Code::RestoreErr, told.to_owned())
            }
            _ => (Code::RestoreErr, error.message()),
        },
    };
    Error::new(code, format!("{what}: {message}"))
}

/// Before anything else, and in one order: so that no two of us wait for each other.
async fn lock_all(wire: &mut Wire, names: &[(String, String)], work: &InPlace) -> std::result::Result<(), Refusal> {
    let mut all: Vec<&(String, String)> = names.iter().collect();
    for key in &work.foreign_keys {
        all.push(&key.of);
        // What may not be locked so is locked when the key is dropped.
        all.extend(key.to_is_ours.then_some(&key.to));
    }
    all.sort();
    all.dedup();
    let tables: Vec<String> = all.iter().map(|(schema, name)| qualified(schema, name)).collect();
    let lock = |mode: &str| format!("LOCK TABLE ONLY {} IN {mode} MODE", tables.join(", ONLY "));
    if !(work.foreign_keys.is_empty() && work.triggers.is_empty() && work.emptied.is_empty()) {
        return wire.execute(lock("ACCESS EXCLUSIVE").as_bytes()).await;
    }
    wire.execute(b"SAVEPOINT unlocked").await?;
    match wire.execute(lock("SHARE ROW EXCLUSIVE").as_bytes()).await {
        // A role that may do nothing but insert: others may insert as well.
        Err(refusal) if refusal.is(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            wire.execute(b"ROLLBACK TO SAVEPOINT unlocked").await
        }
        locked => locked,
    }
}

/// As the archive's text is.
fn encoding(items: &[Item]) -> String {
    let set = items.iter().find(|item| item.entry.desc == "ENCODING");
    let quoted = set.and_then(|item| item.details.definition.split('\'').nth(1));
    quoted.unwrap_or("UTF8").to_owned()
}

fn copies(source: &Source<'_>) -> Result<Vec<Copy>> {
    let stored = source.stored;
    let statements = stored.head.copy_statements().map_err(|error| broken(&error))?;
    let mut blocks: Vec<usize> = source.plan.blocks().collect();
    blocks.sort_unstable();
    let copy = |index: usize| {
        // The statement is made anew of its parts: whatever else the archive may say there is not run.
        let loading = Loading::parse(&statements[index]).ok_or_else(|| {
            Error::new(
                Code::Integrity,
                format!("{}: its COPY statement is none of pg_dump's", stored.name(index)),
            )
        })?;
        let only: &[u8] = if loading.is_through_another(&stored.head.data[index]) {
            b""
        } else {
            b"ONLY "
        };
        Ok(Copy {
            index,
            statement: loading.statement(),
            place: [only, loading.table].concat(),
            columns: loading.columns.to_vec(),
            names: loading.column_names(),
        })
    };
    blocks.into_iter().map(copy).collect()
}

/// Sums rows as they come from the server.
struct Summed(RowSum);

impl Rows for Summed {
    fn text(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn end(&mut self, _rows: u64) {}
    async fn turn(&mut self) -> Result<()> {
        Ok(())
    }
}

async fn read_again(wire: &mut Wire, copy: &Copy) -> Result<Sum> {
    let statement = [b"COPY (SELECT ", &*copy.columns, b" FROM ", &copy.place, b") TO STDOUT"].concat();
    let mut rows = Summed(RowSum::of(&copy.names));
    wire.copy(&statement, &mut rows)
        .await
        .map_err(|refusal| refused("cannot read the rows again", refusal))?;
    Ok(rows.0.finish())
}

/// One block through one COPY; its digest has been found right when the COPY is whole.
async fn load(job: &Job<'_>, source: &Source<'_>, wire: &mut Wire, copy: &Copy) -> Result<Sum> {
    let name = source.stored.name(copy.index);
    job.observer.table(&name);
    let (pieces, mut received) = mpsc::channel(AHEAD);
    let feeding = {
        let (store, stored) = (Arc::clone(source.store), Arc::clone(source.stored));
        let (observer, index, sum) = (Arc::clone(job.observer), copy.index, RowSum::of(&copy.names));
        let key = stored.key.clone();
        let place = stored.places[index].clone();
        let reading = Reading::start(store, key, place.clone()).into_blocking();
        tokio::task::spawn_blocking(move || {
            observer.bytes_read(place.end - place.start);
            let sink = ToServer {
                pieces,
                batch: Vec::with_capacity(PIECE),
                sum: Some(sum),
                left: stored.promises[index].bytes,
            };
            let mut sink = Unpack::new(stored.head.compression, Check::new(&stored.promises, sink));
            Blocks::new(reading, place.start).read(&stored.head, index, &place, &mut sink)?;
            sink.inner().inner().finish()
        })
    };
    let copied = wire.copy_in(&copy.statement, &mut received).await;
    drop(received);
    let fed = feeding
        .await
        .map_err(|error| Error::internal("the thread that reads the backup died").source(error))?;
    let sum = match (fed, copied) {
        (Ok(sum), Ok(rows)) if BlockContent::Table { rows } == source.stored.promises[copy.index].content => sum,
        (Ok(_), Ok(rows)) => {
            return Err(Error::new(
                Code::RestoreErr,
                format!("the server took {rows} rows of {name}, which are not all of the backup's"),
            ));
        }
        (_, Err(refusal @ Refusal::Server { .. })) if !received_less(&refusal) => {
            return Err(refused(&format!("cannot load {name}"), refusal));
        }
        (Err(error), _) => return Err(unread(source.stored, copy.index, error)),
        (Ok(_), Err(refusal)) => return Err(refused(&format!("cannot load {name}"), refusal)),
    };
    Ok(sum)
}

/// The server says that we ended the COPY: the reason is ours.
fn received_less(refusal: &Refusal) -> bool {
    refusal.is(&SqlState::QUERY_CANCELED)
}

fn unread(stored: &StoredArchive, index: usize, error: ArchiveError) -> Error {
    match error {
        ArchiveError::Io(error) => match our_error(error) {
            Ok(ours) => ours,
            Err(error) => Error::new(Code::Store, format!("cannot read {}", stored.key)).source(error),
        },
        other => Error::new(
            Code::Integrity,
            format!("{}: {}: {other}", stored.key, stored.name(index)),
        ),
    }
}

/// A block's content on its way to the server.
struct ToServer {
    pieces: Sender<Piece>,
    batch: Vec<u8>,
    /// Until it has ended.
    sum: Option<RowSum>,
    /// Bytes of rows that have not come yet. What follows them ends the COPY.
    left: u64,
}

impl ToServer {
    fn send(&mut self) -> Result<(), ArchiveError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(PIECE));
        if let Some(sum) = &mut self.sum {
            let rows = batch.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            sum.update(&batch[..rows]);
            self.left -= rows as u64;
        }
        self.pieces
            .blocking_send(Piece::Rows(Bytes::from(batch)))
            .map_err(|_| ArchiveError::Stopped)
    }

    /// All is there, and is what the manifest promises.
    fn finish(&mut self) -> Result<Sum, ArchiveError> {
        self.send()?;
        let ended = self.pieces.blocking_send(Piece::End);
        ended.map_err(|_| ArchiveError::Stopped)?;
        Ok(self.sum.take().map(RowSum::finish).unwrap_or_default())
    }
}

impl BlockSink for ToServer {
    fn begin(&mut self, _index: usize) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn begin_object(&mut self, _oid: i64) -> Result<(), ArchiveError> {
        Err(ArchiveError::Content(
            "it holds large objects, and should hold rows".into(),
        ))
    }
    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.batch.extend_from_slice(bytes);
        if self.batch.len() >= PIECE {
            self.send()?;
        }
        Ok(())
    }
    fn end_object(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn end(&mut self, _at: u64) -> Result<(), ArchiveError> {
        Ok(())
    }
}

/// Where the tables' sequences stand. No transaction undoes that, so it comes after it.
async fn positions(source: &Source<'_>, wire: &mut Wire, encoding: &str) -> Result<()> {
    let chosen = source.plan.loads.iter().flat_map(|load| &load.list);
    let chosen: Vec<i64> = chosen.copied().collect();
    let set = |item: &&Item| item.entry.desc == "SEQUENCE SET" && chosen.contains(&item.entry.dump_id);
    execute(wire, &format!("SET client_encoding = {}", literal(encoding))).await?;
    for item in source.items.iter().filter(set) {
        let forward = forward(item.definition()).ok_or_else(|| {
            let what = format!("{}: its statement is none of pg_dump's", item.entry);
            Error::new(Code::Integrity, what)
        })?;
        wire.execute(&forward)
            .await
            .map_err(|refusal| refused("a sequence could not be set", refusal))?;
    }
    Ok(())
}

/// `SELECT pg_catalog.setval('s.q', 5, true);` made anew of its parts, for a sequence that has not come further
/// since: numbers that are in use must not be given out again.
fn forward(statement: &[u8]) -> Option<Vec<u8>> {
    let rest = statement.trim_ascii().strip_prefix(b"SELECT pg_catalog.setval(")?;
    let rest = rest.strip_suffix(b");")?;
    let (rest, called) = match rest.strip_suffix(b", true") {
        Some(rest) => (rest, "true"),
        None => (rest.strip_suffix(b", false")?, "false"),
    };
    let at = rest.iter().rposition(|byte| *byte == b',')?;
    let value: i64 = std::str::from_utf8(&rest[at + 1..]).ok()?.trim().parse().ok()?;
    let literal = rest[..at].strip_prefix(b"'")?.strip_suffix(b"'")?;
    // In the literal, quotes of the name's own are doubled.
    let mut name = Vec::with_capacity(literal.len());
    let mut bytes = literal.iter().peekable();
    while let Some(&byte) = bytes.next() {
        if byte == b'\'' && bytes.next() != Some(&b'\'') {
            return None;
        }
        name.push(byte);
    }
    if !Loading::is_name(&name) {
        return None;
    }
    let tail = format!("', {value}, {called}) FROM pg_catalog.pg_sequence p, ",);
    let (by, end) = (
        b" q WHERE p.seqrelid = '",
        format!(
            "'::pg_catalog.regclass AND (q.last_value = {value} AND NOT q.is_called \
         OR CASE WHEN p.seqincrement > 0 THEN q.last_value < {value} ELSE q.last_value > {value} END)"
        ),
    );
    Some(
        [
            b"SELECT pg_catalog.setval('",
            literal,
            tail.as_bytes(),
            &name,
            by,
            literal,
            end.as_bytes(),
        ]
        .concat(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_set_by_a_statement_of_ours() {
        let made = |text: &str| forward(text.as_bytes()).map(|made| String::from_utf8(made).unwrap());
        let plain = made("SELECT pg_catalog.setval('public.people_id_seq', 500, true);\n").unwrap();
        assert!(plain.starts_with("SELECT pg_catalog.setval('public.people_id_seq', 500, true) FROM pg_catalog.pg_sequence p, public.people_id_seq q"), "{plain}");
        let odd = made("SELECT pg_catalog.setval('public.\"it''s\"', -5, false);").unwrap();
        assert!(
            odd.contains("('public.\"it''s\"', -5, false)") && odd.contains(", public.\"it's\" q "),
            "{odd}"
        );
        for hostile in [
            "SELECT pg_catalog.setval('public.a', 1, true); DROP TABLE x;",
            "SELECT pg_catalog.setval('public.a', 1, true); --, true);",
            "SELECT pg_catalog.setval('public.a'); DROP TABLE x; SELECT ('', 1, true);",
            "SELECT pg_catalog.setval('public.a', (SELECT 1), true);",
            "SELECT pg_catalog.setval('public.a; b', 1, true);",
            "SELECT pg_catalog.setval('', 1, true);",
        ] {
            assert_eq!(made(hostile), None, "{hostile}");
        }
    }
}
