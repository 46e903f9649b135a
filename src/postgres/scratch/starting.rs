//! Makes the cluster, and starts its server behind the walls.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use secrecy::SecretString;

use super::clients::{installation, libraries};
use super::log::{self, Log};
use super::names::Named;
use super::{PORT, Remains, ended, failed};
use crate::error::{Error, Result};
use crate::postgres::child::{Child, ChildCommand, Hearing, Listener, Special, environment};
use crate::postgres::{Redactor, ServerPrograms, settings};
use crate::run::confinement::{Confinement, Identity, Sockets, Walls};

const INITDB_LIMIT: Duration = Duration::from_secs(120);
/// Its locale compares bytes and knows the letters and digits of every script, if the system (or the server itself)
/// has that locale.
const LOCALES: [&str; 2] = ["C.UTF-8", "C"];
/// Make it fast, small and isolated; on the command line, where no statement can change them.
const SETTINGS: [&str; 20] = [
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "min_wal_size=32MB",
    "max_wal_size=256MB",
    "autovacuum=off",
    "shared_buffers=64MB",
    // A dump locks every table at once.
    "max_locks_per_transaction=1024",
    // In the data folder: /dev/shm is small in containers, and its files would outlive a crash.
    "dynamic_shared_memory_type=mmap",
    "jit=off",
    "restart_after_crash=off",
    "logging_collector=off",
    // The backup's subscriptions are only definitions here.
    "max_logical_replication_workers=0",
    "shared_preload_libraries=",
    // Independent of the machine's time zone; a database may set its own.
    "timezone=UTC",
    "log_destination=stderr",
];
/// No code of the backup runs at a login or when a definition changes.
const SINCE_17: [&str; 2] = ["event_triggers=off", "allow_alter_system=off"];

/// What each attempt to start needs.
pub(super) struct Start<'a> {
    pub programs: &'a ServerPrograms,
    pub settings: &'a settings::Postgres,
    pub walls: Walls,
    pub identity: Option<Identity>,
    /// A user name for pgstow, if the system has none for it.
    pub named: Option<Named>,
    pub remains: &'a Remains,
}

impl Start<'_> {
    /// initdb runs no code of the backup, only programs, and it needs a user with a name. Its files then become the
    /// server's.
    pub(super) async fn initdb(&self, superuser: &str, password: &SecretString) -> Result<()> {
        let identity = match self.identity {
            Some(identity) => Some(Confinement::named(identity).ok_or_else(|| {
                failed(
                    "pgstow runs as root, but initdb must not, and /etc/passwd has no other user except perhaps \
                     postgres, whose clusters on this machine a drill must not reach",
                )
                .hint("run pgstow as an ordinary user, or give the machine a user that owns nothing (nobody)")
            })?),
            None => None,
        };
        let place = &self.remains.place;
        let password = place.password(password, identity)?;
        place.give_data(identity)?;
        self.make_cluster(superuser, &password, identity).await?;
        let _ = std::fs::remove_file(password);
        place.give_data(self.identity)
    }

    async fn make_cluster(&self, superuser: &str, password: &Path, identity: Option<Identity>) -> Result<()> {
        let mut refused = None;
        for locale in LOCALES {
            let mut arguments: Vec<OsString> = vec![
                format!("--username={superuser}").into(),
                "--encoding=UTF8".into(),
                format!("--locale={locale}").into(),
                // A login from within the server's own functions needs the password too.
                "--auth=scram-sha-256".into(),
                "--no-sync".into(),
                "--pwfile".into(),
                password.into(),
                "--pgdata".into(),
            ];
            arguments.push(self.remains.place.data().into());
            // A killed initdb would leave the shared memory of the server that it runs.
            let named = self.named.as_ref();
            let readable = named.map(Named::files).unwrap_or_default();
            let readable = readable.into_iter().chain([password.to_owned()]).collect();
            let confinement = self.confinement(&self.programs.initdb, identity, readable, true);
            let run = Run {
                program: &self.programs.initdb,
                arguments,
                environment: named.map(Named::environment).unwrap_or_default(),
                dies_of: Signal::TERM,
                listener: None,
            };
            let initdb = self.run(run, confinement)?;
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

    pub(super) fn postgres(&self, log: &Log) -> Result<Child> {
        let place = &self.remains.place;
        let mut arguments: Vec<OsString> = vec!["-D".into(), place.data().into(), "-p".into(), PORT.to_string().into()];
        let newer = if self.programs.major >= 17 { &SINCE_17[..] } else { &[] };
        for setting in SETTINGS.iter().chain(newer).chain(&log::SETTINGS).chain([&log::PREFIX]) {
            arguments.extend(["-c".into(), OsString::from(*setting)]);
        }
        // The server reads a list of folders here; in quotes, it is one folder.
        let socket = place.socket().to_string_lossy().replace('"', "\"\"");
        arguments.extend(["-c".into(), format!("unix_socket_directories=\"{socket}\"").into()]);
        let confinement = self.confinement(&self.programs.postgres, self.identity, Vec::new(), false);
        let heard = log.clone();
        let listener: Listener = Box::new(move |line| {
            heard.hear(line);
            Hearing::GoOn
        });
        let run = Run {
            program: &self.programs.postgres,
            arguments,
            environment: Vec::new(),
            dies_of: Signal::QUIT,
            listener: Some(listener),
        };
        self.run(run, confinement)
    }

    fn confinement(
        &self,
        program: &Path,
        identity: Option<Identity>,
        mut readable: Vec<PathBuf>,
        programs: bool,
    ) -> Confinement {
        readable.extend(installation(program));
        readable.extend(libraries(&self.settings.child_env));
        let place = &self.remains.place;
        Confinement {
            walls: self.walls,
            // initdb's user has a name, and may have other processes.
            alone: identity == self.identity,
            identity,
            sockets: Sockets::Answers,
            programs,
            writable: vec![place.data(), place.socket()],
            readable,
        }
    }

    fn run(&self, run: Run<'_>, confinement: Confinement) -> Result<Child> {
        let program = run.program;
        let start = || {
            let mut environment = with_own_libraries(environment(&self.settings.child_env, None), program);
            environment.extend(run.environment);
            Child::start(ChildCommand {
                program,
                arguments: run.arguments,
                environment,
                redactor: Redactor::default(),
                special: Special {
                    confinement: Some(confinement),
                    keeps: Some(self.remains.tether.end()?),
                    dies_of: run.dies_of,
                    listener: run.listener,
                    ..Special::default()
                },
            })
        };
        start().map_err(|error| failed(format!("{} cannot be run", program.display())).source(error))
    }
}

/// One run of the server's own programs.
struct Run<'a> {
    program: &'a Path,
    arguments: Vec<OsString>,
    /// In addition to the environment of all of them.
    environment: Vec<(OsString, OsString)>,
    dies_of: Signal,
    listener: Option<Listener>,
}

/// Adds an installation's own `lib` folder: without it, the modules of a relocated installation (from a Lambda layer
/// or a wheel) would look for their libpq among the system's libraries.
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
