//! PostgreSQL's programs: what a backup needs, and what its way back will.

use super::Check;
use crate::backup;
use crate::confinement::Walls;
use crate::postgres::{Programs, Psql, RestoreProgram, ServerPrograms};
use crate::settings::{Format, Settings};

pub(super) async fn check(server_major: u32, settings: &Settings) -> Vec<Check> {
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
        Ok(server) => drill(&server, settings),
        Err(error) => Check::skipped(
            "drill",
            format!("`verify --drill` cannot be run here: {}", error.message()),
        ),
    });
    checks
}

/// And what stands between the functions of a backup and this machine.
fn drill(server: &ServerPrograms, settings: &Settings) -> Check {
    const NAME: &str = "drill";
    let walls = Walls::here();
    let detail = format!("a throwaway server by {}; {walls}", server.postgres.display());
    match walls.missing() {
        None => Check::ok(NAME, detail),
        Some(missing) if settings.drill_unconfined => Check::warning(
            NAME,
            format!("{detail}; {missing}, and drills are run all the same"),
            "run drills on another machine, and unset BACKUP_DRILL_UNCONFINED here",
        ),
        Some(missing) => Check::skipped(NAME, format!("`verify --drill` is refused here: {missing}; {detail}")),
    }
}

fn dump(programs: &Programs, server_major: u32, settings: &Settings) -> Vec<Check> {
    const NAME: &str = "pg_dump";
    let detail = format!("{} in {}", programs.version, programs.pg_dump.display());
    let mut checks = vec![match backup::check_codec(settings, programs) {
        Err(error) => Check::failed(NAME, &error),
        Ok(()) if programs.major > server_major => Check::warning(
            NAME,
            format!(
                "{detail}, newer than the server: its archive goes back into PostgreSQL {server_major} only by a newer \
                 pg_restore"
            ),
            format!("install the client of PostgreSQL {server_major} as well"),
        ),
        Ok(()) => Check::ok(NAME, detail),
    }];
    if programs.pg_dumpall.is_none() {
        checks.push(Check::warning(
            "pg_dumpall",
            format!(
                "there is none beside {}: backups will hold no roles",
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
