//! A full backup, from the login to the commit.
//!
//! docs/SEMANTICS.md says what each step leaves if the run dies there. That depends on the order of the steps.

mod forecast;
mod nice;
pub(in crate::job) mod record;
mod referenced;
pub(in crate::job) mod repeated;
pub(in crate::job) mod replicas;
pub(in crate::job) mod report;
mod request;
mod script;
mod sidecars;
mod streamed;
pub(in crate::job) mod transfer;
pub(in crate::job) mod view;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::dataflow::compress::Codec;
use crate::dataflow::throttle::Throttle;
use crate::error::{Code, Error, Result};
use crate::format::Format;
use crate::outside::secrets::Credentials;
use crate::postgres::{DatabaseSize, Passfile, Programs, Session};
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::catalog::{self, Listed};
use crate::repository::lease::{Acquired, Announced, Holder, Lease, Previous};
use crate::repository::leftovers::Cleared;
use crate::repository::references::Referent;
use crate::repository::retention::Tier;
use crate::repository::signature::{Signer, Trust};
use crate::run::clock::Clock;
use crate::run::private_folder;
use crate::run::progress::{Event, Observer};
use crate::run::stop::Stop;
use crate::settings::{Compression, Incremental, Settings};
use crate::store::{Store, Stored as Receipt};

use record::{Begun, Committed, Sidecar, Stored};
use replicas::{Looking, Replicas};
use transfer::Made;
use view::Opened;

pub use report::{BackupReport, BackupStatus, IncrementReport, Notification, StoreReport};
pub use request::BackupRequest;

/// The first pg_dump whose archive format knows zstd.
const ZSTD_SINCE_MAJOR: u32 = 16;
/// How many ids to try. If one is taken, another run was faster.
pub(in crate::job) const IDS: usize = 20;
/// The time to finish writing a small file when the run is stopped. In a folder it takes milliseconds; otherwise the
/// file could appear after the clean-up.
pub(in crate::job) const PUT_GRACE: Duration = Duration::from_secs(2);

/// Everything that a run needs. The face and the app make it.
pub struct Job<'a> {
    pub settings: &'a Settings,
    pub credentials: &'a Credentials,
    /// The first is the primary, the others get copies.
    pub stores: &'a [Arc<dyn Store>],
    /// The key that signs the manifest.
    pub signer: Option<&'a Signer>,
    /// The keys whose signatures count on existing backups. If no keys are set, unsigned backups count too.
    pub trust: &'a Trust,
    pub clock: Clock,
    pub host: &'a str,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

/// The session with the database, and the programs that fit its server.
pub(in crate::job) struct SourceDatabase {
    pub session: Session,
    pub programs: Programs,
    pub passfile: Option<Arc<Passfile>>,
}

/// Makes one backup, or finds the one that this event has already made.
pub async fn run(job: &Job<'_>, request: &BackupRequest) -> Result<BackupReport> {
    // Said before anything is connected.
    referenced::is_asked(job, request)?;
    job.observer.phase("connecting");
    let source = job.stop.or_stop(connect(job, request)).await?;
    let replicas = job.stop.or_stop(Replicas::reach(job.stores, job.stop)).await?;
    if let Some(signer) = job.signer {
        job.stop.or_stop(signer.probe()).await?;
    }

    let holder = Holder {
        host: job.host.to_owned(),
        pid: std::process::id(),
    };
    let database = &source.session.server().database;
    let acquiring = Lease::acquire(replicas.primary(), database, holder, job.settings.lease, job.clock);
    let give_back = async |acquired: Acquired| drop(acquired.lease.release().await);
    let Acquired { lease, took_over } = job.stop.or_undo(PUT_GRACE, acquiring, give_back).await?;
    lease.tell_progress(job.observer);
    let turn = Turn {
        job,
        request,
        source: &source,
        lease: &lease,
    };
    let outcome = under_lease(turn, replicas, took_over).await;
    match (
        outcome,
        job.stop.or_give_up("releasing the lease", lease.release()).await,
    ) {
        (Ok(report), Ok(())) => Ok(report),
        // The lease expires by itself, and the backup is still good.
        (Ok(mut report), Err(error)) => {
            report.warnings.push(error.message());
            Ok(report)
        }
        (Err(error), released) => Err(error.with_clean_up(released)),
    }
}

