//! From text to [`Settings`]: every value is looked at, and every problem is told, before anything
//! starts.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::layers::{self, Layer, Value, Values};
use super::specs::{self, Algorithm};
use super::{
    Aws, Checksums, Compression, Encryption, Format, Input, Log, LogFormat, Policy, Postgres, Retention, S3, Settings,
    StoreUrl, aliases, source, stores,
};
use crate::error::{Error, Result};

/// The level of `zstd` without one, and what `auto` means by it: in 1 MiB frames it gives no more
/// bytes than pg_dump's own default of 3, for a quarter less of the processor's time.
pub const ZSTD_LEVEL: i32 = 2;
/// The level of `gzip` without one: pg_dump's own default, so that the sizes compare.
pub const GZIP_LEVEL: u32 = 6;

/// An ordinary migration's statement is over by then; and it is well below the stall limit, so
/// that the error speaks of the lock and not of silence.
const LOCK_WAIT: Duration = Duration::from_secs(60);
const STALL: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const LEASE: Duration = Duration::from_secs(120);
const RETENTION_DAYS: u32 = 30;
const PART_SIZE: u64 = 8 << 20;
const SMALLEST_PART: u64 = 5 << 20;
const LARGEST_PART: u64 = 5 << 30;
const MOST_PARTS: u64 = 10_000;
const DEFAULT_STORE: &str = "./backups";

/// Everything that is wrong, to be told at once.
#[derive(Default)]
pub struct Problems {
    found: Vec<String>,
    hint: Option<String>,
}

impl Problems {
    pub fn add(&mut self, problem: String) {
        self.found.push(problem);
    }

    /// A module's own refusal of a value, under the setting's name; its hint counts while it is
    /// the only problem.
    pub fn add_error(&mut self, name: &str, error: &Error) {
        self.hint = Some(error.hint_text().to_owned());
        self.add(format!("{name}: {error}"));
    }

    pub fn conflict(&mut self, one: &Value, other: &Value, why: &str) {
        self.add(format!("{} and {} are in conflict: {why}", one.name, other.name));
    }

    fn into_result(self) -> Result<()> {
        let count = self.found.len();
        let text = self.found.join("; ");
        match (count, self.hint) {
            (0, _) => Ok(()),
            (1, Some(hint)) => Err(Error::config(text).hint(hint)),
            (1, None) => Err(Error::config(text)),
            _ => Err(Error::config(format!("{count} settings are wrong: {text}"))),
        }
    }
}

pub fn load(input: &Input) -> Result<Settings> {
    let mut problems = Problems::default();
    let mut notes = Vec::new();
    let mut values = layers::read(input, &mut problems, &mut notes);
    aliases::translate(&mut values, &mut problems, &mut notes);
    let mut reader = Reader {
        input,
        values,
        problems,
        notes,
    };
    let settings = reader.settings();
    reader.problems.into_result()?;
    Ok(Settings {
        notes: reader.notes,
        ..settings
    })
}

