//! The arguments: commands by clap's derive, the options that every command takes from the table
//! of settings, so that a setting has one home.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::command::{BackupRequest, Command, DownloadRequest, PruneRequest};
use crate::error::{Error, Result};
use crate::settings::{Kind, SETTINGS, Trigger};

/// What a command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Help, version, completions: ready to print.
    Text(String),
    Run {
        command: Command,
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
        to a folder or an S3 bucket. A backup becomes visible only after it was proved whole: pg_dump ended well, \
        every table is there, and the store's checksums agree. Stock pg_restore restores it.",
    after_help = "Examples:\n  \
        pgstow backup --database-url postgres://reader@db.example/shop --store s3://acme-backups/pg\n  \
        pgstow backup --secret-id prod/shop --json\n  \
        pgstow list --store s3://acme-backups/pg\n  \
        pgstow retention show --store s3://acme-backups/pg\n\n\
        `pgstow backup --help` tells every setting.",
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
#[command(next_help_heading = "Settings, for every command")]
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

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a backup
    #[command(
        long_about = "Make a backup of one database.\n\n\
            Nothing is visible in the store until the whole archive was read, checked and stored; a run that fails, \
            is stopped or dies leaves no backup behind.",
        after_long_help = after_backup()
    )]
    Backup {
        /// What kind of backup: full
        #[arg(long, value_name = "KIND", default_value = "full", hide_default_value = true)]
        kind: String,
        /// Who started it, for the manifest: schedule, manual or cli
        #[arg(long, value_name = "WHO", default_value = "cli", hide_default_value = true)]
        trigger: String,
        /// The database to back up, where the source names another one or none
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// List the backups in the store, newest first
    #[command(
        long_about = "List the backups in the store, newest first.\n\n\
            Everything comes from the store itself, by one listing and one request per backup. The ids are those that \
            other commands take. A backup whose manifest is damaged, foreign or of a newer pgstow stands in the list \
            with what is wrong; folders without a manifest are not backups: `pgstow status` speaks of them. If the \
            first store cannot be reached, the next one answers.",
        after_long_help = "Examples:\n  \
            pgstow list --store s3://acme-backups/pg\n  \
            pgstow list --database shop --json | jq -r '.backups[0].id'"
    )]
    List {
        /// Of this database alone
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// Say whether all is well, and what a person should do
    #[command(
        long_about = "Say whether all is well, and what a person should do.\n\n\
            Shows the settings without secrets, the schedule where it is known, the last good backup of each \
            database and its age, and of each store: whether it can be reached, what the backups take, room on the \
            disk, lifecycle rules that are missing or differ, leases, uploads in progress, backups that lack a file, \
            and what killed runs have left. The database itself is not asked; nothing is written.\n\n\
            Exit code 0 when all is well, 1 when something needs a person: no backup yet, the last good one older \
            than --max-age, a store out of reach, a damaged backup.",
        after_long_help = "Examples:\n  \
            pgstow status --store s3://acme-backups/pg --max-age 26h\n  \
            pgstow status --database shop --json | jq -r '.problems[]'"
    )]
    Status {
        /// Of this database alone
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// Remove the backups that the retention no longer keeps, where no lifecycle rules do it
    #[command(
        alias = "cleanup",
        long_about = "Remove the backups that the retention no longer keeps.\n\n\
            For folders, which have no lifecycle rules; in a bucket nothing is removed, since its rules do that, and \
            only the plan is shown. A backup goes when it is older than its tier's days. The newest --keep-last good \
            ones of each database stay whatever their age, so the last good one never goes. Good is a backup that has \
            all its files and was not found damaged. A backup whose manifest cannot be read stays. Files that pgstow \
            did not write stay, and so does the folder that they are in. What a killed run has left goes after two \
            days, unless a run is at work.\n\n\
            The manifest is removed first: a prune that is interrupted leaves no half backup, and the next one \
            finishes its work.",
        after_long_help = "Examples:\n  \
            pgstow prune --dry-run --store /srv/backups --retention daily=7,weekly=4,monthly=12\n  \
            pgstow prune --store /srv/backups --retention 30d --keep-last 3 --verified-only"
    )]
    Prune {
        /// Print every backup with the reason why it stays or goes, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Keep the newest --keep-last verified backups too, whatever their age
        #[arg(long)]
        verified_only: bool,
        /// Of this database alone
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// Fetch a backup's archive as one file for stock pg_restore
    #[command(
        long_about = "Fetch a backup's archive as one file for stock pg_restore.\n\n\
            The bytes are held against the manifest's SHA-256 as they come; then the table of contents with the \
            offsets is laid over the head, so that pg_restore -j and -t can seek in the file. It gets its name when \
            all of it is there and on the disk. A run that was interrupted leaves .<name>.<time>.partial, with which \
            the same command goes on. SHA256SUMS beside the file gets its digest, and that of the object as a comment.",
        after_long_help = "Examples:\n  \
            pgstow download latest --store s3://acme-backups/pg --database shop\n  \
            pgstow download shop/20260131T040500Z-full -o /restore/shop.dump && pg_restore -j 4 -d shop \
            /restore/shop.dump"
    )]
    Download {
        /// An id as `pgstow list` prints it, or latest
        #[arg(value_name = "BACKUP")]
        backup: String,
        /// The file, or the folder for it [default: the archive's own name, here]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Whose latest, where the source names another database or none
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
        /// Bit for bit as in the store: do not lay the offsets in
        #[arg(long)]
        as_stored: bool,
        /// Replace a file that is there already
        #[arg(long)]
        force: bool,
    },
    /// Show or install the bucket's lifecycle rules
    #[command(
        long_about = "Show or install the bucket's lifecycle rules.\n\n\
            Old backups expire by the bucket's own rules, one for each tier, so that the task that writes backups \
            needs no permission to delete any. The newest good backups bear a tag that no rule matches: when backups \
            stop, the last good one stays.",
        after_long_help = "Examples:\n  \
            pgstow retention show --store s3://acme-backups/pg --retention daily=7,weekly=4,monthly=12\n  \
            pgstow retention apply --store s3://acme-backups/pg --retention 30d",
        subcommand_required = true,
        arg_required_else_help = false
    )]
    Retention {
        #[command(subcommand)]
        action: RetentionAction,
    },
    /// Print the completion script for a shell
    #[command(after_long_help = "Examples:\n  \
            pgstow completions bash > /etc/bash_completion.d/pgstow\n  \
            pgstow completions zsh > ~/.zfunc/_pgstow\n  \
            pgstow completions fish > ~/.config/fish/completions/pgstow.fish")]
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Subcommand)]
enum RetentionAction {
    /// Print the rules that `apply` would install in a bucket without any, as JSON
    Show,
    /// Install the rules; those that are not pgstow's, or of a tier that the retention no longer has, stay as they are
    Apply,
}