pub(in crate::job) async fn connect(job: &Job<'_>, request: &BackupRequest) -> Result<SourceDatabase> {
    let postgres = &job.settings.postgres;
    private_folder::answering(&postgres.temp, private_folder::sweep_stale).await?;
    let (_, session) = job.credentials.connect(postgres).await?;
    let server = session.server();
    if let Some(wanted) = &request.database
        && *wanted != server.database
    {
        return Err(Error::config(format!(
            "the event asks for the database {wanted:?}, but the settings name {:?}",
            server.database
        ))
        .hint("run one task per database, each with its own settings"));
    }
    let programs = Programs::find(server.major, postgres).await?;
    check_codec(job.settings, &programs)?;
    let info = session.info().clone();
    let passfile = private_folder::answering(&postgres.temp, move |temp| Passfile::create(temp, &info)).await?;
    let passfile = passfile.map(Arc::new);
    Ok(SourceDatabase {
        session,
        programs,
        passfile,
    })
}

/// What a run makes, while it holds the lease.
#[derive(Clone, Copy)]
struct Turn<'a> {
    job: &'a Job<'a>,
    request: &'a BackupRequest,
    source: &'a SourceDatabase,
    lease: &'a Lease,
}

async fn under_lease(turn: Turn<'_>, mut replicas: Replicas, took_over: Option<Previous>) -> Result<BackupReport> {
    let Turn {
        job,
        request,
        source,
        lease,
    } = turn;
    let prepare = prepare(turn, &mut replicas, took_over.as_ref());
    let prepared = match job.stop.or_stop_after(PUT_GRACE, prepare).await? {
        Outset::Made(id) => return job.stop.or_stop(repeated::of(job.stores, &id, job.trust)).await,
        Outset::ToMake(prepared) => *prepared,
    };
    job.observer.event(&Event::Begun {
        id: prepared.id.to_string(),
    });
    let begun = Begun::of(job, request, source, prepared, took_over);
    match make(job, source, &mut replicas, lease, begun).await {
        Ok(committed) => Ok(committed.report(&replicas)),
        Err(error) => Err(replicas.give_up(error).await),
    }
}

/// What the run has to do, after a look at the store.
enum Outset {
    /// The backup that this event has made already.
    Made(BackupId),
    ToMake(Box<Intent>),
}

struct Intent {
    id: BackupId,
    tier: Tier,
    started: Timestamp,
    database_bytes: Option<u64>,
    cleared: Cleared,
    /// The backup to refer to, if the request asks for that.
    base: Option<Referent>,
}

/// Looks at the store, removes the left-overs of dead runs, and chooses id and tier. It may be dropped at any point:
/// the next run does the rest.
async fn prepare(turn: Turn<'_>, replicas: &mut Replicas, took_over: Option<&Previous>) -> Result<Outset> {
    let Turn {
        job, request, source, ..
    } = turn;
    let primary = replicas.primary();
    let store = &*primary;
    let database = &source.session.server().database;
    let listed = catalog::backups(store, Some(database)).await?;
    let started = (job.clock)();
    // If a backup from the future counted, it would stay the newest, and every later id would be as wrong as its own.
    let past = catalog::until(&listed, started);
    let fulls: Vec<Listed> = past
        .iter()
        .filter(|one| one.id.kind() == BackupKind::Full)
        .cloned()
        .collect();
    // A person who can write to the store can name future events in false manifests. Those must not count as backups
    // that were made.
    if let Some(event) = &request.event_id
        && let Some(made) = catalog::find_by_event(store, &past, BackupKind::Full, event, started, job.trust).await?
    {
        return Ok(Outset::Made(made.id));
    }
    let database_bytes = answered(job, async { Ok(source.session.database_bytes().await) }).await?;
    check_time(turn, store, &fulls, database_bytes).await?;
    // The id of a dead run counts as taken too. The run may have left only an upload in progress, which no listing
    // shows; under the same id that upload would look like this run's.
    let dead = took_over.and_then(Previous::backup_id);
    let dead = dead.filter(|dead| dead.database() == database);
    let newest = past.first().map(|newest| &newest.id);
    let newest = newest.max(dead.as_ref().filter(|dead| !dead.is_ahead(started)));
    let looking = Looking {
        database,
        server: source.session.server(),
        adopt: job.settings.adopt,
        create: job.settings.store_create,
        kind: BackupKind::Full,
    };
    let back = replicas.look_back(&listed, started, &looking).await?;
    let newest = newest.cloned().max(back.newest);
    let id = take_id(turn, replicas, newest, started).await?;
    let mut cleared = replicas.clear(&id, &listed, dead.as_ref(), started).await;
    cleared.warnings.extend(back.warnings);
    let mut base = None;
    if referenced::is_asked(job, request)? {
        match referenced::base(job, source, &fulls, replicas, started).await? {
            Ok(found) => base = Some(found),
            Err(why) => cleared.warnings.push(why),
        }
    }
    let tier = catalog::choose_tier(store, &job.settings.retention.policy, id.timestamp(), &fulls).await?;
    Ok(Outset::ToMake(Box::new(Intent {
        id,
        tier,
        started,
        database_bytes,
        cleared,
        base,
    })))
}

