//! From text to [`Settings`]: every value is looked at, and every problem is told, before anything
//! starts.

mod cloud;
mod found;
mod handover;
mod metrics;
mod pace;
mod signing;
mod unneeded;

use std::convert::Infallible;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use super::known;
use super::layers;
use super::problems::Problems;
use super::specs::{self, Algorithm};
use super::value::{Layer, Value, Values};
use super::{
    Auth, Compression, Format, Input, Log, LogFormat, OnChangedTables, Policy, Postgres, Retention, Schedule, Settings,
    Source, StoreCreate, StoreUrl, Uses, aliases, libpq, source, stores,
};
use crate::error::{Error, Result};

/// The level of `zstd` without one: pg_dump's own default. In frames of 2 MiB it gives no more bytes
/// than pg_dump's stream, and fewer than gzip does.
pub const ZSTD_LEVEL: i32 = 3;
/// The level of `gzip` without one: pg_dump's own default, so that the sizes compare.
pub const GZIP_LEVEL: u32 = 6;

/// An ordinary migration's statement is over by then; and it is well below the stall limit, so
/// that the error speaks of the lock and not of silence.
const LOCK_WAIT: Duration = Duration::from_secs(60);
const STALL: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const LEASE: Duration = Duration::from_secs(120);
const RETENTION_DAYS: u32 = 30;
/// A nightly backup, and two hours for it to be made.
const MAX_AGE: Duration = Duration::from_secs(26 * 3_600);
const DEFAULT_STORE: &str = "./backups";

pub fn load(input: &Input) -> Result<Settings> {
    let mut problems = Problems::default();
    let (mut notes, mut warnings) = (Vec::new(), Vec::new());
    let mut layers = layers::read(input, &mut problems, &mut notes, &mut warnings);
    let mut of_aliases = Problems::default();
    aliases::translate(&mut layers.values, &mut of_aliases, &mut notes, &mut warnings);
    problems.absorb(of_aliases, "BACKUP_STORE");
    if let Some(values) = &mut layers.without_found {
        // Its warnings were told.
        aliases::translate(values, &mut Problems::default(), &mut Vec::new(), &mut Vec::new());
    }
    let mut reader = Reader {
        input,
        values: layers.values,
        without_found: layers.without_found,
        problems,
        cautions: notes.clone(),
        notes,
        warnings: Vec::new(),
    };
    let mut settings = reader.settings();
    warnings.append(&mut reader.warnings);
    let uses = input.uses;
    let unneeded = reader.unneeded(&settings);
    if unneeded.contains(&"AWS_") {
        // It would be read, although nobody is asked.
        settings.aws.ca_bundle = None;
    }
    let goes_by = |variable: &str| uses.go_by(variable) && !unneeded.iter().any(|start| variable.starts_with(start));
    let passed = reader.problems.passed_over(goes_by, uses == Uses::Doctor);
    let mut shown = Vec::new();
    match uses {
        Uses::Doctor => shown = passed,
        _ => warnings.extend(
            passed
                .into_iter()
                .map(|problem| format!("{problem} (this command does without)")),
        ),
    }
    // What was not read may be what is missing.
    let told = |error: Error| {
        warnings
            .iter()
            .fold(error, |error, warning| error.also(Error::config(warning.clone())))
    };
    reader.problems.into_result().map_err(told)?;
    Ok(Settings {
        warnings,
        problems: shown,
        notes: reader.notes,
        cautions: reader.cautions,
        ..settings
    })
}

struct Reader<'a> {
    input: &'a Input,
    values: Values,
    /// Without the `.env` that nobody has named, where there is one.
    without_found: Option<Values>,
    problems: Problems,
    notes: Vec<String>,
    warnings: Vec<String>,
    cautions: Vec<String>,
}

