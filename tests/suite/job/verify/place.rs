//! Backups in a folder of the test's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::database::Database;
use crate::support::program::{pgstow, run, succeed};
use crate::support::wreck::{Site, tree};

pub struct Kept {
    pub site: Site,
    /// The newest.
    pub id: String,
    pub report: Value,
}

/// Tables of every size, one without rows, and large objects.
pub fn source(major: u32) -> Database {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE first AS SELECT n, md5(n::text) AS text FROM generate_series(1, 3000) n;
         CREATE TABLE second AS SELECT n, md5((-n)::text) AS text FROM generate_series(1, 3000) n;
         CREATE TABLE long AS SELECT n, repeat(md5(n::text), 20) AS text FROM generate_series(1, 20000) n;
         CREATE TABLE empty (n integer);
         SELECT lo_from_bytea(0, convert_to(repeat(n::text, 100), 'UTF8')) FROM generate_series(1, 50) n",
    );
    source
}

impl Kept {
    pub fn of(source: &Database, options: &[&str]) -> Self {
        let site = Site::new();
        let report = succeed(site.backup(&source.url()).args(options)).json();
        let id = report["id"].as_str().unwrap().to_owned();
        Self { site, id, report }
    }

    /// One more in the same store.
    pub fn another(&mut self, source: &Database) {
        // Ids are made of seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        self.report = succeed(&mut self.site.backup(&source.url())).json();
        self.id = self.report["id"].as_str().unwrap().to_owned();
    }

    pub fn folder(&self) -> PathBuf {
        self.site.store().join(&self.id)
    }

    pub fn file(&self, role: &str) -> PathBuf {
        self.folder().join(self.report["files"][role]["name"].as_str().unwrap())
    }

    pub fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.folder().join("manifest.json")).unwrap()).unwrap()
    }

    /// Where a table's block lies: its start and its length.
    pub fn block(&self, table: &str) -> (usize, usize) {
        let manifest = self.manifest();
        let record = manifest["tables"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == table)
            .unwrap();
        let number = |name: &str| usize::try_from(record[name].as_u64().unwrap()).unwrap();
        (number("offset"), number("length"))
    }

    /// `pgstow verify` to its end: the document and the exit code.
    pub fn verify(&self, args: &[&str]) -> (Value, i32, String) {
        let mut verify = pgstow();
        verify
            .arg("verify")
            .args(args)
            .args(["--json", "--store"])
            .arg(self.site.store())
            .current_dir(self.site.path());
        let run = run(&mut verify);
        (run.json(), run.status.code().unwrap(), run.stderr)
    }

    /// The problems of a backup that must have some: (file, table, what).
    pub fn problems(&self) -> Vec<(String, Option<String>, String)> {
        let (report, exit, stderr) = self.verify(&[&self.id]);
        assert_eq!(exit, 40, "{report}");
        assert_eq!(report["status"], "failed", "{report}");
        assert_eq!(report["error"]["code"], "INTEGRITY", "{report}");
        let message = report["error"]["message"].as_str().unwrap();
        assert!(stderr.contains(&format!("error[INTEGRITY]: {message}")), "{stderr}");
        let kept: Value = serde_json::from_slice(&fs::read(self.folder().join("verification.json")).unwrap()).unwrap();
        assert_eq!(kept["verify"]["status"], "failed");
        let problems = report["problems"]
            .as_array()
            .unwrap_or_else(|| panic!("{report}"))
            .iter();
        let problems: Vec<_> = problems
            .map(|problem| {
                let text = |name: &str| problem[name].as_str().map(str::to_owned);
                (text("file").unwrap(), text("table"), text("what").unwrap())
            })
            .collect();
        assert!(message.contains(&problems[0].0), "{message}");
        problems
    }

    pub fn is_good(&self) {
        let (report, exit, _) = self.verify(&[&self.id]);
        assert_eq!((exit, &report["status"]), (0, &"ok".into()), "{report}");
    }

    /// Every file below the store with its content.
    pub fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let store = self.site.store();
        let files = tree(&store).into_iter().filter(|path| store.join(path).is_file());
        files
            .map(|path| (path.clone(), fs::read(store.join(&path)).unwrap()))
            .collect()
    }
}

pub fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 16;
    fs::write(path, bytes).unwrap();
}
