//! Settings: read as text from four layers, validated together once, and typed from then on.
//!
//! `table` names every setting, `layers` reads them, `aliases` knows the variable names of older systems, `unknown`
//! warns about names that are no setting, `parse` turns text into the types below and reports every problem at once.

mod aliases;
pub(crate) mod dotenv;
mod found_file;
mod known;
mod layers;
mod libpq;
mod parse;
mod problems;
mod secret_file;
pub mod serve;
mod setting;
mod source;
mod span;
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
pub use crate::outside::notify::Channel;
pub use crate::postgres::is_connection_url;
pub use crate::postgres::settings::Postgres;
pub use crate::repository::retention::{Policy, Retention};
pub use crate::repository::signature::settings::{KeySource, Signing};
pub use crate::run::telemetry::{Log, LogFormat};
pub use crate::store::settings::{Encryption, S3, StoreCreate, TagMode};
pub use known::is_secret;
pub use parse::compression::{GZIP_LEVEL, ZSTD_LEVEL};
pub use serve::Serve;
pub use setting::{Setting, ValueKind, nearest};
pub use span::parse_span;
pub use table::SETTINGS;
pub use uses::Uses;

/// Everything from which settings are made. A face gathers it, so that nothing below reads the process itself.
#[derive(Default)]
pub struct Input {
    /// Values of flags, keyed by the setting's variable ([`SETTINGS`]).
    pub flags: BTreeMap<&'static str, Vec<String>>,
    /// The process environment.
    pub env: BTreeMap<String, String>,
    /// The folder in which pgstow looks for `.env`, and where relative paths start.
    pub working_dir: PathBuf,
    /// `--env-file`, else `BACKUP_ENV_FILE`, else `.env` if there is one.
    pub env_file: Option<PathBuf>,
    /// `--config`; else `BACKUP_CONFIG`.
    pub config_file: Option<PathBuf>,
    /// How many CPUs this process may use: the default number of compression threads.
    pub cpus: usize,
    /// How many bytes of memory this process may use, if that is known. The default of `BACKUP_MEMORY` depends on it.
    pub memory: Option<u64>,
    /// In Lambda no folder outlives the run, so the settings must name a store.
    pub in_lambda: bool,
    /// Whether reports are printed as JSON.
    pub json: bool,
    /// Which settings the command uses.
    pub uses: Uses,
}

/// Everything that a command may need to know, valid as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The databases to read. A user can name only one today; each of them gets its own `App`.
    pub sources: Vec<Database>,
    /// The databases that a restore fills; also only one today.
    pub targets: Vec<Database>,
    /// The first is the primary.
    pub stores: Vec<StoreUrl>,
    /// Which backups are kept, and for how long.
    pub retention: Retention,
    /// How old the last good backup may be before `status` says that a person has to act.
    pub max_age: Duration,
    /// The same for the newest increment, of a database that has some.
    pub incremental_max_age: Duration,
    /// When backups are due, as far as that is known.
    pub schedule: Schedule,
    /// How the archive is compressed.
    pub compression: Compression,
    /// Which of pg_dump's formats a backup has.
    pub format: Format,
    /// What a backup does if a table was emptied or rewritten before it was locked.
    pub on_changed_tables: OnChangedTables,
    /// What `backup --kind incremental` makes.
    pub incremental: Incremental,
    /// How many streams pgstow reads from the database, or restores into it, at once.
    pub jobs: usize,
    /// Compression threads.
    pub threads: usize,
    /// How much memory a backup may use, divided by purpose.
    pub memory: Shares,
    /// The memory of this task, if that is known.
    pub task_memory: Option<u64>,
    /// How many bytes per second a backup may read from the database.
    pub max_rate: Option<u64>,
    /// When a backup pauses to spare the server.
    pub nice: Option<Nice>,
    /// PostgreSQL's programs, and the limits of sessions.
    pub postgres: Postgres,
    /// How objects are stored in S3.
    pub s3: S3,
    /// How AWS's services are reached.
    pub aws: Aws,
    /// Where pgstow sends the result of a run.
    pub channels: Vec<Channel>,
    /// The container task that makes a backup if the Lambda function does not have the time for it.
    pub handover: Option<ContainerTask>,
    /// Whether an event may ask for a restore.
    pub allow_restore: bool,
    /// Whether an event may ask for a drill.
    pub allow_drill: bool,
    /// Whether a drill runs even if this system cannot confine the throwaway server.
    pub drill_unconfined: bool,
    /// Where the numbers of a run go.
    pub metrics: Metrics,
    /// How long a lease is valid if the run does not renew it.
    pub lease: Duration,
    /// Whether a backup also stores MD5SUMS.
    pub md5: bool,
    /// Prove once for each full backup that the increments since the full before lead exactly to it.
    pub prove_chain: bool,
    /// The user confirms that the database is that of the backups in the store, although its server is a different one.
    pub adopt: bool,
    /// What a backup does in an empty folder store.
    pub store_create: StoreCreate,
    /// The folder for what this machine remembers between runs, if it has one.
    pub state_dir: Option<PathBuf>,
    /// How `serve` is reached, and by whom.
    pub serve: Serve,
    /// Whether reports are printed as JSON.
    pub json: bool,
    /// The format and level of logs.
    pub log: Log,
    /// The key that signs, and the keys that are trusted.
    pub signing: Signing,
    /// Warnings about settings that are valid. pgstow prints them whatever the log's level is.
    pub warnings: Vec<String>,
    /// Problems that the command only shows (`doctor`).
    pub problems: Vec<String>,
    /// What pgstow adjusted, or read as an older system did. The report and the log say it once.
    pub notes: Vec<String>,
    /// Those of the notes which say that a setting has no effect.
    pub cautions: Vec<String>,
}

