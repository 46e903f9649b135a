//! A pipe to which nothing is written. Each living process holds its writing end; the reading end reports when the
//! last of them has ended, in whatever way.

use std::io::pipe;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

const SHELL: &str = "/bin/sh";
/// `read` returns at the end of the pipe. The script ignores signals, which go to the whole process group: pgstow
/// ends cleanly, and the watchdog with it. `rm` is repeated because a server that is ending may still write files.
const SCRIPT: &str = "trap '' HUP INT TERM; read -r nothing; \
    for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- \"$@\" && exit; sleep 0.3; done; exit 1";

#[derive(Debug)]
pub(crate) struct Tether {
    held: Option<OwnedFd>,
    seen: OwnedFd,
}

impl Tether {
    pub fn new() -> std::io::Result<Tether> {
        let (seen, held) = pipe()?;
        Ok(Tether {
            held: Some(held.into()),
            seen: seen.into(),
        })
    }

    /// The writing end, for a child process.
    pub fn end(&self) -> std::io::Result<OwnedFd> {
        match &self.held {
            Some(held) => held.try_clone(),
            None => Err(std::io::Error::other("the tether was let go")),
        }
    }

    /// Drops our own writing end.
    pub fn let_go(&mut self) {
        self.held = None;
    }

    /// Waits until no process holds the writing end, and returns whether that happened within `limit`. Blocks.
    pub fn all_gone(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).ok();
        let mut end = [PollFd::new(&self.seen, PollFlags::empty())];
        // Nothing is ever written, so the only event is the end.
        loop {
            match poll(&mut end, limit.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.is_ok_and(|events| events > 0),
            }
        }
    }

    /// A small process that removes the folders when all holders of the tether are gone. We are one of them, so it
    /// also does that when we are killed. Without a shell there is no watchdog; then the next run's sweep removes
    /// them.
    pub fn watchdog(&self, folders: &[&Path]) -> Option<Watchdog> {
        let mut command = Command::new(SHELL);
        command
            .args(["-c", SCRIPT, "pgstow-watchdog"])
            .args(folders)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .current_dir("/")
            .stdin(self.seen.try_clone().ok()?)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        own_session(&mut command);
        command.spawn().ok().map(Watchdog)
    }
}

/// Dropping it kills the process; it has removed nothing if the tether was still held.
#[derive(Debug)]
pub(crate) struct Watchdog(Child);

impl Drop for Watchdog {
    fn drop(&mut self) {
        // It was not reaped yet, so the pid is still its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts it out of reach of signals to our terminal and our group.
#[allow(unsafe_code)]
fn own_session(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe work is allowed: this is one plain
    // system call.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_holders_end_is_seen_and_the_folders_go() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("-a 'folder'");
        std::fs::create_dir_all(folder.join("inner")).unwrap();
        let mut tether = Tether::new().unwrap();
        let mut watchdog = tether.watchdog(&[&folder]).unwrap();
        let other = tether.end().unwrap();
        tether.let_go();
        assert!(!tether.all_gone(Duration::from_millis(100)));
        assert!(folder.exists() && watchdog.0.try_wait().unwrap().is_none());
        drop(other);
        assert!(tether.all_gone(Duration::from_secs(5)));
        assert!(watchdog.0.wait().unwrap().success());
        assert!(!folder.exists());
    }
}
