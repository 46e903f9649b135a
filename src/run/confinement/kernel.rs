//! The system calls for the walls. All may be made between fork and exec: none allocates or takes a lock.

use std::ffi::{CStr, c_char, c_int, c_long, c_ulong};
use std::io::{Error, Result};
use std::os::fd::RawFd;

fn checked(result: c_long) -> Result<c_long> {
    if result < 0 {
        return Err(Error::last_os_error());
    }
    Ok(result)
}

#[allow(unsafe_code)]
pub(super) fn prctl(option: c_int, value: c_ulong) -> Result<()> {
    // SAFETY: the options that we use take only numbers; those after the first must be zero.
    checked(unsafe { libc::prctl(option, value, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) }.into()).map(|_| ())
}

#[allow(unsafe_code)]
pub(super) fn unshare(flags: c_int) -> Result<()> {
    // SAFETY: it takes a number, and changes nothing in memory.
    checked(unsafe { libc::unshare(flags) }.into()).map(|_| ())
}

#[allow(unsafe_code)]
fn mount(source: Option<&CStr>, target: &CStr, kind: Option<&CStr>, flags: c_ulong) -> Result<()> {
    let text = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: each text ends with a zero and outlives the call; a null stands for none.
    let done = unsafe { libc::mount(text(source), target.as_ptr(), text(kind), flags, std::ptr::null()) };
    checked(done.into()).map(|_| ())
}

/// Makes later mounts invisible outside our namespace of mounts.
pub(super) fn mount_for_us_alone() -> Result<()> {
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE)
}

/// Mounts the folder on itself, so that it is a separate mount.
pub(super) fn mount_upon_itself(folder: &CStr) -> Result<()> {
    mount(Some(folder), folder, None, libc::MS_BIND | libc::MS_REC)
}

/// Mounts a new /proc for our namespace of processes.
pub(super) fn mount_processes() -> Result<()> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RDONLY;
    mount(Some(c"proc"), c"/proc", Some(c"proc"), flags)
}

#[allow(unsafe_code)]
unsafe extern "C" {
    /// The C library's list of `NAME=VALUE`, which ends with a null.
    static environ: *const *mut c_char;
}

/// Writes zeros over the values of these variables of the environment, where the kernel shows them.
#[allow(unsafe_code)]
pub(super) fn erase(is_one: impl Fn(&[u8]) -> bool) {
    // SAFETY: each text of the list ends with a zero, is in our memory, and is neither moved nor freed, since no code
    // here changes the environment. A thread that reads a variable at this moment would find it shorter.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            let text = *next;
            let length = libc::strlen(text);
            let bytes = std::slice::from_raw_parts_mut(text.cast::<u8>(), length);
            if let Some(at) = bytes.iter().position(|byte| *byte == b'=')
                && is_one(&bytes[..at])
            {
                bytes[at + 1..].fill(0);
            }
            next = next.add(1);
        }
    }
}

/// Bytes of `struct mount_attr`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    users: u64,
}

const READ_ONLY: u64 = 1;
const NO_OTHER_USER: u64 = 1 << 1;

/// Needs Linux 5.12 or newer.
#[allow(unsafe_code)]
fn mount_attributes(target: &CStr, set: u64, clear: u64, flags: c_int) -> Result<()> {
    let attributes = MountAttributes {
        set,
        clear,
        propagation: 0,
        users: 0,
    };
    // SAFETY: the path ends with a zero, the attributes are as long as is said, and both outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    checked(done).map(|_| ())
}

/// Makes all mounts read-only.
pub(super) fn mounts_read_only() -> Result<()> {
    mount_attributes(c"/", READ_ONLY | NO_OTHER_USER, 0, libc::AT_RECURSIVE)
}

/// Makes this mount writable.
pub(super) fn mount_writable(folder: &CStr) -> Result<()> {
    mount_attributes(folder, 0, READ_ONLY, 0)
}

