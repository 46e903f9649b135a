//! Walls around a program that runs what others wrote: a throwaway server evaluates the functions of the
//! database that is restored into it. Each wall is the kernel's, holds for all that the program starts, and
//! cannot be taken down from inside.

mod filter;
mod folders;
mod identity;
mod keeper;
mod kernel;
mod view;

use std::ffi::{CString, OsStr, OsString, c_char};
use std::fmt;
use std::io::{Error, Result};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(crate) use filter::Sockets;
use folders::Folders;
pub use folders::Landlock;
pub(crate) use identity::{Identity, closed_to};
use keeper::Flock;
use view::View;

/// Namespaces for processes, network, System V memory and the machine's name.
const NAMESPACES: i32 = libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// Shows nobody of our own user what we hold, in memory, in our environment or as we crash: there are
/// secrets in all of these.
pub fn keep_to_ourselves() {
    // Neither can fail for a process that may make itself smaller.
    let _ = kernel::prctl(libc::PR_SET_DUMPABLE, 0);
    let _ = kernel::no_core();
}

/// Takes the values of these variables out of the environment as the kernel shows it, of this process and of those that
/// are forked from it. Whoever needs them has a copy.
pub fn forget_variables(is_one: impl Fn(&str) -> bool) {
    kernel::erase(|name| std::str::from_utf8(name).is_ok_and(&is_one));
}

/// What of it this system gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walls {
    /// No programs, no network, no look at other processes, whatever the program is talked into.
    pub filter: bool,
    /// No files but its own.
    pub landlock: Option<Landlock>,
    pub namespaces: Namespaces,
    /// Whether there is one for mounts beside those: all files but its own are to be read alone.
    pub mounts: bool,
    pub user: User,
}

/// Where its processes, its network and its memory are apart from ours: with them, nothing outlives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespaces {
    /// As root makes them.
    Plain,
    /// In a namespace of users, as everybody may make them where that is allowed.
    OfUser,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// The one that we are, who is not root.
    Ours,
    /// One that is nobody else.
    Unused,
    /// We are root, and may not become another.
    None,
}

/// Whether this machine's file of users does not know us.
pub(crate) fn is_nameless() -> bool {
    !identity::is_known(rustix::process::geteuid().as_raw())
}

impl Walls {
    /// Tried once, each as it would be used.
    pub fn here() -> Walls {
        static HERE: OnceLock<Walls> = OnceLock::new();
        *HERE.get_or_init(Walls::look)
    }

    /// What is lacking without which there is no drill, in words. Without namespaces and Landlock, it has no
    /// superuser, no program and no network all the same, and is given no code in C.
    pub fn missing(&self) -> Option<&'static str> {
        if !self.filter {
            return Some("it has no system call filter (seccomp), or does not let us set one");
        }
        None
    }

    /// Whether code of the machine's own reaches no file, process, program or network of ours: as a user of
    /// its own, or where the kernel keeps every change from files, and signals from processes.
    pub fn keep_files(&self) -> bool {
        let keeps_files = self
            .landlock
            .is_some_and(|landlock| landlock.keeps_changes() || self.has_view());
        let keeps_processes = self.namespaces != Namespaces::None || self.landlock.is_some_and(Landlock::keeps_signals);
        self.filter && (self.user == User::Unused || (keeps_files && keeps_processes))
    }

    /// Whether it has its own view of the files. It is made where the other namespaces are.
    fn has_view(&self) -> bool {
        self.mounts && self.namespaces != Namespaces::None
    }

    /// As whom a confined program runs: `None` as we do.
    pub(crate) fn identity(&self) -> crate::error::Result<Option<Identity>> {
        let none = || {
            crate::error::Error::new(
                crate::error::Code::RestoreErr,
                "PostgreSQL does not run as root, and there is no unused user that we may become",
            )
            .hint("run pgstow as an ordinary user, or with the capabilities SETUID, SETGID and CHOWN")
        };
        match self.user {
            User::Ours => Ok(None),
            User::Unused => identity::unused().map(Some).ok_or_else(none),
            User::None => Err(none()),
        }
    }

    fn look() -> Walls {
        let user = if !rustix::process::geteuid().is_root() {
            User::Ours
        } else if let Some(unused) = identity::unused()
            && tried(|| kernel::become_user(unused.uid, unused.gid))
        {
            User::Unused
        } else {
            User::None
        };
        let apart = |namespaces, identity: Option<Identity>| {
            let maps = Maps::of(identity);
            tried(|| {
                separate(namespaces, identity, &maps)?;
                // The first process of the new namespace.
                match kernel::fork()? {
                    0 => kernel::exit(0),
                    child => kernel::reap(child, true).map(|_| ()),
                }
            })
        };
        let namespaces = match user {
            User::None => Namespaces::None,
            User::Unused if apart(Namespaces::Plain, None) => Namespaces::Plain,
            User::Unused if apart(Namespaces::OfUser, identity::unused()) => Namespaces::OfUser,
            User::Ours if apart(Namespaces::OfUser, None) => Namespaces::OfUser,
            User::Unused | User::Ours => Namespaces::None,
        };
        let identity = match (user, namespaces) {
            (User::Unused, Namespaces::OfUser) => identity::unused(),
            _ => None,
        };
        let (maps, view) = (Maps::of(identity), View::default());
        let mounts = namespaces != Namespaces::None
            && tried(|| {
                separate(namespaces, identity, &maps)?;
                match kernel::fork()? {
                    0 => kernel::exit(i32::from(view.enter().is_err())),
                    child => match kernel::reap(child, true)? {
                        Some((_, 0)) => Ok(()),
                        _ => Err(Error::from_raw_os_error(libc::EPERM)),
                    },
                }
            });
        let filter = tried(|| {
            kernel::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
            kernel::set_filter(&[filter::ALLOW])
        });
        Walls {
            filter,
            landlock: Landlock::here(),
            namespaces,
            mounts,
            user,
        }
    }
}

