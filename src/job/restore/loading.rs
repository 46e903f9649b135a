//! Runs stock pg_restore for a plan: definitions, data (several processes at once), the rest. The data comes straight
//! from the store, and only the bytes of the tables that are loaded.

mod feeding;
mod postponed;

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;

use super::load::Load;
use super::plan::Plan;
use super::queue::Queue;
use super::rows::changed_on_the_way;
use super::waiting::{self, LockWatch};
use crate::error::{Code, Error, Result};
use crate::format::archive::{ArchiveError, BlockCompression};
use crate::postgres::{ArchiveInput, ConnectionInfo, Passfile, RestoreEnd, RestoreOrder, RestoreProgram, Restoring};
use crate::repository::stored_archive::StoredArchive;
use crate::run::private_folder::PrivateFolder;
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::run::threads::apart;
use crate::settings;
use crate::store::Store;

pub(super) use feeding::check;
use feeding::{Feed, why};
use postponed::PostponedTables;

/// How long a pg_restore that has closed its input may take to report its error.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What all steps have in common.
pub(crate) struct Loader<'a> {
    pub store: &'a Arc<dyn Store>,
    pub archive: &'a Arc<StoredArchive>,
    pub program: &'a RestoreProgram,
    pub info: &'a ConnectionInfo,
    pub passfile: Option<&'a Passfile>,
    pub settings: &'a settings::Postgres,
    /// For the lists of entries, and for the head: parallel pg_restore opens it by its name.
    pub folder: &'a PrivateFolder,
    pub no_owner: bool,
    pub no_privileges: bool,
    pub no_tablespaces: bool,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
    /// Read damaged data again before it is reported as damaged. A drill does that with its whole backup instead.
    pub reads_again: bool,
    /// Reports other sessions that hold locks which pg_restore needs.
    pub watch: Option<LockWatch<'a>>,
    /// Rows, by dump ids, that are loaded with `session_replication_role = replica`.
    pub silent: Option<&'a HashSet<i64>>,
}

/// How a pg_restore processes its list.
#[derive(Debug, Clone, Default)]
struct Manner {
    jobs: usize,
    single_transaction: bool,
    /// Continue after failures.
    goes_on: bool,
    /// Continue after failures of these entries.
    may_fail: HashSet<i64>,
    as_text: bool,
    /// The session is a replica: ordinary triggers do not fire.
    is_replica: bool,
}

