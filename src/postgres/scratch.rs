//! A throwaway server: restored into, looked at, and thrown away. It listens on a socket in a
//! private folder and nowhere else, keeps nothing safe for a crash, and never outlives us.

mod identity;
mod place;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::child::{Child, Exit, Identity, Order, Special, environment};
use super::{ConnectionInfo, Redactor, ServerPrograms, Session};
use crate::error::{Code, Error, Result};
use crate::private_folder::{Tether, Watchdog};
use crate::settings;
use place::Place;

const SUPERUSER: &str = "postgres";
/// Only the name of the socket's file depends on it.
const PORT: u16 = 5432;
const START_LIMIT: Duration = Duration::from_secs(60);
const INITDB_LIMIT: Duration = Duration::from_secs(120);
/// An immediate shutdown waits five seconds for its slowest child.
const END_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(30);

/// Its locale compares bytes, and knows letters and digits of every script, where the system
/// (or the server itself) has that one.
const LOCALES: [&str; 2] = ["C.UTF-8", "C"];

/// What makes it fast, small and alone; on the command line, where nothing can undo it.
const SETTINGS: [&str; 16] = [
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=2GB",
    "autovacuum=off",
    "shared_buffers=64MB",
    // A dump locks every table at once.
    "max_locks_per_transaction=1024",
    // In the data folder: /dev/shm is small in containers, and what is in it would outlive a crash.
    "dynamic_shared_memory_type=mmap",
    "jit=off",
    "restart_after_crash=off",
    "logging_collector=off",
    "log_destination=stderr",
];

/// A running server. Gone, with its folder, when it is stopped or dropped, or when we are killed.
#[derive(Debug)]
pub struct ScratchServer {
    info: ConnectionInfo,
    version: String,
    server: Child,
    // After the server: fields are dropped in this order.
    remains: Remains,
}

/// What has to go when the processes are gone.
#[derive(Debug)]
struct Remains {
    tether: Tether,
    /// Goes before the folders: while we live, their owner removes them, who can be waited for.
    watchdog: Option<Watchdog>,
    place: Place,
}

impl ScratchServer {
    /// Makes a cluster below `temp` and starts it. `RESTORE_ERR` if that cannot be done.
    pub async fn start(programs: &ServerPrograms, temp: &Path, settings: &settings::Postgres) -> Result<ScratchServer> {
        let identity = identity::for_postgres()?;
        let place = Place::prepare(temp, identity)?;
        let tether = Tether::new().map_err(|error| failed("no pipe can be made").source(error))?;
        let watchdog = tether.watchdog(&place.folders());
        let remains = Remains {
            tether,
            watchdog,
            place,
        };
        let start = Start {
            programs,
            settings,
            identity,
            remains: &remains,
        };
        start.initdb().await?;
        let server = start.postgres()?;
        let info = ConnectionInfo {
            host: Some(remains.place.socket().to_string_lossy().into_owned()),
            port: Some(PORT),
            user: Some(SUPERUSER.into()),
            dbname: Some("postgres".into()),
            ..ConnectionInfo::default()
        };
        // From here on a drop ends it in order.
        let scratch = ScratchServer {
            info,
            version: programs.version.clone(),
            server,
            remains,
        };
        scratch.ready(settings).await?;
        Ok(scratch)
    }

    /// The superuser's way in, to the database `postgres`; it needs no password.
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// As `postgres --version` says it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where its data are: for the free space there.
    pub fn data(&self) -> PathBuf {
        self.remains.place.data()
    }

    async fn ready(&self, settings: &settings::Postgres) -> Result<()> {
        let started = Instant::now();
        let answers = async {
            loop {
                match Session::connect(&self.info, settings).await {
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
            exit = self.server.wait() => Err(ended("it ended while it started", &exit)),
        }
    }

    /// Ends it and removes all of it. Returns when no process and no folder is left.
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
        // Its immediate shutdown: nothing of it is to be kept. It frees its shared memory, as it
        // could not if it were killed.
        self.server.signal(Signal::QUIT);
        self.remains.tether.let_go();
        if !self.remains.tether.all_gone(END_LIMIT) {
            self.server.signal(Signal::KILL);
        }
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        self.tether.let_go();
        if !self.tether.all_gone(END_LIMIT) {
            // What we cannot remove now, it will when they are gone.
            std::mem::forget(self.watchdog.take());
        }
    }
}

/// What a start needs again and again.
struct Start<'a> {
    programs: &'a ServerPrograms,
    settings: &'a settings::Postgres,
    identity: Option<Identity>,
    remains: &'a Remains,
}

