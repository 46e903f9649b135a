//! `verify --drill`: restores a backup into a throwaway server, as `restore` does, dumps the result again, and compares
//! it with the backup.

mod cluster;
mod columns;
mod definitions;
mod evidence;
mod exclusion;
mod extensions;
mod gather;
pub(crate) mod locale;
mod makers;
mod missing;
mod outline;
mod plain;
mod refill;
mod report;
mod rounds;
mod rows;
mod second_dump;
mod sequences;
mod settings;
mod twin;
mod unproved;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Code, Error, Result};
use crate::format::archive::{self, ArchiveError, Head, Input, Item, read_blocks};
use crate::job::moment::{self, MomentReport, Way};
use crate::job::restore::{LeftOut, Plan};
use crate::postgres::{Lacking, Named, ROOM, ScratchServer, ServerPrograms, Session};
use crate::repository::catalog::Located;
use crate::repository::manifest::{Manifest, role};
use crate::repository::stored_archive::StoredArchive;
use crate::repository::verification::Finding;
use crate::run::clock::Clock;
use crate::run::confinement::Walls;
use crate::run::private_folder::{answering, sweep_stale};
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::settings::{Format, Settings};
use crate::units::human_bytes;
use cluster::{Cluster, ClusterLogin, Ground};
use columns::{ColumnOrder, Layout, Wanted, layouts};
use evidence::Witness;
use exclusion::{DrillExclusion, Reasons};
use extensions::Others;
use gather::{Gather, Gathered};
use missing::Missing;
use rounds::Rounds;

pub use report::{DrillReport, ProofOutcome, TableProof};

/// The `file` of a finding in the restored database, instead of the name of a file of the backup.
const RESTORED: &str = "the restored database";

/// Everything that a drill needs.
pub struct Job<'a> {
    pub settings: &'a Settings,
    pub clock: Clock,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

/// Drills one backup. A difference is a result in the report. An error means that the drill could not be carried out:
/// it says nothing about the backup, and no result may be recorded. `INTEGRITY`: bytes from the store differed from the
/// manifest; they may have changed on the way.
pub async fn run(job: &Job<'_>, located: &Located) -> Result<DrillReport> {
    let drilled = run_once(job, located, None).await.map(|(report, _)| report);
    drilled.map_err(|error| evidence::not_carried_out(&error))
}

/// Drills a moment: the backup, with the changes since.
pub(crate) async fn run_at(job: &Job<'_>, located: &Located, way: Way) -> Result<(DrillReport, MomentReport)> {
    let (report, moment) = run_once(job, located, Some(way)).await?;
    let moment = moment.ok_or_else(|| Error::internal("a drill of a moment forgot the moment"))?;
    Ok((report, moment))
}

type Drilled = (DrillReport, Option<MomentReport>);

async fn run_once(job: &Job<'_>, located: &Located, way: Option<Way>) -> Result<Drilled> {
    let mut settings = job.settings.clone();
    // `--unconfined` allows missing walls, but removes no wall that the machine has.
    settings.postgres.client_walls = Some(Walls::here());
    let job = &Job {
        settings: &settings,
        clock: job.clock,
        stop: job.stop,
        observer: job.observer,
    };
    let begun = Instant::now();
    let postgres = &job.settings.postgres;
    job.stop.or_stop(answering(&postgres.temp, sweep_stale)).await?;
    job.observer.phase("starting a throwaway server");
    let source_major = located.manifest.server.version_num / 10_000;
    let programs = ServerPrograms::find(source_major, postgres).await?;
    let lacking = if job.settings.drill_unconfined {
        Lacking::Tolerated
    } else {
        Lacking::Refused
    };
    let server = job
        .stop
        .or_stop(ScratchServer::start(&programs, &postgres.temp, postgres, lacking))
        .await?;
    let witness = Witness {
        server: &server,
        other_major: (source_major != programs.major).then_some((source_major, programs.major)),
    };
    let drilled = match room(&server, &located.manifest) {
        Ok(()) => match job
            .stop
            .or_stop(drill(job, (located, way), &witness, programs.major))
            .await
        {
            Ok(report) => Ok(report),
            Err(error) => Err(witness.not_carried_out(error).await),
        },
        Err(error) => Err(error),
    };
    // Stop the server in every case, before anything is reported.
    let stopped = server.stop().await;
    let (mut report, moment) = match (drilled, stopped) {
        (Ok(report), Ok(())) => report,
        (Ok(_), Err(error)) => return Err(error),
        (Err(error), stopped) => return Err(error.with_clean_up(stopped)),
    };
    report.duration_seconds = begun.elapsed().as_secs_f64();
    report.settle()?;
    Ok((report, moment))
}