impl Loader<'_> {
    /// Makes definitions, from the head alone. In one transaction, if the server has room for its locks: then a
    /// failure leaves the target as it was.
    pub async fn definitions(&self, list: &[i64], single_transaction: bool) -> Result<()> {
        if list.is_empty() {
            return Ok(());
        }
        let list = self.list("before", list)?;
        let manner = Manner {
            single_transaction,
            ..Manner::default()
        };
        let mut restoring = self.start(ArchiveInput::Stdin, list, manner).await?;
        let stdin = restoring.take_stdin();
        let head = self.archive.head.announcing(BlockCompression::None, 0);
        let feeding = async {
            let fed = apart("feed", move || match stdin {
                Some(mut stdin) => stdin.write_all(&head).map_err(ArchiveError::Io),
                None => Ok(()),
            });
            fed.await
        };
        let ended = self.to_its_end(&restoring, feeding, &CancellationToken::new()).await;
        ended.map(drop)
    }

    /// Loads data, with as many pg_restores at once as there are jobs. The first failure ends the others. `done`
    /// collects the numbers of the loads that are committed in the target. The sequences are set after all rows,
    /// because checks of the rows may advance them. A table that is refused, and whose functions look at others, is
    /// loaded again after these.
    pub async fn data(&self, plan: &Plan, jobs: usize, done: &Mutex<Vec<usize>>) -> Result<()> {
        let mut queue = Queue::new(&plan.loads, &plan.order, jobs);
        let cancel = &CancellationToken::new();
        let mut running = FuturesUnordered::new();
        let mut postponed = PostponedTables::new(self, &plan.order, plan.loads.len(), cancel);
        let mut first: Option<Error> = None;
        loop {
            while first.is_none()
                && running.len() < jobs
                && let Some(next) = queue.next()
            {
                let load = &plan.loads[next];
                if load.blocks.is_empty() {
                    // The sequences are set last.
                    postponed.finish().await?;
                } else if plan.order.computes(load) {
                    postponed.again().await?;
                }
                running.push(async move { (next, self.load_most(next, load, &plan.order, cancel).await) });
            }
            let Some((ended, loaded)) = running.next().await else {
                break;
            };
            queue.ended(ended);
            match loaded {
                Ok(refused) if refused.is_empty() => done.lock().unwrap_or_else(PoisonError::into_inner).push(ended),
                Ok(refused) => postponed.add(refused),
                // A load that was ended because another failed is not reported.
                Err(_) if first.is_some() => {}
                Err(error) => {
                    cancel.cancel();
                    first = Some(error);
                }
            }
        }
        match first {
            Some(error) => Err(error),
            None => postponed.finish().await,
        }
    }

    /// Makes indexes, constraints, triggers and grants, from a head in a file: with a file, pg_restore can make
    /// several at once.
    pub async fn finish(&self, step: &str, list: &[i64], jobs: usize) -> Result<()> {
        let manner = Manner {
            jobs,
            ..Manner::default()
        };
        self.through_file(step, list, manner).await.map(drop)
    }

    /// What pg_restore would send for this list, as text in the archive's encoding.
    pub async fn text(&self, step: &str, list: &[i64]) -> Result<Vec<u8>> {
        if list.is_empty() {
            return Ok(Vec::new());
        }
        let list = self.list(step, list)?;
        let manner = Manner {
            as_text: true,
            ..Manner::default()
        };
        let mut restoring = self.start(ArchiveInput::File(self.head()?), list, manner).await?;
        let stdout = restoring.take_stdout();
        let mut text = Vec::new();
        let reading = async {
            let read = apart("read", move || {
                let mut text = Vec::new();
                let read = stdout.map(|mut stdout| stdout.read_to_end(&mut text));
                read.transpose().map(|_| text).map_err(ArchiveError::Io)
            });
            let read = read.await?;
            Ok(read.map(|read| text = read))
        };
        self.to_its_end(&restoring, reading, &CancellationToken::new()).await?;
        Ok(text)
    }

    /// The same one after the other. Continues after failures and reports them.
    pub async fn finish_past(&self, step: &str, list: &[i64]) -> Result<RestoreEnd> {
        let manner = Manner {
            goes_on: true,
            ..Manner::default()
        };
        self.through_file(step, list, manner).await
    }

    async fn through_file(&self, step: &str, list: &[i64], manner: Manner) -> Result<RestoreEnd> {
        if list.is_empty() {
            return Ok(RestoreEnd::default());
        }
        let list = self.list(step, list)?;
        let head = self.head()?;
        let restoring = self.start(ArchiveInput::File(head), list, manner).await?;
        let nothing = async { Ok(Ok(())) };
        self.to_its_end(&restoring, nothing, &CancellationToken::new()).await
    }

    /// Runs one load. No other load has this `number`.
    pub async fn load(&self, number: usize, load: &Load, cancel: &CancellationToken) -> Result<()> {
        let loaded = self.load_in(number, load, cancel, Manner::default()).await;
        loaded.map(drop)
    }

    /// The same, but continues after failures and reports them.
    pub async fn load_past(&self, number: usize, load: &Load, cancel: &CancellationToken) -> Result<RestoreEnd> {
        let manner = Manner {
            goes_on: true,
            ..Manner::default()
        };
        self.load_in(number, load, cancel, manner).await
    }

    async fn load_in(
        &self,
        number: usize,
        load: &Load,
        cancel: &CancellationToken,
        manner: Manner,
    ) -> Result<RestoreEnd> {
        if cancel.is_cancelled() {
            return Err(Error::internal("another load has failed"));
        }
        let list = self.list(&format!("load-{number}"), &load.list)?;
        let is_silent = |silent: &HashSet<i64>| load.list.iter().any(|id| silent.contains(id));
        let manner = Manner {
            is_replica: self.silent.is_some_and(is_silent),
            ..manner
        };
        let mut restoring = self.start(ArchiveInput::Stdin, list, manner).await?;
        let Some(stdin) = restoring.take_stdin() else {
            return Err(Error::internal("pg_restore's input was taken twice"));
        };
        let feed = Feed::of(self.store, self.archive, load, self.observer);
        let again = feed.clone();
        let feeding = async { apart("feed", move || feed.write(stdin)).await };
        let end = self.to_its_end(&restoring, feeding, cancel).await;
        match end {
            Err(told) if told.code() == Code::Integrity && self.reads_again => {
                let again = again.swallow().await;
                Err(if again.is_ok() { changed_on_the_way(&told) } else { told })
            }
            end => end,
        }
    }

    /// Waits until feeding and pg_restore have ended, or one of them fails. When it returns, pg_restore has ended.
    async fn to_its_end(
        &self,
        restoring: &Restoring,
        feeding: impl Future<Output = Result<Result<(), ArchiveError>>>,
        cancel: &CancellationToken,
    ) -> Result<RestoreEnd> {
        let both = async {
            match feeding.await? {
                Ok(()) => restoring.wait().await,
                Err(error) => Err(match why(error) {
                    Some(error) => {
                        // Its input has ended. Let it process what came before the damage.
                        let _ = tokio::time::timeout(LAST_WORDS, restoring.wait()).await;
                        error
                    }
                    // pg_restore closed its input, and its own error says why.
                    None => match tokio::time::timeout(LAST_WORDS, restoring.wait()).await {
                        Ok(Err(told)) => told,
                        _ => Error::new(Code::RestoreErr, "pg_restore ended before it had read all of its input"),
                    },
                }),
            }
        };
        let error = tokio::select! {
            biased;
            reason = self.stop.requested() => reason.into(),
            () = cancel.cancelled() => Error::internal("another load has failed"),
            result = both => match result {
                Ok(end) => return Ok(end),
                Err(error) => {
                    restoring.stop().await;
                    return Err(error);
                }
            },
            error = waiting::too_long(self.watch) => error,
        };
        restoring.stop().await;
        match restoring.wait().await {
            // It had finished its work when it was told to stop: the work stays.
            Ok(end) => Ok(end),
            Err(_) => Err(error),
        }
    }

    async fn start(&self, archive: ArchiveInput, list: PathBuf, manner: Manner) -> Result<Restoring> {
        let mut info = Cow::Borrowed(self.info);
        if manner.is_replica {
            let options = info.to_mut().params.entry("options".into()).or_default();
            *options = format!("{options} -c session_replication_role=replica")
                .trim_start()
                .to_owned();
        }
        Restoring::start(&RestoreOrder {
            program: self.program,
            info: &info,
            passfile: self.passfile,
            settings: self.settings,
            archive,
            list: Some(list),
            sections: Vec::new(),
            jobs: manner.jobs.max(1),
            single_transaction: manner.single_transaction,
            no_owner: self.no_owner,
            no_privileges: self.no_privileges,
            no_tablespaces: self.no_tablespaces,
            exit_on_error: !manner.goes_on,
            may_fail: manner.may_fail,
            as_text: manner.as_text,
        })
        .await
    }

    /// A file with the head alone. All steps use the same one.
    fn head(&self) -> Result<PathBuf> {
        const NAME: &str = "head";
        let there = self.folder.path().join(NAME);
        if there.exists() {
            return Ok(there);
        }
        let head = self.archive.head.announcing(BlockCompression::None, 0);
        self.folder.write(NAME, &head)
    }

    fn list(&self, name: &str, ids: &[i64]) -> Result<PathBuf> {
        let lines: String = ids.iter().map(|id| format!("{id};\n")).collect();
        let name = format!("{name}.list");
        // A step that had no room in one transaction is started again in another way.
        let there = self.folder.path().join(&name);
        if std::fs::read(&there).is_ok_and(|found| found == lines.as_bytes()) {
            return Ok(there);
        }
        self.folder.write(&name, lines.as_bytes())
    }
}

/// Checks that a pg_restore that continued after errors never lost the server. Its library reports that in English.
pub(super) fn alive(end: &RestoreEnd) -> Result<()> {
    const GONE: [&str; 3] = [
        "no connection to the server",
        "server closed the connection unexpectedly",
        "could not receive data from server",
    ];
    let gone = end
        .refused
        .iter()
        .find(|one| GONE.iter().any(|words| one.words.contains(words)));
    match gone {
        Some(complaint) => Err(Error::new(
            Code::ConnErr,
            format!("pg_restore lost the server: {}", complaint.text()),
        )),
        None => Ok(()),
    }
}
