//! A PostgreSQL server of a test's own, for tests that stop, starve or crash it.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use super::database::{Database, try_psql};
use super::program::{run, stock, succeed};
use super::services::postgres_bin;

pub struct OwnServer {
    pub major: u32,
    pub port: u16,
    postmaster: Child,
    folder: TempDir,
}

/// A locale that the rest of the machine does not have. Letters are what they are in C.UTF-8.
pub const FOREIGN_LOCALE: &str = "xx_YY.UTF-8";

const PASSWORD: &str = "own server's password";

impl OwnServer {
    pub fn start(major: u32) -> Self {
        Self::start_with(major, &[])
    }

    /// With further settings, as `name=value`.
    pub fn start_with(major: u32, settings: &[&str]) -> Self {
        Self::make(major, folder(), "C.UTF-8", settings)
    }

    /// In [`FOREIGN_LOCALE`].
    pub fn start_in_foreign_locale(major: u32) -> Self {
        Self::start_in(major, FOREIGN_LOCALE)
    }

    /// That says everything in German. Only Debian's own server comes with translations.
    pub fn start_in_german() -> Self {
        Self::start_in(15, "de_DE.UTF-8")
    }

    /// Messages go by the locale's name alone.
    fn start_in(major: u32, locale: &str) -> Self {
        let folder = folder();
        let locales = locales(folder.path());
        fs::create_dir(&locales).unwrap();
        let name = locale.replace("UTF-8", "utf8");
        succeed(
            Command::new("cp")
                .args(["-r", "/usr/lib/locale/C.utf8"])
                .arg(locales.join(name)),
        );
        Self::make(major, folder, locale, &[])
    }

    fn make(major: u32, folder: TempDir, locale: &str, settings: &[&str]) -> Self {
        let data = folder.path().join("data");
        match locale {
            "C.UTF-8" if is_first(major) => copy_cluster(major, &data),
            _ => make_cluster(major, locale, folder.path(), &data),
        }
        Self::launch(major, folder, settings)
    }

    /// A standby that follows this server.
    pub fn standby(&self, settings: &[&str]) -> Self {
        let folder = folder();
        let mut base = as_postgres(self.major, "pg_basebackup");
        base.args([
            "-d",
            &self.url(),
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
        ]);
        succeed(base.arg("-D").arg(folder.path().join("data")));
        Self::launch(self.major, folder, settings)
    }

    /// After [`OwnServer::stop`] or [`OwnServer::crash`]: at the same port, with the settings of the first start that
    /// every server has.
    pub fn start_again(&mut self) {
        let mut postmaster = postmaster(self.major, self.folder.path(), self.port, &[])
            .spawn()
            .unwrap();
        assert!(
            answers(self.major, self.port, &mut postmaster),
            "it does not start again"
        );
        self.postmaster = postmaster;
    }

