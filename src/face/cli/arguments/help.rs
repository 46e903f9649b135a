//! Help: each command with the settings that apply to it, and every setting in one list (`pgstow help settings`,
//! docs/settings.md).

use std::fmt::Write;

use clap::{Arg, ArgAction};

use crate::settings::{SETTINGS, Setting, Uses, ValueKind};

/// `--help=all` shows every setting, also those that the command does not use.
pub(super) const ALL: &str = "--help=all";

const APPLY: &str = "Settings that apply";
const MORE: &str = "`pgstow help settings` lists every setting, `pgstow help COMMAND` explains a command.";
const SOURCES: &str = "Settings come from flags, environment variables, .env, and the --config file; the first of these that \
                       names a setting wins. The keys of the --config file are the flags' names with underscores, or the \
                       keys given here.";
const EXIT_CODES: &str = "Exit codes: 0 done, 3 DEGRADED, 4 PARTIAL, 2 CONFIG, 10 CONN_ERR, 11 AUTH, 12 SECRET, 13 \
                          PERMISSION, 20 PG_DUMP_ERR, 21 VERSION, 22 STALLED, 23 CHANGED, 30 STORE, 31 ENOSPC, 32 EACCES, \
                          33 ENOENT, 40 INTEGRITY, 41 RESTORE_ERR, 42 NOT_FOUND, 43 NOT_PROVED, 44 SLOT, 45 \
                          NOT_COVERED, 47 SIGNATURE, 48 OTHER_DATABASE, 50 DEADLINE, 51 BUSY, 70 INTERNAL, 130 SIGINT, 143 SIGTERM.";

/// The settings by subject. A setting belongs to the first section with a start of its name.
const SECTIONS: &[(&str, &[&str])] = &[
    (
        "The database to back up",
        &[
            "DATABASE_URL",
            "DB_",
            "PGSSL",
            "BACKUP_SECRET_ID",
            "BACKUP_DB_AUTH",
            "BACKUP_ADOPT",
        ],
    ),
    ("The database to restore into", &["BACKUP_TARGET_"]),
    ("Stores", &["BACKUP_STORE", "BACKUP_STATE_DIR"]),
    ("S3", &["BACKUP_S3_", "AWS_REQUEST_CHECKSUM_CALCULATION"]),
    ("AWS", &["AWS_"]),
    (
        "Retention",
        &[
            "BACKUP_RETENTION",
            "BACKUP_KEEP_LAST",
            "BACKUP_PITR",
            "BACKUP_MAX_AGE",
            "BACKUP_INCREMENTAL_MAX_AGE",
        ],
    ),
    (
        "How a backup is made",
        &[
            "BACKUP_COMPRESSION",
            "BACKUP_FORMAT",
            "BACKUP_JOBS",
            "BACKUP_THREADS",
            "BACKUP_MEMORY",
            "BACKUP_MAX_RATE",
            "BACKUP_NICE",
            "BACKUP_INCREMENTAL",
            "BACKUP_ON_CHANGED_TABLES",
            "BACKUP_MD5",
            "BACKUP_PROVE_CHAIN",
        ],
    ),
    (
        "Programs and limits",
        &[
            "BACKUP_PG_",
            "BACKUP_LOCK_WAIT_SECONDS",
            "BACKUP_STALL_SECONDS",
            "BACKUP_CONNECT_TIMEOUT_SECONDS",
            "BACKUP_LEASE_SECONDS",
        ],
    ),
    ("Signatures", &["BACKUP_SIGN_KEY", "BACKUP_VERIFY_KEYS"]),
    (
        "Messages, metrics and logs",
        &["BACKUP_SNS_TOPIC_ARN", "BACKUP_METRICS", "LOG_FORMAT", "RUST_LOG"],
    ),
    (
        "Serving",
        &[
            "BACKUP_LISTEN",
            "BACKUP_API_TOKENS_FILE",
            "BACKUP_USERS_FILE",
            "BACKUP_JWT_",
            "BACKUP_ALLOWED_HOSTS",
            "BACKUP_TRUSTED_PROXIES",
            "BACKUP_LOG_",
            "BACKUP_MAX_RUNS",
            "BACKUP_SHUTDOWN_SECONDS",
            "BACKUP_TIMEZONE",
        ],
    ),
    ("Drills", &["BACKUP_DRILL_"]),
    (
        "The Lambda function",
        &["BACKUP_HANDOVER", "BACKUP_ECS_", "BACKUP_ALLOW_"],
    ),
];

