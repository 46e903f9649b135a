//! The drill of a plain dump: its script is run, what it made is dumped as a script again, and the two are
//! compared part by part.

mod ground;
mod same;
mod twin;

use std::sync::Arc;

use super::cluster::{Cluster, Way};
use super::evidence::Says;
use super::{DrillReport, Job, report};
use crate::catalog::Located;
use crate::error::{Code, Error, Result};
use crate::manifest::role;
use crate::postgres::{self, Dump, DumpOrder, Programs, Psql, Session};
use crate::restore::{self, LeftOut};
use crate::script::{Contents, Counter, Reader};
use crate::settings::Format;
use crate::verify::Finding;

const FOREIGN: &str =
    "it is said of what an extension has made, or the server itself, and the drill's role owns neither";

/// Of the second dump.
const PIECE: usize = 1 << 20;

pub(super) async fn run(
    job: &Job<'_>,
    located: &Located,
    major: u32,
    cluster: &Cluster<'_>,
    report: &mut DrillReport,
) -> Result<()> {
    job.observer.phase("running the script in the throwaway server");
    let settings = &job.settings.postgres;
    let manifest = &located.manifest;
    let file = manifest.files.get(role::SQL).map_or("", |file| &file.name);
    let counter = Counter::gathering();
    let (checked, counter) = match restore::script::check(&located.store, manifest, job.observer, counter).await {
        Ok((checked, counter)) => (Arc::new(checked), counter),
        // No server has seen it yet: this is what the script says.
        Err(error) if error.code() == Code::RestoreErr => {
            let what = format!("it does not run: {}", error.message());
            report.problems.push(Finding::of_file(file, what));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let backup = counter.contents(checked.bytes());
    report.not_proved.push(LeftOut {
        what: "the database's own settings, comment and grants".into(),
        why: "a plain dump does not hold them".into(),
    });
    let creation = ground::creation(located).await?;
    let ground = cluster.ground(&creation, manifest).await?;
    let psql = Psql::find(ground.session.server().major, settings).await?;
    cluster.open_for_script(&ground).await?;
    cluster.make_tablespaces(&backup.tablespaces).await?;
    let way = cluster.loader(&ground);
    let place = restore::script::Place {
        psql: &psql,
        info: &way.info,
        passfile: Some(way.passfile),
        settings,
        stop: job.stop,
        observer: job.observer,
    };
    report.not_proved.extend(ground.not_proved.iter().cloned());
    let since = cluster.witness.mark();
    let ran = restore::script::run(&place, &checked).await;
    if let Err(error) = ran.map_err(|failed| failed.error) {
        return match cluster.witness.judge(since, &error, None, false).await {
            // It is one transaction: nothing of it is there.
            Some(Says::Lacking(why)) => Err(report::nothing_proved(&why)),
            Some(Says::Wrong(fault)) => {
                report.blame(file, "the script", &fault);
                Ok(())
            }
            Some(Says::Contended) | None => Err(error),
        };
    }
    cluster.close_for_script(&ground).await?;

    job.observer.phase("dumping it again");
    let hidden = |contents: &Contents| {
        let mut kinds = contents.definitions.iter().map(|one| one.header.kind());
        kinds.any(|kind| matches!(kind.as_str(), "SUBSCRIPTION" | "USER MAPPING"))
    };
    let (again, version) = dump(job, cluster.reader_of(&ground, hidden(&backup))).await?;
    job.observer.phase("comparing");
    same::rows(manifest, &backup, &again, report);
    same::large_objects(&backup, &again, report);
    let compared = same::definitions(&backup, &again, &cluster.makers());
    report.definitions = compared.equal;
    report.sequences = compared.sequences;
    // An empty database that is found empty again: there is no more of it to prove.
    report
        .not_proved
        .extend(compared.too_long.into_iter().map(|what| LeftOut {
            what,
            why: "it is there, and too long to be compared".into(),
        }));
    let (differences, foreign): (Vec<_>, Vec<_>) = compared.differences.into_iter().partition(|one| !one.is_foreign);
    report.problems.extend(differences.into_iter().map(|one| one.finding));
    report.not_proved.extend(foreign.into_iter().map(|one| LeftOut {
        what: one.finding.table.unwrap_or_default(),
        why: FOREIGN.into(),
    }));
    report.ran = backup.tables.is_empty() && backup.headers == 0 && report.problems.is_empty();
    if compared.otherwise.is_empty() {
        return Ok(());
    }
    let comparable = manifest.pg_dump.version.split('.').next() == version.split('.').next()
        && manifest.server.version_num / 10_000 == major;
    if !comparable {
        let why = format!("another major's pg_dump ({version}) may write it otherwise");
        report.not_proved.extend(compared.otherwise.iter().map(|one| LeftOut {
            what: one.name(),
            why: why.clone(),
        }));
        return Ok(());
    }
    // A server may print a definition in other words than those that made it: so the script's own statements,
    // without its rows, are run once more, by ourselves.
    job.observer.phase("making what it defines once more");
    let made = twin::make(job, cluster, located, (&ground, &creation), &backup).await?;
    let twin = match made {
        Ok(ground) => dump(job, cluster.reader_of(&ground, hidden(&backup))).await?.0,
        Err(why) => {
            report.not_proved.extend(compared.otherwise.iter().map(|one| LeftOut {
                what: one.name(),
                why: format!("it is written otherwise, and its statements could not be run a second time: {why}"),
            }));
            return Ok(());
        }
    };
    for one in compared.otherwise {
        match one.is_as_in(&twin, &cluster.makers()) {
            true => {
                report.definitions += one.number();
                report.sequences += one.sequences();
            }
            false if one.is_foreign => report.not_proved.push(LeftOut {
                what: one.name(),
                why: FOREIGN.into(),
            }),
            false => report.problems.push(one.finding()),
        }
    }
    Ok(())
}

/// The whole database as a script, read for what it holds; and pg_dump's version.
async fn dump(job: &Job<'_>, reader: Way<'_>) -> Result<(Contents, String)> {
    let settings = &job.settings.postgres;
    let session = Session::connect_to_our_own(&reader.info, settings).await?;
    let programs = Programs::find(session.server().major, settings).await?;
    let snapshot = session.export_snapshot().await?;
    let mut dump = Dump::start(&DumpOrder {
        programs: &programs,
        info: session.info(),
        passfile: Some(reader.passfile),
        snapshot: &snapshot.id,
        contents: postgres::Contents::Whole(Format::Plain),
        lock_wait: settings.lock_wait,
        settings,
    })
    .await?;
    let mut output = dump.take_stdout()?;
    let reading = tokio::task::spawn_blocking(move || {
        let unread = |error| Error::new(Code::PgDumpErr, "reading the second dump failed").source(error);
        let (mut reader, mut bytes) = (Reader::gathering(), 0_u64);
        let mut piece = vec![0; PIECE];
        loop {
            let count = std::io::Read::read(&mut output, &mut piece).map_err(unread)?;
            if count == 0 {
                break;
            }
            bytes += count as u64;
            reader.pass(&piece[..count]).map_err(|refused| unreadable(&refused))?;
        }
        reader.end(bytes).map_err(|refused| unreadable(&refused))
    });
    let again = reading
        .await
        .map_err(|error| Error::internal("the thread that reads the second dump died").source(error))?;
    // How pg_dump ended says more than what was seen of its stream.
    dump.wait().await?;
    Ok((again?, programs.version))
}

fn unreadable(refused: &postgres::Refused) -> Error {
    Error::new(Code::PgDumpErr, format!("the second dump cannot be read: {refused}"))
}
