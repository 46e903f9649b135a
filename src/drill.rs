//! `verify --drill`: a backup is only what restores. It is restored, by pgstow's own restore, into
//! a throwaway server, dumped again, and compared with what the backup says of itself.

mod cluster;
mod definitions;
mod exclusion;
mod gather;
mod makers;
mod outline;
mod plain;
mod refill;
mod report;
mod rows;

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use crate::archive::{self, ArchiveError, Head, Input, Item, read_blocks};
use crate::catalog::Located;
use crate::confinement::Walls;
use crate::error::{Code, Error, Result};
use crate::manifest::{Manifest, role};
use crate::postgres::{Contents, Dump, DumpOrder, Lacking, Programs, ScratchServer, ServerPrograms, Session};
use crate::private_folder::sweep_stale;
use crate::progress::Observer;
use crate::report::human_bytes;
use crate::restore::{self, LeftOut, Plan, Without};
use crate::settings::{Clock, Format, Settings};
use crate::stop::Stop;
use crate::stored_archive::StoredArchive;
use crate::verification::Status;
use crate::verify::Finding;
use cluster::{Cluster, Way};
use exclusion::Exclusion;
use gather::{Gather, Gathered};
use refill::{Ended, Refill};

pub use report::{DrillReport, Proof, TableProof};

/// Where the restored database is meant, rather than a file of the backup.
const RESTORED: &str = "the restored database";

/// A backup with more parts than these that were found one by one to want a superuser is not proved.
const ATTEMPTS: usize = 10;

/// What a drill works with.
pub struct Job<'a> {
    pub settings: &'a Settings,
    pub clock: Clock,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

/// Drills one backup. What differs is a result, told in the report; an error is what kept us from
/// trying.
pub async fn run(job: &Job<'_>, located: &Located) -> Result<DrillReport> {
    let mut settings = job.settings.clone();
    if !settings.drill_unconfined {
        settings.postgres.client_walls = Some(Walls::here());
    }
    let job = &Job {
        settings: &settings,
        clock: job.clock,
        stop: job.stop,
        observer: job.observer,
    };
    let begun = Instant::now();
    let postgres = &job.settings.postgres;
    sweep_stale(&postgres.temp)?;
    job.observer.phase("starting a throwaway server");
    let major = located.manifest.server.version_num / 10_000;
    let programs = ServerPrograms::find(major, postgres).await?;
    let lacking = if job.settings.drill_unconfined {
        Lacking::Tolerated
    } else {
        Lacking::Refused
    };
    let server = job
        .stop
        .or_stop(ScratchServer::start(&programs, &postgres.temp, postgres, lacking))
        .await?;
    let drilled = match room(&server, &located.manifest) {
        Ok(()) => job.stop.or_stop(drill(job, located, &server, programs.major)).await,
        Err(error) => Err(error),
    };
    // In every case, and before anything is told.
    let stopped = server.stop().await;
    let mut report = match (drilled, stopped) {
        (Ok(report), Ok(())) => report,
        (Ok(_), Err(error)) => return Err(error),
        (Err(error), Ok(())) => return Err(error),
        (Err(error), Err(second)) => return Err(error.also(second)),
    };
    report.duration_seconds = begun.elapsed().as_secs_f64();
    report.settle()?;
    Ok(report)
}

