//! Where one run of pgstow takes place, and the look at what it leaves behind there: in the store,
//! in its temporary folder, among the processes and on the server.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::database::Database;
use super::program::{Run, pgstow};

/// Only the run under test knows this folder: a process or file that mentions it belongs to that run.
pub struct Site {
    folder: TempDir,
}

/// A failure as it was told, in both of the contract's shapes.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub hint: String,
    pub stderr: String,
}

impl Site {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("pgstow-site-").tempdir().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// This program, with the arguments for a drill of the newest backup in the store.
    pub fn drill(&self, mut command: Command) -> Command {
        command
            .args(["verify", "latest", "--drill", "--json", "--store"])
            .arg(self.store())
            .env("TMPDIR", self.path().join("tmp"))
            .current_dir(self.path());
        command
    }

    /// Made by the run itself.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// `pgstow backup --json` of a database into [`Site::store`], with a TMPDIR of its own.
    pub fn backup(&self, url: &str) -> Command {
        self.backup_into(url, &self.store())
    }

    pub fn backup_into(&self, url: &str, store: &Path) -> Command {
        let mut command = pgstow();
        command
            .args(["backup", "--json", "--store"])
            .arg(store)
            .env("DATABASE_URL", url)
            .env("TMPDIR", self.folder.path().join("tmp"))
            // A run that hangs must not look like one that waits for a lock.
            .env("BACKUP_STALL_SECONDS", "30")
            .env("BACKUP_LOCK_WAIT_SECONDS", "20")
            .current_dir(self.folder.path());
        command
    }

    /// Starts a command with its output in files, for a test that acts meanwhile.
    pub fn start(&self, command: &mut Command) -> Running {
        let output = tempfile::Builder::new()
            .prefix("output-")
            .tempdir_in(self.path())
            .unwrap();
        Running::start(command, &output.keep())
    }

    /// No process, no passfile, and in the store nothing but a lease that has been given back.
    pub fn assert_nothing_is_left(&self) {
        self.assert_nothing_runs();
        assert_only_a_lease(&self.store());
    }

    /// And no session on the server either.
    pub fn assert_nothing_is_left_of(&self, database: &Database) {
        self.assert_nothing_is_left();
        assert_no_session(database);
    }

    /// No process of the run's and nothing in its temporary folder.
    pub fn assert_nothing_runs(&self) {
        let patience = Instant::now() + Duration::from_secs(3);
        while !self.processes().is_empty() && Instant::now() < patience {
            sleep(Duration::from_millis(20));
        }
        assert!(self.processes().is_empty(), "still running: {:#?}", self.processes());
        let temporary = tree(&self.folder.path().join("tmp"));
        assert!(temporary.is_empty(), "left in TMPDIR: {temporary:?}");
    }

    /// Command lines of the living processes that know this site.
    pub fn processes(&self) -> Vec<String> {
        let place = self.folder.path().to_str().unwrap();
        processes()
            .into_iter()
            .filter(|process| process.environment.contains(place) || process.command_line.contains(place))
            .map(|process| process.command_line)
            .collect()
    }
}

/// A process as /proc shows it.
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub command_line: String,
    pub environment: String,
}

pub fn processes() -> Vec<Process> {
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        // One that is ending gives nothing, or only part of it.
        let text = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
        let stat = String::from_utf8_lossy(&text("stat")?).into_owned();
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let words = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\0', "\n");
        (fields.next() != Some("Z")).then_some(())?;
        Some(Process {
            pid,
            parent: fields.next()?.parse().ok()?,
            command_line: words(text("cmdline")?),
            environment: words(text("environ").unwrap_or_default()),
        })
    })
    .collect()
}

/// A run under way. Killed when the test gives up on it.
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// No run in these tests takes longer, hung or not.
const LONGEST: Duration = Duration::from_secs(40);

