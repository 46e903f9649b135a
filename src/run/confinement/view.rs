//! A program's own view of the files, in a namespace of mounts: whoever it runs as, it changes nothing but its own folders,
//! and sees no processes but its own where the kernel lets it.

use std::ffi::CString;
use std::io::{Error, Result};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::kernel;

/// What it changes, ready to be entered between fork and exec.
#[derive(Debug, Default)]
pub(super) struct View {
    writable: Vec<CString>,
}

impl View {
    pub fn of(writable: &[PathBuf]) -> Result<View> {
        let mut folders = Vec::new();
        for path in writable {
            let path = CString::new(path.as_os_str().as_bytes());
            folders.push(path.map_err(|_| Error::from_raw_os_error(libc::EINVAL))?);
        }
        Ok(View { writable: folders })
    }

    /// As root, in a namespace of users or out of one, and as the first in a namespace for processes. Before Landlock, behind
    /// which nothing is mounted.
    pub fn enter(&self) -> Result<()> {
        kernel::unshare(libc::CLONE_NEWNS)?;
        kernel::mount_for_us_alone()?;
        // A mount of its own can be written to where all others cannot.
        for folder in &self.writable {
            kernel::mount_upon_itself(folder)?;
        }
        kernel::mounts_read_only()?;
        for folder in &self.writable {
            kernel::mount_writable(folder)?;
        }
        // Refused where a part of the old one is covered, as in containers: that one stays then.
        let _ = kernel::mount_processes();
        Ok(())
    }
}
