//! Runs one of PostgreSQL's programs as a child process: without a shell, with an environment that pgstow chooses.
//! pgstow watches it until it has ended and keeps its error output.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::sync::watch;

use super::Redactor;
use super::passfile::Pass;
use crate::run::confinement::{Confinement, PreparedConfinement};

/// The most that Linux gives an ordinary user. A larger pipe means fewer switches between pg_dump and pgstow.
const PIPE_BYTES: usize = 1 << 20;
/// Only the end of stderr is kept.
const TAIL_BYTES: usize = 64 << 10;
/// How long a child may take to end after the request to end.
const GRACE: Duration = Duration::from_secs(2);
/// How long the rest of stderr may take to arrive after the child's end.
const LAST_WORDS: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);
/// The most that a listener gets of one line.
const LINE_BYTES: usize = 8 << 10;
/// The most lines of stderr that an error quotes.
const QUOTED_LINES: usize = 6;
const QUOTED_BYTES: usize = 1500;

pub(super) struct ChildCommand<'a> {
    pub program: &'a Path,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    pub redactor: Redactor,
    pub special: Special,
}

/// What only some children need.
pub(super) struct Special {
    /// Opens a pipe to its stdin; otherwise its stdin is empty.
    pub stdin: bool,
    /// Gets the lines of its stderr while it runs.
    pub listener: Option<Listener>,
    /// The confinement that it runs in, and its user.
    pub confinement: Option<Confinement>,
    /// The child and its own children inherit this descriptor, so its other end shows when all of them have ended.
    pub keeps: Option<OwnedFd>,
    /// The signal that the kernel sends it when pgstow dies, and that pgstow sends it on drop.
    pub dies_of: Signal,
}

impl Default for Special {
    fn default() -> Self {
        Self {
            stdin: false,
            listener: None,
            confinement: None,
            keeps: None,
            dies_of: Signal::KILL,
        }
    }
}

/// Gets every line as it comes, before secrets are removed; decides whether the child may go on.
pub(super) type Listener = Box<dyn FnMut(&str) -> Hearing + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    GoOn,
    /// Ask the child to end (SIGTERM).
    Stop,
}

/// How the child ended, and what it wrote.
#[derive(Debug, Clone)]
pub(super) struct Exit {
    pub status: ExitStatus,
    /// The end of its stderr, without secrets.
    pub stderr: String,
}

impl Exit {
    pub fn signal_name(&self) -> Option<String> {
        let number = self.status.signal()?;
        Some(match number {
            1 => "SIGHUP".into(),
            2 => "SIGINT".into(),
            4 => "SIGILL".into(),
            6 => "SIGABRT".into(),
            7 => "SIGBUS".into(),
            9 => "SIGKILL".into(),
            11 => "SIGSEGV".into(),
            13 => "SIGPIPE".into(),
            15 => "SIGTERM".into(),
            24 => "SIGXCPU".into(),
            25 => "SIGXFSZ".into(),
            other => format!("signal {other}"),
        })
    }

    /// The lines that explain the end: the first error that was kept and what follows it, in one line.
    pub fn last_words(&self) -> String {
        let lines = self.stderr.lines().map(str::trim).filter(|line| !line.is_empty());
        let lines: Vec<&str> = lines.collect();
        // The lines after the first error explain it; the lines before it are warnings.
        let first_error = lines.iter().position(|line| line.contains("error:"));
        let telling = &lines[first_error.unwrap_or_default()..];
        quoted(&telling[..telling.len().min(QUOTED_LINES)].join(" | "))
    }
}

/// Cuts foreign text to the length that an error may have.
pub(super) fn quoted(text: &str) -> String {
    if text.len() <= QUOTED_BYTES {
        return text.to_owned();
    }
    let cut = (0..=QUOTED_BYTES).rev().find(|at| text.is_char_boundary(*at));
    format!("{}…", &text[..cut.unwrap_or_default()])
}

/// A running child. Dropping it ends it; its own thread reaps it in every case.
#[derive(Debug)]
pub(super) struct Child {
    stdin: Option<File>,
    stdout: Option<File>,
    exit: watch::Receiver<Option<Exit>>,
    group: Arc<Group>,
    dies_of: Signal,
}

/// The child's process group. pgstow may signal it only until its leader has been reaped; afterwards the number may
/// belong to another process.
#[derive(Debug)]
struct Group {
    leader: Mutex<Option<Pid>>,
}

impl Group {
    fn leader(&self) -> MutexGuard<'_, Option<Pid>> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = *self.leader() {
            // An error here shows that the group has already ended.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }

    fn signal_leader(&self, signal: Signal) {
        if let Some(pid) = *self.leader() {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

impl Child {
    /// The child gets its own process group, so that Ctrl-C at the terminal reaches only pgstow, which then ends the
    /// child cleanly. If pgstow dies, the kernel kills the child.
    pub fn start(order: ChildCommand<'_>) -> std::io::Result<Child> {
        let mut command = Command::new(order.program);
        let special = order.special;
        let entry = match &special.confinement {
            Some(confinement) => {
                let keeps = special.keeps.as_ref().map(OwnedFd::try_clone).transpose()?;
                Some(confinement.prepare(order.program, &order.arguments, &order.environment, keeps)?)
            }
            None => None,
        };
        command
            .args(order.arguments)
            .env_clear()
            .envs(order.environment)
            .stdin(if special.stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        match entry {
            Some(entry) => {
                // PostgreSQL's programs look up their working folder, and may have no right to enter pgstow's.
                command.current_dir("/");
                confine(&mut command, entry, special.dies_of);
            }
            None => {
                die_with_parent(&mut command, special.dies_of);
                if let Some(descriptor) = special.keeps {
                    keep_open(&mut command, descriptor);
                }
            }
        }
        let (started, start) = mpsc::sync_channel(1);
        let (redactor, listener) = (order.redactor, special.listener);
        // The kernel kills the child when the *thread* that started it ends. So a separate thread starts it, and then
        // only has to outlive the child.
        std::thread::Builder::new()
            .name("pg child".into())
            .spawn(move || keep(command, &redactor, listener, &started))?;
        let Started {
            stdin,
            stdout,
            exit,
            group,
        } = start
            .recv()
            .map_err(|_| std::io::Error::other("the child's thread died"))??;
        for pipe in stdin.iter().chain([&stdout]) {
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
        }
        Ok(Child {
            stdin: stdin.map(File::from),
            stdout: Some(File::from(stdout)),
            exit,
            group,
            dies_of: special.dies_of,
        })
    }

    /// Its input for a blocking writer, once, if the command asked for it. Dropping the writer ends the input. After
    /// the child's end, writing fails with `BrokenPipe`.
    pub fn take_stdin(&mut self) -> Option<File> {
        self.stdin.take()
    }

    /// Its output, once, for a blocking reader.
    pub fn take_stdout(&mut self) -> Option<File> {
        self.stdout.take()
    }

    /// Waits for the end; may be called again. Take the output first unless it is small: otherwise the child may wait
    /// for a reader for ever.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone(),
            Err(_) => None,
        }
        .unwrap_or_else(|| Exit {
            status: ExitStatus::from_raw(Signal::KILL.as_raw()),
            stderr: "the thread that watched it died".into(),
        })
    }

    /// Waits for its end without a runtime; says whether it ended within the limit.
    pub fn is_gone_within(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.exit.borrow().is_none() {
            if until < Instant::now() {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        true
    }

    /// Signals the child alone, if it is still running.
    pub fn signal(&self, signal: Signal) {
        self.group.signal_leader(signal);
    }

    /// Sends SIGTERM, on which PostgreSQL's programs cancel their query on the server, and after a grace period
    /// SIGKILL. Returns when the child has ended.
    pub async fn stop(&self) -> Exit {
        self.group.signal(Signal::TERM);
        if let Ok(exit) = tokio::time::timeout(GRACE, self.wait()).await {
            return exit;
        }
        self.group.signal(Signal::KILL);
        self.wait().await
    }
}

impl Drop for Child {
    /// When the child has ended, its thread kills the rest of its group.
    fn drop(&mut self) {
        self.group.signal_leader(self.dies_of);
    }
}

#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes two
    // plain system calls on a captured number; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(signal))?;
            // pgstow may have died before the kernel had registered the request.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(std::io::Error::from(rustix::io::Errno::CHILD))
            }
        });
    }
}

/// The child never returns from here: it becomes the program's keeper, or the program.
#[allow(unsafe_code)]
fn confine(command: &mut Command, entry: PreparedConfinement, dies_of: Signal) {
    let parent = rustix::process::getpid();
    // SAFETY: as above: plain system calls on what was made ready before, which allocate nothing and
    // take no lock.
    unsafe {
        command.pre_exec(move || Err(entry.go(parent, dies_of.as_raw())));
    }
}

#[allow(unsafe_code)]
fn keep_open(command: &mut Command, descriptor: OwnedFd) {
    // SAFETY: as above: one plain system call on a captured number, in the child alone.
    unsafe {
        command.pre_exec(move || Ok(rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::empty())?));
    }
}

struct Started {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    exit: watch::Receiver<Option<Exit>>,
    group: Arc<Group>,
}

