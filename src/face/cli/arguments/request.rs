//! The commands of the command line as the app's requests: the values of the options are read here.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::actions::{
    Action, BackupArguments, ChangesArguments, DownloadArguments, IncrementalAction, RestoreArguments, RetentionAction,
    VerifyArguments,
};
use crate::command::{
    AskedMoment, BackupRequest, ChangesRequest, Command, DownloadRequest, IncrementalRequest, PruneRequest,
    RestoreRequest, VerifyRequest, VerifySelection, check_whose, is_event_id, manifest_digest,
};
use crate::error::{Error, Result};
use crate::repository::backup_id::{BackupKind, NoKind};
use crate::repository::trigger::{NoTrigger, Trigger};
use crate::settings::parse_span;

/// How often `--follow` makes an increment, if `--every` does not say so, and the limits of that.
const PACE: Duration = Duration::from_secs(60);
const LEAST_PACE: Duration = Duration::from_secs(5);
const MOST_PACE: Duration = Duration::from_hours(24);

/// What the settings get from the command line, by their variables.
type Flags = BTreeMap<&'static str, Vec<String>>;

/// The command that was given. Options of it that are settings go to the flags, so they win over the other settings.
pub(super) fn command(action: Action, flags: &mut Flags) -> Result<Command> {
    Ok(match action {
        Action::Backup(given) => Command::Backup(backup(given, flags)?),
        Action::Changes(given) => Command::Changes(changes(given)?),
        Action::Download(given) => Command::Download(download(given)?),
        Action::Verify(given) => Command::Verify(verify(given)?),
        Action::Restore(given) => Command::Restore(restore(given, flags)?),
        Action::Doctor => Command::Doctor,
        Action::List { database } => Command::List {
            database: named(database)?,
        },
        Action::Status { database } => Command::Status {
            database: named(database)?,
        },
        Action::Prune {
            dry_run,
            verified_only,
            allow_delete,
            database,
        } => Command::Prune(PruneRequest {
            dry_run,
            verified_only,
            allow_delete,
            database: named(database)?,
        }),
        Action::Retention {
            action: RetentionAction::Show,
        } => Command::RetentionShow,
        Action::Retention {
            action: RetentionAction::Apply,
        } => Command::RetentionApply,
        Action::Incremental { action } => Command::Incremental(incremental(action)?),
        Action::Keygen { file } => Command::Keygen { file },
        Action::Completions { .. } | Action::Serve { .. } => {
            return Err(Error::internal("this is no command of the app"));
        }
    })
}

fn backup(given: BackupArguments, flags: &mut Flags) -> Result<BackupRequest> {
    let database = named(given.database)?;
    flags.extend(database.clone().map(|name| ("DB_NAME", vec![name])));
    let kind = backup_kind(&given.kind)?;
    let every = given.follow.then(|| pace(kind, given.every.as_deref())).transpose()?;
    Ok(BackupRequest {
        kind,
        every,
        trigger: backup_trigger(&given.trigger)?,
        event_id: checked_event(given.event_id, every)?,
        database,
        ..BackupRequest::default()
    })
}

fn changes(given: ChangesArguments) -> Result<ChangesRequest> {
    let request = ChangesRequest::all(named(given.database)?).between(
        given.since.as_deref(),
        given.until.as_deref(),
        Timestamp::now(),
        &jiff::tz::TimeZone::system(),
    )?;
    let request = match given.limit {
        Some(limit) => request.limited(limit)?,
        None => request,
    };
    Ok(ChangesRequest {
        tables: given.tables,
        ..request
    })
}

fn download(given: DownloadArguments) -> Result<DownloadRequest> {
    check_whose(&given.backup, given.database.as_deref())?;
    Ok(DownloadRequest {
        backup: given.backup,
        database: named(given.database)?,
        output: given.output,
        as_stored: given.as_stored,
        force: given.force,
        expect_manifest: digest(given.expect_manifest)?,
    })
}

fn verify(given: VerifyArguments) -> Result<VerifyRequest> {
    let selection = match given.backup {
        Some(_) if given.since.is_some() => return Err(since_of_one()),
        Some(backup) if !given.all => {
            check_whose(&backup, given.database.as_deref())?;
            VerifySelection::One(backup)
        }
        None if !given.all => VerifySelection::One("latest".to_owned()),
        _ => VerifySelection::All {
            since: given.since.as_deref().map(moment).transpose()?,
        },
    };
    Ok(VerifyRequest {
        selection,
        database: given.database,
        drill: given.drill,
        moment: asked_moment(given.to_time, given.to_lsn)?,
        chain: given.chain,
        expect_manifest: digest(given.expect_manifest)?,
    })
}

