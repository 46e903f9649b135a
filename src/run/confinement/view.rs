//! A program's own view of the files, in a namespace of mounts: whatever its user, the program can change only its
//! own folders, and sees only its own processes if the kernel allows that.

use std::ffi::CString;
use std::io::{Error, Result};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::kernel;

/// The folders that it may change, prepared for use between fork and exec.
#[derive(Debug, Default)]
pub(super) struct FileView {
    writable: Vec<CString>,
}

impl FileView {
    pub fn of(writable: &[PathBuf]) -> Result<FileView> {
        let mut folders = Vec::new();
        for path in writable {
            let path = CString::new(path.as_os_str().as_bytes());
            folders.push(path.map_err(|_| Error::from_raw_os_error(libc::EINVAL))?);
        }
        Ok(FileView { writable: folders })
    }

    /// To be called as root, inside or outside a user namespace, as the first process in a namespace of processes,
    /// and before Landlock, which forbids mounts.
    pub fn enter(&self) -> Result<()> {
        kernel::unshare(libc::CLONE_NEWNS)?;
        kernel::mount_for_us_alone()?;
        // A separate mount can stay writable when all others become read-only.
        for folder in &self.writable {
            kernel::mount_upon_itself(folder)?;
        }
        kernel::mounts_read_only()?;
        for folder in &self.writable {
            kernel::mount_writable(folder)?;
        }
        // The kernel refuses this if a part of the old /proc is covered, as in containers: then the old one stays.
        let _ = kernel::mount_processes();
        Ok(())
    }
}
