//! The parallel source: one snapshot, read by many COPY streams, and written as the one archive that
//! pg_dump would have given.
//!
//! ```text
//! holder    imports the snapshot, locks every table, and keeps the locks to the end
//! pg_dump   gives header and table of contents under the same snapshot, and is stopped
//! workers   import the snapshot, take tasks (a stretch of a large table, or some small ones) in
//!           order, and read ahead as far as there is room
//! delivery  writes the tasks' rows in order; large objects come last, from pg_dump itself
//! ```
//!
//! What is not sure to give pg_dump's own bytes is left to pg_dump: the backup then has one stream,
//! and says why.

mod delivery;
mod holder;
mod large_objects;
mod plan;
mod portion;
mod read_ahead;
mod statement;
mod worker;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::archive::{Head, Input};
use crate::error::{Code, Error, Result};
use crate::pipeline::BlockSource;
use crate::postgres::{
    ConnectionInfo, Contents, Dump, DumpOrder, Passfile, Programs, Refusal, Session, StallClock, WatchedPipe, Wire,
};
use crate::settings::{self, Format};
use crate::throttle::Throttle;

use delivery::Delivery;
use holder::{Held, Request};
use large_objects::Running;
use plan::Plan;
use portion::Event;
use read_ahead::ReadAhead;
use worker::{LOCK_WAIT_MS, Turn};

/// How long pg_dump may wait for a lock while the holder has it already: then somebody has come in
/// between, and waits for the holder. A new attempt lets them pass.
const BRIEFLY: Duration = Duration::from_secs(2);
/// Tasks that may be read and not yet written, however small they are.
const TASKS_AHEAD: usize = 64;

/// What is to be read, and by how many.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    pub session: &'a Session,
    pub programs: &'a Programs,
    pub passfile: Option<&'a Arc<Passfile>>,
    /// Exported by `session`, which keeps it.
    pub snapshot: &'a str,
    pub jobs: usize,
    /// Bytes that the streams may be ahead of what is written.
    pub read_ahead: u64,
    pub settings: &'a settings::Postgres,
}

pub enum Opening {
    Streams(Box<Streams>),
    /// The tables changed between the snapshot and their locks: another snapshot may do.
    Changed(String),
    /// What stands in the way of more than one stream.
    OneStream(String),
}

/// Every table is held, and every session waits to begin.
pub struct Streams {
    head: Head,
    plan: Plan,
    names: Vec<String>,
    holder: Wire,
    workers: Vec<Wire>,
    dumping: Dumping,
    read_ahead: u64,
    /// What the report should say: fewer sessions than were asked for.
    pub note: Option<String>,
}

/// Opens the sessions and locks the tables. Dropped midway, it leaves nothing behind.
pub async fn open(order: &Order<'_>) -> Result<Opening> {
    let mut holder = match join(order).await {
        Ok(wire) => wire,
        Err(Unjoined::Connection(error)) => return Ok(Opening::OneStream(error.message())),
        Err(Unjoined::Snapshot(error)) => return Err(error),
    };
    let hold = match hold(order, &mut holder).await {
        Ok(Ok(hold)) => hold,
        Ok(Err(other)) => {
            // Its locks and its connection are wanted by those who come now.
            holder.close().await;
            return Ok(other);
        }
        Err(error) => return Err(error),
    };
    let wanted = order.jobs.min(hold.plan.tasks.len());
    let (workers, note) = workers(order, wanted).await?;
    if let (Some(why), true) = (&note, workers.is_empty()) {
        holder.close().await;
        return Ok(Opening::OneStream(why.clone()));
    }
    let Hold { head, plan } = hold;
    Ok(Opening::Streams(Box::new(Streams {
        names: head.data.iter().map(ToString::to_string).collect(),
        head,
        plan,
        holder,
        note: note.map(|why| format!("read with {} streams, not {wanted}: {why}", workers.len())),
        workers,
        dumping: Dumping::of(order),
        read_ahead: order.read_ahead,
    })))
}

/// What is to be read, and cannot change any more.
struct Hold {
    head: Head,
    plan: Plan,
}

/// Locks the tables, and asks pg_dump what they are. The inner `Err` is what else is to be done.
async fn hold(order: &Order<'_>, holder: &mut Wire) -> Result<Result<Hold, Opening>> {
    match holder::hold(holder, order.settings.lock_wait).await? {
        Held::All => {}
        Held::Changed(what) => return Ok(Err(Opening::Changed(what))),
        Held::NoRoom(tables) => {
            return Ok(Err(Opening::OneStream(format!(
                "the server's lock table has no room for {tables} tables a second time: raise max_locks_per_transaction"
            ))));
        }
    }
    // Each takes its time where tables are many, and neither waits for a lock of the other's.
    let major = order.session.server().major;
    let contents = async { Ok(contents(order).await) };
    let (facts, contents) = futures::future::try_join(holder::facts(holder, major), contents).await?;
    let facts = match facts {
        Ok(facts) => facts,
        Err(what) => return Ok(Err(Opening::Changed(what))),
    };
    let head = match contents {
        Ok(Ok(head)) => head,
        Ok(Err(what)) => return Ok(Err(Opening::Changed(what))),
        // It may be that there is one connection too few.
        Err(error) if error.code() == Code::ConnErr => return Ok(Err(Opening::OneStream(error.message()))),
        Err(error) => return Err(error),
    };
    Ok(plan::plan(&head, &head.copy_statements()?, &facts)
        .map(|plan| Hold { head, plan })
        .map_err(|entry| Opening::OneStream(format!("pg_dump reads {entry} in a way of its own"))))
}

