//! A throwaway server: pgstow restores into it, checks the result, and removes it. It listens only on a socket in a
//! private folder, does not protect its data against a crash, and never outlives pgstow.

mod clients;
mod folders;
mod log;
mod names;
mod powers;
mod starting;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use secrecy::SecretString;

use super::child::{Child, Exit};
use super::{ConnectionInfo, ServerPrograms, Session};
use crate::error::{Code, Error, Result};
use crate::postgres::settings;
use crate::run::confinement::Walls;
use crate::run::private_folder::{Tether, Watchdog, answering};
pub(super) use clients::behind_walls;
use folders::ScratchFolders;
use log::Log;
pub use log::Told;
use names::Named;
pub use powers::{SchemaGrants, SequencePosition};
use starting::Start;

/// The beginning of its superuser's name. The rest is random, so that no role of a backup has this name, not even the
/// backup's `postgres`.
const SUPERUSER: &str = "pgstow_";
/// Only the name of the socket's file depends on it.
const PORT: u16 = 5432;
const START_LIMIT: Duration = Duration::from_secs(60);
/// Its keeper kills it after two seconds.
const END_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(30);

/// An upper limit for its log: checkpoints begin in time for `max_wal_size`, and during a checkpoint there is more.
const LOG: u64 = 512 << 20;
/// An empty database, and the programs' own files.
const TWIN: u64 = 16 << 20;

/// What a drill does if this system lacks an important wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    Refused,
    Tolerated,
}

/// A running server. It ends and its folder is removed when it is stopped or dropped, or when pgstow is killed.
#[derive(Debug)]
pub struct ScratchServer {
    info: ConnectionInfo,
    version: String,
    keeps_files: bool,
    log: Log,
    server: Child,
    // After the server: fields are dropped in this order.
    remains: Remains,
}

/// What is removed when the processes have ended.
#[derive(Debug)]
struct Remains {
    tether: Tether,
    /// Dropped before the folders: while pgstow lives, their owner removes them, and that end can be waited for.
    watchdog: Option<Watchdog>,
    place: ScratchFolders,
}

impl ScratchServer {
    /// Makes a cluster below `temp` and starts it, behind all walls that this system offers. `RESTORE_ERR` if that
    /// fails.
    pub async fn start(
        programs: &ServerPrograms,
        temp: &Path,
        settings: &settings::Postgres,
        lacking: Lacking,
    ) -> Result<ScratchServer> {
        Self::start_behind(Walls::here(), programs, temp, settings, lacking).await
    }

    /// The same behind these walls, which may be fewer than the system offers.
    pub async fn start_behind(
        walls: Walls,
        programs: &ServerPrograms,
        temp: &Path,
        settings: &settings::Postgres,
        lacking: Lacking,
    ) -> Result<ScratchServer> {
        if let (Some(missing), Lacking::Refused) = (walls.missing(), lacking) {
            return Err(Error::new(
                Code::RestoreErr,
                format!("a throwaway server runs the backup's functions, and this system cannot confine it: {missing}"),
            )
            .hint(
                "run the drill on another machine; or, if you trust everyone who can write to the database, with \
                 --unconfined",
            ));
        }
        let identity = walls.identity()?;
        let place = answering(temp, move |temp| ScratchFolders::prepare(temp, identity)).await?;
        let tether = Tether::new().map_err(|error| failed("cannot make a pipe").source(error))?;
        let watchdog = tether.watchdog(&place.folders());
        let remains = Remains {
            tether,
            watchdog,
            place,
        };
        let superuser = format!("{SUPERUSER}{}", random()?);
        let password = SecretString::from(random()? + &random()?);
        let start = Start {
            programs,
            settings,
            walls,
            identity,
            named: Named::where_needed(walls, &remains.place)?,
            remains: &remains,
        };
        start.initdb(&superuser, &password).await?;
        let log = Log::default();
        let server = start.postgres(&log)?;
        let info = ConnectionInfo {
            host: Some(remains.place.socket().to_string_lossy().into_owned()),
            port: Some(PORT),
            user: Some(superuser),
            password: Some(password),
            dbname: Some("postgres".into()),
            ..ConnectionInfo::default()
        };
        // From here on a drop ends it cleanly.
        let scratch = ScratchServer {
            info,
            version: programs.version.clone(),
            keeps_files: walls.keep_files(),
            log,
            server,
            remains,
        };
        scratch.ready(settings).await?;
        Ok(scratch)
    }

    /// The superuser's connection to the database `postgres`.
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// As `postgres --version` reports it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A name that no role of a backup has, and a password.
    pub fn stranger(&self) -> Result<(String, SecretString)> {
        let name = format!("{SUPERUSER}{}", random()?);
        Ok((name, SecretString::from(random()? + &random()?)))
    }

