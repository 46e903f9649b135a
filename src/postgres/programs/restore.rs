//! pg_restore, which must read the archive and fit the target, and psql.

use std::path::{Path, PathBuf};

use super::{Installed, Search, ask, usual_roots};
use crate::error::{Code, Error, Result};
use crate::postgres::settings;

/// Archive versions 1.x, and the first pg_restore that reads them.
const READERS: [(u8, u32); 3] = [(14, 12), (15, 16), (16, 17)];
/// A pg_restore from this version on sets `transaction_timeout`, which older servers do not have.
const SETS_TRANSACTION_TIMEOUT: u32 = 17;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreProgram {
    pub pg_restore: PathBuf,
    /// As `pg_restore --version` reports it.
    pub version: String,
    pub major: u32,
    /// It sets `transaction_timeout` in its session, and the target does not have that setting: pgstow tolerates this
    /// one error.
    pub tolerates_transaction_timeout: bool,
}

impl RestoreProgram {
    /// A pg_restore that reads archives of this version (major and minor: `(1, 15)`) and fits a server of this major
    /// version: if possible of the server's version, and without settings that the server does not have.
    /// `RESTORE_ERR` if there is no pg_restore at all, `VERSION` if none reads the archive.
    pub async fn find(archive: (u8, u8), target_major: u32, settings: &settings::Postgres) -> Result<RestoreProgram> {
        Self::find_below(&usual_roots(), archive, target_major, settings).await
    }

    /// The same with other folders in place of the usual ones for `<root>/<major>/bin`.
    pub async fn find_below(
        roots: &[PathBuf],
        archive: (u8, u8),
        target_major: u32,
        settings: &settings::Postgres,
    ) -> Result<RestoreProgram> {
        let search = Search::of("pg_restore", roots, settings).await;
        if search.found.is_empty() {
            return Err(search.missing(Code::RestoreErr).hint(INSTALL));
        }
        let best = choose(&search, archive, target_major)?;
        Ok(RestoreProgram {
            pg_restore: best.path.clone(),
            version: best.version.clone(),
            major: best.major,
            tolerates_transaction_timeout: sets_unknown(best.major, target_major),
        })
    }
}

impl RestoreProgram {
    /// The version of the archives that a pg_dump of this major version writes.
    pub fn archive_version(dump_major: u32) -> (u8, u8) {
        match dump_major {
            ..=15 => (1, 14),
            16 => (1, 15),
            _ => (1, 16),
        }
    }
}

const INSTALL: &str =
    "install the PostgreSQL client of the target's major version, or point BACKUP_PG_BIN at its bin folder";

fn sets_unknown(major: u32, target_major: u32) -> bool {
    major >= SETS_TRANSACTION_TIMEOUT && target_major < SETS_TRANSACTION_TIMEOUT
}

fn oldest_reader(archive: (u8, u8)) -> Option<u32> {
    let (major, minor) = archive;
    let reader = READERS.iter().find(|(known, _)| *known == minor);
    reader.filter(|_| major == 1).map(|(_, reader)| *reader)
}

/// The first of the best programs.
fn choose(search: &Search, archive: (u8, u8), target_major: u32) -> Result<&Installed> {
    let (major, minor) = archive;
    let Some(oldest) = oldest_reader(archive) else {
        return Err(Error::new(
            Code::Version,
            format!("the archive is of version {major}.{minor}, which this pgstow does not know"),
        )
        .hint("use a newer pgstow"));
    };
    let rank = |one: &&Installed| {
        let older = one.major < target_major;
        (
            sets_unknown(one.major, target_major),
            older,
            one.major.abs_diff(target_major),
        )
    };
    search
        .found
        .iter()
        .filter(|one| one.major >= oldest)
        .min_by_key(rank)
        .ok_or_else(|| {
            Error::new(
                Code::Version,
                format!(
                    "the archive (version {major}.{minor}) needs pg_restore {oldest} or newer; found: {}",
                    search.list()
                ),
            )
            .hint(format!(
                "install the PostgreSQL client {oldest} or newer, or point BACKUP_PG_BIN at its bin folder"
            ))
        })
}

/// For plain dumps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Psql {
    pub path: PathBuf,
    pub version: String,
    pub major: u32,
}

impl Psql {
    /// Of the programs with a restricted mode: the psql of the server's major version, otherwise of the next newer
    /// one, otherwise the newest. `RESTORE_ERR` if there is no psql at all, `VERSION` if none has the mode.
    pub async fn find(server_major: u32, settings: &settings::Postgres) -> Result<Psql> {
        let mut search = Search::of("psql", &usual_roots(), settings).await;
        if search.found.is_empty() {
            return Err(search.missing(Code::RestoreErr).hint(INSTALL));
        }
        search
            .found
            .sort_by_key(|one| (one.major < server_major, one.major.abs_diff(server_major)));
        for one in &search.found {
            if is_restrictable(&one.path, settings).await {
                return Ok(Psql {
                    path: one.path.clone(),
                    version: one.version.clone(),
                    major: one.major,
                });
            }
        }
        Err(Error::new(
            Code::Version,
            format!(
                "pgstow runs a script only with a psql that has a restricted mode (\\restrict), because it \
                 could contain commands of psql; found: {}",
                search.list()
            ),
        )
        .hint(
            "install the newest minor release of the PostgreSQL client (13.22, 14.19, 15.14, 16.10, 17.6 and newer \
             have it), or point BACKUP_PG_BIN at its bin folder",
        ))
    }
}

/// psql's help shows it, and needs no server.
async fn is_restrictable(psql: &Path, settings: &settings::Postgres) -> bool {
    let help = ask(psql, "--help=commands", settings).await;
    help.is_ok_and(|help| help.contains("\\restrict "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(found: &[u32], minor: u8, target: u32) -> Result<u32> {
        choose(&Search::that_found("pg_restore", found), (1, minor), target).map(|one| one.major)
    }

    #[test]
    fn the_targets_own_major_is_best_then_the_next_newer_then_the_next_older() {
        assert_eq!(chosen(&[14, 18, 16, 17, 15], 14, 16).unwrap(), 16);
        assert_eq!(chosen(&[12, 18, 17, 14], 14, 15).unwrap(), 14);
        assert_eq!(chosen(&[14, 15, 16], 14, 18).unwrap(), 16);
        assert_eq!(chosen(&[15, 18], 14, 17).unwrap(), 18);
    }

    #[test]
    fn one_that_sets_what_the_target_does_not_know_comes_last() {
        assert_eq!(chosen(&[15, 17, 18], 14, 16).unwrap(), 15);
        assert_eq!(chosen(&[15, 17, 18], 16, 16).unwrap(), 17);
        assert!(sets_unknown(17, 16) && !sets_unknown(16, 15) && !sets_unknown(18, 17));
    }

    #[test]
    fn one_that_does_not_read_the_archive_never_does() {
        assert_eq!(chosen(&[15, 16, 17], 15, 15).unwrap(), 16);
        let error = chosen(&[15, 16], 16, 15).unwrap_err();
        assert_eq!(error.code(), Code::Version);
        assert!(
            error.message().contains("pg_restore 17 or newer") && error.message().contains("15.1 in /0"),
            "{error}"
        );
        assert_eq!(chosen(&[18], 17, 18).unwrap_err().code(), Code::Version);
    }
}