    fn launch(major: u32, folder: TempDir, settings: &[&str]) -> Self {
        // Another process may take the port after it was found free and before the server takes it.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut postmaster = postmaster(major, folder.path(), port, settings);
            let mut postmaster = postmaster.spawn().unwrap();
            if answers(major, port, &mut postmaster) {
                return Self {
                    major,
                    port,
                    postmaster,
                    folder,
                };
            }
        }
        panic!(
            "PostgreSQL {major} does not start: {}",
            fs::read_to_string(folder.path().join("log")).unwrap()
        );
    }

    /// Superuser URL, database `postgres`.
    pub fn url(&self) -> String {
        url(self.port)
    }

    pub fn database(&self, prefix: &str) -> Database {
        Database::on(self.major, &self.url(), prefix)
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Ends every session at once, as a fast shutdown does.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// Ends every session without a word, as a crash does.
    pub fn crash(&mut self) {
        self.end(Signal::QUIT);
    }

    fn end(&mut self, signal: Signal) {
        // Once it has been waited for, its pid may be another's.
        if self.postmaster.try_wait().unwrap().is_some() {
            return;
        }
        let pid = Pid::from_child(&self.postmaster);
        let _ = kill_process(pid, signal);
        let end = Instant::now() + Duration::from_secs(20);
        while self.postmaster.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                drop(self.postmaster.kill());
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// Whether the test has no other server of this major: copies of a cluster have one system identifier.
fn is_first(major: u32) -> bool {
    static MADE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
    MADE.lock().unwrap().insert(major)
}

/// Copies the cluster that all tests share. The first test makes it: initdb takes a second of processor time.
fn copy_cluster(major: u32, data: &Path) {
    let shared = std::env::temp_dir();
    let cluster = shared.join(format!("cluster-{major}"));
    let lock = fs::File::create(shared.join(format!("cluster-{major}.lock"))).unwrap();
    lock.lock().unwrap();
    if !cluster.exists() {
        let folder = folder();
        let made = folder.path().join("data");
        make_cluster(major, "C.UTF-8", folder.path(), &made);
        let unfinished = shared.join(format!("cluster-{major}.unfinished"));
        succeed(Command::new("cp").arg("-a").args([&made, &unfinished]));
        fs::rename(unfinished, &cluster).unwrap();
    }
    drop(lock);
    succeed(Command::new("cp").arg("-a").args([&cluster, &data.to_path_buf()]));
}

fn make_cluster(major: u32, locale: &str, folder: &Path, data: &Path) {
    let password = folder.join("password");
    fs::write(&password, PASSWORD).unwrap();
    give_to_postgres(&password);
    let mut initdb = as_postgres(major, "initdb");
    initdb.args([
        "-U",
        "postgres",
        "--encoding=UTF8",
        &format!("--locale={locale}"),
        "--auth=scram-sha-256",
        "--no-sync",
    ]);
    with_locales(&mut initdb, folder);
    succeed(initdb.arg("--pwfile").arg(password).arg("-D").arg(data));
}

fn postmaster(major: u32, folder: &Path, port: u16, settings: &[&str]) -> Command {
    let mut postmaster = as_postgres(major, "postgres");
    postmaster
        .arg("-D")
        .arg(folder.join("data"))
        .args(["-p", &port.to_string()]);
    // A compiler for the catalogs' queries costs more than they do.
    for setting in [
        "listen_addresses=127.0.0.1",
        "fsync=off",
        "wal_level=logical",
        "jit=off",
    ]
    .iter()
    .chain(settings)
    {
        postmaster.args(["-c", setting]);
    }
    postmaster
        .arg("-c")
        .arg(format!("unix_socket_directories={}", folder.display()));
    with_locales(&mut postmaster, folder);
    let log = fs::File::create(folder.join("log")).unwrap();
    postmaster.stdout(Stdio::null()).stderr(log);
    postmaster
}

/// In memory, if there is enough: a cluster has a thousand files.
fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("pgstow-server-").tempdir().unwrap();
    give_to_postgres(folder.path());
    folder
}

fn locales(folder: &Path) -> PathBuf {
    folder.join("locales")
}

/// Lets the C library find those of the server's own, where it has any.
fn with_locales(command: &mut Command, folder: &Path) {
    let locales = locales(folder);
    if locales.exists() {
        command.env("LOCPATH", format!("{}:/usr/lib/locale", locales.display()));
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.end(Signal::QUIT);
    }
}

fn url(port: u16) -> String {
    format!("postgresql://postgres:own%20server%27s%20password@127.0.0.1:{port}/postgres")
}

fn answers(major: u32, port: u16, postmaster: &mut Child) -> bool {
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end && postmaster.try_wait().unwrap().is_none() {
        let ready = stock(major, "pg_isready")
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status();
        // Another server may answer on the port that ours failed to get; it has another password.
        if ready.unwrap().success() && try_psql(major, &url(port), "SELECT 1").status.success() {
            return true;
        }
        sleep(Duration::from_millis(50));
    }
    false
}

/// Uid and gid of the user `postgres`, if it is us who must become it: PostgreSQL refuses to run
/// as root.
pub fn postgres_user() -> Option<(u32, u32)> {
    geteuid().is_root().then(|| {
        let id = |option| {
            run(Command::new("id").args([option, "postgres"]))
                .text()
                .trim()
                .parse()
                .unwrap()
        };
        (id("-u"), id("-g"))
    })
}

fn give_to_postgres(path: &Path) {
    if let Some((uid, gid)) = postgres_user() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

fn as_postgres(major: u32, name: &str) -> Command {
    // setpriv replaces itself by the program, so the child that we hold is the postmaster. The
    // server goes when the test's process is killed.
    let mut command = super::program::program("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    // The wheels' modules (postgres_fdw, logical replication) would otherwise find Debian's libpq.
    command.env("LD_LIBRARY_PATH", postgres_bin(major).with_file_name("lib"));
    command.arg("--").arg(postgres_bin(major).join(name)).current_dir("/");
    command
}
