//! initdb and postgres, for a throwaway server.

use std::path::PathBuf;

use super::{Installed, Search, usual_roots};
use crate::error::{Code, Error, Result};
use crate::postgres::settings;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPrograms {
    pub initdb: PathBuf,
    pub postgres: PathBuf,
    /// As `postgres --version` reports it.
    pub version: String,
    pub major: u32,
}

impl ServerPrograms {
    /// The programs of this major version, otherwise of the next newer one. `RESTORE_ERR` if there is no server at
    /// all, `VERSION` if none is new enough.
    pub async fn find(oldest_major: u32, settings: &settings::Postgres) -> Result<ServerPrograms> {
        Self::find_below(&usual_roots(), oldest_major, settings).await
    }

    /// The same with other folders in place of the usual ones for `<root>/<major>/bin`.
    pub async fn find_below(
        roots: &[PathBuf],
        oldest_major: u32,
        settings: &settings::Postgres,
    ) -> Result<ServerPrograms> {
        let mut search = Search::of("postgres", roots, settings).await;
        search.found.retain(|one| one.sibling("initdb").is_some());
        let best = choose(&search, oldest_major)?;
        Ok(ServerPrograms {
            initdb: best.path.with_file_name("initdb"),
            postgres: best.path.clone(),
            version: best.version.clone(),
            major: best.major,
        })
    }
}

fn choose(search: &Search, oldest_major: u32) -> Result<&Installed> {
    let hint = format!(
        "install the PostgreSQL {oldest_major} server's programs (initdb and postgres), or point BACKUP_PG_BIN at \
         their folder too"
    );
    if search.found.is_empty() {
        return Err(search.missing(Code::RestoreErr).hint(hint));
    }
    let fitting = search.found.iter().filter(|one| one.major >= oldest_major);
    fitting.min_by_key(|one| one.major).ok_or_else(|| {
        let text = format!(
            "a throwaway server must be PostgreSQL {oldest_major} or newer; found: {}",
            search.list()
        );
        Error::new(Code::Version, text).hint(hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_major_is_best_then_the_next_newer_and_never_an_older() {
        let chosen = |majors: &[u32], oldest| {
            choose(&Search::that_found("postgres", majors), oldest)
                .map(|one| one.major)
                .map_err(|error| error.code())
        };
        assert_eq!(chosen(&[14, 18, 16, 17], 16), Ok(16));
        assert_eq!(chosen(&[14, 18, 17], 16), Ok(17));
        assert_eq!(chosen(&[14, 15], 16), Err(Code::Version));
        assert_eq!(chosen(&[], 16), Err(Code::RestoreErr));
    }
}
