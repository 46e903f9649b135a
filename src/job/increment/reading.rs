//! The session that reads the slot's stream. The server ends a session from which it hears nothing, so this one sends a
//! sign of life while the run does other work.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::destination::Destination;
use super::span::Span;
use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::format::pgoutput::{self, Message};
use crate::job::backup::{Job, SourceDatabase, answered};
use crate::postgres::{ReplicationSession, StreamSource, Streamed};
use crate::repository::lease::Lease;

/// How often the server is told which position is stored, at the longest.
const PACE: Duration = Duration::from_secs(10);
/// How long the session waits for a message before it asks the server how far it is.
const QUIET: Duration = Duration::from_millis(500);
/// After so many messages without a pause the clock is looked at.
const BATCH: u32 = 64;
/// How long the server may take to end a stream.
const ENDING: Duration = Duration::from_secs(30);
/// The same for a run that must end soon: a deadline is near, or a person waits.
const HURRIED: Duration = Duration::from_secs(1);

pub(super) struct Reading {
    session: ReplicationSession,
    source: StreamSource,
    /// How often the server must hear something.
    pace: Duration,
    /// How long the server may send nothing.
    stall: Duration,
    clock: fn() -> Timestamp,
    /// Everything up to here is in the store, or was before the stream began.
    stored: Lsn,
    /// The server has sent every transaction whose commit lies before this position.
    sent: Lsn,
    /// When the server must hear from this session next.
    due: Instant,
    heard: Instant,
    since_clock: u32,
    is_streaming: bool,
    /// The newest description of each table, with those of its types before it. The server sends them once per session,
    /// but every file of changes needs its own.
    described: HashMap<u32, Vec<Vec<u8>>>,
    types: Vec<Vec<u8>>,
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadTo {
    Goal,
    /// The time for the span is up, or it is large enough; there is more.
    Early,
}

/// What a reader has to obey beside the stream.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub job: &'a Job<'a>,
    pub lease: &'a Lease,
    /// After this moment the span ends with the transaction that is being read.
    pub until: Option<Timestamp>,
    /// Whether it may end before its goal, because of `until` or because it is large.
    pub may_end_early: bool,
}

impl Bounds<'_> {
    /// Resolves to the reason for which the run must end now.
    pub async fn interrupted(&self) -> Error {
        tokio::select! {
            reason = self.job.stop.requested() => reason.into(),
            error = self.lease.lost() => error,
        }
    }

    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| (self.job.clock)() >= until)
    }
}

impl Reading {
    /// Opens the session and identifies the server. The stream has not begun.
    pub async fn open(job: &Job<'_>, source: &SourceDatabase, sender_timeout: Option<Duration>) -> Result<Self> {
        let mut session = answered(job, source.session.open_replication()).await?;
        let identified = answered(job, session.identify()).await?;
        let pace = sender_timeout.map_or(PACE, |timeout| PACE.min(timeout / 4));
        Ok(Self {
            session,
            source: identified,
            pace,
            stall: job.settings.postgres.stall,
            clock: job.clock,
            stored: Lsn(0),
            sent: Lsn(0),
            due: Instant::now() + pace,
            heard: Instant::now(),
            since_clock: 0,
            is_streaming: false,
            described: HashMap::new(),
            types: Vec::new(),
        })
    }

    pub fn source(&self) -> &StreamSource {
        &self.source
    }

    /// Starts the stream behind `from`, up to which everything is stored.
    pub async fn start(&mut self, job: &Job<'_>, slot: &str, from: Lsn, publications: &[String]) -> Result<()> {
        let names: Vec<String> = publications.iter().map(|name| format!("\"{name}\"")).collect();
        let version = pgoutput::PROTOCOL.to_string();
        let options = [
            ("proto_version", version.as_str()),
            ("publication_names", &names.join(",")),
        ];
        answered(job, self.session.start(slot, from, &options)).await?;
        self.is_streaming = true;
        (self.stored, self.sent) = (from, from);
        self.heard = Instant::now();
        self.tell(false).await
    }