/// The disk must have room for the whole database and for the server's log.
fn room(server: &ScratchServer, manifest: &Manifest) -> Result<()> {
    let needed = manifest.metadata.database_bytes;
    let (Some(needed), Some(free)) = (needed, server.free_bytes()) else {
        return Ok(());
    };
    let room = ScratchServer::room_for(needed);
    if free >= room {
        return Ok(());
    }
    let (free, needed, room) = (human_bytes(free), human_bytes(needed), human_bytes(room));
    let text =
        format!("no room for a drill: {free} are free, but a database of {needed} takes {room} with the server's log");
    Err(Error::new(Code::Enospc, text).hint(ROOM))
}

async fn drill(
    job: &Job<'_>,
    (located, way): (&Located, Option<Way>),
    witness: &Witness<'_>,
    major: u32,
) -> Result<Drilled> {
    let server = witness.server;
    let manifest = &located.manifest;
    let mut report = DrillReport::new(server.version(), major, &manifest.server);
    if manifest.files.contains_key(role::SQL) {
        let cluster = Cluster::prepare(job, witness, located, &Plan::default()).await?;
        report.roles(&cluster.roles);
        plain::run(job, located, major, &cluster, &mut report).await?;
        return Ok((report, None));
    }
    let stored = StoredArchive::open(&*located.store, manifest).await?;
    let (stored, moment) = match way {
        Some(way) => brought_forward(job, located, way, stored).await?,
        None => (stored, None),
    };
    let stored = Arc::new(stored);
    let items = archive::contents(&stored.head).map_err(|error| Error::new(Code::Integrity, error.to_string()))?;
    let (extensions, reasons) = reasons(job, located, witness).await?;
    report.notes.extend(reasons.sorting.clone());
    let mut exclusion = DrillExclusion::before(&items, &extensions, reasons);
    let rounds = Rounds {
        job,
        located,
        stored: &stored,
        items: &items,
        major,
        witness,
    };
    let cluster = Cluster::prepare(job, witness, located, &rounds.plan(&exclusion)).await?;
    report.roles(&cluster.roles);

    job.observer.phase("restoring into the throwaway server");
    let ground = rounds.run(&cluster, &mut exclusion).await?;
    report.not_proved.extend(exclusion.not_proved.iter().cloned());
    report.not_proved.extend(ground.not_proved.iter().cloned());
    for (name, fault) in &exclusion.faults {
        report.blame(&stored.file.name, name, fault);
    }
    job.observer.phase("dumping it again");
    let ours = rows::Ours::of(&stored)?;
    let again = dump(job, cluster.reader(&ground, &items), &ours.wanted).await?;
    job.observer.phase("comparing");
    let pair = rows::Pair {
        located,
        stored: &stored,
        ours: &ours,
        again: &again,
        exclusion: &exclusion,
    };
    rows::compare(&pair, &mut report).await?;
    compare_definitions(&rounds, (&cluster, &ground), (&exclusion, &again), &mut report).await?;
    Ok((report, moment))
}

