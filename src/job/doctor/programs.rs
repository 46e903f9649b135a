//! PostgreSQL's programs: those that a backup needs, and those that a restore will need.

use serde_json::Value;

use super::Check;
use crate::error::Result;
use crate::job::backup;
use crate::job::drill::locale;
use crate::postgres::{Lacking, Programs, Psql, ROOM, RestoreProgram, ScratchServer, ServerPrograms, Session};
use crate::run::confinement::Walls;
use crate::settings::{Format, Postgres, Settings};
use crate::units::human_bytes;

/// The database to back up.
pub(super) struct DatabaseFacts {
    pub major: u32,
    /// Its size.
    pub bytes: Option<u64>,
    /// As [`Session::locale_info`] returns it.
    pub locale: Value,
}

pub(super) async fn check(source: &DatabaseFacts, settings: &Settings) -> Vec<Check> {
    let server_major = source.major;
    let mut checks = Vec::new();
    let programs = Programs::find(server_major, &settings.postgres).await;
    match &programs {
        Ok(programs) => checks.extend(dump(programs, server_major, settings)),
        Err(error) => checks.push(Check::failed("pg_dump", error)),
    }
    match settings.format {
        Format::Plain => checks.push(match Psql::find(server_major, &settings.postgres).await {
            Ok(psql) => Check::ok("psql", format!("{} in {}", psql.version, psql.path.display())),
            Err(error) => Check::lacking("psql", &error),
        }),
        Format::Custom => {
            let dumped_by = programs.map_or(server_major, |programs| programs.major);
            checks.push(restore(dumped_by, server_major, settings).await);
        }
    }
    checks.push(match ServerPrograms::find(server_major, &settings.postgres).await {
        Ok(server) => drill(&server, source, settings).await,
        Err(error) => Check::skipped(
            "drill",
            format!("`verify --drill` cannot be run here: {}", error.message()),
        ),
    });
    checks
}

const DRILL: &str = "drill";

/// Tries a drill: starts a throwaway server and removes it at once. Also reports the walls between the functions of a
/// backup and this machine.
async fn drill(server: &ServerPrograms, source: &DatabaseFacts, settings: &Settings) -> Check {
    const NAME: &str = DRILL;
    let walls = Walls::here();
    let lacking = match (walls.missing(), settings.drill_unconfined) {
        (Some(missing), false) => {
            return Check::skipped(NAME, format!("`verify --drill` is refused here: {missing}; {walls}"));
        }
        (_, false) => Lacking::Refused,
        (_, true) => Lacking::Tolerated,
    };
    let postgres = &settings.postgres;
    let (free, without_locale) = match try_drill(server, source, postgres, lacking).await {
        Ok(free) => free,
        Err(error) => {
            let why = format!("`verify --drill` cannot be run here: {}", error.message());
            return Check::warning(NAME, why, error.hint_text());
        }
    };
    let detail = format!(
        "a throwaway server by {} started and ended; {walls}",
        server.postgres.display()
    );
    if let Some(check) = without_room(source, free, postgres, &detail) {
        return check;
    }
    if let Some(missing) = walls.missing() {
        return Check::warning(
            NAME,
            format!("{detail}; {missing}, but the settings allow drills nevertheless"),
            "run drills on another machine, and unset BACKUP_DRILL_UNCONFINED here",
        );
    }
    let source_major = source.major;
    if server.major != source_major {
        return Check::warning(
            NAME,
            format!(
                "{detail}; it is PostgreSQL {}, so a drill proves nothing for {source_major}",
                server.major
            ),
            format!("install the server of PostgreSQL {source_major} as well"),
        );
    }
    if let Some(why) = without_locale {
        return Check::warning(
            NAME,
            format!(
                "{detail}; {why}: a drill cannot prove objects that depend on the order of text or on classes of letters"
            ),
            "generate the locale on this machine, or drill with a PostgreSQL that is built with ICU",
        );
    }
    Check::ok(NAME, detail)
}

/// The free bytes on the throwaway server's disk, and why it lacks the locale of the source.
async fn try_drill(
    server: &ServerPrograms,
    source: &DatabaseFacts,
    postgres: &Postgres,
    lacking: Lacking,
) -> Result<(Option<u64>, Option<String>)> {
    let scratch = ScratchServer::start(server, &postgres.temp, postgres, lacking).await?;
    let free = scratch.free_bytes();
    let session = Session::connect_to_our_own(scratch.info(), postgres).await?;
    let encoding = source.locale["database"]["encoding"].as_str().unwrap_or("UTF8");
    let creation = locale::creation("like_the_source", encoding, &source.locale);
    let refused = session.execute(&creation).await.err();
    session.close().await;
    scratch.stop().await?;
    Ok((free, refused.map(|error| locale::lacking(&creation, &error))))
}

/// A warning if a drill of the source has no room here.
fn without_room(source: &DatabaseFacts, free: Option<u64>, postgres: &Postgres, detail: &str) -> Option<Check> {
    if let (Some(free), Some(bytes)) = (free, source.bytes)
        && free < ScratchServer::room_for(bytes)
    {
        let temp = postgres.temp.display();
        let room = human_bytes(ScratchServer::room_for(bytes));
        let (free, bytes) = (human_bytes(free), human_bytes(bytes));
        return Some(Check::warning(
            DRILL,
            format!(
                "no room for `verify --drill`: {free} are free below {temp}, but a database of {bytes} takes {room} with \
                 the server's log; {detail}"
            ),
            ROOM,
        ));
    }
    None
}

fn dump(programs: &Programs, server_major: u32, settings: &Settings) -> Vec<Check> {
    const NAME: &str = "pg_dump";
    let detail = format!("{} in {}", programs.version, programs.pg_dump.display());
    let mut checks = vec![match backup::check_codec(settings, programs) {
        Err(error) => Check::failed(NAME, &error),
        Ok(()) if programs.major > server_major => Check::warning(
            NAME,
            format!(
                "{detail}, newer than the server: only a newer pg_restore can restore its archive into PostgreSQL \
                 {server_major}"
            ),
            format!("install the client of PostgreSQL {server_major} as well"),
        ),
        Ok(()) => Check::ok(NAME, detail),
    }];
    if programs.pg_dumpall.is_none() {
        checks.push(Check::warning(
            "pg_dumpall",
            format!(
                "pg_dumpall is missing beside {}: backups will hold no roles",
                programs.pg_dump.display()
            ),
            "install the whole client package",
        ));
    }
    checks
}

async fn restore(dumped_by: u32, server_major: u32, settings: &Settings) -> Check {
    const NAME: &str = "pg_restore";
    let archive = RestoreProgram::archive_version(dumped_by);
    match RestoreProgram::find(archive, server_major, &settings.postgres).await {
        Ok(program) => Check::ok(NAME, format!("{} in {}", program.version, program.pg_restore.display())),
        Err(error) => Check::lacking(NAME, &error),
    }
}
