//! What of the file system a confined program may touch, said to the kernel (Landlock).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use super::kernel::{self, Handled};

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_FOLDER: u64 = 1 << 3;
const TRUNCATE: u64 = 1 << 14;
/// Devices, which nobody here makes.
const MAKE_DEVICES: u64 = 1 << 6 | 1 << 11;

const READ: u64 = EXECUTE | READ_FILE | READ_FOLDER;
/// Of a file that is no folder, no more can be said.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;

/// Where programs and libraries are, and what they are told of the machine: nothing that is private
/// anywhere. What is not there is passed over.
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

/// Read and written.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/zero"];

/// What the version of the kernel's interface can refuse.
fn files_of(version: u32) -> u64 {
    let bits = match version {
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    (1 << bits) - 1
}

/// A wall: all is refused but what is said.
#[derive(Debug)]
pub(super) struct Folders {
    ruleset: OwnedFd,
}

impl Folders {
    /// `writable`: folders where it may do all but make devices. `readable`: more than every program needs.
    #[allow(unsafe_code)]
    pub fn wall(version: u32, writable: &[PathBuf], readable: &[PathBuf]) -> std::io::Result<Folders> {
        let files = files_of(version);
        let handled = Handled {
            files,
            // To take and to make connections by TCP.
            network: 0b11,
            // Sockets without a place in the file system, and signals to others.
            scopes: 0b11,
        };
        let bytes = match version {
            1..=3 => 8,
            4 | 5 => 16,
            _ => 24,
        };
        let ruleset = kernel::landlock_ruleset(&handled, bytes)?;
        // SAFETY: it was just made, and belongs to nobody else.
        let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset) };
        let folders = Folders { ruleset };
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