struct Reader<'a> {
    input: &'a Input,
    values: Values,
    problems: Problems,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn settings(&mut self) -> Settings {
        let source = source::resolve(&self.values, &mut self.problems, &mut self.notes);
        if self.values.get("DATABASE_URL").is_some_and(shows_password) {
            self.note(
                "the password in --database-url is visible to every user of this machine; set DATABASE_URL or DB_PASSWORD",
            );
        }
        let stores = self.stores();
        let retention = Retention {
            policy: self.policy(),
            keep_last: self.count("BACKUP_KEEP_LAST", 1..=10_000).unwrap_or(1),
        };
        let compression = self.compression();
        let format = self.choice("BACKUP_FORMAT", &[("custom", Format::Custom), ("plain", Format::Plain)]);
        let jobs = self.count("BACKUP_JOBS", 1..=64).unwrap_or(1);
        if jobs > 1 {
            self.note(format!(
                "{jobs} jobs asked for: this version reads the database with one stream"
            ));
        }
        let threads = self.count("BACKUP_THREADS", 1..=256);
        let postgres = self.postgres();
        let s3 = self.s3(&stores);
        let aws = self.aws();
        let sns_topic_arn = self.read("BACKUP_SNS_TOPIC_ARN", topic);
        let lease = self.read("BACKUP_LEASE_SECONDS", specs::duration).unwrap_or(LEASE);
        let md5 = self.switch("BACKUP_MD5").unwrap_or(false);
        let log = self.log();
        Settings {
            source,
            stores,
            retention,
            compression,
            format: format.unwrap_or(Format::Custom),
            jobs,
            threads: threads.unwrap_or(self.input.cpus.max(1)),
            postgres,
            s3,
            aws,
            sns_topic_arn,
            lease,
            md5,
            json: self.input.json,
            log,
            notes: Vec::new(),
        }
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// One value through its parser; what it says against the text is a problem of that setting.
    fn read<T, E: Display>(&mut self, variable: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let value = self.values.get(variable)?;
        match parse(value.text().trim()) {
            Ok(parsed) => Some(parsed),
            Err(why) => {
                let problem = format!("{}: {why}", value.name);
                self.problems.add(problem);
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

    fn compression(&mut self) -> Compression {
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
        if level.text().trim() == "0" {
            self.note(format!("{} alone: 0 means no compression", level.name));
            return Algorithm::None;
        }
        let level_read = self.read("BACKUP_COMPRESSION_LEVEL", specs::gzip_level);
        self.note(format!(
            "{} alone means gzip, as in the older systems; BACKUP_COMPRESSION=auto is smaller and faster",
            level.name
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
                    self.values.get("BACKUP_LOCK_WAIT_SECONDS"),
                    self.values.get("BACKUP_STALL_SECONDS"),
                );
                if let (true, (Some(one), Some(other))) = (wait >= stall, names) {
                    self.problems
                        .conflict(one, other, "the wait for a lock must be the shorter");
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

    fn s3(&mut self, stores: &[StoreUrl]) -> S3 {
        let max_parts = self.count("BACKUP_S3_MAX_PARTS", 1..=MOST_PARTS);
        let part_size = self.read("BACKUP_S3_PART_SIZE", |text| match specs::size(text)? {
            size if (SMALLEST_PART..=LARGEST_PART).contains(&size) => Ok(size),
            _ => Err(format!("{text:?} is not a size from 5MiB to 5GiB")),
        });
        let ours = self.choice(
            "BACKUP_S3_CHECKSUMS",
            &[
                ("always", Checksums::Always),
                ("when_required", Checksums::WhenRequired),
            ],
        );
        let sdk = self.choice(
            "AWS_REQUEST_CHECKSUM_CALCULATION",
            &[
                ("when_supported", Checksums::Always),
                ("when_required", Checksums::WhenRequired),
            ],
        );
        if ours.or(sdk) == Some(Checksums::WhenRequired)
            && stores.iter().any(|store| matches!(store, StoreUrl::S3 { .. }))
        {
            self.note("S3 checksums are sent only where required: what the store holds is compared less strictly");
        }
        let s3 = S3 {
            max_parts: max_parts
                .and_then(|parts| u32::try_from(parts).ok())
                .unwrap_or(MOST_PARTS as u32),
            part_size: part_size.unwrap_or(PART_SIZE),
            checksums: ours.or(sdk).unwrap_or(Checksums::Always),
            encryption: self.encryption(),
            storage_class: self.read("BACKUP_S3_STORAGE_CLASS", |text| {
                let plausible = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let valid = !text.is_empty() && text.chars().all(plausible);
                let class = text.to_ascii_uppercase();
                valid
                    .then_some(class)
                    .ok_or("expected a storage class such as STANDARD_IA")
            }),
            path_style: self.switch("BACKUP_S3_PATH_STYLE"),
        };
        s3
    }

    fn encryption(&mut self) -> Encryption {
        #[derive(Clone, Copy, PartialEq)]
        enum Method {
            S3,
            Kms,
        }
        let method = self.choice(
            "BACKUP_S3_SSE",
            &[("AES256", Method::S3), ("aws:kms", Method::Kms), ("kms", Method::Kms)],
        );
        let key_id = self.text("BACKUP_S3_KMS_KEY_ID");
        let names = (
            self.values.get("BACKUP_S3_SSE"),
            self.values.get("BACKUP_S3_KMS_KEY_ID"),
        );
        match (method, key_id) {
            (Some(Method::S3), Some(key_id)) => {
                if let (Some(one), Some(other)) = names {
                    if one.layer == other.layer {
                        self.problems.conflict(one, other, "AES256 uses no key of KMS");
                    } else if other.layer < one.layer {
                        return Encryption::SseKms { key_id: Some(key_id) };
                    }
                }
                Encryption::SseS3
            }
            (Some(Method::S3), None) => Encryption::SseS3,
            (None, None) => Encryption::Bucket,
            (_, key_id) => Encryption::SseKms { key_id },
        }
    }

    fn aws(&mut self) -> Aws {
        let region = self.text("AWS_REGION");
        let fallback = self.text("AWS_DEFAULT_REGION");
        let credentials = self.aws_credentials();
        let token = self
            .values
            .get("AWS_SESSION_TOKEN")
            .filter(|token| credentials.as_ref().is_some_and(|(id, _)| id.layer == token.layer));
        let session_token = token.map(|token| SecretString::from(token.text().trim()));
        let s3 = self.pair(aliases::S3_ACCESS_KEY, aliases::S3_SECRET_KEY);
        let text = |pair: &Option<(Value, Value)>| pair.as_ref().map(|(id, _)| id.text().trim().to_owned());
        let secret =
            |pair: &Option<(Value, Value)>| pair.as_ref().map(|(_, key)| SecretString::from(key.text().trim()));
        Aws {
            region: region.or(fallback),
            endpoint: self.read("AWS_ENDPOINT_URL", endpoint),
            endpoint_s3: self.read("AWS_ENDPOINT_URL_S3", endpoint),
            endpoint_secrets: self.read("AWS_ENDPOINT_URL_SECRETS_MANAGER", endpoint),
            endpoint_sns: self.read("AWS_ENDPOINT_URL_SNS", endpoint),
            access_key_id: text(&credentials),
            secret_access_key: secret(&credentials),
            session_token,
            s3_access_key_id: text(&s3),
            s3_secret_access_key: secret(&s3),
        }
    }

    /// Credentials that the SDK does not see by itself. Those of the environment stay with its own
    /// chain, whatever is in them, so that it can refresh them.
    fn aws_credentials(&mut self) -> Option<(Value, Value)> {
        const ID: &str = "AWS_ACCESS_KEY_ID";
        const KEY: &str = "AWS_SECRET_ACCESS_KEY";
        let ours = |value: Option<&Value>| value.is_some_and(|value| value.layer > Layer::Environment);
        if !ours(self.values.get(ID)) && !ours(self.values.get(KEY)) {
            return None;
        }
        let (id, key) = self.pair(ID, KEY)?;
        if id.layer != key.layer {
            self.problems
                .conflict(&id, &key, "two halves of one credential come from different places");
        }
        Some((id, key))
    }

    /// Two halves of one credential: both or neither.
    fn pair(&mut self, id: &str, key: &str) -> Option<(Value, Value)> {
        match (self.values.get(id), self.values.get(key)) {
            (Some(id), Some(key)) => Some((id.clone(), key.clone())),
            (Some(one), None) => {
                self.problems.add(format!("{}: {key} is missing beside it", one.name));
                None
            }
            (None, Some(one)) => {
                self.problems.add(format!("{}: {id} is missing beside it", one.name));
                None
            }
            (None, None) => None,
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

fn topic(text: &str) -> Result<String, &'static str> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        ["arn", partition, "sns", region, account, name]
            if partition.starts_with("aws") && ![*region, *account, *name].contains(&"") =>
        {
            Ok(text.to_owned())
        }
        _ => Err("expected the topic's ARN, such as arn:aws:sns:eu-central-1:123456789012:backups"),
    }
}

fn endpoint(text: &str) -> Result<String, &'static str> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .ok_or("expected a URL that starts with https:// or http://")?;
    let authority = rest.split('/').next().unwrap_or("");
    if authority.is_empty() || text.contains(char::is_whitespace) {
        return Err("the URL has no host");
    }
    if authority.contains('@') {
        return Err("an endpoint holds no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests;
