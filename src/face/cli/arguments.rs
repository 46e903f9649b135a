//! The arguments. clap's derive gives the commands; the table of settings gives the options that every command takes,
//! so that a setting has one home.

mod actions;
mod help;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser};
use jiff::Timestamp;

use crate::command::{
    AskedMoment, BackupRequest, ChangesRequest, Command, DownloadRequest, IncrementalRequest, PruneRequest,
    RestoreRequest, Selection, VerifyRequest, check_whose, is_event_id, manifest_digest,
};
use crate::error::{Error, Result};
use crate::repository::backup_id::{BackupKind, NoKind};
use crate::repository::trigger::{NoTrigger, Trigger};
use crate::settings::{SETTINGS, parse_span};
use actions::{Action, IncrementalAction, RetentionAction};

/// How often `--follow` makes an increment, if `--every` does not say so, and the limits of that.
const PACE: Duration = Duration::from_secs(60);
const LEAST_PACE: Duration = Duration::from_secs(5);
const MOST_PACE: Duration = Duration::from_hours(24);

/// What to do for a command line.
#[derive(Debug)]
pub enum Invocation {
    /// Help, version, completions: ready to print.
    Text(String),
    Run {
        command: Box<Command>,
        flags: BTreeMap<&'static str, Vec<String>>,
        env_file: Option<PathBuf>,
        config_file: Option<PathBuf>,
        json: bool,
    },
}

#[derive(Debug, Parser)]
#[command(
    name = "pgstow",
    bin_name = "pgstow",
    version,
    about = "PostgreSQL backups that prove themselves",
    long_about = "PostgreSQL backups that prove themselves.\n\n\
        pgstow runs the pg_dump that fits the server, compresses its archive in flight on all cores, and streams it \
        to a folder or an S3 bucket. A backup becomes visible only after pgstow has proved it whole: pg_dump ended \
        without an error, every table is there, and the store's checksums agree. Stock pg_restore restores it.",
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = false
)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    files: Files,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
struct Files {
    /// Print the report as one JSON document on stdout
    #[arg(long, global = true, display_order = 900)]
    json: bool,
    /// Read this file instead of .env in the working directory [BACKUP_ENV_FILE]
    #[arg(long, global = true, value_name = "FILE", display_order = 901)]
    env_file: Option<PathBuf>,
    /// Read settings from this TOML file as well [BACKUP_CONFIG]
    #[arg(long, global = true, value_name = "FILE", display_order = 902)]
    config: Option<PathBuf>,
}

pub fn parse(args: &[OsString]) -> Result<Invocation> {
    understood(args).map_err(|error| match error.has_own_hint() {
        true => error,
        false => error.hint(help_of(args)),
    })
}

/// A hint to the help of the command that was given.
fn help_of(args: &[OsString]) -> String {
    let commands = Arguments::command();
    let mut words = args.iter().skip(1).filter_map(|word| word.to_str());
    match words.find_map(|word| commands.find_subcommand(word)) {
        Some(given) => format!("`pgstow {} --help` lists its arguments and options", given.get_name()),
        None => "`pgstow --help` lists the commands, `pgstow help settings` every setting".to_owned(),
    }
}