    /// Reads until the span has everything that was committed before `goal`.
    pub async fn read(
        &mut self,
        bounds: &Bounds<'_>,
        (span, destination): (&mut Span, &mut Destination<'_>),
        goal: Lsn,
    ) -> Result<ReadTo> {
        let interrupted = bounds.interrupted();
        tokio::pin!(interrupted);
        self.heard = Instant::now();
        loop {
            if !span.is_inside() {
                if self.sent.max(span.position()) >= goal {
                    return Ok(ReadTo::Goal);
                }
                if bounds.may_end_early && span.transactions() > 0 && (span.is_large() || bounds.is_late()) {
                    return Ok(ReadTo::Early);
                }
            }
            let streamed = tokio::select! {
                biased;
                error = &mut interrupted => return Err(error),
                streamed = self.next() => streamed?,
            };
            let Some(bytes) = self.take(span, streamed).await? else {
                continue;
            };
            self.through(destination.open()).await?;
            self.beside(bounds, destination.write(bytes)).await?;
        }
    }

    /// The next message. `None`: there was none for a while, and the server was asked how far it is. Cancelling it loses
    /// nothing.
    async fn next(&mut self) -> Result<Option<Streamed>> {
        let quiet = Instant::now() + QUIET;
        let streamed = tokio::select! {
            biased;
            streamed = self.session.next() => {
                // After an error there is no end of the stream to wait for.
                self.is_streaming = streamed.is_ok();
                streamed?
            }
            () = sleep_until(quiet.min(self.due)) => {
                if self.heard.elapsed() > self.stall {
                    let seconds = self.stall.as_secs();
                    let text = format!("the server has sent nothing of the stream of changes for {seconds} s");
                    return Err(Error::new(Code::Stalled, text));
                }
                self.tell(true).await?;
                return Ok(None);
            }
        };
        self.since_clock += 1;
        if self.since_clock >= BATCH || !matches!(streamed, Streamed::Change { .. }) {
            self.since_clock = 0;
            self.heard = Instant::now();
            if self.due <= self.heard {
                self.tell(false).await?;
            }
        }
        Ok(Some(streamed))
    }

    async fn take(&mut self, span: &mut Span, streamed: Option<Streamed>) -> Result<Option<Vec<u8>>> {
        match streamed {
            None => Ok(None),
            Some(Streamed::Change { bytes, .. }) => self.change(span, &bytes),
            Some(Streamed::Alive { end, wants_answer }) => {
                // Inside a transaction the position says nothing about the commits before it.
                if !span.is_inside() {
                    self.sent = self.sent.max(end);
                }
                if wants_answer {
                    self.tell(false).await?;
                }
                Ok(None)
            }
            Some(Streamed::End) => Err(Error::new(Code::ConnErr, "the server has ended the stream of changes")
                .hint("the server may be shutting down; run it again: nothing is lost, because nothing was confirmed")),
        }
    }

    /// Adds a message to the span, after the descriptions that the span's file needs before it. Returns the bytes that
    /// are ready for the stores.
    fn change(&mut self, span: &mut Span, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
        let message = parsed(bytes)?;
        let mut ready = Vec::new();
        match &message {
            Message::Type { .. } => self.types.push(bytes.to_owned()),
            Message::Relation(relation) => {
                let mut whole = std::mem::take(&mut self.types);
                whole.push(bytes.to_owned());
                self.described.insert(relation.oid, whole);
                span.describes(relation.oid);
            }
            Message::Insert { relid, .. } | Message::Update { relid, .. } | Message::Delete { relid, .. } => {
                self.describe(span, *relid, &mut ready)?;
            }
            Message::Truncate { relids, .. } => {
                for relid in relids.iter() {
                    self.describe(span, relid, &mut ready)?;
                }
            }
            _ => {}
        }
        span.take(&message, bytes, &mut ready)?;
        Ok((!ready.is_empty()).then_some(ready))
    }

    fn describe(&self, span: &mut Span, relid: u32, ready: &mut Vec<u8>) -> Result<()> {
        if !span.describes(relid) {
            for bytes in self.described.get(&relid).into_iter().flatten() {
                span.take(&parsed(bytes)?, bytes, ready)?;
            }
        }
        Ok(())
    }

    /// Does work that ends by itself while the server hears from this session.
    pub async fn through<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let mut is_heard = true;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep_until(self.due), if is_heard => {
                    // The next read finds out why; the work must not be dropped in its middle.
                    is_heard = self.tell(false).await.is_ok();
                }
            }
        }
    }

    /// The same for work that is dropped if the run has to end.
    pub async fn beside<T>(&mut self, bounds: &Bounds<'_>, work: impl Future<Output = Result<T>>) -> Result<T> {
        let interrupted = bounds.interrupted();
        self.through(async {
            tokio::select! {
                biased;
                error = interrupted => Err(error),
                done = work => done,
            }
        })
        .await
    }

    /// Tells the server that everything up to here is in the store. Only after the manifest is there.
    pub async fn confirm(&mut self, to: Lsn) -> Result<()> {
        self.stored = self.stored.max(to);
        self.tell(false).await
    }

    /// Ends the stream. By then the server has read the confirmation. A run whose time is limited does not wait for the
    /// changes that are still on their way: it closes the connection, which ends the stream too.
    pub async fn finish(mut self, job: &Job<'_>) -> Result<()> {
        if self.is_streaming {
            let ended = async { self.session.finish().await };
            if job.stop.deadline().is_some() || job.stop.reason().is_some() {
                match tokio::time::timeout(HURRIED, ended).await {
                    Ok(ended) => ended?,
                    Err(_) => return Ok(()),
                }
            } else {
                job.stop.or_give_up("ending the stream", limited(ENDING, ended)).await?;
            }
        }
        self.session.close().await;
        Ok(())
    }

    async fn tell(&mut self, asks: bool) -> Result<()> {
        let since = Duration::try_from((self.clock)().as_duration()).unwrap_or_default();
        let now = SystemTime::UNIX_EPOCH + since;
        let told = match asks {
            true => self.session.ask(self.stored, now).await,
            false => self.session.confirm(self.stored, now).await,
        };
        self.due = Instant::now() + self.pace;
        told
    }
}

async fn limited(limit: Duration, ended: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::time::timeout(limit, ended).await.unwrap_or_else(|_| {
        let text = format!("the server did not end the stream within {} s", limit.as_secs());
        Err(Error::new(Code::Stalled, text))
    })
}

fn parsed(bytes: &[u8]) -> Result<Message<'_>> {
    Message::parse(bytes).map_err(|error| {
        let text = format!("a message of the server's stream of changes is not understood: {error}");
        Error::new(Code::ConnErr, text)
            .hint("this is not the protocol of pgoutput: is a proxy between pgstow and the server?")
    })
}
