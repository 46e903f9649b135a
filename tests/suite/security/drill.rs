//! A drill runs functions of the database that it restores. What they try with it: as the ordinary owners
//! that wrote them, and as the superuser or the native code that they would have become.

mod alone;
mod breakout;
mod forged;
mod honest;
mod native;
mod older;
mod plain;
mod refused;
mod secrets;
mod unconfined;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::program::pgstow;
use crate::support::wreck::{Site, processes};

/// All of it was proved, but for what the database itself has, which no drill takes over.
pub fn assert_proved(report: &Value) {
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");
    let left = report["drill"]["not_proved"].as_array().into_iter().flatten();
    let of_itself = |one: &Value| one["what"].as_str().unwrap().starts_with("the database's own ");
    assert!(left.clone().all(of_itself), "{report:#}");
}

/// What was not, with the reason.
pub fn not_proved(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let left = report["drill"]["not_proved"]
        .as_array()
        .unwrap_or_else(|| panic!("{report:#}"));
    left.iter().map(|one| (text(&one["what"]), text(&one["why"]))).collect()
}

/// A table's result.
pub fn result(report: &Value, schema: &str, name: &str) -> String {
    let tables = report["drill"]["tables"]
        .as_array()
        .unwrap_or_else(|| panic!("{report:#}"));
    let table = tables
        .iter()
        .find(|table| table["schema"] == schema && table["name"] == name);
    table.unwrap_or_else(|| panic!("{report:#}"))["result"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// A user for whom this machine has no name.
pub const NAMELESS: u32 = 54_321;

/// pgstow as that user, in a place of his own.
pub fn as_nameless(site: &Site) -> Command {
    // Where our program is, perhaps only root may go.
    let program = site.path().join("pgstow");
    fs::copy(pgstow().get_program(), &program).unwrap();
    crate::support::program::succeed(
        Command::new("chown")
            .args(["-R", &NAMELESS.to_string()])
            .arg(site.path()),
    );
    let mut command = Command::new(&program);
    command.env_clear();
    for (name, value) in pgstow().get_envs() {
        command.env(name, value.unwrap());
    }
    command.uid(NAMELESS).gid(NAMELESS);
    command
}

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