/// As many workers as there are connections for, and why there are not more.
async fn workers(order: &Order<'_>, wanted: usize) -> Result<(Vec<Wire>, Option<String>)> {
    let mut workers = Vec::new();
    let mut why = None;
    for joined in futures::future::join_all((0..wanted).map(|_| join(order))).await {
        match joined {
            Ok(mut wire) => {
                let wait = format!("SET lock_timeout = {LOCK_WAIT_MS}");
                wire.execute(wait.as_bytes()).await.map_err(Refusal::into_error)?;
                workers.push(wire);
            }
            Err(Unjoined::Connection(error)) => why = Some(error.message()),
            Err(Unjoined::Snapshot(error)) => return Err(error),
        }
    }
    Ok((workers, why))
}

/// Why a session could not join.
enum Unjoined {
    Connection(Error),
    Snapshot(Error),
}

/// A session that sees what the snapshot sees. Its plans are such that rows come in the order in
/// which they lie in the table.
async fn join(order: &Order<'_>) -> Result<Wire, Unjoined> {
    let mut wire = order.session.open_wire().await.map_err(Unjoined::Connection)?;
    let begin = format!(
        "SET enable_tidscan = on; SET enable_seqscan = on; SET enable_indexscan = off;
         SET enable_indexonlyscan = off; SET enable_bitmapscan = off;
         BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET TRANSACTION SNAPSHOT '{}'",
        order.snapshot
    );
    match wire.execute(begin.as_bytes()).await {
        Ok(()) => Ok(wire),
        Err(refusal) => {
            let text = format!(
                "a second session cannot see the snapshot: {}",
                refusal.into_error().message()
            );
            Err(Unjoined::Snapshot(Error::new(Code::ConnErr, text).hint(
                "it reached another server than our first session (a balanced name), or that session was cut (on a \
                 standby, by a conflict with replay), or a pooler in transaction mode is in between: connect to one \
                 server itself, or use --jobs 1",
            )))
        }
    }
}

/// Header and table of contents, from a pg_dump that is stopped when it begins with the data. The
/// inner `Err` is a lock that it could not have.
async fn contents(order: &Order<'_>) -> Result<Result<Head, String>> {
    let dumping = Dumping::of(order);
    let lock_wait = match order.settings.lock_wait {
        Duration::ZERO => BRIEFLY,
        wait => wait.min(BRIEFLY),
    };
    let mut dump = Dump::start(&DumpOrder {
        contents: Contents::Whole(Format::Custom),
        lock_wait,
        ..dumping.order()
    })?;
    let output = dump.take_stdout()?;
    let clock = StallClock::default();
    let pipe = WatchedPipe::new(output, clock.clone());
    let reading = tokio::task::spawn_blocking(move || Head::read(&mut Input::new(pipe)));
    let head = tokio::select! {
        head = reading => head.map_err(|error| Error::internal("reading the table of contents failed").source(error))?,
        () = clock.watch(order.settings.stall) => {
            dump.stop().await;
            let seconds = order.settings.stall.as_secs();
            return Err(Error::new(Code::Stalled, format!("pg_dump has given no byte for {seconds} s")));
        }
    };
    match head {
        Ok(head) => {
            dump.stop().await;
            Ok(Ok(head))
        }
        Err(seen) => match dump.wait().await {
            Ok(()) => Err(seen.into()),
            // Whatever language the server speaks, these are pg_dump's own words.
            Err(told) if told.code() != Code::Permission && told.message().contains("LOCK TABLE") => {
                Ok(Err(told.message()))
            }
            Err(told) => Err(told),
        },
    }
}

/// What pg_dump needs to be started again, from another thread.
struct Dumping {
    programs: Programs,
    info: ConnectionInfo,
    passfile: Option<Arc<Passfile>>,
    snapshot: String,
    settings: settings::Postgres,
}

/// What all of a running backup's sessions share.
struct Shared {
    plan: Plan,
    names: Vec<String>,
    ahead: ReadAhead,
    clock: StallClock,
    throttle: Throttle,
    queue: tokio::sync::Mutex<Queue>,
    failure: Failure,
}

/// Tasks in order: one is taken, and its place in the order of writing with it.
struct Queue {
    next: usize,
    turns: mpsc::Sender<mpsc::UnboundedReceiver<Event>>,
}

impl Shared {
    /// Between two reads of `bytes` or fewer: the server lives, and may be spared.
    async fn turn(&self, bytes: usize) {
        self.throttle.took(bytes);
        self.clock.touch();
        while let Some(wait) = self.throttle.wait() {
            tokio::time::sleep(wait).await;
            // To pause is not to stall.
            self.clock.touch();
        }
    }

