//! Finding the pg_dump that fits the server.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Redactor;
use super::child::{Child, Order, environment};
use crate::error::{Code, Error, Result};
use crate::settings;

/// Where distributions and our Lambda layer keep several majors side by side: `<root>/<major>/bin`.
const ROOTS: [&str; 2] = ["/opt/pgsql", "/usr/lib/postgresql"];
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
const VERSION_BYTES: u64 = 4096;

/// The programs of one PostgreSQL installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    pub pg_dump: PathBuf,
    /// Missing from some packages: then there are no globals.
    pub pg_dumpall: Option<PathBuf>,
    /// As `pg_dump --version` says it: `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    pub major: u32,
}

impl Programs {
    /// The programs for a server of this major: its own major, else the next newer one, unless
    /// the settings name a major. `PG_DUMP_ERR` if there is no pg_dump at all, `VERSION` if none
    /// will do.
    pub async fn find(server_major: u32, settings: &settings::Postgres) -> Result<Programs> {
        Self::find_below(&ROOTS.map(PathBuf::from), server_major, settings).await
    }

    /// The same with other places than the usual for `<root>/<major>/bin`.
    pub async fn find_below(roots: &[PathBuf], server_major: u32, settings: &settings::Postgres) -> Result<Programs> {
        let places = places(roots, settings);
        let mut found = Vec::new();
        let mut broken = Vec::new();
        for place in &places {
            match ask_version(&place.pg_dump, settings).await {
                Ok((version, major)) => found.push(Programs {
                    pg_dumpall: Some(place.pg_dump.with_file_name("pg_dumpall")).filter(|path| is_program(path)),
                    pg_dump: place.pg_dump.clone(),
                    version,
                    major,
                }),
                Err(why) => broken.push(format!("{}: {why}", place.pg_dump.display())),
            }
        }
        if found.is_empty() {
            return Err(missing(settings, &broken));
        }
        choose(&found, server_major, settings.dump_major)
    }
}

/// A pg_dump that exists.
struct Place {
    pg_dump: PathBuf,
    is_wrapper: bool,
}

/// In the order of preference among equals.
fn places(roots: &[PathBuf], settings: &settings::Postgres) -> Vec<Place> {
    let folders = match &settings.bin {
        Some(folders) => folders.clone(),
        None => {
            let mut folders = settings.path.clone();
            folders.extend(roots.iter().flat_map(|root| major_folders(root)));
            folders
        }
    };
    let mut places: Vec<Place> = Vec::new();
    let mut seen = Vec::new();
    for folder in folders {
        let pg_dump = folder.join("pg_dump");
        if !is_program(&pg_dump) {
            continue;
        }
        let real = pg_dump.canonicalize().unwrap_or_else(|_| pg_dump.clone());
        if seen.contains(&real) {
            continue;
        }
        // Debian's /usr/bin/pg_dump is a script that guesses a version from its own
        // configuration. The real ones are in the version folders: they go first.
        let is_wrapper = real.file_name().is_some_and(|name| name == "pg_wrapper");
        places.push(Place { pg_dump, is_wrapper });
        seen.push(real);
    }
    places.sort_by_key(|place| place.is_wrapper);
    places
}

fn major_folders(root: &Path) -> Vec<PathBuf> {
    let mut majors: Vec<u32> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    majors.sort_unstable();
    majors
        .iter()
        .map(|major| root.join(major.to_string()).join("bin"))
        .collect()
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → text and major, or why not.
async fn ask_version(pg_dump: &Path, settings: &settings::Postgres) -> Result<(String, u32), String> {
    let mut child = Child::start(Order {
        program: pg_dump,
        arguments: vec!["--version".into()],
        environment: environment(&settings.child_env, None),
        redactor: Redactor::default(),
    })
    .map_err(|error| error.to_string())?;
    let Some(stdout) = child.take_stdout() else {
        return Err("has no output".into());
    };
    let answer = async {
        let read = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            stdout.take(VERSION_BYTES).read_to_end(&mut text).map(|_| text)
        });
        let text = read.await.ok().and_then(Result::ok).unwrap_or_default();
        (text, child.wait().await)
    };
    let Ok((text, exit)) = tokio::time::timeout(VERSION_TIMEOUT, answer).await else {
        return Err(format!(
            "does not say its version within {} s",
            VERSION_TIMEOUT.as_secs()
        ));
    };
    let text = String::from_utf8_lossy(&text);
    if !exit.status.success() {
        let last = exit.stderr.lines().last().unwrap_or_default().to_owned();
        return Err(format!("does not run: {} {last}", exit.status));
    }
    parse_version(&text).ok_or_else(|| "does not say its version".into())
}

fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.lines().next()?.split_once("(PostgreSQL) ")?.1.trim();
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    Some((version.to_owned(), version[..digits].parse().ok()?))
}

/// The first of the best major; `found` is in order of preference.
fn choose(found: &[Programs], server_major: u32, wanted: Option<u32>) -> Result<Programs> {
    let list = || {
        let each = found
            .iter()
            .map(|one| format!("{} in {}", one.version, one.pg_dump.display()));
        each.collect::<Vec<_>>().join(", ")
    };
    if let Some(wanted) = wanted {
        if wanted < server_major {
            return Err(Error::new(
                Code::Version,
                format!("BACKUP_PG_DUMP_MAJOR={wanted} is older than the server, PostgreSQL {server_major}"),
            )
            .hint(format!(
                "pg_dump reads no server newer than itself: set it to {server_major} or newer, or leave it out"
            )));
        }
        if !found.iter().any(|one| one.major == wanted) {
            return Err(Error::new(
                Code::Version,
                format!(
                    "there is no pg_dump {wanted}, which BACKUP_PG_DUMP_MAJOR asks for; found: {}",
                    list()
                ),
            ));
        }
    }
    let fits = |one: &&Programs| match wanted {
        Some(wanted) => one.major == wanted,
        None => one.major >= server_major,
    };
    // min_by_key keeps the first among equals.
    match found.iter().filter(fits).min_by_key(|one| one.major) {
        Some(best) => Ok(best.clone()),
        None => Err(Error::new(
            Code::Version,
            format!(
                "the server is PostgreSQL {server_major}, and no pg_dump is that new; found: {}",
                list()
            ),
        )),
    }
}

fn missing(settings: &settings::Postgres, broken: &[String]) -> Error {
    let place = match &settings.bin {
        Some(folders) => {
            let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
            format!("BACKUP_PG_BIN ({})", folders.join(":"))
        }
        None => format!("PATH, {}", ROOTS.map(|root| format!("{root}/*/bin")).join(" and ")),
    };
    let mut text = format!("pg_dump is missing: there is none in {place}");
    if !broken.is_empty() {
        text = format!(
            "pg_dump is missing: what is in {place} does not work: {}",
            broken.join("; ")
        );
    }
    Error::new(Code::PgDumpErr, text)
        .hint("install the PostgreSQL client of the server's major version, or point BACKUP_PG_BIN at its bin folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(major: u32, place: &str) -> Programs {
        Programs {
            pg_dump: place.into(),
            pg_dumpall: None,
            version: format!("{major}.1"),
            major,
        }
    }

    fn chosen(found: &[u32], server: u32, wanted: Option<u32>) -> Result<u32> {
        let found: Vec<_> = found.iter().map(|major| of(*major, "x")).collect();
        choose(&found, server, wanted).map(|one| one.major)
    }

    #[test]
    fn the_servers_own_major_is_best_then_the_next_newer() {
        assert_eq!(chosen(&[14, 18, 16, 17, 15], 16, None).unwrap(), 16);
        assert_eq!(chosen(&[14, 18, 17, 15], 16, None).unwrap(), 17);
        assert_eq!(chosen(&[16, 18], 16, Some(18)).unwrap(), 18);
    }

    #[test]
    fn of_one_major_the_first_place_is_taken() {
        let found = vec![of(15, "a"), of(15, "b")];
        assert_eq!(choose(&found, 15, None).unwrap().pg_dump, PathBuf::from("a"));
    }

    #[test]
    fn an_older_pg_dump_never_does() {
        let error = chosen(&[14, 15], 16, None).unwrap_err();
        assert_eq!(error.code(), Code::Version);
        assert!(error.message().contains("14.1 in x"), "{error}");
        assert_eq!(chosen(&[15, 16], 16, Some(15)).unwrap_err().code(), Code::Version);
        assert_eq!(chosen(&[16], 16, Some(17)).unwrap_err().code(), Code::Version);
    }

    #[test]
    fn versions_of_every_kind_are_read() {
        let major = |text: &str| parse_version(text).map(|(_, major)| major);
        assert_eq!(major("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major("pg_dump (PostgreSQL) 19devel"), Some(19));
        assert_eq!(major("pg_dump (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("pg_dump (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(major("pg_dump 15"), None);
        assert_eq!(major(""), None);
    }
}
