//! A disk of a test's own, so small that it fills up, or closed to writers.

use std::path::Path;

use rustix::process::geteuid;
use tempfile::TempDir;

use super::program::{program, run, succeed};

/// A tmpfs, unmounted when dropped, so also when a test fails.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// With mount's own options: `size=64k`, `nr_inodes=8`.
    pub fn mount(options: &str) -> Self {
        let disk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        // Open to all: a test that is not root mounts by sudo.
        as_root(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &format!("mode=0777,{options}"),
                "tmpfs",
                disk.place(),
            ],
        );
        disk
    }

    pub fn remount(&self, options: &str) {
        as_root("mount", &["-o", &format!("remount,{options}"), self.place()]);
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn place(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmount = command("umount", &["-l", self.place()]);
        drop(run(&mut { unmount }));
    }
}

fn as_root(name: &str, args: &[&str]) {
    succeed(&mut command(name, args));
}

fn command(name: &str, args: &[&str]) -> std::process::Command {
    let mut command = program(if geteuid().is_root() { name } else { "sudo" });
    if !geteuid().is_root() {
        command.args(["-n", name]);
    }
    command.args(args);
    command
}