/// The commands with the settings that each of them uses, in the order of the help text.
const COMMANDS: &[(&str, Option<Uses>)] = &[
    ("backup", Some(Uses::Backup)),
    ("incremental", Some(Uses::Backup)),
    ("list", Some(Uses::Store)),
    ("status", Some(Uses::Status)),
    ("prune", Some(Uses::Prune)),
    ("changes", Some(Uses::Store)),
    ("download", Some(Uses::Store)),
    // It looks at every setting.
    ("doctor", None),
    ("retention", Some(Uses::Rules)),
    ("verify", Some(Uses::Drill)),
    ("restore", Some(Uses::Restore)),
    ("keygen", Some(Uses::Keys)),
    ("serve", Some(Uses::All)),
];

/// Adds the settings to the commands. With `everything`, each command shows all of them.
pub(super) fn with_settings(command: clap::Command, everything: bool) -> clap::Command {
    let root = options().map(|arg| arg.hide(true));
    let command = command.args(root).after_help(after_root());
    COMMANDS.iter().fold(command, |command, (name, uses)| {
        let applies = |setting: &Setting| everything || uses.is_none_or(|uses| uses.go_by(setting.variable));
        command.mut_subcommand(name, |subcommand| {
            let hidden = |arg: Arg| {
                let setting = SETTINGS.iter().find(|setting| arg.get_id() == setting.variable);
                let hidden = !setting.is_some_and(applies);
                arg.hide(hidden)
            };
            let examples = subcommand.get_after_long_help().map(ToString::to_string);
            let after = after(examples.as_deref().unwrap_or_default(), applies);
            subcommand
                .args(options().map(hidden))
                .after_help(MORE)
                .after_long_help(after)
        })
    })
}

fn after_root() -> String {
    format!(
        "Examples:\n  \
        pgstow backup --database-url postgres://reader@db.example/shop --store s3://acme-backups/pg\n  \
        pgstow backup --secret-id prod/shop --json\n  \
        pgstow list --store s3://acme-backups/pg\n  \
        pgstow retention show --store s3://acme-backups/pg\n\n{MORE}"
    )
}

/// The flags that every command takes, from the table of settings.
fn options() -> impl Iterator<Item = Arg> {
    let flags = SETTINGS.iter().filter_map(|setting| Some((setting, setting.flag?)));
    flags.enumerate().map(|(at, (setting, flag))| {
        let variable = match setting.variable {
            "DATABASE_URL" => "DATABASE_URL, or DB_HOST DB_PORT DB_NAME DB_USER DB_PASSWORD",
            "BACKUP_RETENTION" => "BACKUP_RETENTION, BACKUP_RETENTION_DAYS",
            "BACKUP_COMPRESSION" => "BACKUP_COMPRESSION, BACKUP_COMPRESSION_LEVEL",
            variable => variable,
        };
        let arg = Arg::new(setting.variable);
        let arg = match setting.kind {
            ValueKind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            _ => arg,
        };
        arg.long(flag)
            .value_name(setting.value)
            .help(format!("{} [{variable}]", setting.help))
            .help_heading(APPLY)
            .display_order(100 + at)
            .action(match setting.kind {
                ValueKind::List => ArgAction::Append,
                _ => ArgAction::Set,
            })
            // `--retention -1` is a wrong value, not a flag.
            .allow_hyphen_values(false)
            .global(true)
    })
}

/// The settings without a flag, which follow a command's examples.
fn after(examples: &str, applies: impl Fn(&Setting) -> bool) -> String {
    let mut text = examples.to_owned();
    let without_flag = SETTINGS
        .iter()
        .filter(|setting| setting.flag.is_none() && applies(setting));
    let mut listed = without_flag.peekable();
    if listed.peek().is_some() {
        let _ = write!(
            text,
            "\n\n{SOURCES}\n\nSettings without a flag (variable, key in the --config file):\n"
        );
    }
    for setting in listed {
        let _ = writeln!(text, "  {}\n      {}", named(setting), setting.help);
    }
    let _ = write!(text, "\n{EXIT_CODES}\n\n{MORE} `{ALL}` shows them with this command.");
    text.trim_start().to_owned()
}

