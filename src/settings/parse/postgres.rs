//! PostgreSQL's programs, and how long pgstow waits.

use std::path::PathBuf;
use std::time::Duration;

use super::Reader;
use crate::settings::{Postgres, specs};

/// A statement of a usual migration ends within this time. It is well below the stall limit, so that the error names
/// the lock and not a stall.
const LOCK_WAIT: Duration = Duration::from_secs(60);
const STALL: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

impl Reader<'_> {
    pub(super) fn postgres(&mut self) -> Postgres {
        let env = &self.input.env;
        let path = env
            .get("PATH")
            .map_or_else(Vec::new, |path| std::env::split_paths(path).collect());
        let child_env = ["PATH", "HOME", "LD_LIBRARY_PATH", "TZ"]
            .iter()
            .filter_map(|name| env.get(*name).map(|value| ((*name).to_owned(), value.clone())))
            .collect();
        let temp = env
            .get("TMPDIR")
            .filter(|folder| !folder.is_empty())
            .map_or("/tmp", String::as_str);
        let temp = PathBuf::from(temp);
        let working_dir = self.input.working_dir.clone();
        let bin = self.read("BACKUP_PG_BIN", |text| {
            let folders: Vec<PathBuf> = std::env::split_paths(text)
                .filter(|folder| !folder.as_os_str().is_empty())
                .map(|folder| working_dir.join(folder))
                .collect();
            if folders.is_empty() {
                Err("it names no folder")
            } else {
                Ok(folders)
            }
        });
        let dump_major = self
            .count("BACKUP_PG_DUMP_MAJOR", 10..=99)
            .and_then(|major| u32::try_from(major).ok());
        let (lock_wait, stall) = self.limits();
        Postgres {
            bin,
            path,
            dump_major,
            lock_wait,
            stall,
            connect_timeout: self
                .read("BACKUP_CONNECT_TIMEOUT_SECONDS", specs::duration)
                .unwrap_or(CONNECT_TIMEOUT),
            temp,
            child_env,
            client_walls: None,
        }
    }

    /// While pg_dump waits for a lock, no byte flows. So the wait must end before the stall limit: otherwise the error
    /// would name a stall and hide the lock.
    pub(super) fn limits(&mut self) -> (Duration, Duration) {
        let lock_wait = self.read("BACKUP_LOCK_WAIT_SECONDS", specs::duration);
        let stall = self.read("BACKUP_STALL_SECONDS", specs::duration);
        match (lock_wait, stall) {
            (Some(wait), Some(stall)) => {
                let names = (
                    self.values.get("BACKUP_LOCK_WAIT_SECONDS").cloned(),
                    self.values.get("BACKUP_STALL_SECONDS").cloned(),
                );
                if let (true, (Some(one), Some(other))) = (wait >= stall, names) {
                    // A command that uses only one of them has no problem.
                    self.of("BACKUP_STALL_SECONDS", |reader| {
                        reader.problems.conflict(
                            &one,
                            &other,
                            "the wait for a lock must be shorter than the stall limit",
                        );
                    });
                }
                (wait, stall)
            }
            (Some(wait), None) if wait >= STALL => {
                let raised = wait + LOCK_WAIT;
                self.note(format!(
                    "the stall limit is set to {} s, because it must be longer than the wait for a lock",
                    raised.as_secs()
                ));
                (wait, raised)
            }
            (None, Some(stall)) if LOCK_WAIT >= stall => {
                let lowered = stall / 2;
                self.note(format!(
                    "the wait for a lock is set to {} ms, because it must be shorter than the stall limit",
                    lowered.as_millis()
                ));
                (lowered, stall)
            }
            (wait, stall) => (wait.unwrap_or(LOCK_WAIT), stall.unwrap_or(STALL)),
        }
    }
}