impl fmt::Display for Walls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes_or_no = |there: bool| if there { "yes" } else { "no" };
        let user = match self.user {
            User::Ours => "ours, who is not root",
            User::Unused => "one of its own",
            User::None => "none but root",
        };
        let namespaces = match self.namespaces {
            Namespaces::Plain | Namespaces::OfUser if self.mounts => "processes, network, memory, mounts",
            Namespaces::Plain | Namespaces::OfUser => "processes, network, memory",
            Namespaces::None => "none",
        };
        write!(
            f,
            "its roles: no superuser; user: {user}; system call filter: {}; namespaces: {namespaces}; files (Landlock): ",
            yes_or_no(self.filter)
        )?;
        match self.landlock {
            Some(landlock) => write!(f, "version {}", landlock.version)?,
            None => f.write_str("no")?,
        }
        if !self.keep_files() {
            f.write_str("; functions in C and other untrusted languages are not proved")?;
        }
        Ok(())
    }
}

/// Tries something in a process of its own, which may do no more than the closure's system calls.
fn tried(what: impl Fn() -> Result<()>) -> bool {
    match kernel::fork() {
        Ok(0) => kernel::exit(i32::from(what().is_err())),
        Ok(child) => matches!(kernel::reap(child, true), Ok(Some((_, 0)))),
        Err(_) => false,
    }
}

/// Puts the children of this process, and with a namespace of users itself, apart from all others.
fn separate(namespaces: Namespaces, identity: Option<Identity>, maps: &Maps) -> Result<()> {
    match namespaces {
        Namespaces::None => Ok(()),
        Namespaces::Plain => kernel::unshare(NAMESPACES),
        Namespaces::OfUser => {
            if let Some(identity) = identity {
                kernel::become_user(identity.uid, identity.gid)?;
            }
            // The maps belong to root while we show ourselves to nobody. So for as long as these five calls take,
            // our own user can read this copy of us.
            kernel::prctl(libc::PR_SET_DUMPABLE, 1)?;
            kernel::unshare(libc::CLONE_NEWUSER | NAMESPACES)?;
            kernel::write_to(c"/proc/self/setgroups", b"deny")?;
            kernel::write_to(c"/proc/self/uid_map", maps.uids.as_bytes())?;
            kernel::write_to(c"/proc/self/gid_map", maps.gids.as_bytes())?;
            kernel::prctl(libc::PR_SET_DUMPABLE, 0)
        }
    }
}

/// Which numbers users and groups have inside a namespace of users.
#[derive(Debug, Clone)]
struct Maps {
    uids: String,
    gids: String,
}

impl Maps {
    /// For one user, or for ours.
    fn of(identity: Option<Identity>) -> Maps {
        let outside = identity.unwrap_or(Identity {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        });
        // Inside, it may have another number: one that has a name.
        let inside = if identity::is_known(outside.uid) {
            outside.uid
        } else {
            identity::known().unwrap_or(outside.uid)
        };
        Maps {
            uids: format!("{inside} {} 1", outside.uid),
            gids: format!("{} {} 1", outside.gid, outside.gid),
        }
    }
}

/// What a program is to be confined to.
#[derive(Debug)]
pub(crate) struct Confinement {
    pub walls: Walls,
    /// As whom, where we are root.
    pub identity: Option<Identity>,
    /// Whether that is nobody else, and all that runs as that user may be ended.
    pub alone: bool,
    pub sockets: Sockets,
    /// Whether it may start other programs.
    pub programs: bool,
    pub writable: Vec<PathBuf>,
    pub readable: Vec<PathBuf>,
}

impl Confinement {
    /// A user whom the C library can name, in the same group: some programs insist on having a name.
    pub fn named(identity: Identity) -> Option<Identity> {
        identity::known().map(|uid| Identity { uid, ..identity })
    }

