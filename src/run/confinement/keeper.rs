//! The process between us and a confined program: it waits for the program's end, passes on what it is
//! told, and sees to it that nothing outlives it.
//!
//! It is a copy of us that was made while other threads ran: nothing here allocates or takes a lock.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, RawDir};

use super::kernel;

/// What we, or the kernel in our place, ask a program to end with.
const ASKED: [c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP];
pub(super) const HELD: [c_int; 5] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGCHLD];

/// How long a program that was asked to end may take over it: whoever ignores it gets no more.
const GRACE: Duration = Duration::from_secs(2);
/// How long those it left behind are looked for.
const SEARCH: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_secs(60);

/// Who ends with the program.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flock {
    /// All processes of its namespace, by the kernel.
    Namespace,
    /// All processes of its user, who is nobody else.
    User(u32, u32),
    /// Its descendants, who become ours when their parents die.
    Descendants,
}

/// Until the program is gone; ends as it did.
pub(super) fn keep(program: libc::pid_t, flock: Flock) -> ! {
    if kernel::close_from(0, false).is_err() {
        // An older kernel.
        (0..4096).for_each(kernel::close);
    }
    let mut last: Option<Instant> = None;
    loop {
        let patience = last.map_or(LOOK, |last| last.saturating_duration_since(Instant::now()));
        match kernel::next_signal(&HELD, patience) {
            Some(signal) if ASKED.contains(&signal) => {
                let _ = kernel::kill(program, signal);
                last.get_or_insert(Instant::now() + GRACE);
            }
            _ => {}
        }
        while let Ok(Some((pid, status))) = kernel::reap(-1, false) {
            if pid == program {
                clear(flock);
                end_as(status);
            }
        }
        if last.is_some_and(|last| last <= Instant::now()) {
            let _ = kernel::kill(program, libc::SIGKILL);
            last = Some(Instant::now() + GRACE);
        }
    }
}

fn clear(flock: Flock) {
    let until = Instant::now() + SEARCH;
    while Instant::now() < until {
        match flock {
            // They were gone before the program was.
            Flock::Namespace => return,
            Flock::User(uid, gid) => all_of_user(uid, gid),
            Flock::Descendants => {}
        }
        // With a user of its own too: a program may have given its children to others.
        our_children(|child| {
            let _ = kernel::kill(child, libc::SIGKILL);
        });
        loop {
            match kernel::reap(-1, false) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // There are none.
                Err(_) => return,
            }
        }
        kernel::next_signal(&[libc::SIGCHLD], Duration::from_millis(20));
    }
}

/// In one call, so that none can fork away from it.
fn all_of_user(uid: u32, gid: u32) {
    match kernel::fork() {
        Ok(0) => {
            if kernel::become_user(uid, gid).is_ok() {
                let _ = kernel::kill(-1, libc::SIGKILL);
            }
            kernel::exit(0)
        }
        Ok(child) => {
            let _ = kernel::reap(child, true);
        }
        Err(_) => {}
    }
}

fn our_children(mut each: impl FnMut(libc::pid_t)) {
    let ourselves = rustix::process::getpid().as_raw_nonzero().get();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(processes) = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty()) else {
        return;
    };
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut entries = RawDir::new(&processes, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_bytes();
        if let Some(pid) = number(name)
            && parent(&processes, name) == Some(ourselves)
        {
            each(pid);
        }
    }
}

/// As `/proc/<pid>/stat` says it: after the name in brackets, which may hold anything, and the state.
fn parent(processes: impl std::os::fd::AsFd, pid: &[u8]) -> Option<i32> {
    const STAT: &[u8] = b"/stat\0";
    let mut path = [0; 32];
    path.get_mut(..pid.len())?.copy_from_slice(pid);
    path.get_mut(pid.len()..pid.len() + STAT.len())?.copy_from_slice(STAT);
    let path = std::ffi::CStr::from_bytes_until_nul(&path).ok()?;
    let file = rustix::fs::openat(processes, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = [0; 512];
    let length = rustix::io::read(&file, &mut text[..]).ok()?;
    let text = text.get(..length)?;
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    number(text.get(name_end + 2..)?.split(|byte| *byte == b' ').nth(1)?)
}

fn number(digits: &[u8]) -> Option<i32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_i32, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| i32::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Whoever waits for us sees what became of the program.
fn end_as(status: c_int) -> ! {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        kernel::forget_handler(signal);
        let _ = kernel::hold_back(&[]);
        let _ = kernel::kill(rustix::process::getpid().as_raw_nonzero().get(), signal);
        kernel::exit(128 + signal)
    }
    kernel::exit(libc::WEXITSTATUS(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_children_are_found_among_all_processes() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut found = Vec::new();
        our_children(|child| found.push(child));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&pid), "{pid} is not among {found:?}");
    }
}