pub fn parse(args: &[OsString]) -> Result<Invocation> {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return refusal_or_text(&error),
    };
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => return refusal_or_text(&error),
    };
    let command = match arguments.action {
        Action::Backup {
            kind,
            trigger,
            database,
        } => backup(&kind, &trigger, database)?,
        Action::List { database } => Command::List {
            database: named(database)?,
        },
        Action::Status { database } => Command::Status {
            database: named(database)?,
        },
        Action::Prune {
            dry_run,
            verified_only,
            database,
        } => Command::Prune(PruneRequest {
            dry_run,
            verified_only,
            database: named(database)?,
        }),
        Action::Download {
            backup,
            output,
            database,
            as_stored,
            force,
        } => Command::Download(DownloadRequest {
            backup,
            database: named(database)?,
            output,
            as_stored,
            force,
        }),
        Action::Retention {
            action: RetentionAction::Show,
        } => Command::RetentionShow,
        Action::Retention {
            action: RetentionAction::Apply,
        } => Command::RetentionApply,
        Action::Completions { shell } => return Ok(Invocation::Text(completions(shell))),
    };
    Ok(Invocation::Run {
        command,
        flags: flags(&matches),
        env_file: arguments.files.env_file,
        config_file: arguments.files.config,
        json: arguments.files.json,
    })
}

/// Whether the failure of these arguments is to be told in JSON, though they could not be parsed.
pub fn wants_json(args: &[OsString]) -> bool {
    args.iter()
        .skip(1)
        .take_while(|arg| *arg != "--")
        .any(|arg| arg == "--json")
}