fn restore(given: RestoreArguments, flags: &mut Flags) -> Result<RestoreRequest> {
    let moment = asked_moment(given.to_time, given.to_lsn)?;
    check_whose(&given.backup, given.database.as_deref())?;
    flags.extend(given.target.map(|target| ("BACKUP_TARGET_URL", vec![target])));
    Ok(RestoreRequest {
        backup: given.backup,
        database: given.database,
        tables: given.tables,
        into: given.into,
        data_only: given.data_only,
        create: given.create,
        clean: given.clean,
        force: given.force,
        no_verify: given.no_verify,
        check: given.check,
        no_check: given.no_check,
        keep_going: given.keep_going,
        single_transaction: given.single_transaction,
        globals: given.globals,
        globals_privileged: given.globals_privileged,
        no_owner: given.no_owner,
        no_privileges: given.no_privileges,
        no_tablespaces: given.no_tablespaces,
        no_comments: given.no_comments,
        no_publications: given.no_publications,
        no_subscriptions: given.no_subscriptions,
        exclude: given.exclude,
        moment,
        allow_partial: given.allow_partial,
        dry_run: given.dry_run,
        expect_manifest: digest(given.expect_manifest)?,
    })
}

fn backup_kind(kind: &str) -> Result<BackupKind> {
    kind.parse().map_err(|NoKind| {
        Error::config(format!("--kind: {kind:?} is not a kind of backup")).hint("use full or incremental")
    })
}

/// How often `--follow` makes an increment.
fn pace(kind: BackupKind, every: Option<&str>) -> Result<Duration> {
    if kind != BackupKind::Incremental {
        return Err(
            Error::config("--follow is for increments, but --kind incremental is not given")
                .hint("give `--kind incremental --follow`, or leave --follow out"),
        );
    }
    let Some(text) = every else { return Ok(PACE) };
    match parse_span(text) {
        Some(span) if (LEAST_PACE..=MOST_PACE).contains(&span) => Ok(span),
        Some(_) => Err(Error::config(format!("--every: {text:?} is not between 5s and 1d"))
            .hint("60s is usual: as much as that can be lost with the server")),
        None => Err(Error::config(format!("--every: {text:?} is no span of time")).hint("give one such as 60s or 5m")),
    }
}

fn backup_trigger(trigger: &str) -> Result<Trigger> {
    match trigger.parse() {
        Ok(known @ (Trigger::Cli | Trigger::Schedule | Trigger::Manual)) => Ok(known),
        Ok(Trigger::Api) | Err(NoTrigger) => Err(Error::config(format!(
            "--trigger: {trigger:?} is not schedule, manual or cli"
        ))),
    }
}

fn checked_event(id: Option<String>, every: Option<Duration>) -> Result<Option<String>> {
    let Some(id) = id else { return Ok(None) };
    if !is_event_id(&id) {
        return Err(Error::config(
            "--event-id: expected 1 to 256 printable ASCII characters",
        ));
    }
    if every.is_some() {
        return Err(Error::config("--event-id names one backup, but --follow makes many").hint("leave one of them out"));
    }
    Ok(Some(id))
}

fn incremental(action: IncrementalAction) -> Result<IncrementalRequest> {
    Ok(match action {
        IncrementalAction::Start {
            accept_unbounded_wal,
            print_sql,
        } => IncrementalRequest::Start {
            accept_unbounded_wal,
            print_sql,
        },
        IncrementalAction::Stop { slot } => IncrementalRequest::stop(slot.as_deref())?,
        IncrementalAction::Status => IncrementalRequest::Status,
    })
}

fn digest(expected: Option<String>) -> Result<Option<[u8; 32]>> {
    let Some(text) = expected else { return Ok(None) };
    match manifest_digest(&text) {
        Some(digest) => Ok(Some(digest)),
        None => Err(Error::config(format!("--expect-manifest: {text:?} is no SHA-256"))
            .hint("give the 64 hex digits that the backup's report calls `manifest_sha256`")),
    }
}

fn named(database: Option<String>) -> Result<Option<String>> {
    if database.as_deref().is_some_and(str::is_empty) {
        return Err(Error::config("--database: the name is empty"));
    }
    Ok(database)
}

fn asked_moment(to_time: Option<String>, to_lsn: Option<String>) -> Result<Option<AskedMoment>> {
    match (to_time, to_lsn) {
        (Some(time), _) => AskedMoment::at(&time, Timestamp::now()).map(Some),
        (None, Some(lsn)) => AskedMoment::after(&lsn).map(Some),
        (None, None) => Ok(None),
    }
}

/// clap accepts this, because the `--all` that `--since` needs conflicts with the backup.
fn since_of_one() -> Error {
    Error::config("--since chooses among all backups (--all), but the command names one")
        .hint("leave --since out, or give --all instead of the backup")
}

/// A time in the past: a span back from now (`7d`), a date, or a timestamp.
fn moment(text: &str) -> Result<Timestamp> {
    let refused = || {
        Error::config(format!("--since: {text:?} is no time"))
            .hint("give a span (7d, 12h), a date (2025-01-31, UTC) or a timestamp (2025-01-31T04:05:00Z)")
    };
    if let Some(span) = parse_span(text) {
        let span = jiff::SignedDuration::try_from(span).map_err(|_| refused())?;
        return Timestamp::now().checked_sub(span).map_err(|_| refused());
    }
    if let Ok(date) = text.parse::<jiff::civil::Date>() {
        let start = date.to_zoned_datetime(jiff::tz::TimeZone::UTC).map_err(|_| refused())?;
        return Ok(start.timestamp());
    }
    text.parse().map_err(|_| refused())
}