fn named(setting: &Setting) -> String {
    let key = setting.key.map_or(String::new(), |key| format!(" ({key})"));
    format!("{}{key}", setting.variable)
}

fn sections() -> impl Iterator<Item = (&'static str, Vec<&'static Setting>)> {
    SECTIONS.iter().enumerate().map(|(at, (title, starts))| {
        let belongs =
            |setting: &&Setting, starts: &[&str]| starts.iter().any(|start| setting.variable.starts_with(start));
        let of = SETTINGS.iter().filter(move |setting| {
            belongs(setting, starts) && !SECTIONS[..at].iter().any(|(_, starts)| belongs(setting, starts))
        });
        (*title, of.collect())
    })
}

/// `pgstow help settings`.
pub(super) fn settings() -> String {
    let mut text = format!("{SOURCES}\n");
    for (title, settings) in sections() {
        let _ = write!(text, "\n{title}\n");
        for setting in settings {
            let flag = setting.flag.map_or(String::new(), |flag| format!(", --{flag}"));
            let _ = writeln!(
                text,
                "  {}{flag} <{}>\n      {}",
                named(setting),
                setting.value,
                setting.help
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// docs/settings.md.
    fn document() -> String {
        let mut text = String::from(
            "# Settings\n\n\
            Settings come from flags, environment variables, `.env`, and a TOML file (`--config`). The first of these that \
            names a\nsetting wins. `pgstow help settings` prints the same list.\n\n\
            pgstow also reads libpq's variables and files (`PGHOST`, `PGSERVICE`, `~/.pgpass` and the like): \
            [credentials.md](credentials.md).\nThe names that older systems used are listed in \
            [operations.md](operations.md#an-env-file-of-an-older-system). A secret can also be\ngiven as a file: add \
            `_FILE` to the variable's name (`DB_PASSWORD_FILE`).\n\n\
            A command ignores a wrong value of a setting that it does not use; the last column says which commands use \
            it.\n`doctor` shows every wrong value.\n",
        );
        for (title, settings) in sections() {
            let _ = write!(
                text,
                "\n## {title}\n\n| variable | flag, key | value | meaning | used by |\n| --- | --- | --- | --- | --- |\n"
            );
            for setting in settings {
                let flag = setting.flag.map(|flag| format!("`--{flag}`"));
                let key = setting.key.map(|key| format!("`{key}`"));
                let names: Vec<String> = flag.into_iter().chain(key).collect();
                let _ = writeln!(
                    text,
                    "| `{}` | {} | `{}` | {} | {} |",
                    setting.variable,
                    names.join(", "),
                    setting.value.replace('|', "\\|"),
                    setting.help.replace('|', "\\|").replace('<', "\\<"),
                    users(setting)
                );
            }
        }
        text
    }

    fn users(setting: &Setting) -> String {
        let with_uses = COMMANDS.iter().filter_map(|(name, uses)| Some((name, (*uses)?)));
        let users: Vec<&str> = with_uses
            .clone()
            .filter(|(_, uses)| uses.go_by(setting.variable))
            .map(|(name, _)| *name)
            .collect();
        let but_keygen = with_uses.count() - 1;
        match users.len() {
            all if all >= but_keygen => "all".to_owned(),
            _ => users.join(", "),
        }
    }

    #[test]
    fn the_page_of_settings_is_that_of_the_table() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
        if std::env::var_os("PGSTOW_WRITE_DOCS").is_some() {
            std::fs::write(&page, document()).unwrap();
        }
        assert!(
            std::fs::read_to_string(&page).unwrap_or_default() == document(),
            "run this test with PGSTOW_WRITE_DOCS=1 to write docs/settings.md anew"
        );
    }

    #[test]
    fn every_setting_stands_in_one_section() {
        let listed: Vec<&str> = sections()
            .flat_map(|(_, settings)| settings)
            .map(|setting| setting.variable)
            .collect();
        for setting in SETTINGS {
            let times = listed.iter().filter(|listed| **listed == setting.variable).count();
            assert_eq!(times, 1, "{}", setting.variable);
            assert!(settings().contains(setting.help), "{}", setting.variable);
        }
    }
}
