//! The process between pgstow and a confined program: it waits for the program's end, passes signals on, and ends all
//! processes that the program leaves.
//!
//! It was forked while other threads ran: nothing here may allocate or take a lock.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, RawDir};

use super::kernel;

/// The signals by which pgstow, or the kernel after its death, asks a program to end.
const ASKED: [c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP];
pub(super) const HELD: [c_int; 5] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGCHLD];

/// How long a program may take to end after such a signal; then it is killed.
const GRACE: Duration = Duration::from_secs(2);
/// How long to search for processes that it left.
const SEARCH: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_secs(60);

/// The processes that end with the program.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flock {
    /// All processes of its namespace; the kernel ends them.
    Namespace,
    /// All processes of its user, which nothing else uses.
    User(u32, u32),
    /// Its descendants; they become our children when their parents die.
    Descendants,
}

/// Waits until the program has ended, then ends with the same status.
pub(super) fn keep(program: libc::pid_t, flock: Flock) -> ! {
    if kernel::close_from(0, false).is_err() {
        // Older kernels lack the call.
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
            // The kernel ended them before the program was reaped.
            Flock::Namespace => return,
            Flock::User(uid, gid) => all_of_user(uid, gid),
            Flock::Descendants => {}
        }
        // Also with a user of its own: a program may have handed its children to other processes.
        our_children(|child| {
            let _ = kernel::kill(child, libc::SIGKILL);
        });
        loop {
            match kernel::reap(-1, false) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // There are no children.
                Err(_) => return,
            }
        }
        kernel::next_signal(&[libc::SIGCHLD], Duration::from_millis(20));
    }
}

/// Kills all of them in one call, so that no process can escape by a fork.
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

/// The parent in `/proc/<pid>/stat`: it follows the name in brackets, which may contain anything, and the state.
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

/// Ends in the same way as the program, so that our parent sees its status.
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