fn command() -> clap::Command {
    let options = SETTINGS.iter().filter_map(|setting| {
        let flag = setting.flag?;
        let variable = match setting.variable {
            "DATABASE_URL" => "DATABASE_URL, or DB_HOST DB_PORT DB_NAME DB_USER DB_PASSWORD",
            "BACKUP_RETENTION" => "BACKUP_RETENTION, BACKUP_RETENTION_DAYS",
            "BACKUP_COMPRESSION" => "BACKUP_COMPRESSION, BACKUP_COMPRESSION_LEVEL",
            variable => variable,
        };
        Some(
            Arg::new(setting.variable)
                .long(flag)
                .value_name(setting.value)
                .help(format!("{} [{variable}]", setting.help))
                .help_heading("Settings, for every command")
                .action(match setting.kind {
                    Kind::List => ArgAction::Append,
                    _ => ArgAction::Set,
                })
                // `--retention -1` is a wrong value, not a flag.
                .allow_hyphen_values(false)
                .global(true),
        )
    });
    let options: Vec<Arg> = options
        .enumerate()
        .map(|(at, arg)| arg.display_order(100 + at))
        .collect();
    Arguments::command().args(options)
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

fn backup(kind: &str, trigger: &str, database: Option<String>) -> Result<Command> {
    match kind {
        "full" => {}
        "incremental" | "incr" => {
            return Err(
                Error::config("--kind incremental: incremental backups are not in this version")
                    .hint("make a full backup: --kind full"),
            );
        }
        other => return Err(Error::config(format!("--kind: {other:?} is not a kind of backup")).hint("use full")),
    }
    let trigger = match trigger {
        "cli" => Trigger::Cli,
        "schedule" => Trigger::Schedule,
        "manual" => Trigger::Manual,
        other => {
            return Err(Error::config(format!(
                "--trigger: {other:?} is not schedule, manual or cli"
            )));
        }
    };
    Ok(Command::Backup(BackupRequest {
        trigger,
        event_id: None,
        database: named(database)?,
    }))
}

fn named(database: Option<String>) -> Result<Option<String>> {
    if database.as_deref().is_some_and(str::is_empty) {
        return Err(Error::config("--database: the name is empty"));
    }
    Ok(database)
}

fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "pgstow", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The settings that have no flag, and what scripts can rely on.
fn after_backup() -> String {
    let mut text = String::from(
        "Examples:\n  \
        DB_PASSWORD=… pgstow backup --database-url postgres://reader@db.example/shop\n  \
        pgstow backup --secret-id prod/shop --store s3://acme-backups/pg --store /mnt/copy\n  \
        pgstow backup --compress zstd:9 --retention daily=7,weekly=4,monthly=12 --json\n\n\
        Where settings come from, strongest first: flags, environment variables, .env, the --config file. Its keys \
        are the flags' names with underscores, or those given here.\n\n\
        Settings without a flag (variable, key in the --config file):\n",
    );
    for setting in SETTINGS.iter().filter(|setting| setting.flag.is_none()) {
        let key = setting.key.map_or(String::new(), |key| format!(" ({key})"));
        text.push_str(&format!("  {}{key}\n      {}\n", setting.variable, setting.help));
    }
    text.push_str(
        "\nExit codes: 0 done, 2 CONFIG, 10 CONN_ERR, 11 AUTH, 12 SECRET, 13 PERMISSION, 20 PG_DUMP_ERR, 21 VERSION, \
         22 STALLED, 30 STORE, 31 ENOSPC, 32 EACCES, 33 ENOENT, 40 INTEGRITY, 50 DEADLINE, 51 BUSY, 70 INTERNAL, \
         130 SIGINT, 143 SIGTERM.",
    );
    text
}

/// clap's answer, in our words: text for stdout, or a `CONFIG` error.
fn refusal_or_text(error: &clap::Error) -> Result<Invocation> {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Ok(Invocation::Text(text));
    }
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
        lines.join(" ")
    });
    let what = paragraphs.next().unwrap_or_default();
    let what = without_credentials(what.strip_prefix("error: ").unwrap_or(&what));
    let tip = paragraphs.find_map(|paragraph| paragraph.strip_prefix("tip: ").map(str::to_owned));
    let hint = match tip {
        Some(tip) => without_credentials(&tip),
        None => "`pgstow --help` lists the commands, `pgstow backup --help` every setting".to_owned(),
    };
    Err(Error::config(what).hint(hint))
}

/// A URL that stands where none belongs is quoted by clap, and may hold a password.
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
