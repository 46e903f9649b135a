//! The backup's view of the database: the snapshot and its reader, with every table locked as the snapshot sees it.
//!
//! pgstow locks the tables before it takes the snapshot ([`Hold`]), and pg_dump takes its own locks before pgstow
//! releases these. If that is not possible (other sessions change tables every time, or the server has no room for the
//! locks), only pg_dump locks the tables, after the snapshot. Then pgstow checks whether a table changed in between,
//! and if so tries again.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use super::{Job, SourceDatabase, answered, answered_within, streamed};
use crate::dataflow::parallel::{self, Opening, Streams};
use crate::error::{Code, Error, Result};
use crate::postgres::{Collation, Extension, Omission};
use crate::postgres::{
    Contents, Dump, DumpOrder, Hold, RawTable, Session, Snapshot, StallClock, TableColumn, TableName, Taken, Unbegun,
    WatchedPipe,
};
use crate::repository::lease::Lease;
use crate::settings::{Format, OnChangedTables};

/// How often pgstow tries to lock the tables before the snapshot, if other sessions interfere.
const HELD: usize = 3;
/// How often pg_dump alone locks the tables, until none has changed in between.
const UNHELD: usize = 10;
/// The most names in an error.
const NAMED: usize = 10;
/// Bytes to read from pg_dump as a sign that it has all its locks.
const FIRST: usize = 4096;

pub(super) struct View {
    pub snapshot: Snapshot,
    /// Names of tables that are not UTF-8 in the archive, by OID.
    pub names: HashMap<u32, TableName>,
    /// The columns of each table, by OID.
    pub columns: HashMap<u32, Vec<TableColumn>>,
    /// `catalog.json`, for the increments that follow.
    pub catalog: Option<Vec<u8>>,
    /// For a plain script: every table, with its name in the script.
    pub tables_of_script: Vec<RawTable>,
    pub reader: Opened,
    /// An estimate of the bytes that COPY will send.
    pub table_bytes: u64,
    /// Notes for the report.
    pub notes: Vec<String>,
    /// Tables that look empty in the snapshot but were not.
    pub emptied: Vec<String>,
    /// What pg_dump does not save.
    pub left_out: Vec<Omission>,
    pub extensions: Option<Vec<Extension>>,
    pub collations: Option<Vec<Collation>>,
}

/// The reader, ready to read.
pub(in crate::job) enum Opened {
    Dump(Begun),
    Streams(Box<Streams>),
}

/// A pg_dump that has begun to write: it has all its locks, and knows everything that it will read.
pub(in crate::job) struct Begun {
    pub dump: Dump,
    pub first: Vec<u8>,
    pub output: File,
}

/// It may take as long as other sessions hold the tables, so the lease may be lost meanwhile.
/// `streams`: COPY streams should read the tables, and not pg_dump.
pub(super) async fn open(job: &Job<'_>, source: &SourceDatabase, lease: &Lease, streams: bool) -> Result<View> {
    tokio::select! {
        biased;
        error = lease.lost() => Err(error),
        view = look(job, source, streams) => view,
    }
}

async fn look(job: &Job<'_>, source: &SourceDatabase, streams: bool) -> Result<View> {
    match held(job, source, streams).await? {
        Ok(view) => Ok(view),
        Err(notes) => unheld(job, source, notes).await,
    }
}

/// Facts about the database in the snapshot, which pgstow's own session reads.
struct Survey {
    table_bytes: u64,
    names: HashMap<u32, TableName>,
    columns: HashMap<u32, Vec<TableColumn>>,
    /// `catalog.json`, or why it cannot be made.
    catalog: Result<Option<Vec<u8>>>,
    tables_of_script: Vec<RawTable>,
    left_out: Vec<Omission>,
    extensions: Option<Vec<Extension>>,
    collations: Option<Vec<Collation>>,
}

async fn survey(job: &Job<'_>, session: &Session) -> Result<Survey> {
    let plain = job.settings.format == Format::Plain;
    Ok(Survey {
        tables_of_script: match plain {
            true => answered(job, async { Ok(session.raw_tables().await) }).await?,
            false => Vec::new(),
        },
        table_bytes: answered(job, session.table_bytes()).await?,
        names: answered(job, async { Ok(session.names_in_other_encoding().await) }).await?,
        columns: answered(job, async { Ok(session.columns().await) }).await?,
        catalog: answered(job, async { Ok(streamed::catalog(job, session).await) }).await?,
        left_out: answered(job, session.left_out(job.settings.format)).await?,
        extensions: answered(job, async { Ok(session.extensions().await) }).await?,
        collations: answered(job, async { Ok(session.collations().await) }).await?,
    })
}

/// Does both at once. pg_dump takes longer to start, so pgstow's own session has finished when pg_dump begins.
async fn begin_and_survey(
    job: &Job<'_>,
    source: &SourceDatabase,
    snapshot: &Snapshot,
    lock_wait: Duration,
) -> Result<(Begun, Survey), Unbegun> {
    let contents = Contents::Whole(job.settings.format);
    let begun = begin(job, source, snapshot, contents, lock_wait);
    let (begun, survey) = futures::join!(begun, survey(job, &source.session));
    // If the session was cut, pg_dump's error is the better one.
    Ok((begun?, survey?))
}

