//! A database of a test's own, gone when the test is.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::program::{Run, run, run_with_input, stock};
use super::services::postgres_url;
use super::sql;

/// A word that no other test of this run or an earlier one has: every test is a process of its
/// own, so a counter alone would not do.
pub fn unique_word() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_micros();
    format!(
        "{:x}{:x}{:x}",
        now & 0xffff_ffff_ffff,
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    )
}

pub struct Database {
    pub major: u32,
    pub name: String,
    /// Superuser URL of the server, database `postgres`.
    server: String,
}

impl Database {
    pub fn fresh(major: u32) -> Self {
        Self::named(major, "test")
    }

    /// With a name that starts with `prefix`, however odd.
    pub fn named(major: u32, prefix: &str) -> Self {
        Self::on(major, &postgres_url(major), prefix)
    }

    /// Of exactly this name, which a database on another server has.
    pub fn fresh_named(major: u32, name: &str) -> Self {
        let database = Self {
            major,
            name: name.to_owned(),
            server: postgres_url(major),
        };
        let script = format!("CREATE DATABASE {} TEMPLATE template0", quoted(name));
        psql(major, &database.server, &script);
        database
    }

    /// With all that a script of tests/fixtures makes.
    pub fn loaded(major: u32, fixture: &str) -> Self {
        Self::loaded_as(major, "test", fixture)
    }

    /// The script is run once per server; every database of it is a copy.
    pub fn loaded_as(major: u32, prefix: &str, fixture: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(fixture);
        let server = postgres_url(major);
        let loaded = Self::from_template(major, &server, prefix, &template(major, &server, &script));
        // What is not in a database but in its server is not copied.
        let beside = script.with_extension("server.sql");
        if beside.exists() {
            loaded.load(&beside);
        }
        loaded
    }

    /// On a server of the test's own.
    pub fn on(major: u32, server: &str, prefix: &str) -> Self {
        Self::from_template(major, server, prefix, "template0")
    }

    /// Another one with the same pages, while no session is connected to this one. The same statements
    /// would not always put every row into the same place.
    pub fn copy(&self) -> Self {
        Self::from_template(self.major, &self.server, "copy", &self.name)
    }

    fn from_template(major: u32, server: &str, prefix: &str, template: &str) -> Self {
        let database = Self {
            major,
            name: format!("{prefix}_{}", unique_word()),
            server: server.to_owned(),
        };
        let script = format!(
            "CREATE DATABASE {} TEMPLATE {}",
            quoted(&database.name),
            quoted(template)
        );
        psql(major, server, &script);
        database
    }

    pub fn url(&self) -> String {
        self.url_as(None)
    }

    /// The URL for another role, given as (name, password).
    pub fn url_as(&self, role: Option<(&str, &str)>) -> String {
        let (before, _) = self.server.rsplit_once('/').unwrap();
        let (scheme, rest) = before.split_once("://").unwrap();
        let (login, place) = rest.rsplit_once('@').unwrap();
        let login = match role {
            Some((name, password)) => format!("{}:{}", encoded(name), encoded(password)),
            None => login.to_owned(),
        };
        format!("{scheme}://{login}@{place}/{}", encoded(&self.name))
    }

    /// Host and port, for settings that want them apart.
    pub fn address(&self) -> (String, u16) {
        let (_, place) = self.server.rsplit_once('@').unwrap();
        let (host, port) = place.split('/').next().unwrap().rsplit_once(':').unwrap();
        (host.to_owned(), port.parse().unwrap())
    }

    pub fn password(&self) -> String {
        let (login, _) = self.server.split_once("://").unwrap().1.rsplit_once('@').unwrap();
        login.split_once(':').unwrap().1.to_owned()
    }

    /// Runs statements as the superuser; returns the rows, columns separated by `|`.
    pub fn sql(&self, script: &str) -> String {
        psql(self.major, &self.url(), script)
    }

    /// Runs an SQL file as the superuser.
    pub fn load(&self, file: &Path) {
        let run = run(stock(self.major, "psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-f"])
            .arg(file)
            .current_dir(file.parent().unwrap()));
        assert!(run.status.success(), "{}: {}", file.display(), run.stderr);
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server may be what the test has killed.
        let subscriptions = "SELECT format('DROP SUBSCRIPTION %I', subname) FROM pg_subscription s
            JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()";
        for subscription in try_sql(self.major, &self.url(), subscriptions)
            .iter()
            .flat_map(|text| text.lines())
        {
            let _ = try_sql(self.major, &self.url(), subscription);
        }
        let script = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(&self.name));
        let _ = try_sql(self.major, &self.server, &script);
    }
}

/// A database with what the script makes, to be copied; made by the first test that wants it.
fn template(major: u32, server: &str, script: &Path) -> String {
    let digest = hex::encode(Sha256::digest(fs::read(script).unwrap()));
    let name = format!("{} {}", script.file_name().unwrap().display(), &digest[..16]);
    let lock = format!("{}/{name} on {major}.lock", env!("CARGO_TARGET_TMPDIR"));
    let lock = File::create(lock).unwrap();
    lock.lock().unwrap();
    let asked = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
    if psql(major, server, &asked) == "0" {
        let made = Database::on(major, server, "template");
        made.load(script);
        psql(
            major,
            server,
            &format!("ALTER DATABASE {} RENAME TO {}", quoted(&made.name), quoted(&name)),
        );
    }
    name
}

/// Runs statements, stopping at the first error; returns the rows, columns separated by `|`.
pub fn psql(major: u32, url: &str, script: &str) -> String {
    match try_sql(major, url, script) {
        Ok(text) => text.trim_end_matches('\n').to_owned(),
        Err(told) => panic!("{script}\n{told}"),
    }
}

fn try_sql(major: u32, url: &str, script: &str) -> Result<String, String> {
    sql::run(url, script).unwrap_or_else(|| {
        let run = try_psql(major, url, script);
        match run.status.success() {
            true => Ok(run.text()),
            false => Err(run.stderr),
        }
    })
}

pub fn try_psql(major: u32, url: &str, script: &str) -> Run {
    run_with_input(
        stock(major, "psql").args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url]),
        script.as_bytes(),
    )
}

/// A name as SQL wants it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