impl Settings {
    /// Reads and validates everything at once. One `CONFIG` error lists all problems, each with the setting's name
    /// and where it was set, none with a secret.
    pub fn load(input: &Input) -> Result<Settings> {
        parse::load(input)
    }

    /// The login of the database that a backup reads.
    pub fn source(&self) -> &CredentialSource {
        self.sources
            .first()
            .map_or(&CredentialSource::None, |database| &database.login)
    }

    /// The login of the database that a restore fills.
    pub fn target(&self) -> &CredentialSource {
        self.targets
            .first()
            .map_or(&CredentialSource::None, |database| &database.login)
    }

    /// Whether the run still uses a service of AWS after [`Settings::forget_passwords`].
    pub fn uses_aws(&self) -> bool {
        let in_bucket = |store: &StoreUrl| matches!(store, StoreUrl::S3 { .. });
        self.stores.iter().any(in_bucket) || !self.channels.is_empty() || self.signing.uses_kms()
    }

    /// For a run that reads no database: an attacker cannot take from its memory what is not there.
    pub fn forget_passwords(&mut self) {
        self.targets.clear();
        for database in &mut self.sources {
            database.auth = Auth::Password;
            if let CredentialSource::Direct(info) | CredentialSource::Secret { overrides: info, .. } =
                &mut database.login
            {
                info.password = None;
                info.keys = Keys::Given;
                info.params.clear();
            }
        }
    }
}

/// When a backup with `--nice` pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nice {
    pub max_lag: Duration,
    /// How many sessions of others may be active.
    pub max_sessions: u64,
}

/// A database, and how pgstow logs in to it.
#[derive(Debug, Clone)]
pub struct Database {
    pub login: CredentialSource,
    pub auth: Auth,
}

impl Database {
    /// The database that the user has named, as a list; empty if there is none.
    fn listed(login: CredentialSource, auth: Auth) -> Vec<Self> {
        let named = !matches!(login, CredentialSource::None) || auth != Auth::Password;
        named.then_some(Self { login, auth }).into_iter().collect()
    }

    pub fn is_in_a_secret(&self) -> bool {
        matches!(self.login, CredentialSource::Secret { .. })
    }
}

/// Where the credentials come from.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// Given as a URL or as `DB_*` variables.
    Direct(ConnectionInfo),
    /// In Secrets Manager.
    ///
    /// - `overrides`: parts that settings give and that replace those of the secret (`DB_NAME`, `sslmode`).
    /// - `defaults`: parts that settings give and that count only if the secret lacks them.
    /// - `beside`: the settings that give these defaults, as libpq's name of the part and the setting's name.
    /// - `unusable`: parts whose setting is wrong, and why. They are an error only if the secret lacks the part.
    Secret {
        id: String,
        overrides: ConnectionInfo,
        defaults: Box<ConnectionInfo>,
        beside: Vec<(&'static str, String)>,
        unusable: Vec<(&'static str, String)>,
    },
    /// The settings give none. Commands that use only the store need none.
    None,
}

/// With what pgstow logs in to the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Auth {
    /// A password, from any source.
    #[default]
    Password,
    /// A token that is signed with AWS credentials, for RDS's IAM login.
    Iam,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    Folder(PathBuf),
    S3 { bucket: String, prefix: String },
}

/// When backups are made, in cron's syntax, if the settings say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Schedule {
    pub full: Option<String>,
    pub incremental: Option<String>,
    pub cleanup: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// zstd if the archive's version allows it, else gzip.
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

/// What `backup --kind incremental` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incremental {
    /// An increment: the changes in the stream of a replication slot.
    Slot,
    /// Where no slot may be made: a full backup that refers to the last one for the tables that did not change.
    Reference,
}

/// How a backup ends if its snapshot does not see the rows of some tables, because in every attempt they were emptied
/// or rewritten before pgstow had their locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChangedTables {
    Fail,
    /// The backup counts, and names these tables.
    Warn,
}
