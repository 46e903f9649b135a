//! The arguments. clap's derive gives the commands; the table of settings gives the options that every command takes,
//! so that a setting has one home.

mod actions;
mod help;
mod request;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser};

use crate::command::Command;
use crate::error::{Error, Result};
use crate::settings::SETTINGS;
use actions::{Action, ServeAction};

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
    /// `pgstow serve hash-password`.
    HashPassword,
    /// `pgstow serve`.
    Serve {
        flags: BTreeMap<&'static str, Vec<String>>,
        env_file: Option<PathBuf>,
        config_file: Option<PathBuf>,
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
    let Some(asked) = asked(args, everything) else {
        return Ok(Invocation::Text(help::settings()));
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
        Action::Completions { shell } => return Ok(Invocation::Text(completions(shell))),
        Action::Serve {
            action: Some(ServeAction::HashPassword),
        } => return Ok(Invocation::HashPassword),
        Action::Serve { action: None } => {
            return Ok(Invocation::Serve {
                flags,
                env_file: arguments.files.env_file,
                config_file: arguments.files.config,
            });
        }
        action => request::command(action, &mut flags)?,
    };
    Ok(Invocation::Run {
        command: Box::new(command),
        flags,
        env_file: arguments.files.env_file,
        config_file: arguments.files.config,
        json: arguments.files.json,
    })
}

/// The command line as clap reads it: `help WORD` as `WORD --help`. `None`: the page of settings.
fn asked(args: &[OsString], everything: bool) -> Option<Vec<OsString>> {
    let words = |from: usize| args.iter().skip(from).cloned();
    Some(match args.get(1) {
        Some(word) if word == "help" && args.get(2).is_some_and(|topic| topic == "settings") => return None,
        Some(word) if word == "help" => words(0).take(1).chain(words(2)).chain(["--help".into()]).collect(),
        _ if everything => words(0)
            .map(|arg| if arg == help::ALL { "--help".into() } else { arg })
            .collect(),
        _ => args.to_vec(),
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
        ErrorKind::MissingSubcommand if word(ContextKind::InvalidSubcommand)?.ends_with(" incremental") => {
            let what = "incremental needs one of start, stop and status; alone it is a command of the older systems";
            Some(Error::config(what).hint(INCREMENT))
        }
        // As in `backup full`.
        ErrorKind::UnknownArgument => {
            let word = word(ContextKind::InvalidArg)?;
            older_command(word).filter(|_| matches!(word, "full" | "incremental" | "incr"))
        }
        _ => None,
    }
}

const INCREMENT: &str = "an increment is made by `pgstow backup --kind incremental`, after `pgstow incremental start`";

/// The error for a command of an older system, with its name in pgstow.
fn older_command(word: &str) -> Option<Error> {
    let hint = match word {
        "full" | "full-backup" | "backup-full" => "a full backup is made by `pgstow backup`",
        "incremental" | "incr" | "incremental-backup" | "backup-incremental" => INCREMENT,
        "scheduler" | "start" => {
            "`pgstow serve` begins runs when they are due; or let cron, a systemd timer, a Kubernetes CronJob or \
             EventBridge run `pgstow backup`, and `pgstow prune` after it (infra/ has one of each)"
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
