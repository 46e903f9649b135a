//! A database whose increments are made one after the other.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::database::Database;
use crate::support::program::{pgstow, stock, succeed};
use crate::support::wreck::Site;

pub struct Chain {
    site: Site,
    database: Database,
}

impl Chain {
    /// A database with what the script makes, for which increments are started: with the first full.
    pub fn begin(major: u32, script: &str) -> Self {
        let database = Database::fresh(major);
        let chain = Self {
            site: Site::new(),
            database,
        };
        chain.sql(script);
        let mut start = pgstow();
        start
            .args(["incremental", "start", "--accept-unbounded-wal", "--store"])
            .arg(chain.site.store())
            .env("DATABASE_URL", chain.url())
            // Other tests on the same server have transactions too.
            .env("BACKUP_LOCK_WAIT_SECONDS", "100");
        succeed(&mut start);
        chain
    }

    pub fn url(&self) -> String {
        self.database.url()
    }

    pub fn sql(&self, script: &str) {
        self.database.sql(script);
    }

    pub fn value(&self, query: &str) -> String {
        self.database.sql(query)
    }

    /// The report of `pgstow verify`.
    pub fn verify(&self, id: &str) -> Value {
        let mut verify = crate::support::program::pgstow();
        verify.args(["verify", id, "--json", "--store"]).arg(self.site.store());
        succeed(&mut verify).json()
    }

    /// The table's rows as COPY writes them, in the order of a column.
    pub fn rows(&self, table: &str, order: &str) -> Vec<String> {
        let columns = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
            WHERE attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attrelid";
        let columns = self.database.sql(&format!("{columns} = '{table}'::regclass"));
        let copy = format!("\\copy (SELECT {columns} FROM {table} ORDER BY {order}) TO STDOUT");
        let run = succeed(stock(self.database.major, "psql").args(["-X", "-q", "-d", &self.url(), "-c", &copy]));
        let mut rows: Vec<String> = run.text().lines().map(str::to_owned).collect();
        rows.sort();
        rows
    }

    pub fn increment(&self) -> Increment {
        self.increment_waiting(25)
    }

    /// It waits so many seconds for older transactions, which other tests on the same server may have.
    pub fn increment_waiting(&self, seconds: u32) -> Increment {
        let mut command = self.site.backup(&self.url());
        command.env("BACKUP_LOCK_WAIT_SECONDS", seconds.to_string());
        let report = succeed(command.args(["--kind", "incremental"])).json();
        let id = report["id"].as_str().unwrap_or_else(|| panic!("{report}"));
        assert!(id.ends_with("-incr"), "{report}");
        let folder = self.site.store().join(id);
        let manifest = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        Increment {
            folder,
            manifest,
            major: self.database.major,
        }
    }

    /// A transaction that stays open until the result is dropped.
    pub fn hold(&self, statement: &str) -> Held {
        use std::io::Write;
        let mut psql = stock(self.database.major, "psql");
        psql.args(["-X", "-q", "-d", &self.url()])
            .stdin(std::process::Stdio::piped());
        let mut child = psql.spawn().unwrap();
        let stdin = child.stdin.as_mut().unwrap();
        writeln!(stdin, "BEGIN; {statement}; SELECT pg_current_xact_id();").unwrap();
        stdin.flush().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(1));
        Held(child)
    }
}

pub struct Held(std::process::Child);

impl Held {
    pub fn commit(mut self) {
        use std::io::Write;
        let stdin = self.0.stdin.as_mut().unwrap();
        writeln!(stdin, "COMMIT;").unwrap();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The end of its input ends psql, and so the transaction.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

pub struct Increment {
    pub folder: PathBuf,
    pub manifest: Value,
    major: u32,
}

impl Increment {
    fn list(&self, field: &str) -> &[Value] {
        self.manifest[field].as_array().map_or(&[], Vec::as_slice)
    }

    pub fn roles(&self) -> Vec<String> {
        self.manifest["files"].as_object().unwrap().keys().cloned().collect()
    }

    /// Name and state of each table, by name.
    pub fn states(&self) -> Vec<String> {
        let mut states: Vec<String> = self
            .list("coverage")
            .iter()
            .map(|one| format!("{} {}", text(one, "name"), state(one)))
            .collect();
        states.sort();
        states
    }

    pub fn coverage(&self, name: &str) -> &Value {
        let named = |one: &&Value| one["name"] == name;
        let found = self.list("coverage").iter().find(named);
        found.unwrap_or_else(|| panic!("no coverage of {name}: {}", self.manifest["coverage"]))
    }

    pub fn state(&self, name: &str) -> String {
        state(self.coverage(name))
    }

    pub fn oid(&self, name: &str) -> u32 {
        self.coverage(name)["oid"].as_u64().unwrap().try_into().unwrap()
    }

    pub fn baselines(&self) -> Vec<&str> {
        self.list("baselines").iter().map(|one| text(one, "name")).collect()
    }

    pub fn baseline(&self, name: &str) -> &Value {
        let named = |one: &&Value| one["name"] == name;
        let found = self.list("baselines").iter().find(named);
        found.unwrap_or_else(|| panic!("no baseline of {name}: {}", self.manifest["baselines"]))
    }

    pub fn table(&self, name: &str) -> &Value {
        self.list("tables").iter().find(|one| one["name"] == name).unwrap()
    }

    /// The rows of a baseline, by the stock pg_restore, sorted.
    pub fn rows(&self, name: &str, _order: &str) -> Vec<String> {
        self.baseline(name);
        let mut restore = stock(self.major, "pg_restore");
        restore
            .args(["--data-only", "--table", name, "-f", "-"])
            .arg(self.file("dump"));
        let script = succeed(&mut restore).text();
        let rows = script.lines().skip_while(|line| !line.starts_with("COPY ")).skip(1);
        let mut rows: Vec<String> = rows.take_while(|line| *line != "\\.").map(str::to_owned).collect();
        rows.sort();
        rows
    }

    /// The stored definitions as SQL, by the stock pg_restore.
    pub fn definitions(&self) -> String {
        succeed(
            stock(self.major, "pg_restore")
                .args(["-f", "-"])
                .arg(self.file("schema")),
        )
        .text()
    }

    pub fn file(&self, role: &str) -> PathBuf {
        self.folder.join(text(&self.manifest["files"][role], "name"))
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

fn state(coverage: &Value) -> String {
    let state = text(coverage, "state");
    let gap = match (coverage["to"].is_string(), coverage["from"].is_string()) {
        (true, true) => " with a gap",
        (true, false) => " up to a position",
        (false, true) => " from a position on",
        (false, false) => "",
    };
    format!("{state}{gap}")
}