impl Start<'_> {
    async fn initdb(&self) -> Result<()> {
        let mut refused = None;
        for locale in LOCALES {
            let mut arguments: Vec<OsString> = vec![
                format!("--username={SUPERUSER}").into(),
                "--encoding=UTF8".into(),
                format!("--locale={locale}").into(),
                // Who can enter the folder may come in.
                "--auth=trust".into(),
                "--no-sync".into(),
                "--pgdata".into(),
            ];
            arguments.push(self.remains.place.data().into());
            // Killed, it would leave the shared memory of the server that it runs meanwhile.
            let initdb = self.run(&self.programs.initdb, arguments, Signal::TERM)?;
            let exit = tokio::time::timeout(INITDB_LIMIT, initdb.wait())
                .await
                .map_err(|_| failed(format!("initdb did not end within {} s", INITDB_LIMIT.as_secs())))?;
            if exit.status.success() {
                return Ok(());
            }
            let no_locale = exit.stderr.contains("locale");
            refused.get_or_insert(exit);
            if !no_locale {
                break;
            }
        }
        Err(match refused {
            Some(exit) => ended("initdb failed", &exit),
            None => Error::internal("no locale was tried"),
        })
    }

    fn postgres(&self) -> Result<Child> {
        let place = &self.remains.place;
        let mut arguments: Vec<OsString> = vec!["-D".into(), place.data().into(), "-p".into(), PORT.to_string().into()];
        for setting in SETTINGS {
            arguments.extend(["-c".into(), setting.into()]);
        }
        // A list of folders in the server's eyes: in quotes, it is one.
        let socket = place.socket().to_string_lossy().replace('"', "\"\"");
        arguments.extend(["-c".into(), format!("unix_socket_directories=\"{socket}\"").into()]);
        self.run(&self.programs.postgres, arguments, Signal::QUIT)
    }

    fn run(&self, program: &Path, arguments: Vec<OsString>, dies_of: Signal) -> Result<Child> {
        let start = || {
            Child::start(Order {
                program,
                arguments,
                environment: with_own_libraries(environment(&self.settings.child_env, None), program),
                redactor: Redactor::default(),
                special: Special {
                    identity: self.identity,
                    keeps: Some(self.remains.tether.end()?),
                    dies_of,
                    ..Special::default()
                },
            })
        };
        start().map_err(|error| failed(format!("{} cannot be run", program.display())).source(error))
    }
}

/// The modules of a relocated installation (a Lambda layer's, a wheel's) look for its libpq where
/// the system's is.
fn with_own_libraries(mut environment: Vec<(OsString, OsString)>, program: &Path) -> Vec<(OsString, OsString)> {
    const NAME: &str = "LD_LIBRARY_PATH";
    let real = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    let Some(lib) = real.parent().and_then(Path::parent).map(|root| root.join("lib")) else {
        return environment;
    };
    if !lib.join("libpq.so.5").exists() {
        return environment;
    }
    let mut path = lib.into_os_string();
    if let Some(at) = environment.iter().position(|(name, _)| name == NAME) {
        path.push(":");
        path.push(environment.swap_remove(at).1);
    }
    environment.push((NAME.into(), path));
    environment
}

fn failed(why: impl std::fmt::Display) -> Error {
    Error::new(Code::RestoreErr, format!("the throwaway server did not start: {why}"))
        .hint("look at the message; TMPDIR says where its data go, BACKUP_PG_BIN where its programs are")
}

fn ended(what: &str, exit: &Exit) -> Error {
    let fatal = |line: &&str| ["FATAL: ", "PANIC: ", "error: "].iter().any(|word| line.contains(word));
    let words = match exit.stderr.lines().find(fatal) {
        Some(line) => line.trim().to_owned(),
        None => exit.last_words(),
    };
    failed(format!("{what}: {} {words}", exit.status))
}