impl Running {
    fn start(command: &mut Command, output: &Path) -> Self {
        let (stdout, stderr) = (output.join("stdout"), output.join("stderr"));
        command
            .stdout(fs::File::create(&stdout).unwrap())
            .stderr(fs::File::create(&stderr).unwrap())
            .stdin(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // The next run of the same command has its output read as usual.
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { child, stdout, stderr }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until something has come to pass, and panics with what the run said if it ends, or
    /// takes longer than anything here may.
    pub fn until(&mut self, what: &str, mut passed: impl FnMut() -> bool) {
        let patience = Instant::now() + Duration::from_secs(30);
        while !passed() {
            let over = self.is_over() && !passed();
            assert!(
                !over && Instant::now() < patience,
                "{what}: never; the run said: {}\n{}",
                fs::read_to_string(&self.stderr).unwrap(),
                fs::read_to_string(&self.stdout).unwrap()
            );
            sleep(Duration::from_millis(5));
        }
    }

    /// The end, which must come within `limit`.
    pub fn end(mut self, limit: Duration) -> Run {
        let patience = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < patience,
                "no end within {limit:?}: {}",
                fs::read_to_string(&self.stderr).unwrap()
            );
            sleep(Duration::from_millis(5));
        };
        Run {
            status,
            stdout: fs::read(&self.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs to a failure and holds it against the contract: exit code, the two lines at the end of
/// stderr, the document on stdout, and no password in either.
pub fn fail(command: &mut Command, code: &str, exit: i32) -> Failure {
    let secret = password_of(command);
    let output = tempfile::tempdir().unwrap();
    let run = Running::start(command, output.path()).end(LONGEST);
    failure(&run, code, exit, secret.as_deref())
}

pub fn failure(run: &Run, code: &str, exit: i32, secret: Option<&str>) -> Failure {
    let told = format!("exit {:?}\n{}\n{}", run.status, run.stderr, run.text());
    assert_eq!(run.status.code(), Some(exit), "{told}");
    assert_eq!(run.status.signal(), None, "{told}");
    let document = run.json();
    let field = |name: &str| document["error"][name].as_str().unwrap_or_default().to_owned();
    assert_eq!(document["status"], "failed", "{told}");
    assert_eq!(field("code"), code, "{told}");
    let (message, hint) = (field("message"), field("hint"));
    assert!(
        !message.is_empty() && !hint.is_empty() && !message.contains('\n'),
        "{told}"
    );
    let lines: Vec<&str> = run.stderr.lines().collect();
    let last = lines.get(lines.len().saturating_sub(2)..).unwrap_or_default();
    assert_eq!(
        last,
        [format!("error[{code}]: {message}"), format!("hint: {hint}")],
        "{told}"
    );
    assert!(message.len() < 4000, "an error is no log: {told}");
    if let Some(secret) = secret {
        assert!(!told.contains(secret), "the password is told: {told}");
    }
    Failure {
        message,
        hint,
        stderr: run.stderr.clone(),
    }
}

/// The report of a run that must make what it was asked for. A backup without one of its copies says
/// so in every way.
pub fn report(command: &mut Command) -> Value {
    let run = super::program::run(command);
    let told = format!("{command:?} ended with {}:\n{}\n{}", run.status, run.stderr, run.text());
    assert!([Some(0), Some(3)].contains(&run.status.code()), "{told}");
    let report = run.json();
    assert_status(&report, run.status.code(), &run.stderr);
    report
}

/// Exit code, status and stderr of a backup that was made are those of its copies.
pub fn assert_status(report: &Value, exit: Option<i32>, stderr: &str) {
    let failed = |store: &&Value| !store["error"].is_null();
    let stores = report["stores"].as_array();
    let failed: Vec<&Value> = stores.into_iter().flatten().filter(failed).collect();
    if failed.is_empty() {
        assert_eq!(exit, Some(0), "{stderr}");
        assert!(
            !stderr.contains("DEGRADED") && report["status"] != "degraded",
            "{report}\n{stderr}"
        );
        return;
    }
    assert_eq!((exit, &report["status"]), (Some(3), &"degraded".into()), "{stderr}");
    for store in failed {
        let line = format!(
            "warning[DEGRADED]: the backup {} is good, but has no copy in {}: {}: ",
            report["id"].as_str().unwrap(),
            store["url"].as_str().unwrap(),
            store["error"]["code"].as_str().unwrap()
        );
        assert!(stderr.contains(&line), "{line:?} is not in {stderr}");
    }
}

/// The password in the command's DATABASE_URL.
pub fn password_of(command: &Command) -> Option<String> {
    let url = command
        .get_envs()
        .find(|(name, _)| *name == "DATABASE_URL")?
        .1?
        .to_str()?;
    let (login, _) = url.split_once("://")?.1.rsplit_once('@')?;
    let password = percent_decode_str(login.split_once(':')?.1).decode_utf8().ok()?;
    Some(password.into_owned())
}

/// In a folder store there is no file but a lease, given back, and no folder but its own.
pub fn assert_only_a_lease(store: &Path) {
    let left = tree(store);
    let foreign: Vec<&String> = left
        .iter()
        .filter(|path| !path.ends_with("/.lease") && left.iter().filter(|one| one.starts_with(*path)).count() < 2)
        .collect();
    assert!(foreign.is_empty(), "left in the store: {foreign:?} of {left:?}");
    for lease in left.iter().filter(|path| path.ends_with("/.lease")) {
        let lease: Value = serde_json::from_slice(&fs::read(store.join(lease)).unwrap()).unwrap();
        assert_eq!(lease["released"], true, "the lease was not given back: {lease}");
    }
}

/// The ids of the backups in a folder store: those whose manifest is there.
pub fn backups(store: &Path) -> Vec<String> {
    let manifests = tree(store);
    let manifests = manifests.iter().filter_map(|path| path.strip_suffix("/manifest.json"));
    manifests.map(str::to_owned).collect()
}

/// The file beside a manifest that holds its digest says what the manifest has now, as an attacker who alters the
/// one can have the other say.
pub fn reseal(folder: &Path) {
    let manifest = fs::read(folder.join("manifest.json")).unwrap();
    let line = format!("{}  manifest.json\n", hex::encode(Sha256::digest(&manifest)));
    fs::write(folder.join("manifest.json.sha256"), line).unwrap();
}

/// Everything below a folder, by paths relative to it, sorted; nothing if there is none.
pub fn tree(root: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            if path.is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

/// No session of pgstow's or of a program of its in this database. The server notices a client's
/// end a moment later than the client.
pub fn assert_no_session(database: &Database) {
    let ask = || {
        database.sql(
            "SELECT application_name, state, query FROM pg_stat_activity WHERE datname = current_database()
             AND application_name ~ '^(pgstow|pg_dump)'",
        )
    };
    let patience = Instant::now() + Duration::from_secs(5);
    while !ask().is_empty() && Instant::now() < patience {
        sleep(Duration::from_millis(50));
    }
    assert_eq!(ask(), "", "left on the server");
}

/// A backup that is whole: every file is there, as its sums say, and stock pg_restore reads it to
/// the end.
pub fn assert_good(store: &Path, id: &str, major: u32) {
    let folder = store.join(id);
    super::program::succeed(
        super::program::program("sha256sum")
            .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
            .current_dir(&folder),
    );
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["id"], id);
    if let Some(dump) = manifest["files"]["dump"]["name"].as_str() {
        let mut restore = super::program::stock(major, "pg_restore");
        super::program::succeed(restore.args(["-f", "/dev/null"]).arg(folder.join(dump)));
    }
}