/// Whether the backup can end before the deadline, if the run has one.
async fn check_time(turn: Turn<'_>, store: &dyn Store, fulls: &[Listed], database_bytes: Option<u64>) -> Result<()> {
    let Turn { job, source, .. } = turn;
    let Some(deadline) = job.stop.deadline() else {
        return Ok(());
    };
    let mut paces = catalog::newest_good(store, fulls, forecast::ASKED, job.trust).await?;
    // A run that stores only what has changed shows no pace of one that stores everything.
    paces.retain(|one| one.references.is_none());
    let left = Duration::try_from(deadline.duration_since((job.clock)())).unwrap_or_default();
    let means = forecast::Means {
        threads: job.settings.threads,
        streams: job.settings.jobs,
    };
    let size = DatabaseSize {
        database: database_bytes,
        tables: answered(job, source.session.table_bytes()).await?,
    };
    forecast::check(&size, means, &paces, left)
}

/// Takes an id that no run of any store has.
async fn take_id(
    turn: Turn<'_>,
    replicas: &mut Replicas,
    mut newest: Option<BackupId>,
    started: Timestamp,
) -> Result<BackupId> {
    let database = &turn.source.session.server().database;
    let mut tries = 0;
    loop {
        let id = BackupId::next(database, BackupKind::Full, started, newest.as_ref());
        match replicas.take_id(turn.lease, &id).await? {
            Announced::Done => return Ok(id),
            // Another run, with another primary, was faster.
            Announced::Taken(taken) => newest = newest.max(Some(taken)),
        }
        tries += 1;
        if tries == IDS {
            let what = format!("cannot take an id for a backup of {database:?}: other runs were faster {IDS} times");
            return Err(Error::new(Code::Busy, what));
        }
    }
}

/// Makes the backup: data, sidecars, manifest and tags, in this order.
async fn make(
    job: &Job<'_>,
    source: &SourceDatabase,
    replicas: &mut Replicas,
    lease: &Lease,
    begun: Begun<'_>,
) -> Result<Committed> {
    // Before the snapshot, so that the snapshot is held only while it is read.
    job.observer.phase("reading roles and settings");
    let sidecars = sidecars::gather(job, source).await?;
    let streams = job.settings.jobs > 1 || begun.refers();
    let view = match view::open(job, source, lease, streams).await {
        Ok(view) => view,
        Err(error) => return Err(named(job, source, error).await),
    };
    let gone_back = replicas.gone_back(source.session.server(), view.snapshot.lsn.as_deref());
    let (mut viewed, mut reader, table_bytes) = begun.viewed(view);
    gone_back.into_iter().for_each(|warning| viewed.warn(warning));
    job.observer.estimate(table_bytes);

    // Proof 1: the rows are whole. The reader (pg_dump or the COPY streams) finished without an error, and the archive
    // has the right structure.
    let throttle = Throttle::new(job.settings.max_rate);
    let mut watch = None;
    if let Some(nice) = job.settings.nice {
        watch = Some(nice::ServerWatch::start(source, nice, &throttle).await);
    }
    let mut earlier = viewed.earlier();
    if let (Opened::Streams(streams), true) = (&mut reader, viewed.refers()) {
        let compared = referenced::compare(job, streams, &mut earlier, lease, &throttle).await;
        if let Err(error) = compared {
            return Err(named(job, source, error).await);
        }
    }
    job.observer.phase("reading the database");
    let key = viewed.data_key();
    let made_of = Made {
        format: job.settings.format,
        codec: viewed.codec(),
        earlier,
        uploads: replicas.open(&key, &viewed.object_info(table_bytes)).await?,
    };
    let passed = transfer::run(job, reader, made_of, lease, &throttle).await;
    let pauses = watch.map(|watch| viewed.nice(watch, &throttle));
    let (mut passed, complaints) = match passed {
        Ok(passed) => passed,
        Err(error) => return Err(named(job, source, error).await),
    };
    viewed.complaints(complaints);
    // Proof 2: the store holds the bytes that pgstow sent. The object becomes visible here, tagged `pending`.
    job.observer.phase("completing the upload");
    let expected = passed.expected.object();
    let copies = std::mem::take(&mut passed.copies);
    let receipts = replicas.complete_in_time(&key, copies, &expected).await?;
    let (stored, files) = viewed.stored(passed, pauses, sidecars);
    put_all(job, replicas, files).await?;
    commit(job, replicas, lease, stored, &receipts).await
}

