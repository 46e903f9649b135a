//! Finds PostgreSQL's own programs in the versions that fit.

mod dump;
mod restore;
mod server;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Redactor;
use super::child::{Child, ChildCommand, Special, environment};
use crate::error::{Code, Error};
use crate::postgres::settings;

pub use dump::Programs;
pub use restore::{Psql, RestoreProgram};
pub use server::ServerPrograms;

/// Where distributions and the Lambda layer keep several major versions side by side: `<root>/<major>/bin`.
const ROOTS: [&str; 2] = ["/opt/pgsql", "/usr/lib/postgresql"];
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES: u64 = 64 << 10;

fn usual_roots() -> [PathBuf; 2] {
    ROOTS.map(PathBuf::from)
}

/// A program that runs and reports its version.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Installed {
    path: PathBuf,
    /// As `--version` reports it: `15.18 (Debian 15.18-0+deb12u1)`.
    version: String,
    major: u32,
}

impl Installed {
    /// Another program of the same installation.
    fn sibling(&self, name: &str) -> Option<PathBuf> {
        Some(self.path.with_file_name(name)).filter(|path| is_program(path))
    }
}

/// All programs of one name.
struct Search {
    name: &'static str,
    /// By preference where versions are equal.
    found: Vec<Installed>,
    /// Programs that do not run, with the reason.
    broken: Vec<String>,
    place: String,
}

impl Search {
    async fn of(name: &'static str, roots: &[PathBuf], settings: &settings::Postgres) -> Search {
        let mut search = Search {
            name,
            found: Vec::new(),
            broken: Vec::new(),
            place: searched(settings),
        };
        for path in places(name, roots, settings) {
            match ask_version(&path, settings).await {
                Ok((version, major)) => search.found.push(Installed { path, version, major }),
                Err(why) => search.broken.push(format!("{}: {why}", path.display())),
            }
        }
        search
    }

    /// The programs that were found, for an error that says why they do not fit.
    fn list(&self) -> String {
        let each = self
            .found
            .iter()
            .map(|one| format!("{} in {}", one.version, one.path.display()));
        each.collect::<Vec<_>>().join(", ")
    }

    /// No program was found.
    fn missing(&self, code: Code) -> Error {
        let (name, place) = (self.name, &self.place);
        let text = if self.broken.is_empty() {
            format!("{name} is missing: pgstow searched {place}")
        } else {
            let broken = self.broken.join("; ");
            format!("{name} is missing: the programs in {place} do not work: {broken}")
        };
        Error::new(code, text)
    }
}

fn searched(settings: &settings::Postgres) -> String {
    match &settings.bin {
        Some(folders) => {
            let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
            format!("BACKUP_PG_BIN ({})", folders.join(":"))
        }
        None => format!("PATH, {}", ROOTS.map(|root| format!("{root}/*/bin")).join(" and ")),
    }
}

/// By preference where versions are equal.
fn places(name: &str, roots: &[PathBuf], settings: &settings::Postgres) -> Vec<PathBuf> {
    let folders = match &settings.bin {
        Some(folders) => folders.clone(),
        None => {
            let mut folders = settings.path.clone();
            folders.extend(roots.iter().flat_map(|root| major_folders(root)));
            folders
        }
    };
    let mut places: Vec<(PathBuf, bool)> = Vec::new();
    let mut seen = Vec::new();
    for folder in folders {
        let program = folder.join(name);
        if !is_program(&program) {
            continue;
        }
        let real = program.canonicalize().unwrap_or_else(|_| program.clone());
        if seen.contains(&real) {
            continue;
        }
        // Debian's /usr/bin/pg_dump is a script that chooses a version by its own configuration. The real programs
        // are in the version folders, so these come first.
        let is_wrapper = real.file_name().is_some_and(|name| name == "pg_wrapper");
        places.push((program, is_wrapper));
        seen.push(real);
    }
    places.sort_by_key(|(_, is_wrapper)| *is_wrapper);
    places.into_iter().map(|(path, _)| path).collect()
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

/// `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → text and major version, or the reason why there is none.
async fn ask_version(program: &Path, settings: &settings::Postgres) -> Result<(String, u32), String> {
    let text = ask(program, "--version", settings).await?;
    parse_version(&text).ok_or_else(|| "does not say its version".into())
}

/// A program's answer to one option, or why there is none.
async fn ask(program: &Path, option: &str, settings: &settings::Postgres) -> Result<String, String> {
    let mut child = Child::start(ChildCommand {
        program,
        arguments: vec![option.into()],
        environment: environment(&settings.child_env, None),
        redactor: Redactor::default(),
        special: Special::default(),
    })
    .map_err(|error| error.to_string())?;
    let Some(stdout) = child.take_stdout() else {
        return Err("has no output".into());
    };
    let answer = async {
        let read = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            stdout.take(ANSWER_BYTES).read_to_end(&mut text).map(|_| text)
        });
        let text = read.await.ok().and_then(Result::ok).unwrap_or_default();
        (text, child.wait().await)
    };
    let Ok((text, exit)) = tokio::time::timeout(ANSWER_TIMEOUT, answer).await else {
        return Err(format!(
            "does not answer {option} within {} s",
            ANSWER_TIMEOUT.as_secs()
        ));
    };
    if !exit.status.success() {
        let last = exit.stderr.lines().last().unwrap_or_default().to_owned();
        return Err(format!("does not run: {} {last}", exit.status));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.lines().next()?.split_once("(PostgreSQL) ")?.1.trim();
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    Some((version.to_owned(), version[..digits].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Search {
        /// One program for each of these majors, in `/0`, `/1` and so on.
        pub(super) fn that_found(name: &'static str, majors: &[u32]) -> Search {
            let installed = |(place, major): (usize, &u32)| Installed {
                path: format!("/{place}/{name}").into(),
                version: format!("{major}.1"),
                major: *major,
            };
            Search {
                name,
                found: majors.iter().enumerate().map(installed).collect(),
                broken: Vec::new(),
                place: "PATH".into(),
            }
        }
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