    /// Gets everything ready that cannot be made between fork and exec.
    pub fn prepare(
        &self,
        program: &Path,
        arguments: &[OsString],
        environment: &[(OsString, OsString)],
        keeps: Option<OwnedFd>,
    ) -> Result<Entry> {
        let program = Program::new(&std::path::absolute(program)?, arguments, environment)?;
        let only = (!self.programs).then_some(&program);
        let filter = if self.walls.filter {
            filter::build(self.sockets, only)
        } else {
            Vec::new()
        };
        let folders = match self.walls.landlock {
            Some(landlock) => Some(Folders::wall(landlock, &self.writable, &self.readable)?),
            None => None,
        };
        let view = match self.walls.has_view() {
            true => Some(View::of(&self.writable)?),
            false => None,
        };
        Ok(Entry {
            program,
            namespaces: self.walls.namespaces,
            maps: Maps::of(self.identity),
            identity: self.identity,
            alone: self.alone,
            filter,
            folders,
            view,
            keeps,
        })
    }
}

/// A program as the kernel takes it.
pub(crate) struct Program {
    path: CString,
    // What the lists below point to.
    _arguments: Vec<CString>,
    _environment: Vec<CString>,
    /// Addresses, ended by a null.
    argument_list: Vec<usize>,
    environment_list: Vec<usize>,
}

impl Program {
    fn new(path: &Path, arguments: &[OsString], environment: &[(OsString, OsString)]) -> Result<Program> {
        let text = |bytes: &OsStr| CString::new(bytes.as_bytes()).map_err(|_| Error::from_raw_os_error(libc::EINVAL));
        let path = text(path.as_os_str())?;
        let mut all = vec![path.clone()];
        for argument in arguments {
            all.push(text(argument)?);
        }
        let mut variables = Vec::new();
        for (name, value) in environment {
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            variables.push(text(&variable)?);
        }
        let list =
            |texts: &[CString]| -> Vec<usize> { texts.iter().map(|text| text.as_ptr() as usize).chain([0]).collect() };
        Ok(Program {
            argument_list: list(&all),
            environment_list: list(&variables),
            path,
            _arguments: all,
            _environment: variables,
        })
    }

    fn addresses(&self) -> (*const c_char, *const *const c_char, *const *const c_char) {
        (
            self.path.as_ptr(),
            self.argument_list.as_ptr().cast(),
            self.environment_list.as_ptr().cast(),
        )
    }
}

/// The way into a confinement, ready to be gone by a process that was just forked.
pub(crate) struct Entry {
    program: Program,
    namespaces: Namespaces,
    maps: Maps,
    identity: Option<Identity>,
    alone: bool,
    filter: Vec<libc::sock_filter>,
    folders: Option<Folders>,
    view: Option<View>,
    keeps: Option<OwnedFd>,
}

impl Entry {
    /// Runs the program behind its walls. The process that calls this becomes its keeper, and ends as the
    /// program does; it returns, with an error, in the process that could not become the program.
    ///
    /// `dies_of`: what the kernel sends the keeper when `parent`, who started it, has died.
    pub fn go(&self, parent: rustix::process::Pid, dies_of: i32) -> Error {
        match self.way(parent, dies_of) {
            Ok(()) => kernel::execute(&self.program),
            Err(error) => error,
        }
    }

    fn way(&self, parent: rustix::process::Pid, dies_of: i32) -> Result<()> {
        let of_user = self.namespaces == Namespaces::OfUser;
        separate(self.namespaces, self.identity, &self.maps)?;
        if self.namespaces == Namespaces::None {
            kernel::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
        }
        kernel::hold_back(&keeper::HELD)?;
        // After the change of user, which would undo it.
        kernel::prctl(libc::PR_SET_PDEATHSIG, dies_of as u64)?;
        // We may have died before the kernel heard of it.
        if rustix::process::getppid() != Some(parent) {
            return Err(Error::from_raw_os_error(libc::ECHILD));
        }
        let child = kernel::fork()?;
        if child != 0 {
            let flock = match (self.namespaces, self.identity) {
                (Namespaces::Plain | Namespaces::OfUser, _) => Flock::Namespace,
                (Namespaces::None, Some(identity)) if self.alone => Flock::User(identity.uid, identity.gid),
                (Namespaces::None, _) => Flock::Descendants,
            };
            keeper::keep(child, flock);
        }
        if let Some(view) = &self.view {
            view.enter()?;
        }
        if let Some(identity) = self.identity
            && !of_user
        {
            kernel::become_user(identity.uid, identity.gid)?;
        }
        kernel::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)?;
        kernel::hold_back(&[])?;
        // We have none ourselves, and a system may not let us say it again.
        let _ = kernel::no_core();
        // An older kernel cannot do it in one call; all that is ours is closed at an exec anyway.
        let _ = kernel::close_from(3, true);
        if let Some(keeps) = &self.keeps {
            rustix::io::fcntl_setfd(keeps, rustix::io::FdFlags::empty())?;
        }
        kernel::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
        if let Some(folders) = &self.folders {
            kernel::landlock_enforce(folders.descriptor())?;
        }
        if !self.filter.is_empty() {
            kernel::set_filter(&self.filter)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