/// A snapshot that was taken while all tables were locked. The inner `Err`: that was not possible, with notes for the
/// report.
async fn held(job: &Job<'_>, source: &SourceDatabase, streams: bool) -> Result<Result<View, Vec<String>>> {
    let postgres = &job.settings.postgres;
    let session = &source.session;
    let jobs = job.settings.jobs;
    let one_stream = |why: &str| match jobs {
        1 => format!("large tables are stored, changed or not, because pg_dump reads them: {why}"),
        _ => format!("read with one stream, not {jobs}: {why}"),
    };
    let mut notes = Vec::new();
    let mut many = streams && job.settings.format == Format::Custom;
    let mut crossed = String::new();
    let mut unclear = false;
    let mut left = HELD;
    while left > 0 {
        left -= 1;
        let (hold, snapshot) =
            match answered_within(job, patience(job), Hold::take(session, postgres.lock_wait)).await? {
                Taken::Held(hold, snapshot) => (hold, snapshot),
                Taken::Changed(why) => {
                    crossed = why;
                    continue;
                }
                Taken::Unheld(why) => {
                    notes.extend(many.then(|| one_stream(&why)));
                    return Ok(Err(notes));
                }
            };
        let attempt = match many {
            true => by_streams(job, source, hold, &snapshot).await?,
            false => by_dump(job, source, hold, &snapshot).await?,
        };
        match attempt {
            Attempt::Read(read) => {
                let (opened, survey) = *read;
                if let Opened::Streams(streams) = &opened {
                    notes.extend(streams.note.clone());
                }
                return Ok(Ok(View::whole(snapshot, opened, survey, notes)));
            }
            Attempt::OneStream(why) => {
                notes.push(one_stream(&why));
                (many, left) = (false, HELD);
            }
            Attempt::Crossed(why) => crossed = why,
            Attempt::Unclear(error) if unclear => return Err(error),
            Attempt::Unclear(error) => {
                unclear = true;
                crossed = error.message();
            }
            Attempt::NoRoom => left = 0,
        }
        answered(job, session.release_snapshot()).await?;
    }
    if many {
        notes.push(one_stream(&format!(
            "tables changed, or other sessions waited for them, while pgstow locked them, {HELD} times: {crossed}"
        )));
    }
    Ok(Err(notes))
}

/// pgstow may have to wait for one lock after another.
fn patience(job: &Job<'_>) -> Duration {
    job.settings.postgres.stall + job.settings.postgres.lock_wait
}

/// How an attempt to begin reading ended, while all tables were locked.
enum Attempt {
    Read(Box<(Opened, Survey)>),
    /// Why it failed; another attempt may succeed.
    Crossed(String),
    /// The same, but only once.
    Unclear(Error),
    /// Why more than one stream is not possible.
    OneStream(String),
    /// The server cannot lock all tables.
    NoRoom,
}

async fn by_streams(job: &Job<'_>, source: &SourceDatabase, hold: Hold, snapshot: &Snapshot) -> Result<Attempt> {
    let session = &source.session;
    let request = parallel::ReadRequest {
        session,
        programs: &source.programs,
        passfile: source.passfile.as_ref(),
        snapshot: &snapshot.id,
        jobs: job.settings.jobs,
        read_ahead: job.settings.memory.read_ahead,
        settings: &job.settings.postgres,
    };
    let opening = answered_within(job, patience(job), parallel::open(&request, hold)).await?;
    Ok(match opening {
        Opening::Streams(streams) => {
            let survey = survey(job, session).await?;
            Attempt::Read(Box::new((Opened::Streams(streams), survey)))
        }
        Opening::OneStream(why) => Attempt::OneStream(why),
        Opening::Crossed(why) => Attempt::Crossed(why),
    })
}

async fn by_dump(job: &Job<'_>, source: &SourceDatabase, hold: Hold, snapshot: &Snapshot) -> Result<Attempt> {
    let lock_wait = Unbegun::briefly(job.settings.postgres.lock_wait);
    let begun = begin_and_survey(job, source, snapshot, lock_wait).await;
    let released = answered(job, async { Ok(hold.release().await) }).await?;
    match (begun, released) {
        (Ok((begun, _)), Err(error)) => {
            begun.dump.stop().await;
            // It is unknown when the locks ended.
            let error = error.context("the session that held the tables was ended");
            Ok(Attempt::Crossed(error.message()))
        }
        (Ok((begun, survey)), Ok(())) => Ok(Attempt::Read(Box::new((Opened::Dump(begun), survey)))),
        (Err(Unbegun::Crossed(error)), _) => Ok(Attempt::Crossed(error.message())),
        (Err(Unbegun::Unclear(error)), _) => Ok(Attempt::Unclear(error)),
        (Err(Unbegun::NoRoom(_)), _) => Ok(Attempt::NoRoom),
        // pgstow's own connection may have been one too many.
        (Err(Unbegun::Failed(error)), _) if error.code() == Code::ConnErr => Ok(Attempt::NoRoom),
        (Err(Unbegun::Failed(error)), _) => Err(error),
    }
}

