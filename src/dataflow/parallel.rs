//! The parallel source: many COPY streams read one snapshot, and their rows make the same archive that pg_dump would
//! have written.
//!
//! ```text
//! holder    has locked every table before the snapshot was taken, and keeps the locks until the end
//! pg_dump   writes header and table of contents under the same snapshot, and is then stopped
//! workers   import the snapshot, take tasks (a part of a large table, or some small ones) in
//!           order, and read ahead as far as memory allows
//! delivery  writes the tasks' rows in order; large objects come last, from pg_dump itself
//! ```
//!
//! If pgstow is not sure to produce pg_dump's own bytes, pg_dump does it all: the backup then has one stream, and
//! says why.

mod comparing;
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

use crate::dataflow::pipeline::BlockSource;
use crate::dataflow::throttle::Throttle;
use crate::error::{Code, Error, Result};
use crate::format::Format;
use crate::format::archive::{Head, Input};
use crate::postgres::settings;
use crate::postgres::{
    ConnectionInfo, Contents, Dump, DumpOrder, Hold, PLANS, Passfile, Programs, Refusal, Session, StallClock, Unbegun,
    WatchedPipe, Wire, see,
};
use crate::run::threads::apart;
use crate::units::count;

use delivery::Delivery;
use holder::Request;
use large_objects::Running;
use plan::ReadPlan;
use portion::PortionEvent;
use read_ahead::ReadAhead;
use worker::{LOCK_WAIT_MS, Turn};

/// The most tasks that may be read and not yet written, however small they are.
const TASKS_AHEAD: usize = 64;

/// What to read, and with how many sessions.
#[derive(Clone, Copy)]
pub struct ReadRequest<'a> {
    pub session: &'a Session,
    pub programs: &'a Programs,
    pub passfile: Option<&'a Arc<Passfile>>,
    /// `session` has exported it and keeps it.
    pub snapshot: &'a str,
    pub jobs: usize,
    /// How many bytes the streams may read ahead of the writing.
    pub read_ahead: u64,
    pub settings: &'a settings::Postgres,
}

pub enum Opening {
    Streams(Box<Streams>),
    /// Another session waits for the lock of a table that pgstow holds, and pg_dump would wait behind it: another
    /// attempt may succeed.
    Crossed(String),
    /// Why more than one stream is not possible.
    OneStream(String),
}

/// Every table is locked, and every session is ready to begin.
pub struct Streams {
    head: Head,
    plan: ReadPlan,
    names: Vec<String>,
    holder: Wire,
    workers: Vec<Wire>,
    dumping: Dumping,
    read_ahead: u64,
    /// The note for the report: fewer sessions than requested.
    pub note: Option<String>,
    /// pg_dump's warnings about the database.
    pub complaints: Vec<String>,
}

/// Opens the sessions that read the tables which `hold` has locked. If it is dropped early, it leaves nothing behind.
pub async fn open(request: &ReadRequest<'_>, hold: Hold) -> Result<Opening> {
    let mut holder = hold.into_wire();
    let readable = match readable(request, &mut holder).await? {
        Ok(readable) => readable,
        Err(other) => {
            // The next attempt needs its locks and its connection.
            holder.close().await;
            return Ok(other);
        }
    };
    let wanted = request.jobs.min(readable.plan.tasks.len());
    let (workers, note) = workers(request, wanted).await?;
    if let (Some(why), true) = (&note, workers.is_empty()) {
        holder.close().await;
        return Ok(Opening::OneStream(why.clone()));
    }
    let Readable { head, plan, complaints } = readable;
    Ok(Opening::Streams(Box::new(Streams {
        names: head.data.iter().map(ToString::to_string).collect(),
        head,
        plan,
        holder,
        note: note.map(|why| format!("read with {}, not {wanted}: {why}", count(workers.len(), "stream"))),
        workers,
        dumping: Dumping::of(request),
        read_ahead: request.read_ahead,
        complaints,
    })))
}

/// What to read; it cannot change any more.
struct Readable {
    head: Head,
    plan: ReadPlan,
    complaints: Vec<String>,
}

