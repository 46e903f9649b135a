//! Another session that stands in a backup's way.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use super::database::Database;
use super::program::stock;

/// A session that goes on until it is dropped.
pub struct Held(Child);

impl Held {
    /// Runs a script that answers `held`.
    pub fn by(major: u32, url: &str, script: &str) -> Self {
        let mut psql = stock(major, "psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let script = format!("{script};\n");
        psql.stdin.as_mut().unwrap().write_all(script.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(psql.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "held\n");
        Self(psql)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Holds a table so that no session can read it, until it is dropped.
pub struct Lock(Held);

impl Lock {
    pub fn hold(database: &Database, table: &str) -> Self {
        Self::by(database, &format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
    }

    /// Has done something else that others must wait for; undone when it is dropped.
    pub fn by(database: &Database, statement: &str) -> Self {
        let script = format!("BEGIN; {statement}; SELECT 'held'");
        Self(Held::by(database.major, &database.url(), &script))
    }

    /// Changes what it holds, and lets go with that.
    pub fn release_after(mut self, change: &str) {
        let script = format!("{change}; COMMIT;\n");
        let session = &mut self.0.0;
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        drop(stdin);
        assert!(session.wait().unwrap().success());
    }
}
