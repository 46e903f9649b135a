//! Runs pg_dumpall, for what belongs to the whole cluster.

use std::io::Read;
use std::time::Duration;

use super::exit::judge;
use crate::error::{Code, Error, Result};
use crate::postgres::child::{Child, ChildCommand, Special, reading_environment};
use crate::postgres::globals::{Globals, Sieve};
use crate::postgres::passfile::Pass;
use crate::postgres::{ConnectionInfo, Passfile, Programs, Redactor, settings};
use crate::store::limits;

/// Roles, grants and settings of the whole cluster, without passwords. An ordinary role may not read all of them:
/// then the error says why, and the backup continues without them.
pub async fn globals(
    programs: &Programs,
    info: &ConnectionInfo,
    passfile: Option<&Passfile>,
    settings: &settings::Postgres,
    limit: Duration,
) -> Result<Globals> {
    let Some(program) = &programs.pg_dumpall else {
        return Err(Error::new(
            Code::PgDumpErr,
            format!("pg_dumpall is missing beside {}", programs.pg_dump.display()),
        ));
    };
    let pass = Pass::issue(info, passfile, programs.major).await?;
    let mut server = (*pass.info).clone();
    // pg_dumpall takes the database only from -l, and reads a value that looks like a connection string as one. So
    // pgstow passes every name inside a connection string: a hostile name then stays a name.
    let database = ConnectionInfo {
        dbname: server.dbname.take(),
        ..ConnectionInfo::default()
    };
    let mut child = Child::start(ChildCommand {
        program,
        arguments: vec![
            "--globals-only".into(),
            "--no-role-passwords".into(),
            "--no-password".into(),
            format!("--dbname={}", server.to_conninfo()).into(),
            format!("--database={}", database.to_conninfo()).into(),
        ],
        environment: reading_environment(&settings.child_env, Some(&pass)),
        redactor: Redactor::new(&pass.info),
        special: Special::default(),
    })
    .map_err(|error| Error::new(Code::PgDumpErr, format!("cannot start {}", program.display())).source(error))?;
    let stdout = child
        .take_stdout()
        .ok_or_else(|| Error::internal("pg_dumpall's output was taken twice"))?;
    let work = async {
        let sieved = tokio::task::spawn_blocking(move || sieved(stdout))
            .await
            .map_err(|error| Error::internal("reading pg_dumpall's output failed").source(error))?
            .map_err(|error| Error::new(Code::PgDumpErr, "cannot read pg_dumpall's output").source(error))?;
        let Some(globals) = sieved else {
            return Err(Error::new(Code::PgDumpErr, "pg_dumpall's output is absurdly long"));
        };
        judge("pg_dumpall", &child.wait().await, Duration::ZERO)?;
        Ok(globals)
    };
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => {
            child.stop().await;
            Err(Error::new(
                Code::PgDumpErr,
                format!("pg_dumpall did not end within {} s", limit.as_secs()),
            ))
        }
    }
}

/// `None` if there are more roles than any cluster has.
fn sieved(mut output: impl Read) -> std::io::Result<Option<Globals>> {
    let mut sieve = Sieve::default();
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = match output.read(&mut piece) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        if count == 0 {
            let globals = sieve.end();
            return Ok((globals.sql.len() as u64 <= limits::GLOBALS).then_some(globals));
        }
        sieve.pass(&piece[..count]);
        if sieve.kept() as u64 > limits::GLOBALS {
            return Ok(None);
        }
    }
}