/// Asks pg_dump for the list of tables, and the server for their sizes. The inner `Err` says what to do instead.
async fn readable(request: &ReadRequest<'_>, holder: &mut Wire) -> Result<Result<Readable, Opening>> {
    // Both take long if there are many tables, and neither waits for a lock of the other.
    let major = request.session.server().major;
    let contents = async { Ok(contents(request).await) };
    let (facts, contents) = futures::future::try_join(holder::facts(holder, major), contents).await?;
    let (head, complaints) = match contents {
        Ok(contents) => contents,
        Err(Unbegun::Crossed(error)) => return Ok(Err(Opening::Crossed(error.message()))),
        Err(Unbegun::Unclear(error) | Unbegun::NoRoom(error)) => return Ok(Err(Opening::OneStream(error.message()))),
        // One connection may be missing.
        Err(Unbegun::Failed(error)) if error.code() == Code::ConnErr => {
            return Ok(Err(Opening::OneStream(error.message())));
        }
        Err(Unbegun::Failed(error)) => return Err(error),
    };
    let plan = plan::plan(&head, &head.copy_statements()?, &facts);
    Ok(plan
        .map(|plan| Readable { head, plan, complaints })
        .map_err(|entry| Opening::OneStream(format!("pg_dump reads {entry} in a special way"))))
}

/// The session of the pg_dump that listed the tables ends a moment after the program; until then it occupies a
/// connection.
const LINGERING: Duration = Duration::from_millis(300);

