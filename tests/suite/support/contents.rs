//! All that a database holds, in a form in which two can be compared.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use sha2::{Digest, Sha256};

use super::database::Database;
use super::program::{stock, succeed};
use super::services::postgres_bin;

/// What to compare: the definitions as pg_dump writes them, and for each relation or large
/// object a line that says what is in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    pub definitions: Vec<String>,
    pub data: BTreeMap<String, String>,
}

impl Contents {
    pub fn of(database: &Database) -> Self {
        Self {
            definitions: definitions(database),
            data: data(database),
        }
    }

    /// Panics with what differs, not with all that there is.
    pub fn assert_equals(&self, other: &Contents) {
        let mut differences = Vec::new();
        for name in self.data.keys().chain(other.data.keys()) {
            let (mine, theirs) = (self.data.get(name), other.data.get(name));
            if mine != theirs {
                differences.push(format!("{name}: {mine:?} against {theirs:?}"));
            }
        }
        differences.dedup();
        if self.definitions != other.definitions {
            let first = self
                .definitions
                .iter()
                .zip(&other.definitions)
                .position(|(mine, theirs)| mine != theirs);
            let first = first.unwrap_or(self.definitions.len().min(other.definitions.len()));
            let around = |lines: &[String]| {
                lines[first.saturating_sub(3).min(lines.len())..(first + 4).min(lines.len())].join("\n    ")
            };
            differences.push(format!(
                "definitions, line {first}:\n    {}\nagainst\n    {}",
                around(&self.definitions),
                around(&other.definitions)
            ));
        }
        assert!(
            differences.is_empty(),
            "the databases differ:\n{}",
            differences.join("\n")
        );
    }
}

/// The schema as SQL, without comments and without the token that pg_dump makes up anew for
/// every run.
fn definitions(database: &Database) -> Vec<String> {
    let dump = succeed(stock(database.major, "pg_dump").args(["--schema-only", "-d", &database.url()]));
    dump.text()
        .lines()
        .filter(|line| {
            !line.is_empty()
                && !line.starts_with("--")
                && !line.starts_with("\\restrict ")
                && !line.starts_with("\\unrestrict ")
        })
        .map(str::to_owned)
        .collect()
}

/// Every query whose result is data, with a name for it. The names are for people; the queries
/// are as the server itself quotes them.
const QUERIES: &str = "
SELECT format('%s %I.%I', c.relkind, n.nspname, c.relname),
       CASE c.relkind
       WHEN 'S' THEN format('SELECT last_value, is_called FROM %I.%I', n.nspname, c.relname)
       ELSE format('SELECT * FROM ONLY %I.%I', n.nspname, c.relname)
       END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'S')
  AND c.relpersistence <> 't'
  AND (c.relkind <> 'm' OR c.relispopulated)
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY 1;
SELECT 'large objects',
       'SELECT m.oid, pg_get_userbyid(m.lomowner), m.lomacl, obj_description(m.oid, ''pg_largeobject''),
               encode(sha256(lo_get(m.oid)), ''hex'')
        FROM pg_largeobject_metadata m ORDER BY m.oid';
SELECT 'settings of the database',
       'SELECT s.setrole::regrole, s.setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
        WHERE d.datname = current_database() AND s.setrole <> 0 ORDER BY 1';
";

/// The two columns of a script's answers, which are not empty.
pub fn pairs(database: &Database, script: &str) -> Vec<(String, String)> {
    // Names may hold newlines, never a NUL.
    let options = ["-X", "-q", "-A", "-t", "-z", "-0", "-d", &database.url(), "-c", script];
    let listed = succeed(stock(database.major, "psql").args(options)).text();
    let fields: Vec<&str> = listed.split('\0').filter(|field| !field.is_empty()).collect();
    let pairs = fields.chunks_exact(2);
    pairs.map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
}

fn data(database: &Database) -> BTreeMap<String, String> {
    let queries: Vec<(String, String)> = pairs(database, QUERIES)
        .into_iter()
        .map(|(name, query)| (name, format!("({query})")))
        .collect();

    copied(
        database,
        "SET row_security = off;\nSET extra_float_digits = 3;\n",
        &queries,
    )
    .into_iter()
    .map(|(name, text)| (name, format!("{} rows, {}", text.rows, text.in_any_order)))
    .collect()
}

/// What `COPY … TO STDOUT` has printed.
#[derive(Debug, PartialEq, Eq)]
pub struct Copied {
    pub rows: u64,
    pub bytes: u64,
    /// Hex digits.
    pub sha256: String,
    /// The same for the same rows in any order: a restore's COPY may put a row into a page that
    /// has room for it, before rows that came earlier.
    pub in_any_order: String,
}

/// Copies each of `sources`, given as (name, table with columns or query in parentheses), after `settings`.
pub fn copied(database: &Database, settings: &str, sources: &[(String, String)]) -> BTreeMap<String, Copied> {
    // One session for all: a database may have thousands of tables. COPY's text has no newline
    // within a row, so a marker line cannot be mistaken.
    let marker = format!("@@{}@@", super::database::unique_word());
    let mut script = settings.to_owned();
    for (_, source) in sources {
        script.push_str(&format!("COPY {source} TO STDOUT;\n\\echo {marker}\n"));
    }
    let mut psql = stock(database.major, "psql")
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &database.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", postgres_bin(database.major).display()));
    let mut stdin = psql.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(script.as_bytes()));

    let mut stdout = BufReader::new(psql.stdout.take().unwrap());
    let mut found = BTreeMap::new();
    for (name, _) in sources {
        let (mut rows, mut bytes, mut digest, mut line) = (0, 0, Sha256::new(), Vec::new());
        let mut each = Vec::new();
        loop {
            line.clear();
            assert_ne!(
                stdout.read_until(b'\n', &mut line).unwrap(),
                0,
                "psql ended within {name}"
            );
            if line.strip_suffix(b"\n") == Some(marker.as_bytes()) {
                break;
            }
            rows += 1;
            bytes += line.len() as u64;
            digest.update(&line);
            each.push(Sha256::digest(&line));
        }
        each.sort_unstable();
        let in_any_order = Sha256::digest(each.concat());
        let copied = Copied {
            rows,
            bytes,
            sha256: hex::encode(digest.finalize()),
            in_any_order: hex::encode(in_any_order),
        };
        found.insert(name.clone(), copied);
    }
    writer.join().unwrap().unwrap();
    assert!(psql.wait().unwrap().success());
    found
}