/// Puts the small files. If a put is interrupted, the file is discarded with the others: it has the tag `pending` from the
/// start.
pub(in crate::job) async fn put_all(job: &Job<'_>, replicas: &mut Replicas, files: Vec<Sidecar>) -> Result<()> {
    for file in files {
        let put = replicas.put(&file.key, file.bytes, &file.info);
        job.stop.or_stop_after(PUT_GRACE, put).await?;
    }
    Ok(())
}

/// Turns the stored files into a backup.
async fn commit(
    job: &Job<'_>,
    replicas: &mut Replicas,
    lease: &Lease,
    stored: Stored<'_>,
    receipts: &[Option<Receipt>],
) -> Result<Committed> {
    // From here on no rule and no run removes the backup that this one refers to.
    if let Some(references) = stored.references() {
        let holding = replicas.hold(stored.id(), references);
        job.stop.or_stop_after(PUT_GRACE, holding).await?;
    }
    // Before the manifest is put, all files get the tag that no rule expires, so that a committed backup never has
    // `pending`.
    job.observer.phase("committing");
    let files = stored.tagged_files();
    let tagging = replicas.tag(stored.id(), &files);
    job.stop.or_stop_after(PUT_GRACE, tagging).await?;
    let finished = (job.clock)();
    let sealing = replicas.seal(
        |receipt| stored.manifest(receipt, finished),
        receipts,
        job.signer,
        finished,
    );
    let sealed = job.stop.or_stop(sealing).await?;
    if let Some(reason) = job.stop.reason() {
        return Err(reason.into());
    }
    job.stop.or_stop(lease.still_held()).await?;
    // The commit point: with the manifest the backup exists. The signature is put just before the manifest.
    let manifest = replicas.publish(sealed).await?;
    job.observer.event(&Event::Committed {
        id: manifest.id.to_string(),
    });

    let mut committed = stored.committed(manifest);
    for warning in replicas.retag(committed.id(), &job.settings.retention).await {
        committed.warn(warning);
    }
    if job.settings.incremental == Incremental::Reference {
        for warning in replicas.release(committed.id(), job.settings.retention.keep_last).await {
            committed.warn(warning);
        }
    }
    Ok(committed)
}

/// Adds what the server knows about the error.
pub(in crate::job) async fn named(job: &Job<'_>, source: &SourceDatabase, error: Error) -> Error {
    let (code, hint) = (error.code(), error.hint_text().to_owned());
    let text = error.message();
    let explained = answered(job, async { Ok(source.session.explain(error).await) }).await;
    explained.unwrap_or_else(|_| Error::new(code, text).hint(hint))
}

/// The server's answer to a question. The server may take as long as a dump may stall.
pub(in crate::job) async fn answered<T>(job: &Job<'_>, question: impl Future<Output = Result<T>>) -> Result<T> {
    answered_within(job, job.settings.postgres.stall, question).await
}

pub(in crate::job) async fn answered_within<T>(
    job: &Job<'_>,
    limit: Duration,
    question: impl Future<Output = Result<T>>,
) -> Result<T> {
    let answer = async {
        tokio::time::timeout(limit, question).await.unwrap_or_else(|_| {
            let text = format!("the database has not answered for {} s", limit.as_secs());
            Err(Error::new(Code::Stalled, text))
        })
    };
    job.stop.or_stop(answer).await
}

/// The codec that the settings ask for; for `auto`, the one that fits this pg_dump.
fn codec(settings: &Settings, pg_dump_major: u32) -> Codec {
    codec_for(settings.format, settings, pg_dump_major)
}

pub(in crate::job) fn codec_for(format: Format, settings: &Settings, pg_dump_major: u32) -> Codec {
    match settings.compression {
        Compression::Auto if format == Format::Custom && pg_dump_major < ZSTD_SINCE_MAJOR => Codec::AutoGzip,
        Compression::Auto => Codec::AutoZstd,
        Compression::Zstd(level) => Codec::Zstd(level),
        Compression::Gzip(level) => Codec::Gzip(level),
        Compression::None => Codec::None,
    }
}

/// Refuses zstd with an older pg_dump at once, instead of after the start of the archive was read.
pub(crate) fn check_codec(settings: &Settings, programs: &Programs) -> Result<()> {
    if settings.format == Format::Custom
        && matches!(settings.compression, Compression::Zstd(_))
        && programs.major < ZSTD_SINCE_MAJOR
    {
        return Err(Error::new(
            Code::Config,
            format!(
                "--compress zstd needs pg_dump 16 or newer; this one is {}",
                programs.version
            ),
        )
        .hint("use --compress auto or gzip, or choose a newer client with BACKUP_PG_DUMP_MAJOR"));
    }
    Ok(())
}
