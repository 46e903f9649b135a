//! Another session that stands in a backup's way.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use super::database::Database;
use super::program::stock;

/// Holds a table so that nobody can read it, until it is dropped.
pub struct Lock(Child);

impl Lock {
    pub fn hold(database: &Database, table: &str) -> Self {
        Self::by(database, &format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
    }

    /// Has done something else that others must wait for; undone when it is dropped.
    pub fn by(database: &Database, statement: &str) -> Self {
        let mut psql = stock(database.major, "psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &database.url()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let script = format!("BEGIN; {statement}; SELECT 'held';\n");
        psql.stdin.as_mut().unwrap().write_all(script.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(psql.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "held\n");
        Self(psql)
    }

    /// Changes what it holds, and lets go with that.
    pub fn release_after(mut self, change: &str) {
        let script = format!("{change}; COMMIT;\n");
        let mut stdin = self.0.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        drop(stdin);
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
