//! A drill runs functions of the database that it restores. What they try with it: as the ordinary owners
//! that wrote them, and as the superuser or the native code that they would have become.

mod breakout;
mod native;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::wreck::processes;

/// A folder that every user may enter and write to, where whoever gets out leaves something.
pub fn open_folder(name: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix(name).tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

pub fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// A server on this machine that counts who calls.
pub struct Listener {
    pub port: u16,
    calls: Arc<AtomicUsize>,
}

impl Listener {
    pub fn start() -> Listener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        std::thread::spawn(move || {
            for _ in listener.incoming() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Listener { port, calls }
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

/// No process whose name or arguments hold this word is left.
pub fn assert_no_process_knows(word: &str) {
    let patience = Instant::now() + Duration::from_secs(3);
    loop {
        let left: Vec<String> = processes()
            .into_iter()
            .filter(|process| {
                let name = fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap_or_default();
                process.command_line.contains(word) || name.contains(word)
            })
            .map(|process| format!("{} {}", process.pid, process.command_line))
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < patience, "{left:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
