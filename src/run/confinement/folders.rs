//! The parts of the file system that a confined program may use, enforced by the kernel (Landlock).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use super::kernel::{self, Handled};

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_FOLDER: u64 = 1 << 3;
const TRUNCATE: u64 = 1 << 14;
/// To make devices, which no confined program needs.
const MAKE_DEVICES: u64 = 1 << 6 | 1 << 11;

const READ: u64 = EXECUTE | READ_FILE | READ_FOLDER;
/// The rights that can be given for a file that is not a folder.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;

/// Programs, libraries, and files that describe the machine; none of them is private on any system. Paths that do not
/// exist are skipped.
const READABLE: [&str; 25] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/locale.alias",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/etc/crypto-policies",
    "/etc/alternatives",
    // Debian's dictionaries for text search.
    "/var/cache/postgresql",
    "/dev/urandom",
    "/dev/random",
    "/sys/devices/system/cpu/online",
];

/// Devices that may be read and written.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/zero"];

/// Connections to sockets without a path in the file system.
const ABSTRACT_SOCKETS: u64 = 1;
/// Signals to processes outside.
const SIGNALS: u64 = 1 << 1;

/// The kernel's abilities in Landlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Landlock {
    /// The version of its interface.
    pub version: u32,
    /// The scopes that it can restrict, beside files and TCP.
    pub scopes: u64,
}

impl Landlock {
    /// Finds the abilities by trying: a distribution's kernel may report a version without all its features.
    pub(super) fn here() -> Option<Landlock> {
        let version = kernel::landlock_version()?;
        let scopes = match version {
            ..=5 => &[0][..],
            _ => &[ABSTRACT_SOCKETS | SIGNALS, ABSTRACT_SOCKETS, 0],
        };
        let candidates = scopes.iter().map(|scopes| Landlock {
            version,
            scopes: *scopes,
        });
        candidates.into_iter().find(|landlock| landlock.ruleset().is_ok())
    }

    /// Whether it refuses to truncate files, as it refuses all other changes of content.
    pub(super) fn keeps_changes(self) -> bool {
        self.version >= 3
    }

    pub(super) fn keeps_signals(self) -> bool {
        self.scopes & SIGNALS != 0
    }

    #[allow(unsafe_code)]
    fn ruleset(self) -> std::io::Result<OwnedFd> {
        let handled = Handled {
            files: files_of(self.version),
            // To accept and to make TCP connections.
            network: 0b11,
            scopes: self.scopes,
        };
        let bytes = match self.version {
            1..=3 => 8,
            4 | 5 => 16,
            _ => 24,
        };
        let ruleset = kernel::landlock_ruleset(&handled, bytes)?;
        // SAFETY: the descriptor was just made, and nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(ruleset) })
    }
}

/// The file rights that this version of the interface can refuse.
fn files_of(version: u32) -> u64 {
    let bits = match version {
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    (1 << bits) - 1
}

/// A wall: everything is refused unless it is allowed here.
#[derive(Debug)]
pub(super) struct Folders {
    ruleset: OwnedFd,
}

impl Folders {
    /// `writable`: folders where the program may do everything but make devices and execute. `readable`: files beside
    /// those that every program needs.
    pub fn wall(landlock: Landlock, writable: &[PathBuf], readable: &[PathBuf]) -> std::io::Result<Folders> {
        let files = files_of(landlock.version);
        let folders = Folders {
            ruleset: landlock.ruleset()?,
        };
        for path in READABLE
            .iter()
            .map(Path::new)
            .chain(readable.iter().map(PathBuf::as_path))
        {
            folders.allow(path, READ & files)?;
        }
        for path in DEVICES.map(Path::new) {
            folders.allow(path, (READ_FILE | WRITE_FILE) & files)?;
        }
        for path in writable {
            folders.allow(path, files & !MAKE_DEVICES & !EXECUTE)?;
        }
        Ok(folders)
    }

    fn allow(&self, path: &Path, rights: u64) -> std::io::Result<()> {
        use rustix::fs::{CWD, Mode, OFlags};
        let Ok(file) = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else {
            return Ok(());
        };
        let is_folder = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_dir();
        let rights = if is_folder { rights } else { rights & OF_FILES };
        kernel::landlock_allow(self.ruleset.as_raw_fd(), file.as_raw_fd(), rights)
    }

    pub fn descriptor(&self) -> RawFd {
        self.ruleset.as_raw_fd()
    }
}
