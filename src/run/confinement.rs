//! Confines a program that runs code of others: a throwaway server evaluates the functions of the database that is
//! restored into it. The kernel enforces each wall, it holds for all child processes, and the program cannot remove
//! it.

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
use view::FileView;

/// Namespaces for processes, network, System V memory and the machine's name.
const NAMESPACES: i32 = libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// Hides our memory, our environment and our core dumps from other processes of our own user: all of them contain
/// secrets.
pub fn keep_to_ourselves() {
    // Neither can fail: a process may always lower its own limits.
    let _ = kernel::prctl(libc::PR_SET_DUMPABLE, 0);
    let _ = kernel::no_core();
}

/// Erases the values of these variables from the environment that the kernel shows (`/proc/<pid>/environ`), of this
/// process and of its forks. The code that needs them has a copy.
pub fn forget_variables(is_one: impl Fn(&str) -> bool) {
    kernel::erase(|name| std::str::from_utf8(name).is_ok_and(&is_one));
}

/// The walls that this system offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walls {
    /// The system call filter: no other programs, no network, no access to other processes.
    pub filter: bool,
    /// No access to other files than its own.
    pub landlock: Option<Landlock>,
    pub namespaces: Namespaces,
    /// Whether a namespace for mounts is possible too: all files but its own are then read-only.
    pub mounts: bool,
    pub user: User,
}

/// Its processes, network and shared memory are separate from ours: with them, no process outlives the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespaces {
    /// Made by root.
    Plain,
    /// In a user namespace, which any user may make where the system allows that.
    OfUser,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Our own user, which is not root.
    Ours,
    /// We are root and become a user that nothing else uses.
    Unused,
    /// We are root, and may not become another user.
    None,
}

/// Whether `/etc/passwd` lacks our user.
pub(crate) fn is_nameless() -> bool {
    !identity::is_known(rustix::process::geteuid().as_raw())
}

impl Walls {
    /// Tries each wall once, as a run would use it.
    pub fn here() -> Walls {
        static HERE: OnceLock<Walls> = OnceLock::new();
        *HERE.get_or_init(Walls::look)
    }