/// A snapshot whose tables pg_dump locked before any of them changed. If the settings allow it, also a snapshot with
/// changed tables, which the view names.
async fn unheld(job: &Job<'_>, source: &SourceDatabase, notes: Vec<String>) -> Result<View> {
    let lock_wait = job.settings.postgres.lock_wait;
    let session = &source.session;
    let mut attempt = 1;
    loop {
        let snapshot = answered(job, session.export_snapshot()).await?;
        let asked = Instant::now();
        match begin_and_survey(job, source, &snapshot, lock_wait).await {
            Ok((begun, survey)) => {
                let changed = answered(job, session.changed_tables()).await?;
                if changed.is_empty() {
                    return Ok(View::whole(snapshot, Opened::Dump(begun), survey, notes));
                }
                if attempt == UNHELD {
                    if job.settings.on_changed_tables == OnChangedTables::Fail {
                        return Err(emptied(&changed));
                    }
                    return Ok(View {
                        emptied: changed,
                        ..View::whole(snapshot, Opened::Dump(begun), survey, notes)
                    });
                }
                begun.dump.stop().await;
            }
            // A table was dropped or renamed before its lock, unless the time for the lock was over.
            Err(Unbegun::Crossed(_)) if attempt < UNHELD && (lock_wait.is_zero() || asked.elapsed() < lock_wait) => {}
            Err(Unbegun::Unclear(_)) if attempt == 1 => {}
            Err(unbegun) => return Err(unbegun.into()),
        }
        answered(job, session.release_snapshot()).await?;
        attempt += 1;
    }
}

impl View {
    fn whole(snapshot: Snapshot, reader: Opened, survey: Survey, mut notes: Vec<String>) -> Self {
        let Survey {
            table_bytes,
            names,
            columns,
            catalog,
            tables_of_script,
            left_out,
            extensions,
            collations,
        } = survey;
        let catalog = catalog.unwrap_or_else(|error| {
            notes.push(format!(
                "the tables for the increments after this backup were not recorded, so that these have to read all tables \
                 whole: {}",
                error.message()
            ));
            None
        });
        Self {
            table_bytes: match &reader {
                Opened::Streams(streams) => streams.bytes(),
                Opened::Dump(_) => table_bytes,
            },
            snapshot,
            names,
            columns,
            catalog,
            tables_of_script,
            reader,
            notes,
            emptied: Vec::new(),
            left_out,
            extensions,
            collations,
        }
    }
}

fn emptied(tables: &[String]) -> Error {
    let mut names = tables[..tables.len().min(NAMED)].join(", ");
    if tables.len() > NAMED {
        names = format!("{names} and {} more", tables.len() - NAMED);
    }
    let text = format!(
        "tables were emptied or rewritten after the backup's snapshot and before their locks, {UNHELD} times in a row, \
         and would be stored without their rows: {names}"
    );
    Error::new(Code::Changed, text)
}

/// Starts pg_dump, and waits for its first bytes. It writes none before it has all its locks.
pub(in crate::job) async fn begin(
    job: &Job<'_>,
    source: &SourceDatabase,
    snapshot: &Snapshot,
    contents: Contents<'_>,
    lock_wait: Duration,
) -> Result<Begun, Unbegun> {
    let postgres = &job.settings.postgres;
    let mut dump = Dump::start(&DumpOrder {
        programs: &source.programs,
        info: source.session.info(),
        passfile: source.passfile.as_deref(),
        snapshot: &snapshot.id,
        contents,
        lock_wait,
        settings: postgres,
    })
    .await?;
    let output = dump.take_stdout()?;
    let clock = StallClock::default();
    let mut pipe = WatchedPipe::new(output, clock.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let mut first = vec![0; FIRST];
        let count = pipe.read(&mut first)?;
        first.truncate(count);
        Ok::<_, std::io::Error>((first, pipe.into_inner()))
    });
    let read = tokio::select! {
        biased;
        reason = job.stop.requested() => return Err(Error::from(reason).into()),
        read = reading => read,
        () = clock.watch(postgres.stall) => return Err(dump.stalled(postgres.stall).await.into()),
    };
    let read = read.map_err(|error| Error::internal("reading pg_dump's first bytes failed").source(error))?;
    let (first, output) =
        read.map_err(|error| Error::new(Code::PgDumpErr, "pg_dump's output cannot be read").source(error))?;
    if first.is_empty()
        && let Some(unbegun) = job
            .stop
            .or_stop(async { Ok(dump.unbegun(postgres.stall).await) })
            .await?
    {
        return Err(unbegun);
    }
    Ok(Begun { dump, first, output })
}