impl Reader<'_> {
    fn settings(&mut self) -> Settings {
        let ways = [("password", Auth::Password), ("iam", Auth::Iam)];
        let auth = self.choice("BACKUP_DB_AUTH", &ways).unwrap_or_default();
        let target_auth = self.choice("BACKUP_TARGET_AUTH", &ways).unwrap_or_default();
        let source = self.login("DATABASE_URL", source::resolve, auth);
        if self.values.get("DATABASE_URL").is_some_and(shows_password) {
            self.warnings.push(
                "the password in --database-url is visible to every user of this machine; set DATABASE_URL or DB_PASSWORD"
                    .to_owned(),
            );
        }
        let target = self.login("BACKUP_TARGET_URL", source::target, target_auth);
        if self.values.get("BACKUP_TARGET_URL").is_some_and(shows_password) {
            self.warnings.push(
                "the password in --target is visible to every user of this machine; set BACKUP_TARGET_URL or \
                 BACKUP_TARGET_PASSWORD"
                    .to_owned(),
            );
        }
        let stores = self.of("BACKUP_STORE", Self::stores);
        self.keep_found_to_its_own(&stores);
        let retention = Retention {
            policy: self.of("BACKUP_RETENTION", Self::policy),
            keep_last: self.count("BACKUP_KEEP_LAST", 1..=10_000).unwrap_or(1),
        };
        let max_age = self.read("BACKUP_MAX_AGE", specs::age).unwrap_or(MAX_AGE);
        let schedule = self.schedule();
        let compression = self.of("BACKUP_COMPRESSION", Self::compression);
        let format = self.choice("BACKUP_FORMAT", &[("custom", Format::Custom), ("plain", Format::Plain)]);
        let on_changed_tables = self.choice(
            "BACKUP_ON_CHANGED_TABLES",
            &[("fail", OnChangedTables::Fail), ("warn", OnChangedTables::Warn)],
        );
        let nice = self.of("BACKUP_NICE", Self::nice);
        let max_rate = self.max_rate();
        let jobs = self.of("BACKUP_NICE", |reader| {
            reader.jobs(nice, format.unwrap_or(Format::Custom))
        });
        let threads = self.count("BACKUP_THREADS", 1..=256);
        let threads = threads.unwrap_or(self.input.cpus.max(1));
        let postgres = self.of("BACKUP_PG_BIN", Self::postgres);
        let mut s3 = self.s3(&stores);
        let part_size = s3.part_size;
        let (memory, threads) = self.of("BACKUP_MEMORY", |reader| {
            reader.memory(jobs, threads, &stores, part_size)
        });
        s3.memory = memory.parts;
        let aws = self.aws();
        let sns_topic_arn = self.read("BACKUP_SNS_TOPIC_ARN", cloud::topic);
        let handover = self.of("BACKUP_HANDOVER", Self::handover);
        let allow_restore = self.switch("BACKUP_ALLOW_RESTORE").unwrap_or(false);
        let allow_drill = self.switch("BACKUP_ALLOW_DRILL").unwrap_or(true);
        let drill_unconfined = self.switch("BACKUP_DRILL_UNCONFINED").unwrap_or(false);
        let metrics = self.of("BACKUP_METRICS", Self::metrics);
        let lease = self.read("BACKUP_LEASE_SECONDS", specs::duration).unwrap_or(LEASE);
        let md5 = self.switch("BACKUP_MD5").unwrap_or(false);
        let adopt = self.switch("BACKUP_ADOPT").unwrap_or(false);
        let creations = [
            ("auto", StoreCreate::Auto),
            ("always", StoreCreate::Always),
            ("never", StoreCreate::Never),
        ];
        let store_create = self.choice("BACKUP_STORE_CREATE", &creations).unwrap_or_default();
        let state_dir = self.state_dir();
        let signing = self.signing();
        let log = self.log();
        Settings {
            source,
            target,
            auth,
            target_auth,
            stores,
            retention,
            max_age,
            schedule,
            compression,
            format: format.unwrap_or(Format::Custom),
            on_changed_tables: on_changed_tables.unwrap_or(OnChangedTables::Fail),
            jobs,
            threads,
            memory,
            max_rate,
            nice,
            postgres,
            s3,
            aws,
            sns_topic_arn,
            handover,
            allow_restore,
            allow_drill,
            drill_unconfined,
            metrics,
            lease,
            md5,
            adopt,
            store_create,
            state_dir,
            signing,
            json: self.input.json,
            log,
            warnings: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
            cautions: Vec::new(),
        }
    }

    /// What is found wrong with a login is a problem of the setting that most people give it by.
    fn login(
        &mut self,
        variable: &'static str,
        resolve: fn(&mut source::Reading<'_>, Auth) -> Source,
        auth: Auth,
    ) -> Source {
        let mut found = Problems::default();
        let home = self.input.env.get("HOME").map(String::as_str);
        let place = libpq::Place {
            home: home.filter(|home| !home.is_empty()),
            working_dir: &self.input.working_dir,
        };
        let login = resolve(
            &mut source::Reading {
                values: &self.values,
                place,
                problems: &mut found,
                notes: &mut self.notes,
            },
            auth,
        );
        if let Some(values) = &self.without_found {
            let without = resolve(
                &mut source::Reading {
                    values,
                    place,
                    problems: &mut Problems::default(),
                    notes: &mut Vec::new(),
                },
                auth,
            );
            source::found::check(&login, &without, &self.values, variable, &mut found);
        }
        self.problems.absorb(found, variable);
        login
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn caution(&mut self, note: impl Into<String>) {
        let note = note.into();
        self.cautions.push(note.clone());
        self.notes.push(note);
    }

    /// What is found wrong there is a problem of this setting.
    fn of<T>(&mut self, variable: &'static str, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::take(&mut self.problems);
        let value = read(self);
        let found = std::mem::replace(&mut self.problems, before);
        self.problems.absorb(found, variable);
        value
    }

    /// One value through its parser; what it says against the text is a problem of that setting.
    fn read<T, E: Display>(&mut self, variable: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let value = self.values.get(variable)?;
        match parse(value.text().trim()) {
            Ok(parsed) => Some(parsed),
            Err(why) => {
                let mut found = Problems::default();
                found.add(format!("{}: {why}", value.name));
                match known::by_variable(variable) {
                    Some(setting) => self.problems.absorb(found, setting.variable),
                    None => self.problems.absorb(found, "BACKUP_STORE"),
                }
                None
            }
        }
    }

    fn text(&mut self, variable: &str) -> Option<String> {
        self.read(variable, |text| match text {
            "" => Err("it is empty"),
            text if text.chars().any(char::is_control) => Err("it has control characters"),
            text => Ok(text.to_owned()),
        })
    }

    fn count(&mut self, variable: &str, range: std::ops::RangeInclusive<u64>) -> Option<usize> {
        self.read(variable, |text| {
            specs::number(text, range).and_then(|number| usize::try_from(number).map_err(|error| error.to_string()))
        })
    }

    fn switch(&mut self, variable: &str) -> Option<bool> {
        self.read(variable, |text| specs::truth(text).ok_or("expected true or false"))
    }

    fn choice<T: Copy>(&mut self, variable: &str, choices: &[(&str, T)]) -> Option<T> {
        self.read(variable, |text| {
            let chosen = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
            chosen.map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                format!("{text:?} is not {}", names.join(" or "))
            })
        })
    }

    /// As systemd gives it to a service, or where such things lie. Root does not write into the home of whoever
    /// became it.
    fn state_dir(&mut self) -> Option<PathBuf> {
        let working_dir = self.input.working_dir.clone();
        if let Some(folder) = self.read("BACKUP_STATE_DIR", |text| Ok::<_, Infallible>(working_dir.join(text))) {
            return Some(folder);
        }
        if self.input.in_lambda {
            return None;
        }
        let folder = |name: &str| {
            let value = self.input.env.get(name).map(String::as_str).unwrap_or_default();
            let first = value.split(':').next().unwrap_or_default();
            Some(PathBuf::from(first)).filter(|folder| folder.is_absolute())
        };
        folder("STATE_DIRECTORY").or_else(|| {
            if rustix::process::geteuid().is_root() {
                return Some(PathBuf::from("/var/lib/pgstow"));
            }
            let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
            Some(state?.join("pgstow"))
        })
    }

    fn stores(&mut self) -> Vec<StoreUrl> {
        let home = self.input.env.get("HOME").map(String::as_str);
        let Some(value) = self.values.get("BACKUP_STORE") else {
            if self.input.in_lambda {
                self.problems.add(
                    "BACKUP_STORE is not set: a Lambda function has no folder that outlives it; name s3://bucket/prefix"
                        .to_owned(),
                );
                return Vec::new();
            }
            self.note(format!("no store was named: backups go to {DEFAULT_STORE}"));
            return vec![StoreUrl::Folder(self.input.working_dir.join("backups"))];
        };
        let mut found: Vec<StoreUrl> = Vec::new();
        for text in &value.texts {
            match stores::parse(text, &self.input.working_dir, home) {
                Ok(store) if found.contains(&store) => {
                    self.problems.add(format!("{}: {text} stands there twice", value.name));
                }
                Ok(store) => found.push(store),
                Err(why) => self.problems.add(format!("{}: {why}", value.name)),
            }
        }
        found
    }

    /// As the older systems name them. Nothing here runs by them yet: they are known, and told.
    fn schedule(&self) -> Schedule {
        let text = |variable| {
            let text = self.values.get(variable)?.text().trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        Schedule {
            full: text("FULL_BACKUP_SCHEDULE"),
            incremental: text("INCREMENTAL_BACKUP_SCHEDULE"),
            cleanup: text("CLEANUP_SCHEDULE"),
        }
    }

    fn policy(&mut self) -> Policy {
        let days = self.read("BACKUP_RETENTION_DAYS", |text| {
            specs::retention(text).and_then(|policy| match policy {
                Policy::Days(_) => Ok(policy),
                Policy::Tiers(_) => Err("expected a number of days".to_owned()),
            })
        });
        let spec = self.read("BACKUP_RETENTION", specs::retention);
        let (Some(spec), Some(days)) = (&spec, &days) else {
            return spec.or(days).unwrap_or(Policy::Days(RETENTION_DAYS));
        };
        match (
            self.values.get("BACKUP_RETENTION"),
            self.values.get("BACKUP_RETENTION_DAYS"),
        ) {
            (Some(one), Some(other)) if one.layer == other.layer && spec != days => {
                self.problems
                    .conflict(one, other, "they keep backups for different times");
                spec.clone()
            }
            (Some(one), Some(other)) if other.layer < one.layer => days.clone(),
            _ => spec.clone(),
        }
    }

    /// The older systems had a switch, and its level beside it.
    fn compression(&mut self) -> Compression {
        let value = self.values.get("BACKUP_COMPRESSION").cloned();
        let Some((value, switch)) = value.and_then(|value| specs::truth(value.text()).map(|switch| (value, switch)))
        else {
            return self.chosen_compression();
        };
        self.values.remove("BACKUP_COMPRESSION");
        let level = self.values.get("BACKUP_COMPRESSION_LEVEL");
        let stronger = level.is_some_and(|level| level.layer < value.layer);
        if switch && let Some(level) = level.cloned() {
            return self
                .gzip_of_a_level(&level, &format!("{} with {}", value.name, level.name))
                .settled(ZSTD_LEVEL, GZIP_LEVEL);
        }
        if switch || stronger {
            return self.chosen_compression();
        }
        self.values.remove("BACKUP_COMPRESSION_LEVEL");
        Compression::None
    }

    fn chosen_compression(&mut self) -> Compression {
        let algorithm = self.read("BACKUP_COMPRESSION", specs::compression);
        let named = self.values.get("BACKUP_COMPRESSION").cloned();
        let level = self.values.get("BACKUP_COMPRESSION_LEVEL").cloned();
        let chosen = match (algorithm, named, level) {
            (None, Some(_), _) => Algorithm::Auto,
            (algorithm, _, None) => algorithm.unwrap_or(Algorithm::Auto),
            (None, None, Some(level)) => self.level_alone(&level),
            (Some(algorithm), Some(named), Some(level)) => self.with_level(algorithm, &named, &level),
            (Some(algorithm), None, Some(_)) => algorithm,
        };
        chosen.settled(ZSTD_LEVEL, GZIP_LEVEL)
    }

    /// The older systems knew gzip alone, with zlib's 0 for no compression.
    fn level_alone(&mut self, level: &Value) -> Algorithm {
        self.gzip_of_a_level(level, &format!("{} alone", level.name))
    }

    fn gzip_of_a_level(&mut self, level: &Value, given: &str) -> Algorithm {
        if level.text().trim() == "0" {
            self.note(format!("{given}: 0 means no compression"));
            return Algorithm::None;
        }
        let level_read = self.read("BACKUP_COMPRESSION_LEVEL", specs::gzip_level);
        self.note(format!(
            "{given} means gzip, as in the older systems; BACKUP_COMPRESSION=auto without a level is smaller and faster"
        ));
        Algorithm::Gzip(level_read)
    }

    fn with_level(&mut self, algorithm: Algorithm, named: &Value, level: &Value) -> Algorithm {
        if !algorithm.takes_level() {
            return match level.layer.cmp(&named.layer) {
                std::cmp::Ordering::Less => self.level_alone(level),
                std::cmp::Ordering::Equal => {
                    let name = named.text();
                    self.problems.conflict(named, level, &format!("{name} has no level"));
                    algorithm
                }
                std::cmp::Ordering::Greater => algorithm,
            };
        }
        if algorithm.has_level() && level.layer > named.layer {
            return algorithm;
        }
        let text = level.text().trim();
        match algorithm.with_level(text) {
            Ok(with) if algorithm.has_level() && with != algorithm && level.layer == named.layer => {
                self.problems.conflict(named, level, "they name different levels");
                algorithm
            }
            Ok(with) => with,
            Err(why) => {
                self.problems.conflict(named, level, &why);
                algorithm
            }
        }
    }

    fn postgres(&mut self) -> Postgres {
        let env = &self.input.env;
        let path = env
            .get("PATH")
            .map_or_else(Vec::new, |path| std::env::split_paths(path).collect());
        let child_env = ["PATH", "HOME", "LD_LIBRARY_PATH", "TZ"]
            .iter()
            .filter_map(|name| env.get(*name).map(|value| ((*name).to_owned(), value.clone())))
            .collect();
        let temp = env
            .get("TMPDIR")
            .filter(|folder| !folder.is_empty())
            .map_or("/tmp", String::as_str);
        let temp = PathBuf::from(temp);
        let working_dir = self.input.working_dir.clone();
        let bin = self.read("BACKUP_PG_BIN", |text| {
            let folders: Vec<PathBuf> = std::env::split_paths(text)
                .filter(|folder| !folder.as_os_str().is_empty())
                .map(|folder| working_dir.join(folder))
                .collect();
            if folders.is_empty() {
                Err("it names no folder")
            } else {
                Ok(folders)
            }
        });
        let dump_major = self
            .count("BACKUP_PG_DUMP_MAJOR", 10..=99)
            .and_then(|major| u32::try_from(major).ok());
        let (lock_wait, stall) = self.limits();
        Postgres {
            bin,
            path,
            dump_major,
            lock_wait,
            stall,
            connect_timeout: self
                .read("BACKUP_CONNECT_TIMEOUT_SECONDS", specs::duration)
                .unwrap_or(CONNECT_TIMEOUT),
            temp,
            child_env,
            client_walls: None,
        }
    }

    /// While pg_dump waits for a lock no byte flows, so the wait must end before the stall limit
    /// does: otherwise the error would speak of silence and hide the lock.
    fn limits(&mut self) -> (Duration, Duration) {
        let lock_wait = self.read("BACKUP_LOCK_WAIT_SECONDS", specs::duration);
        let stall = self.read("BACKUP_STALL_SECONDS", specs::duration);
        match (lock_wait, stall) {
            (Some(wait), Some(stall)) => {
                let names = (
                    self.values.get("BACKUP_LOCK_WAIT_SECONDS").cloned(),
                    self.values.get("BACKUP_STALL_SECONDS").cloned(),
                );
                if let (true, (Some(one), Some(other))) = (wait >= stall, names) {
                    // No problem of a command that goes by one of them alone.
                    self.of("BACKUP_STALL_SECONDS", |reader| {
                        reader
                            .problems
                            .conflict(&one, &other, "the wait for a lock must be the shorter");
                    });
                }
                (wait, stall)
            }
            (Some(wait), None) if wait >= STALL => {
                let raised = wait + LOCK_WAIT;
                self.note(format!(
                    "the stall limit is {} s, longer than the wait for a lock",
                    raised.as_secs()
                ));
                (wait, raised)
            }
            (None, Some(stall)) if LOCK_WAIT >= stall => {
                let lowered = stall / 2;
                self.note(format!(
                    "the wait for a lock is {} ms, shorter than the stall limit",
                    lowered.as_millis()
                ));
                (lowered, stall)
            }
            (wait, stall) => (wait.unwrap_or(LOCK_WAIT), stall.unwrap_or(STALL)),
        }
    }

    fn log(&mut self) -> Log {
        let format = self.choice("LOG_FORMAT", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let (format_default, level) = match self.input.in_lambda {
            true => (LogFormat::Json, "info"),
            false => (LogFormat::Text, "warn"),
        };
        let filter = self.read("RUST_LOG", |text| specs::log_filter(text).map(|()| text.to_owned()));
        Log {
            format: format.unwrap_or(format_default),
            filter: filter.unwrap_or_else(|| level.to_owned()),
        }
    }
}

/// Whether a URL on the command line holds a password, which `ps` shows to everybody.
fn shows_password(url: &Value) -> bool {
    url.layer == Layer::Flags
        && crate::postgres::ConnectionInfo::parse_url(url.text()).is_ok_and(|info| info.password.is_some())
}

#[cfg(test)]
mod tests;