    /// What this system lacks that a drill cannot do without, in words. Without namespaces and Landlock a drill is
    /// possible: the server then still has no superuser, no other program and no network, and gets no code in C.
    pub fn missing(&self) -> Option<&'static str> {
        if !self.filter {
            return Some("it has no system call filter (seccomp), or does not let us set one");
        }
        None
    }

    /// Whether C code of this machine's extensions can reach no file, process, program or network of ours: because it
    /// runs as its own user, or because the kernel refuses all changes to files and all signals to processes.
    pub fn keep_files(&self) -> bool {
        let keeps_files = self
            .landlock
            .is_some_and(|landlock| landlock.keeps_changes() || self.has_view());
        let keeps_processes = self.namespaces != Namespaces::None || self.landlock.is_some_and(Landlock::keeps_signals);
        self.filter && (self.user == User::Unused || (keeps_files && keeps_processes))
    }

    /// Whether the program has its own view of the files. That needs the other namespaces too.
    fn has_view(&self) -> bool {
        self.mounts && self.namespaces != Namespaces::None
    }

    /// The user that a confined program runs as; `None`: our own.
    pub(crate) fn identity(&self) -> crate::error::Result<Option<Identity>> {
        let none = || {
            crate::error::Error::new(
                crate::error::Code::RestoreErr,
                "PostgreSQL does not run as root, and pgstow may not become an unused user",
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
        let (maps, view) = (Maps::of(identity), FileView::default());
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

/// Tries `what` in a forked process, which may make system calls only.
fn tried(what: impl Fn() -> Result<()>) -> bool {
    match kernel::fork() {
        Ok(0) => kernel::exit(i32::from(what().is_err())),
        Ok(child) => matches!(kernel::reap(child, true), Ok(Some((_, 0)))),
        Err(_) => false,
    }
}

/// Puts the children of this process into new namespaces; with a user namespace, this process too.
fn separate(namespaces: Namespaces, identity: Option<Identity>, maps: &Maps) -> Result<()> {
    match namespaces {
        Namespaces::None => Ok(()),
        Namespaces::Plain => kernel::unshare(NAMESPACES),
        Namespaces::OfUser => {
            if let Some(identity) = identity {
                kernel::become_user(identity.uid, identity.gid)?;
            }
            // While this process is not dumpable, root owns the files of the maps. So it is dumpable during these
            // five calls, and our own user can read this copy of us.
            kernel::prctl(libc::PR_SET_DUMPABLE, 1)?;
            kernel::unshare(libc::CLONE_NEWUSER | NAMESPACES)?;
            kernel::write_to(c"/proc/self/setgroups", b"deny")?;
            kernel::write_to(c"/proc/self/uid_map", maps.uids.as_bytes())?;
            kernel::write_to(c"/proc/self/gid_map", maps.gids.as_bytes())?;
            kernel::prctl(libc::PR_SET_DUMPABLE, 0)
        }
    }
}

/// The numbers of user and group inside a user namespace.
#[derive(Debug, Clone)]
struct Maps {
    uids: String,
    gids: String,
}

impl Maps {
    /// For `identity`, or for our own user.
    fn of(identity: Option<Identity>) -> Maps {
        let outside = identity.unwrap_or(Identity {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        });
        // Inside, the user may have another number: choose one that has a name.
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

/// How a program is confined.
#[derive(Debug)]
pub(crate) struct Confinement {
    pub walls: Walls,
    /// The user to run as, if we are root.
    pub identity: Option<Identity>,
    /// Whether nothing else runs as that user, so that all its processes may be ended.
    pub alone: bool,
    pub sockets: Sockets,
    /// Whether it may start other programs.
    pub programs: bool,
    pub writable: Vec<PathBuf>,
    pub readable: Vec<PathBuf>,
}

impl Confinement {
    /// A user that the C library can name, in the same group: some programs need a name.
    pub fn named(identity: Identity) -> Option<Identity> {
        identity::known().map(|uid| Identity { uid, ..identity })
    }

    /// Prepares everything that cannot be made between fork and exec.
    pub fn prepare(
        &self,
        program: &Path,
        arguments: &[OsString],
        environment: &[(OsString, OsString)],
        keeps: Option<OwnedFd>,
    ) -> Result<PreparedConfinement> {
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
            true => Some(FileView::of(&self.writable)?),
            false => None,
        };
        Ok(PreparedConfinement {
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

/// A program in the form that `execve` takes.
pub(crate) struct Program {
    path: CString,
    // The lists below point into these.
    _arguments: Vec<CString>,
    _environment: Vec<CString>,
    /// Addresses, with a null at the end.
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

/// A prepared confinement, to be entered by a process that was just forked.
pub(crate) struct PreparedConfinement {
    program: Program,
    namespaces: Namespaces,
    maps: Maps,
    identity: Option<Identity>,
    alone: bool,
    filter: Vec<libc::sock_filter>,
    folders: Option<Folders>,
    view: Option<FileView>,
    keeps: Option<OwnedFd>,
}

impl PreparedConfinement {
    /// Runs the program confined. The process that calls this becomes its keeper, and ends with the program's status.
    /// The call returns, with an error, only in the process that could not become the program.
    ///
    /// `dies_of`: the signal that the kernel sends the keeper when `parent`, which started it, has died.
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
        // After the change of user, which would reset this.
        kernel::prctl(libc::PR_SET_PDEATHSIG, dies_of as u64)?;
        // `parent` may have died before this call.
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
        // We make no core dumps already; some systems refuse to set the limit again.
        let _ = kernel::no_core();
        // Older kernels lack this call. All our descriptors are closed at exec anyway.
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