    async fn take_turn(&self) -> Option<Turn> {
        let mut queue = self.queue.lock().await;
        let task = queue.next;
        let reads: Range<usize> = self.plan.tasks.get(task)?.clone();
        let (events, receiver) = mpsc::unbounded_channel();
        queue.turns.send(receiver).await.ok()?;
        queue.next += 1;
        Some(Turn { task, reads, events })
    }

    /// Of what a read is about, for errors.
    fn name(&self, read: usize) -> &str {
        self.plan
            .reads
            .get(read)
            .map_or("a table", |read| &self.names[read.block])
    }
}

/// The first session's failure, which is the backup's.
#[derive(Default)]
struct Failure {
    first: Mutex<Option<Error>>,
    happened: CancellationToken,
}

impl Failure {
    fn take(&self) -> Option<Error> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: Error) {
        self.first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.happened.cancel();
    }
}

/// The sessions at work.
pub struct Reading {
    shared: Arc<Shared>,
    sessions: JoinSet<()>,
    running: Running,
}

impl Streams {
    /// Begins to read. The head, and the blocks after it, are for the pipeline.
    pub fn start(self, clock: &StallClock, throttle: &Throttle) -> (Head, Box<dyn BlockSource>, Reading) {
        let (turns, taken) = mpsc::channel(TASKS_AHEAD);
        let shared = Arc::new(Shared {
            plan: self.plan,
            names: self.names,
            ahead: ReadAhead::new(self.read_ahead),
            clock: clock.clone(),
            throttle: throttle.clone(),
            queue: tokio::sync::Mutex::new(Queue { next: 0, turns }),
            failure: Failure::default(),
        });
        let (requests, asked) = mpsc::channel::<Request>(1);
        let mut sessions = JoinSet::new();
        let holder = self.holder;
        let held = Arc::clone(&shared);
        sessions.spawn(async move {
            if let Err(error) = holder::serve(holder, &held, asked).await {
                held.failure.set(error);
            }
        });
        for wire in self.workers {
            let shared = Arc::clone(&shared);
            sessions.spawn(async move {
                if let Err(error) = worker::work(wire, &shared).await {
                    shared.failure.set(error);
                }
            });
        }
        let running = Running::default();
        let delivery = Delivery {
            shared: Arc::clone(&shared),
            turns: taken,
            holder: requests,
            dumping: self.dumping,
            running: Arc::clone(&running),
            runtime: tokio::runtime::Handle::current(),
        };
        let reading = Reading {
            shared,
            sessions,
            running,
        };
        (self.head, Box::new(delivery), reading)
    }

    /// How much there is to read: the tables, as they lie on the server's disk.
    pub fn bytes(&self) -> u64 {
        self.plan.bytes
    }

    pub fn streams(&self) -> usize {
        self.workers.len()
    }
}

impl Reading {
    /// Resolves when a session has failed.
    pub async fn failed(&self) -> Error {
        self.shared.failure.happened.cancelled().await;
        self.failure()
            .unwrap_or_else(|| Error::internal("a session failed without a reason"))
    }

    /// Why the blocks ended early, if it was a session's failure.
    pub fn failure(&self) -> Option<Error> {
        self.shared.failure.take()
    }

    /// Ends all sessions, and whoever waits for their rows.
    pub async fn stop(&mut self) {
        self.sessions.shutdown().await;
        let dump = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(dump) = dump {
            dump.stop().await;
        }
    }
}

/// What a refused read means, in pg_dump's words for the same.
fn refused(refusal: Refusal, what: &str) -> Error {
    let (state, error) = match refusal {
        Refusal::Server { state, error } => (state, error),
        Refusal::Broken(error) => {
            let text = format!("{what}: {}", error.message());
            return Error::new(error.code(), text).hint(error.hint_text().to_owned());
        }
    };
    let text = format!("{what}: {}", error.message());
    let state = state.code();
    if error.code() == Code::Permission {
        let error = Error::new(Code::Permission, text.clone());
        return if text.contains("row-level security") {
            error.hint(crate::postgres::BYPASS_HINT)
        } else {
            error
        };
    }
    let of_the_session = ["08", "57P", "53", "40001"];
    if of_the_session.iter().any(|start| state.starts_with(start)) {
        return Error::new(Code::ConnErr, text).hint(error.hint_text().to_owned());
    }
    Error::new(Code::PgDumpErr, text)
}

impl Dumping {
    fn of(order: &Order<'_>) -> Self {
        Self {
            programs: order.programs.clone(),
            info: order.session.info().clone(),
            passfile: order.passfile.cloned(),
            snapshot: order.snapshot.to_owned(),
            settings: order.settings.clone(),
        }
    }

    fn order(&self) -> DumpOrder<'_> {
        DumpOrder {
            programs: &self.programs,
            info: &self.info,
            passfile: self.passfile.as_deref(),
            snapshot: &self.snapshot,
            contents: Contents::LargeObjects,
            lock_wait: self.settings.lock_wait,
            settings: &self.settings,
        }
    }
}