/// The disk must have room for the whole database.
fn room(server: &ScratchServer, manifest: &Manifest) -> Result<()> {
    let needed = manifest.metadata.get("database_bytes").and_then(Value::as_u64);
    let disk = rustix::fs::statvfs(server.data());
    let (Some(needed), Ok(disk)) = (needed, disk) else {
        return Ok(());
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let (free, needed) = (human_bytes(free), human_bytes(needed));
    let text = format!("no room for a drill: {free} are free for a database of {needed}");
    Err(Error::new(Code::RestoreErr, text).hint("point TMPDIR at a larger disk"))
}

async fn drill(job: &Job<'_>, located: &Located, server: &ScratchServer, major: u32) -> Result<DrillReport> {
    let mut report = DrillReport {
        status: Status::Ok,
        server: server.version().to_owned(),
        tables: Vec::new(),
        sequences: 0,
        large_objects: 0,
        definitions: 0,
        duration_seconds: 0.0,
        ran: false,
        not_proved: Vec::new(),
        problems: Vec::new(),
    };
    let manifest = &located.manifest;
    if manifest.files.contains_key(role::SQL) {
        let cluster = Cluster::prepare(job, server, located, &Plan::default()).await?;
        report.not_proved.extend(cluster.not_proved.iter().cloned());
        plain::run(job, located, major, &cluster, &mut report).await?;
        return Ok(report);
    }
    let stored = Arc::new(StoredArchive::open(&*located.store, manifest).await?);
    let items = archive::contents(&stored.head).map_err(|error| Error::new(Code::Integrity, error.to_string()))?;
    let extensions = Session::connect_to_our_own(server.info(), &job.settings.postgres)
        .await?
        .survey_target()
        .await?
        .extensions;
    let mut exclusion = Exclusion::before(&items, &extensions);
    // In one part each, so that the rows can be found in the backup's own order.
    let plan = |exclusion: &Exclusion<'_>| restore::plan(&stored, &items, &exclusion.chosen(), Without::default(), 1);
    let cluster = Cluster::prepare(job, server, located, &plan(&exclusion)).await?;
    report.not_proved.extend(cluster.not_proved.iter().cloned());

    job.observer.phase("restoring into the throwaway server");
    let mut ground = cluster.ground(&items, manifest).await?;
    let mut attempts = 1;
    let refilled = loop {
        let refill = Refill {
            job,
            stored: &stored,
            located,
            items: &items,
            plan: &plan(&exclusion),
            major,
        };
        match refill.run(&cluster, &ground).await {
            Ok(()) => break Ok(()),
            Err(Ended::Failed(error)) => break Err(error),
            Err(Ended::Refused(entries)) => {
                // Without them, from the beginning: what was made already may look at them.
                if attempts == ATTEMPTS || !entries.iter().any(|(id, _)| exclusion.knows(*id)) {
                    return Err(proves_nothing(&entries));
                }
                for (id, why) in &entries {
                    exclusion.leave_out(*id, why);
                }
                attempts += 1;
                ground = cluster.ground_again(ground, &items, manifest).await?;
            }
        }
    };
    let excluded = exclusion.excluded();
    report.not_proved.extend(exclusion.not_proved.iter().cloned());
    report.not_proved.extend(ground.not_proved.iter().cloned());
    if let Err(error) = refilled {
        return match error.code() {
            Code::RestoreErr | Code::Integrity => {
                let what = format!("it does not restore: {}", error.message());
                report.problems.push(Finding::of_file(&stored.file.name, what));
                Ok(report)
            }
            _ => Err(error),
        };
    }
    job.observer.phase("dumping it again");
    let again = dump(job, cluster.reader(&ground, &items)).await?;
    job.observer.phase("comparing");
    rows::compare(located, &stored, &again, excluded, &mut report).await?;
    let comparison = definitions::compare(&items, excluded, &again.items, cluster.superusers_name());
    report.sequences = comparison.sequences;
    report.definitions = comparison.equal;
    let comparable = manifest.pg_dump.version.split('.').next() == again.head.pg_dump_version.split('.').next()
        && manifest.server.version_num / 10_000 == major;
    for (name, what) in comparison.differences {
        if comparable {
            report.problems.push(Finding {
                file: RESTORED.to_owned(),
                table: Some(name),
                what: what.to_owned(),
            });
        } else {
            // Another major writes the same thing in other words.
            let why = format!(
                "another major's pg_dump ({}) writes it otherwise",
                again.head.pg_dump_version
            );
            report.not_proved.push(LeftOut { what: name, why });
        }
    }
    Ok(report)
}

/// What a second dump gives.
struct Again {
    head: Head,
    items: Vec<Item>,
    found: Vec<Gathered>,
}

async fn dump(job: &Job<'_>, reader: Way<'_>) -> Result<Again> {
    let settings = &job.settings.postgres;
    let session = Session::connect_to_our_own(&reader.info, settings).await?;
    let programs = Programs::find(session.server().major, settings).await?;
    let snapshot = session.export_snapshot().await?;
    let mut dump = Dump::start(&DumpOrder {
        programs: &programs,
        info: session.info(),
        passfile: Some(reader.passfile),
        snapshot: &snapshot.id,
        contents: Contents::Whole(Format::Custom),
        lock_wait: settings.lock_wait,
        settings,
    })?;
    let output = dump.take_stdout()?;
    let reading = tokio::task::spawn_blocking(move || -> Result<Again, ArchiveError> {
        let mut input = Input::new(output);
        let head = Head::read(&mut input)?;
        let mut gather = Gather::new(&head);
        read_blocks(&mut input, &head, &mut gather)?;
        let found = gather.found;
        let items = archive::contents(&head)?;
        Ok(Again { head, items, found })
    });
    let again = reading
        .await
        .map_err(|error| Error::internal("the thread that reads the second dump died").source(error))?;
    // How pg_dump ended says more than what was seen of its stream.
    dump.wait().await?;
    again.map_err(Error::from)
}

/// What stood in the way at the last.
fn proves_nothing(entries: &[(i64, String)]) -> Error {
    let why = entries.first().map_or("", |(_, why)| why);
    report::nothing_proved(why)
}