/// Becomes this user and group for ever, without our other groups.
#[allow(unsafe_code)]
pub(super) fn become_user(uid: u32, gid: u32) -> Result<()> {
    // Direct system calls: the C library's functions change every thread of the process, and wait for them.
    // SAFETY: they take numbers, and no list, since its length is zero.
    unsafe {
        checked(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()))?;
        checked(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        checked(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// Writes a small text to a file of /proc, which accepts it only in one piece.
#[allow(unsafe_code)]
pub(super) fn write_to(path: &CStr, text: &[u8]) -> Result<()> {
    // SAFETY: the path ends with a zero, and the buffer is as long as is said; both outlive the calls.
    unsafe {
        let file = checked(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC).into())?;
        let written = checked(libc::write(file as RawFd, text.as_ptr().cast(), text.len()) as c_long);
        libc::close(file as RawFd);
        written.map(|_| ())
    }
}

/// Returns 0 in the child.
///
/// Only in a process with one thread may the child do anything; in a process with more threads, the child may only
/// make the calls of this module.
#[allow(unsafe_code)]
pub(super) fn fork() -> Result<libc::pid_t> {
    // SAFETY: the rule for the child is above, and the callers keep it.
    let pid = unsafe { libc::fork() };
    checked(pid.into()).map(|_| pid)
}

#[allow(unsafe_code)]
pub(super) fn exit(code: c_int) -> ! {
    // SAFETY: it ends the process, and runs no code of ours.
    unsafe { libc::_exit(code) }
}

#[allow(unsafe_code)]
pub(super) fn kill(pid: libc::pid_t, signal: c_int) -> Result<()> {
    // SAFETY: it takes numbers.
    checked(unsafe { libc::kill(pid, signal) }.into()).map(|_| ())
}

/// Sets the signal's default action.
#[allow(unsafe_code)]
pub(super) fn forget_handler(signal: c_int) {
    // SAFETY: it sets no handler, so no code of ours can run.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// A child that has ended, with its status; `None` if all children still run; an error if there are none.
#[allow(unsafe_code)]
pub(super) fn reap(pid: libc::pid_t, wait: bool) -> Result<Option<(libc::pid_t, c_int)>> {
    let mut status = 0;
    loop {
        // SAFETY: the status outlives the call.
        let found = unsafe { libc::waitpid(pid, &raw mut status, if wait { 0 } else { libc::WNOHANG }) };
        match checked(found.into()) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some((found, status))),
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

#[allow(unsafe_code)]
fn set_of(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: an all-zero set is valid, and is emptied as the standard requires.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Blocks exactly these signals until they are asked for.
#[allow(unsafe_code)]
pub(super) fn hold_back(signals: &[c_int]) -> Result<()> {
    let set = set_of(signals);
    // SAFETY: the set outlives the call, and nothing is written.
    checked(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) }.into()).map(|_| ())
}

/// The next blocked signal, if one arrives in time.
#[allow(unsafe_code)]
pub(super) fn next_signal(signals: &[c_int], limit: std::time::Duration) -> Option<c_int> {
    let set = set_of(signals);
    let limit = libc::timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(1),
        tv_nsec: limit.subsec_nanos().into(),
    };
    // SAFETY: set and limit outlive the call, and nothing is written.
    let signal = unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const limit) };
    (signal > 0).then_some(signal)
}

/// Closes every descriptor from this one on, at exec or at once.
#[allow(unsafe_code)]
pub(super) fn close_from(first: u32, at_exec: bool) -> Result<()> {
    let flags = if at_exec { libc::CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: it takes numbers. Later use of a closed descriptor is an error.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) }).map(|_| ())
}

#[allow(unsafe_code)]
pub(super) fn close(descriptor: RawFd) {
    // SAFETY: as above.
    unsafe { libc::close(descriptor) };
}

#[allow(unsafe_code)]
pub(super) fn no_core() -> Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit outlives the call.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) }.into()).map(|_| ())
}

#[allow(unsafe_code)]
pub(super) fn set_filter(filter: &[libc::sock_filter]) -> Result<()> {
    let program = libc::sock_fprog {
        len: filter
            .len()
            .try_into()
            .map_err(|_| Error::other("the filter is too long"))?,
        filter: filter.as_ptr().cast_mut(),
    };
    // Uses the older call: some systems that filter calls themselves allow only that one.
    // SAFETY: the program outlives the call, and its length is that of the filter.
    let set = unsafe {
        let mode: c_ulong = libc::SECCOMP_MODE_FILTER.into();
        libc::prctl(
            libc::PR_SET_SECCOMP,
            mode,
            &raw const program,
            0 as c_ulong,
            0 as c_ulong,
        )
    };
    checked(set.into()).map(|_| ())
}

/// The version of the kernel's Landlock interface, or `None` if there is none.
#[allow(unsafe_code)]
pub(super) fn landlock_version() -> Option<u32> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag it reads no attributes.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// Bytes of `struct landlock_ruleset_attr`.
#[repr(C)]
pub(super) struct Handled {
    pub files: u64,
    pub network: u64,
    pub scopes: u64,
}

#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: RawFd,
}

#[allow(unsafe_code)]
pub(super) fn landlock_ruleset(handled: &Handled, bytes: usize) -> Result<RawFd> {
    // SAFETY: the kernel reads at most this many bytes, and the structure is at least as long.
    let made = unsafe {
        let bytes = bytes.min(size_of::<Handled>());
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(handled),
            bytes,
            0_u32,
        )
    };
    checked(made).map(|descriptor| descriptor as RawFd)
}

#[allow(unsafe_code)]
pub(super) fn landlock_allow(ruleset: RawFd, parent: RawFd, allowed: u64) -> Result<()> {
    const PATH_BENEATH: u32 = 1;
    let rule = Beneath { allowed, parent };
    // SAFETY: the rule has the form that the kernel expects for this type, and outlives the call.
    checked(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset,
            PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    })
    .map(|_| ())
}

#[allow(unsafe_code)]
pub(super) fn landlock_enforce(ruleset: RawFd) -> Result<()> {
    // SAFETY: it takes numbers.
    checked(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0_u32) }).map(|_| ())
}

/// Replaces this process. Returns only if that failed.
#[allow(unsafe_code)]
pub(super) fn execute(program: &super::Program) -> Error {
    let (path, arguments, environment) = program.addresses();
    // SAFETY: the path ends with a zero, both lists end with a null, and each of their texts ends with a zero; all
    // live as long as the program.
    unsafe {
        libc::execve(path, arguments, environment);
    }
    Error::last_os_error()
}