/// As many workers as there are connections, and why there are not more.
async fn workers(request: &ReadRequest<'_>, wanted: usize) -> Result<(Vec<Wire>, Option<String>)> {
    let mut workers = Vec::new();
    let mut why = None;
    for pause in [Duration::ZERO, LINGERING] {
        let lacking = wanted - workers.len();
        if lacking == 0 {
            break;
        }
        tokio::time::sleep(pause).await;
        why = None;
        for joined in futures::future::join_all((0..lacking).map(|_| join(request))).await {
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
    }
    Ok((workers, why))
}

/// Why a session could not join.
enum Unjoined {
    Connection(Error),
    Snapshot(Error),
}

/// A session that reads the snapshot. Its plans return rows in the order in which they are stored in the table.
async fn join(request: &ReadRequest<'_>) -> Result<Wire, Unjoined> {
    let mut wire = request.session.open_wire().await.map_err(Unjoined::Connection)?;
    let begin = format!("{PLANS}; BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY");
    let begun = wire.execute(begin.as_bytes()).await.map_err(Refusal::into_error);
    begun.map_err(Unjoined::Connection)?;
    see(&mut wire, request.snapshot).await.map_err(Unjoined::Snapshot)?;
    Ok(wire)
}

/// Header and table of contents, from a pg_dump that pgstow stops when the data begins; and pg_dump's warnings.
async fn contents(request: &ReadRequest<'_>) -> Result<(Head, Vec<String>), Unbegun> {
    let dumping = Dumping::of(request);
    let mut dump = Dump::start(&DumpOrder {
        contents: Contents::Whole(Format::Custom),
        lock_wait: Unbegun::briefly(request.settings.lock_wait),
        ..dumping.order()
    })
    .await?;
    let output = dump.take_stdout()?;
    let clock = StallClock::default();
    let pipe = WatchedPipe::new(output, clock.clone());
    let reading = apart("head", move || Head::read(&mut Input::new(pipe)));
    let head = tokio::select! {
        head = reading => head?,
        () = clock.watch(request.settings.stall) => return Err(dump.stalled(request.settings.stall).await.into()),
    };
    match head {
        Ok(head) => {
            dump.stop().await;
            let complaints = dump.complaints().await;
            Ok((head, complaints))
        }
        Err(seen) => Err(dump
            .unbegun(request.settings.stall)
            .await
            .unwrap_or_else(|| Error::from(seen).into())),
    }
}

/// What another thread needs to start pg_dump again.
struct Dumping {
    programs: Programs,
    info: ConnectionInfo,
    passfile: Option<Arc<Passfile>>,
    snapshot: String,
    settings: settings::Postgres,
}

/// The state that all sessions of a running backup share.
struct Shared {
    plan: ReadPlan,
    names: Vec<String>,
    ahead: ReadAhead,
    clock: StallClock,
    throttle: Throttle,
    failure: Failure,
}

/// The tasks in order: a worker takes a task together with its turn to be written. Only the workers own the queue. When
/// the last worker has ended, for whatever reason, a reader that waits for the next task's rows must see that none will
/// come.
struct Queue(tokio::sync::Mutex<Turns>);

struct Turns {
    next: usize,
    taken: mpsc::Sender<mpsc::UnboundedReceiver<PortionEvent>>,
}

impl Queue {
    async fn take_turn(&self, plan: &ReadPlan) -> Option<Turn> {
        let mut turns = self.0.lock().await;
        let task = turns.next;
        let reads: Range<usize> = plan.tasks.get(task)?.clone();
        let (events, receiver) = mpsc::unbounded_channel();
        turns.taken.send(receiver).await.ok()?;
        turns.next += 1;
        Some(Turn { task, reads, events })
    }
}

impl Shared {
    /// Called after each read of at most `bytes`: the server is alive, and the throttle may pause.
    async fn turn(&self, bytes: usize) {
        self.throttle.took(bytes);
        self.clock.touch();
        while let Some(wait) = self.throttle.wait() {
            tokio::time::sleep(wait).await;
            // A pause is no stall.
            self.clock.touch();
        }
    }

    /// The name of the table of a read, for errors.
    fn name(&self, read: usize) -> &str {
        self.plan
            .reads
            .get(read)
            .map_or("a table", |read| &self.names[read.block])
    }
}

/// The first session's failure, which is the failure of the backup.
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

/// The running sessions.
pub struct Sessions {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    running: Running,
}

impl Streams {
    /// Begins to read. The head, and the blocks after it, go to the pipeline.
    pub fn start(self, clock: &StallClock, throttle: &Throttle) -> (Head, Box<dyn BlockSource>, Sessions) {
        let (turns, taken) = mpsc::channel(TASKS_AHEAD);
        let shared = Arc::new(Shared {
            plan: self.plan,
            names: self.names,
            ahead: ReadAhead::new(self.read_ahead),
            clock: clock.clone(),
            throttle: throttle.clone(),
            failure: Failure::default(),
        });
        let queue = Arc::new(Queue(tokio::sync::Mutex::new(Turns { next: 0, taken: turns })));
        let (requests, asked) = mpsc::channel::<Request>(1);
        let mut tasks = JoinSet::new();
        let holder = self.holder;
        let held = Arc::clone(&shared);
        tasks.spawn(async move {
            if let Err(error) = holder::serve(holder, &held, asked).await {
                held.failure.set(error);
            }
        });
        for wire in self.workers {
            let (shared, queue) = (Arc::clone(&shared), Arc::clone(&queue));
            tasks.spawn(async move {
                if let Err(error) = worker::work(wire, &shared, &queue).await {
                    shared.failure.set(error);
                }
            });
        }
        drop(queue);
        let running = Running::default();
        let delivery = Delivery {
            shared: Arc::clone(&shared),
            turns: taken,
            holder: requests,
            dumping: self.dumping,
            running: running.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let sessions = Sessions { shared, tasks, running };
        (self.head, Box::new(delivery), sessions)
    }

    /// How much there is to read: the size of the tables on the server's disk.
    pub fn bytes(&self) -> u64 {
        self.plan.bytes
    }

    pub fn streams(&self) -> usize {
        self.workers.len()
    }
}

impl Sessions {
    /// Resolves when a session has failed.
    pub async fn failed(&self) -> Error {
        self.shared.failure.happened.cancelled().await;
        self.failure()
            .unwrap_or_else(|| Error::internal("a session failed without a reason"))
    }

    /// The warnings of the pg_dump that read the large objects, after all is read.
    pub async fn complaints(&self) -> Vec<String> {
        match self.running.end() {
            Some(dump) => dump.complaints().await,
            None => Vec::new(),
        }
    }

    /// Why the blocks ended early, if a session failed.
    pub fn failure(&self) -> Option<Error> {
        self.shared.failure.take()
    }

    /// Ends all sessions, and every wait for their rows.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
        if let Some(dump) = self.running.end() {
            dump.stop().await;
        }
    }
}

impl Dumping {
    fn of(request: &ReadRequest<'_>) -> Self {
        Self {
            programs: request.programs.clone(),
            info: request.session.info().clone(),
            passfile: request.passfile.cloned(),
            snapshot: request.snapshot.to_owned(),
            settings: request.settings.clone(),
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
