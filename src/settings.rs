//! Settings: read raw from four layers, validated together once, typed from then on.
//!
//! `table` names every setting, `layers` reads them, `aliases` knows the variable names of older
//! systems, `unknown` those of none, `parse` turns text into the types below and reports every problem at once.

mod aliases;
pub(crate) mod dotenv;
mod found_file;
mod known;
mod layers;
mod libpq;
mod parse;
mod problems;
mod secret_file;
mod setting;
mod source;
mod specs;
mod stores;
mod table;
mod unknown;
mod uses;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::dataflow::budget::Shares;
use crate::error::Result;
use crate::postgres::{ConnectionInfo, Keys};

pub use crate::format::Format;
pub use crate::outside::aws::settings::{Aws, Checksums};
pub use crate::outside::handover::ContainerTask;
pub use crate::outside::metrics::settings::{MetricLines, Metrics};
pub use crate::postgres::settings::Postgres;
pub use crate::repository::retention::{Policy, Retention};
pub use crate::repository::signature::settings::{KeySource, Signing};
pub use crate::run::telemetry::{Log, LogFormat};
pub use crate::store::settings::{Encryption, S3, StoreCreate, Tagging};
pub use known::is_secret;
pub use parse::{GZIP_LEVEL, ZSTD_LEVEL};
pub use setting::{Kind, Setting, nearest};
pub use table::SETTINGS;
pub use uses::Uses;

/// All that settings are made of: a face gathers it, so that nothing below touches the process.
#[derive(Default)]
pub struct Input {
    /// Values of flags, keyed by the setting's variable ([`SETTINGS`]).
    pub flags: BTreeMap<&'static str, Vec<String>>,
    /// The process environment.
    pub env: BTreeMap<String, String>,
    /// `.env` is looked for here, and relative paths start here.
    pub working_dir: PathBuf,
    /// `--env-file`; else `BACKUP_ENV_FILE`, else `.env` where there is one.
    pub env_file: Option<PathBuf>,
    /// `--config`; else `BACKUP_CONFIG`.
    pub config_file: Option<PathBuf>,
    /// What this process may use: the default number of compression threads.
    pub cpus: usize,
    /// Bytes that this process may use, where it is known: what the default of `BACKUP_MEMORY` goes by.
    pub memory: Option<u64>,
    /// In Lambda there is no folder that outlives the run, so a store has to be named.
    pub in_lambda: bool,
    pub json: bool,
    /// What the command needs.
    pub uses: Uses,
}

/// Everything that a command may need to know, valid as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    pub source: Source,
    /// What a restore fills.
    pub target: Source,
    /// How we prove there who we are.
    pub auth: Auth,
    pub target_auth: Auth,
    pub stores: Vec<StoreUrl>,
    pub retention: Retention,
    /// How old the last good backup may be before a person is called for.
    pub max_age: Duration,
    pub schedule: Schedule,
    pub compression: Compression,
    pub format: Format,
    pub on_changed_tables: OnChangedTables,
    /// Streams read from, or restored into, the database at once.
    pub jobs: usize,
    /// Compression threads.
    pub threads: usize,
    /// What a backup may have in memory, by what it is for.
    pub memory: Shares,
    /// Bytes per second that are read from the database at most.
    pub max_rate: Option<u64>,
    pub nice: Option<Nice>,
    pub postgres: Postgres,
    pub s3: S3,
    pub aws: Aws,
    /// Topic for the message on how a run ended.
    pub sns_topic_arn: Option<String>,
    /// Who makes a backup for which a function has not the time.
    pub handover: Option<ContainerTask>,
    /// Whether an event may ask for a restore.
    pub allow_restore: bool,
    /// Whether an event may ask for a drill.
    pub allow_drill: bool,
    /// A drill is run although this system cannot confine the throwaway server.
    pub drill_unconfined: bool,
    pub metrics: Metrics,
    /// How long a lease holds without being renewed.
    pub lease: Duration,
    pub md5: bool,
    /// The database is that of the backups in the store, although its server is another.
    pub adopt: bool,
    pub store_create: StoreCreate,
    /// What this machine remembers between runs, if it can.
    pub state_dir: Option<PathBuf>,
    pub json: bool,
    pub log: Log,
    pub signing: Signing,
    /// What a person should see to although the settings hold: told whatever the log shows.
    pub warnings: Vec<String>,
    /// What is wrong, where the command only shows it.
    pub problems: Vec<String>,
    /// What was adjusted or understood in an older way: said once, in the report and the log.
    pub notes: Vec<String>,
    /// Those of the notes that say that something has no effect as it was given.
    pub cautions: Vec<String>,
}

impl Settings {
    /// Reads and validates everything at once. All problems come in one `CONFIG` error, each with
    /// the setting's name and where it was set, none with a secret.
    pub fn load(input: &Input) -> Result<Settings> {
        parse::load(input)
    }

    /// Whether a service of AWS is asked for anything once the database's credentials are forgotten.
    pub fn uses_aws(&self) -> bool {
        let in_bucket = |store: &StoreUrl| matches!(store, StoreUrl::S3 { .. });
        self.stores.iter().any(in_bucket) || self.sns_topic_arn.is_some() || self.signing.uses_kms()
    }

    /// For a run that reads no database: what it does not hold cannot be taken from it.
    pub fn forget_passwords(&mut self) {
        self.target = Source::None;
        (self.auth, self.target_auth) = (Auth::Password, Auth::Password);
        if let Source::Direct(info) | Source::Secret { overrides: info, .. } = &mut self.source {
            info.password = None;
            info.keys = Keys::Given;
            info.params.clear();
        }
    }
}

/// When a backup that is to disturb nobody pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nice {
    pub max_lag: Duration,
    /// Active ones, of others.
    pub max_sessions: u64,
}

/// Where the credentials come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Given as a URL or as `DB_*` variables.
    Direct(ConnectionInfo),
    /// In Secrets Manager; `overrides` are the parts that settings name themselves
    /// (`DB_NAME` beside a secret without `dbname`, `sslmode`), `defaults` those that count only where the
    /// secret has none, `beside` the settings that give those: libpq's name of the part, and the setting's.
    /// `unusable` are parts that a setting gives wrongly, and why: no matter where the secret has them.
    Secret {
        id: String,
        overrides: ConnectionInfo,
        defaults: Box<ConnectionInfo>,
        beside: Vec<(&'static str, String)>,
        unusable: Vec<(&'static str, String)>,
    },
    /// None given: commands that work on the store alone do not need one.
    None,
}

/// What proves to the database who we are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Auth {
    /// A password, wherever it comes from.
    #[default]
    Password,
    /// A token that AWS's credentials sign, as RDS's IAM login asks for.
    Iam,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    Folder(PathBuf),
    S3 { bucket: String, prefix: String },
}

/// When backups are made, in cron's words, where the settings say so.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Schedule {
    pub full: Option<String>,
    pub incremental: Option<String>,
    pub cleanup: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// zstd where the archive version can carry it, else gzip.
    Auto,
    Zstd(i32),
    Gzip(u32),
    None,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::Auto => f.write_str("auto"),
            Compression::Zstd(level) => write!(f, "zstd:{level}"),
            Compression::Gzip(level) => write!(f, "gzip:{level}"),
            Compression::None => f.write_str("none"),
        }
    }
}

/// What becomes of a backup whose snapshot does not see the rows of some tables, because they were
/// emptied or rewritten before their locks, in every attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChangedTables {
    Fail,
    /// It counts, and names them.
    Warn,
}