/// Compares the definitions of the two archives; if their text differs, with those of a second database.
async fn compare_definitions(
    rounds: &Rounds<'_>,
    (cluster, ground): (&Cluster<'_>, &Ground),
    (exclusion, again): (&DrillExclusion<'_>, &Again),
    report: &mut DrillReport,
) -> Result<()> {
    let (job, items, manifest) = (rounds.job, rounds.items, &rounds.located.manifest);
    let mut contents = definitions::Definitions {
        ours: items,
        exclusion,
        present: HashMap::new(),
        theirs: &again.items,
        superuser: cluster.superusers_name(),
        same_major: manifest.pg_dump.version.split('.').next() == again.head.pg_dump_version.split('.').next()
            && manifest.server.version_num / 10_000 == rounds.major,
    };
    let mut comparison = contents.compare(None);
    if comparison.needs_twin {
        job.observer.phase("making the definitions once more");
        contents.present = present(&ground.session, contents.without_a_trace()).await?;
        let twin = twin::make(job, (cluster, ground), items, &rounds.plan(exclusion), manifest).await?;
        comparison = contents.compare(Some(&twin));
    }
    report.sequences = comparison.sequences;
    report.definitions = comparison.equal;
    report.not_proved.extend(of_database(items));
    report.not_proved.extend(comparison.not_proved);
    report
        .problems
        .extend(comparison.differences.into_iter().map(|(name, what)| Finding {
            file: RESTORED.to_owned(),
            table: Some(name),
            what: what.to_owned(),
        }));
    Ok(())
}

/// The archive with the rows of the moment. A table that cannot be had exactly is restored as it is, and reported.
async fn brought_forward(
    job: &Job<'_>,
    located: &Located,
    way: Way,
    stored: StoredArchive,
) -> Result<(StoredArchive, Option<MomentReport>)> {
    job.observer.phase("reading the changes");
    let memory = moment::memory(job.settings.task_memory, &job.settings.postgres.temp);
    let (mut prepared, mut archive) = moment::prepare(located, way, stored, &memory).await?;
    let blocks: Vec<usize> = (0..archive.head.data.len()).collect();
    let mut report = prepared.report(prepared.not_exact(&archive, &blocks, true));
    prepared
        .bring_forward(&mut archive, &blocks, &memory, &mut report)
        .await?;
    prepared.without_checks(&mut archive)?;
    Ok((archive, Some(report)))
}

/// The entries about the database itself, each kind once.
fn of_database(items: &[Item]) -> Vec<LeftOut> {
    let kinds = [
        ("DATABASE PROPERTIES", "the database's own settings"),
        ("COMMENT", "the database's own comment"),
        ("ACL", "the database's own grants"),
    ];
    let said = |kind: &str| {
        items
            .iter()
            .any(|item| item.is_of_database() && item.entry.desc == kind)
    };
    let held = kinds.into_iter().filter(|(kind, _)| said(kind));
    let left_out = |(_, what): (&str, &str)| LeftOut {
        what: what.to_owned(),
        why: report::OF_DATABASE.to_owned(),
    };
    held.map(left_out).collect()
}

/// The extensions that this machine has, and the reasons why a difference here may be no damage.
async fn reasons(
    job: &Job<'_>,
    located: &Located,
    witness: &Witness<'_>,
) -> Result<(BTreeMap<String, String>, Reasons)> {
    let session = Session::connect_to_our_own(witness.server.info(), &job.settings.postgres).await?;
    let here = session.available_extensions().await?;
    let sorting = match &located.manifest.collations {
        Some(collations) => session.sorts_otherwise(collations).await,
        None => None,
    };
    session.close().await;
    let source = extensions::of_source(located).await?;
    let reasons = Reasons {
        extensions: Others::between(source.as_ref(), &here),
        missing: Missing::of(&located.manifest.left_out),
        majors: witness.other_major,
        locale: None,
        sorting,
        withheld: settings::Withheld::default(),
    };
    Ok((here, reasons))
}

/// Whether the objects of entries that the second dump lacks exist nevertheless.
async fn present(session: &Session, items: Vec<&Item>) -> Result<HashMap<i64, bool>> {
    let named = items.iter().copied().map(|item| Named {
        kind: &item.entry.desc,
        schema: item.entry.namespace.as_deref().unwrap_or_default(),
        name: &item.entry.tag,
    });
    let asked: Vec<Named<'_>> = named.collect();
    let there = session.has_parts(&asked).await?.into_iter();
    let known = items.iter().zip(there);
    Ok(known
        .filter_map(|(item, there)| Some((item.entry.dump_id, there?)))
        .collect())
}

/// The result of the second dump.
struct Again {
    head: Head,
    items: Vec<Item>,
    layouts: Vec<Option<Layout>>,
    orders: Vec<ColumnOrder>,
    found: Vec<Gathered>,
}

/// Reads the rows with their columns in the wanted order.
async fn dump(job: &Job<'_>, reader: ClusterLogin<'_>, wanted: &Wanted) -> Result<Again> {
    let wanted = wanted.clone();
    let read = move |output| -> Result<Again, ArchiveError> {
        let mut input = Input::new(output);
        let head = Head::read(&mut input)?;
        let layouts = layouts(&head)?;
        let orders = rows::orders(&wanted, &layouts);
        let mut gather = Gather::new(&head, &orders);
        read_blocks(&mut input, &head, &mut gather)?;
        let found = gather.found;
        let items = archive::contents(&head)?;
        Ok(Again {
            head,
            items,
            layouts,
            orders,
            found,
        })
    };
    let read = move |output| read(output).map_err(Error::from);
    Ok(second_dump::read(job, reader, Format::Custom, read).await?.0)
}
