//! pg_dump and pg_dumpall, never older than the server.

use std::path::PathBuf;

use super::{Installed, Search, usual_roots};
use crate::error::{Code, Error, Result};
use crate::postgres::settings;

/// The programs of one PostgreSQL installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    pub pg_dump: PathBuf,
    /// Some packages lack it: then the backup has no globals.
    pub pg_dumpall: Option<PathBuf>,
    /// As `pg_dump --version` reports it: `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    pub major: u32,
}

impl Programs {
    /// The programs for a server of this major version: of the same major version, otherwise of the next newer one,
    /// unless the settings name a version. `PG_DUMP_ERR` if there is no pg_dump at all, `VERSION` if none fits.
    pub async fn find(server_major: u32, settings: &settings::Postgres) -> Result<Programs> {
        Self::find_below(&usual_roots(), server_major, settings).await
    }

    /// The same with other folders in place of the usual ones for `<root>/<major>/bin`.
    pub async fn find_below(roots: &[PathBuf], server_major: u32, settings: &settings::Postgres) -> Result<Programs> {
        let search = Search::of("pg_dump", roots, settings).await;
        if search.found.is_empty() {
            return Err(search.missing(Code::PgDumpErr).hint(
                "install the PostgreSQL client of the server's major version, or point BACKUP_PG_BIN at its bin folder; a \
                 Lambda function gets it by a layer with pgsql/<major>/bin",
            ));
        }
        let best = choose(&search, server_major, settings.dump_major)?;
        Ok(Programs {
            pg_dump: best.path.clone(),
            pg_dumpall: best.sibling("pg_dumpall"),
            version: best.version.clone(),
            major: best.major,
        })
    }
}

/// The first program of the best major version.
fn choose(search: &Search, server_major: u32, wanted: Option<u32>) -> Result<&Installed> {
    let found = &search.found;
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
                    "pg_dump {wanted}, which BACKUP_PG_DUMP_MAJOR asks for, was not found; found: {}",
                    search.list()
                ),
            ));
        }
    }
    let fits = |one: &&Installed| match wanted {
        Some(wanted) => one.major == wanted,
        None => one.major >= server_major,
    };
    // min_by_key keeps the first of several equal ones.
    found.iter().filter(fits).min_by_key(|one| one.major).ok_or_else(|| {
        Error::new(
            Code::Version,
            format!(
                "the server is PostgreSQL {server_major}, and no pg_dump is that new; found: {}",
                search.list()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(found: &[u32], server: u32, wanted: Option<u32>) -> Result<u32> {
        choose(&Search::that_found("pg_dump", found), server, wanted).map(|one| one.major)
    }

    #[test]
    fn the_servers_own_major_is_best_then_the_next_newer() {
        assert_eq!(chosen(&[14, 18, 16, 17, 15], 16, None).unwrap(), 16);
        assert_eq!(chosen(&[14, 18, 17, 15], 16, None).unwrap(), 17);
        assert_eq!(chosen(&[16, 18], 16, Some(18)).unwrap(), 18);
    }

    #[test]
    fn of_one_major_the_first_place_is_taken() {
        let search = Search::that_found("pg_dump", &[15, 15]);
        assert_eq!(choose(&search, 15, None).unwrap().path, PathBuf::from("/0/pg_dump"));
    }

    #[test]
    fn an_older_pg_dump_never_does() {
        let error = chosen(&[14, 15], 16, None).unwrap_err();
        assert_eq!(error.code(), Code::Version);
        assert!(error.message().contains("14.1 in /0/pg_dump"), "{error}");
        assert_eq!(chosen(&[15, 16], 16, Some(15)).unwrap_err().code(), Code::Version);
        assert_eq!(chosen(&[16], 16, Some(17)).unwrap_err().code(), Code::Version);
    }
}