/// The work of the child's thread: start the child, read its stderr, wait, reap, report.
fn keep(
    mut command: Command,
    redactor: &Redactor,
    listener: Option<Listener>,
    started: &mpsc::SyncSender<std::io::Result<Started>>,
) {
    let spawned = command.spawn();
    // This also drops pgstow's copy of the descriptor that the child keeps open.
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let (tell, exit) = watch::channel(None);
    let pid = Pid::from_child(&child);
    let group = Arc::new(Group {
        leader: Mutex::new(Some(pid)),
    });
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return;
    };
    let tail = Arc::new(Mutex::new(Vec::new()));
    let (silent, silence) = mpsc::channel::<()>();
    let (kept, heard) = (Arc::clone(&tail), Arc::clone(&group));
    let listening = std::thread::Builder::new().name("pg stderr".into()).spawn(move || {
        listen(stderr, &kept, &heard, listener);
        drop(silent);
    });
    let _ = started.send(Ok(Started {
        stdin: child.stdin.take().map(OwnedFd::from),
        stdout: OwnedFd::from(stdout),
        exit,
        group: Arc::clone(&group),
    }));
    if listening.is_err() {
        group.signal(Signal::KILL);
    }

    // First wait for the end without reaping. Until the child is reaped, the group surely is the child's, and
    // processes that a wrapper script left running in it would hold the pipes open.
    while let Err(rustix::io::Errno::INTR) =
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
    {}
    group.signal(Signal::KILL);
    let status = {
        let mut leader = group.leader();
        *leader = None;
        child.wait()
    };
    // `Disconnected` is the expected result: the listener has read to the end.
    let _ = silence.recv_timeout(LAST_WORDS);
    let stderr = tail.lock().unwrap_or_else(PoisonError::into_inner);
    tell.send_replace(Some(Exit {
        status: status.unwrap_or_else(|_| ExitStatus::from_raw(Signal::KILL.as_raw())),
        stderr: redactor.clean(&String::from_utf8_lossy(&stderr)),
    }));
}

fn listen(mut stderr: impl Read, tail: &Mutex<Vec<u8>>, group: &Group, mut listener: Option<Listener>) {
    let mut buffer = [0; 4096];
    let mut line = Vec::new();
    loop {
        let read = match stderr.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        let mut hear = |line: &mut Vec<u8>| {
            if let Some(listener) = &mut listener
                && listener(&String::from_utf8_lossy(line)) == Hearing::Stop
            {
                group.signal(Signal::TERM);
            }
            line.clear();
        };
        if read == 0 {
            if !line.is_empty() {
                hear(&mut line);
            }
            return;
        }
        for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            line.extend_from_slice(&text[..text.len().min(LINE_BYTES.saturating_sub(line.len()))]);
            if whole {
                hear(&mut line);
            }
        }
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&buffer[..read]);
        if tail.len() > 2 * TAIL_BYTES {
            let cut = tail.len() - TAIL_BYTES;
            tail.drain(..cut);
        }
    }
}

/// For a program that reads a database. A program that fills one leaves the time zone to the database, because its
/// checks and views may depend on it.
pub(super) fn reading_environment(child_env: &[(String, String)], pass: Option<&Pass>) -> Vec<(OsString, OsString)> {
    let mut environment = environment(child_env, pass);
    // The server writes timestamps in the session's time zone: the same data must give the same text for every role
    // and on every server.
    environment.push(("PGTZ".into(), "UTC".into()));
    environment
}

/// The whole environment of one of PostgreSQL's programs.
pub(super) fn environment(child_env: &[(String, String)], pass: Option<&Pass>) -> Vec<(OsString, OsString)> {
    let require_auth = pass.and_then(Pass::require_auth);
    // If pgstow has no password, libpq must not use the user's own ~/.pgpass: the dump uses the credentials that were
    // given, or none.
    let passfile = pass
        .and_then(Pass::path)
        .unwrap_or(Path::new("/dev/null/none"))
        .to_owned();
    let mut ours = vec![
        ("PGPASSFILE", passfile.into_os_string()),
        ("PGAPPNAME", "pgstow".into()),
        // Messages in the language that `wait` can classify.
        ("LC_ALL", "C".into()),
    ];
    ours.extend(require_auth.map(|list| ("PGREQUIREAUTH", list.into())));
    let inherited = child_env
        .iter()
        .filter(|(name, _)| !name.starts_with("PG") && name != "LC_ALL" && name != "LANGUAGE")
        .map(|(name, value)| (name.into(), value.into()));
    inherited
        .chain(ours.into_iter().map(|(name, value)| (name.into(), value)))
        .collect()
}