    /// Whether machine code in one of its processes can reach none of pgstow's files and processes.
    pub fn keeps_files(&self) -> bool {
        self.keeps_files
    }

    /// The folder of its data, for the free space there.
    pub fn data(&self) -> PathBuf {
        self.remains.place.data()
    }

    /// The number of errors that it has logged so far.
    pub fn mark(&self) -> u64 {
        self.log.mark()
    }

    /// The errors that it has logged since then.
    pub fn told_since(&self, mark: u64) -> Vec<Told> {
        self.log.since(mark)
    }

    /// How it ended, if it has ended by itself or does so within this time.
    pub async fn has_ended(&self, within: Duration) -> Option<String> {
        let exit = tokio::time::timeout(within, self.server.wait()).await.ok()?;
        let words = told_in(&exit);
        Some(
            format!("the throwaway server ended: {} {words}", exit.status)
                .trim_end()
                .to_owned(),
        )
    }

    /// The free space on the disk of its data.
    pub fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.data())
    }

    /// The space for a database of this size: the database, its log, and its definitions once more.
    pub fn room_for(database: u64) -> u64 {
        database.saturating_add(LOG.min(database)).saturating_add(TWIN)
    }

    async fn ready(&self, settings: &settings::Postgres) -> Result<()> {
        let started = Instant::now();
        let answers = async {
            loop {
                match Session::connect_to_our_own(&self.info, settings).await {
                    Ok(session) => {
                        session.close().await;
                        return Ok(());
                    }
                    Err(error) if started.elapsed() > START_LIMIT => {
                        return Err(failed("it does not answer").source(error));
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        };
        tokio::select! {
            answer = answers => answer,
            exit = self.server.wait() => Err(ended("it ended during its start", &exit)),
        }
    }

    /// Ends it and removes everything. Returns when no process and no folder is left.
    pub async fn stop(self) -> Result<()> {
        let folders: Vec<_> = self
            .remains
            .place
            .folders()
            .iter()
            .map(|path| path.to_path_buf())
            .collect();
        // Waiting for processes and removing many files blocks.
        tokio::task::spawn_blocking(move || drop(self))
            .await
            .map_err(|error| Error::internal("the throwaway server's end failed").source(error))?;
        match folders.iter().find(|folder| folder.exists()) {
            None => Ok(()),
            Some(folder) => Err(failed(format!("its folder {} could not be removed", folder.display()))),
        }
    }
}

impl Drop for ScratchServer {
    fn drop(&mut self) {
        // An immediate shutdown, because nothing of it is kept. A killed server could not free its shared memory.
        self.server.signal(Signal::QUIT);
        self.remains.tether.let_go();
        if !self.server.is_gone_within(END_LIMIT) {
            self.server.signal(Signal::KILL);
            self.server.is_gone_within(END_LIMIT);
        }
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        self.tether.let_go();
        if !self.tether.all_gone(END_LIMIT) {
            // The watchdog removes later what cannot be removed now, when the processes have ended.
            std::mem::forget(self.watchdog.take());
        }
    }
}

/// Sixteen random digits that cannot be guessed.
fn random() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| failed("the system gives no random bytes").source(error))?;
    Ok(hex::encode(bytes))
}

fn failed(why: impl std::fmt::Display) -> Error {
    Error::new(Code::RestoreErr, format!("the throwaway server did not start: {why}"))
        .hint("look at the message; TMPDIR sets the folder of its data, BACKUP_PG_BIN the folders of its programs")
}

fn ended(what: &str, exit: &Exit) -> Error {
    let words = told_in(exit);
    let error = failed(format!("{what}: {} {words}", exit.status));
    if lacks_room(&words) || exit.signal_name().as_deref() == Some("SIGXFSZ") {
        return error.with_code(Code::Enospc).hint(ROOM);
    }
    if words.contains(NAMELESS) {
        return error.hint(names::HINT);
    }
    error
}

/// The line with the reason.
fn told_in(exit: &Exit) -> String {
    let fatal = |line: &&str| ["FATAL: ", "PANIC: ", "error: "].iter().any(|word| line.contains(word));
    let words = match exit.stderr.lines().find(fatal) {
        Some(line) => line.trim().to_owned(),
        None => exit.last_words(),
    };
    match words.split_once(' ') {
        Some((state, words)) if state.starts_with('@') => words.to_owned(),
        _ => words,
    }
}

/// initdb's words for a user without a name.
const NAMELESS: &str = "could not look up effective user ID";

pub const ROOM: &str = "free space on the disk of TMPDIR, raise its quota or this process's limit on files, or point \
                        TMPDIR at a larger disk";

/// Whether these are the system's words for a full disk or quota, or for a reached limit.
pub fn lacks_room(words: &str) -> bool {
    const FULL: [&str; 3] = ["No space left on device", "Disk quota exceeded", "File too large"];
    FULL.iter().any(|full| words.contains(full))
}

pub fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