fn understood(args: &[OsString]) -> Result<Invocation> {
    let everything = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == help::ALL);
    let words = |from: usize| args.iter().skip(from).cloned();
    let asked: Vec<OsString> = match args.get(1) {
        Some(word) if word == "help" && args.get(2).is_some_and(|topic| topic == "settings") => {
            return Ok(Invocation::Text(help::settings()));
        }
        Some(word) if word == "help" => words(0).take(1).chain(words(2)).chain(["--help".into()]).collect(),
        _ if everything => words(0)
            .map(|arg| if arg == help::ALL { "--help".into() } else { arg })
            .collect(),
        _ => args.to_vec(),
    };
    let matches = match command(everything).try_get_matches_from(asked) {
        Ok(matches) => matches,
        Err(error) => return refusal_or_text(&error),
    };
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => return refusal_or_text(&error),
    };
    let mut flags = flags(&matches);
    let command = match arguments.action {
        Action::Verify {
            backup,
            all: _,
            since,
            drill,
            chain,
            to_time,
            to_lsn,
            database,
            expect_manifest,
        } => Command::Verify(VerifyRequest {
            selection: match backup {
                Some(_) if since.is_some() => return Err(since_of_one()),
                Some(backup) => {
                    check_whose(&backup, database.as_deref())?;
                    Selection::One(backup)
                }
                None => Selection::All {
                    since: since.as_deref().map(moment).transpose()?,
                },
            },
            database,
            drill,
            moment: asked_moment(to_time, to_lsn)?,
            chain,
            expect_manifest: digest(expect_manifest)?,
        }),
        Action::Doctor => Command::Doctor,
        Action::Restore {
            backup,
            target,
            tables,
            into,
            data_only,
            create,
            clean,
            force,
            no_verify,
            check,
            no_check,
            keep_going,
            single_transaction,
            globals,
            globals_privileged,
            no_owner,
            no_privileges,
            no_tablespaces,
            no_comments,
            no_publications,
            no_subscriptions,
            exclude,
            to_time,
            to_lsn,
            allow_partial,
            dry_run,
            expect_manifest,
            database,
        } => {
            let moment = asked_moment(to_time, to_lsn)?;
            check_whose(&backup, database.as_deref())?;
            flags.extend(target.map(|target| ("BACKUP_TARGET_URL", vec![target])));
            Command::Restore(RestoreRequest {
                backup,
                database,
                tables,
                into,
                data_only,
                create,
                clean,
                force,
                no_verify,
                check,
                no_check,
                keep_going,
                single_transaction,
                globals,
                globals_privileged,
                no_owner,
                no_privileges,
                no_tablespaces,
                no_comments,
                no_publications,
                no_subscriptions,
                exclude,
                moment,
                allow_partial,
                dry_run,
                expect_manifest: digest(expect_manifest)?,
            })
        }
        Action::Backup {
            kind,
            follow,
            every,
            trigger,
            event_id,
            database,
        } => {
            let database = named(database)?;
            // It counts as a flag, so it wins over the other settings.
            flags.extend(database.clone().map(|name| ("DB_NAME", vec![name])));
            let kind = backup_kind(&kind)?;
            let every = follow.then(|| pace(kind, every.as_deref())).transpose()?;
            Command::Backup(BackupRequest {
                kind,
                every,
                trigger: backup_trigger(&trigger)?,
                event_id: checked_event(event_id, every)?,
                database,
                ..BackupRequest::default()
            })
        }
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
        Action::Changes {
            tables,
            since,
            until,
            limit,
            database,
        } => {
            let request = ChangesRequest::all(named(database)?).between(
                since.as_deref(),
                until.as_deref(),
                Timestamp::now(),
                &jiff::tz::TimeZone::system(),
            )?;
            let request = match limit {
                Some(limit) => request.limited(limit)?,
                None => request,
            };
            Command::Changes(ChangesRequest { tables, ..request })
        }
        Action::Download {
            backup,
            output,
            database,
            as_stored,
            force,
            expect_manifest,
        } => {
            check_whose(&backup, database.as_deref())?;
            Command::Download(DownloadRequest {
                backup,
                database: named(database)?,
                output,
                as_stored,
                force,
                expect_manifest: digest(expect_manifest)?,
            })
        }
        Action::Retention {
            action: RetentionAction::Show,
        } => Command::RetentionShow,
        Action::Retention {
            action: RetentionAction::Apply,
        } => Command::RetentionApply,
        Action::Incremental { action } => Command::Incremental(incremental(action)?),
        Action::Keygen { file } => Command::Keygen { file },
        Action::Completions { shell } => return Ok(Invocation::Text(completions(shell))),
    };
    Ok(Invocation::Run {
        command: Box::new(command),
        flags,
        env_file: arguments.files.env_file,
        config_file: arguments.files.config,
        json: arguments.files.json,
    })
}

/// The error for an unknown word that is a command of an older system, at any place.
fn older_word(error: &clap::Error) -> Option<Error> {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => older_command(word(ContextKind::InvalidSubcommand)?),
        // As in `backup full`.
        ErrorKind::UnknownArgument => {
            let word = word(ContextKind::InvalidArg)?;
            older_command(word).filter(|_| matches!(word, "full" | "incremental" | "incr"))
        }
        _ => None,
    }
}

/// The error for a command of an older system, with its name in pgstow.
fn older_command(word: &str) -> Option<Error> {
    let hint = match word {
        "full" | "full-backup" | "backup-full" => "a full backup is made by `pgstow backup`",
        "incremental" | "incr" | "incremental-backup" | "backup-incremental" => {
            "an increment is made by `pgstow backup --kind incremental`, after `pgstow incremental start`"
        }
        "start-scheduler" | "scheduler" | "serve" | "start" => {
            "this version has no scheduler of its own: let cron, a systemd timer, a Kubernetes CronJob or EventBridge run \
             `pgstow backup`, and `pgstow prune` after it (infra/ has one of each)"
        }
        _ => return None,
    };
    Some(Error::config(format!("{word} is a command of the older systems, not of this version")).hint(hint))
}

/// Whether to print a failure of these arguments in JSON, even if they could not be parsed.
pub fn wants_json(args: &[OsString]) -> bool {
    args.iter()
        .skip(1)
        .take_while(|arg| *arg != "--")
        .any(|arg| arg == "--json")
}

fn command(everything: bool) -> clap::Command {
    help::with_settings(Arguments::command(), everything)
}

fn flags(matches: &ArgMatches) -> BTreeMap<&'static str, Vec<String>> {
    let given = |variable: &str| -> Option<Vec<String>> {
        let values = matches.try_get_many::<String>(variable).ok()??;
        Some(values.cloned().collect())
    };
    SETTINGS
        .iter()
        .filter(|setting| setting.flag.is_some())
        .filter_map(|setting| given(setting.variable).map(|values| (setting.variable, values)))
        .collect()
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

fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(false), "pgstow", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Turns clap's answer into text for stdout, or into a `CONFIG` error.
fn refusal_or_text(error: &clap::Error) -> Result<Invocation> {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Ok(Invocation::Text(text));
    }
    if let Some(older) = older_word(error) {
        return Err(older);
    }
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
        lines.join(" ")
    });
    let what = paragraphs.next().unwrap_or_default();
    let what = without_credentials(what.strip_prefix("error: ").unwrap_or(&what));
    let tip = paragraphs.find_map(|paragraph| paragraph.strip_prefix("tip: ").map(str::to_owned));
    let error = Error::config(what);
    Err(match tip {
        Some(tip) => error.hint(without_credentials(&tip)),
        None => error,
    })
}

/// clap quotes a misplaced URL, which may hold a password.
fn without_credentials(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find([' ', '\'', '"']).unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(at) => {
                out.push('…');
                rest = &after[at..];
            }
            None => rest = after,
        }
    }
    out + rest
}

#[cfg(test)]
mod tests;
