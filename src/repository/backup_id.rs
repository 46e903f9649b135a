//! A backup's id, `<database>/<YYYYMMDDTHHMMSSZ>-<full|incr>`, and the names in its folder. Only this module prints
//! and parses them.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub const GLOBALS: &str = "globals.sql";
pub const SYSTEM_INFO: &str = "system_info.json";
pub const CATALOG: &str = "catalog.json";
pub const SHA256SUMS: &str = "SHA256SUMS";
pub const MD5SUMS: &str = "MD5SUMS";
pub const MANIFEST: &str = "manifest.json";
/// The manifest's own digest, as `sha256sum -c` reads it.
pub const MANIFEST_DIGEST: &str = "manifest.json.sha256";
pub const VERIFICATION: &str = "verification.json";
/// As minisign names signatures.
const SIGNATURE_SUFFIX: &str = ".minisig";
const LEASE: &str = ".lease";
const INCREMENTS_LEASE: &str = ".lease-incremental";

/// How far the clocks of two hosts may differ. A backup that is dated further ahead was made with a wrong clock, or a
/// person forged the date so that it looks like the newest.
pub const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What a backup holds: everything, or the changes since the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupKind {
    #[default]
    Full,
    Incremental,
}

impl BackupKind {
    /// The word in reports, manifests and options; the id has a shorter form.
    pub fn name(self) -> &'static str {
        match self {
            BackupKind::Full => "full",
            BackupKind::Incremental => "incremental",
        }
    }

    fn in_id(self) -> &'static str {
        match self {
            BackupKind::Full => "full",
            BackupKind::Incremental => "incr",
        }
    }
}

/// A text that is not a kind of backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoKind;

impl FromStr for BackupKind {
    type Err = NoKind;

    /// Takes the word, or its short form in ids.
    fn from_str(text: &str) -> std::result::Result<Self, NoKind> {
        let known = [BackupKind::Full, BackupKind::Incremental].into_iter();
        let mut known = known.filter(|kind| [kind.name(), kind.in_id()].contains(&text));
        known.next().ok_or(NoKind)
    }
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names one backup within a store. Ids of one database sort by age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId {
    /// The name that PostgreSQL has, not encoded; never empty.
    database: String,
    /// Whole seconds.
    timestamp: Timestamp,
    kind: BackupKind,
}

impl BackupId {
    /// The id for a run that starts `now`. Ids have a resolution of one second, and a clock may step back. So the new
    /// id is always later than `newest`, which must be the newest folder of the database, with or without a manifest.
    pub fn next(database: &str, kind: BackupKind, now: Timestamp, newest: Option<&BackupId>) -> Self {
        let now = whole_seconds(now);
        let timestamp = match newest {
            Some(newest) if newest.timestamp >= now => newest
                .timestamp
                .checked_add(SignedDuration::from_secs(1))
                .unwrap_or(Timestamp::MAX),
            _ => now,
        };
        Self {
            database: database.to_owned(),
            timestamp,
            kind,
        }
    }

    pub fn database(&self) -> &str {
        &self.database
    }

    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    pub fn kind(&self) -> BackupKind {
        self.kind
    }

    /// Whether it is dated in the future. Such a backup never counts as the newest one.
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        is_ahead(self.timestamp, now)
    }

    /// The key prefix that all files of this backup share; ends in `/`.
    pub fn folder(&self) -> String {
        format!("{self}/")
    }

    /// The key of one of this backup's files.
    pub fn key(&self, file: &str) -> String {
        format!("{self}/{file}")
    }

    pub fn manifest_key(&self) -> String {
        self.key(MANIFEST)
    }

    /// The archive, in pg_dump's custom format.
    pub fn dump_name(&self) -> String {
        format!("{}.dump", encode(&self.database))
    }

    /// The archive's header and table of contents, with the offsets filled in.
    pub fn toc_name(&self) -> String {
        format!("{}.toc", encode(&self.database))
    }

    /// The plain script; `extension` depends on its compression: empty, `.gz` or `.zst`.
    pub fn sql_name(&self, extension: &str) -> String {
        format!("{}.sql{extension}", encode(&self.database))
    }

    /// An increment's changes, as zstd.
    pub fn changes_name(&self) -> String {
        format!("{}.changes", encode(&self.database))
    }

    /// An increment's definitions: an archive without data.
    pub fn schema_name(&self) -> String {
        format!("{}.schema", encode(&self.database))
    }

    /// Whether pgstow itself gives this name to a file in the folder. A file with any other name belongs to another
    /// person.
    pub fn makes(&self, name: &str) -> bool {
        const ALWAYS: [&str; 8] = [
            GLOBALS,
            SYSTEM_INFO,
            CATALOG,
            SHA256SUMS,
            MD5SUMS,
            MANIFEST,
            MANIFEST_DIGEST,
            VERIFICATION,
        ];
        let script = || {
            ["", ".gz", ".zst"]
                .into_iter()
                .map(|extension| self.sql_name(extension))
        };
        ALWAYS.contains(&name)
            || [
                self.dump_name(),
                self.toc_name(),
                self.changes_name(),
                self.schema_name(),
            ]
            .into_iter()
            .chain(script())
            .any(|own| own == name)
            || [MANIFEST, VERIFICATION]
                .map(signature_name)
                .iter()
                .any(|own| own == name)
    }

    /// The id in visible ASCII only, as S3 metadata headers need it. Percent-decoding gives the database's own name
    /// back.
    pub fn ascii(&self) -> String {
        // Spaces are encoded too: header values lose them at the ends, and signing merges runs of them.
        const HIDDEN: AsciiSet = CONTROLS.add(b' ');
        utf8_percent_encode(&self.to_string(), &HIDDEN).to_string()
    }

    /// Splits the key of a file directly in a backup's folder. `None` for any other key, and so for files that other
    /// people keep in the store.
    pub fn of_key(key: &str) -> Option<(BackupId, &str)> {
        let (id, file) = key.rsplit_once('/')?;
        if file.is_empty() {
            return None;
        }
        Some((id.parse().ok()?, file))
    }
}

/// The name of a file's signature, which is beside the file.
pub fn signature_name(file: &str) -> String {
    format!("{file}{SIGNATURE_SUFFIX}")
}

/// Whether a time is further in the future than clocks may differ.
pub fn is_ahead(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > SKEW
}

/// Whole seconds since `time`; 0 if that time is still to come.
pub fn age(time: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(time).as_secs().max(0)
}

/// The folder of all of a database's backups; ends in `/`, so that `shop/` is no prefix of `shop2/`.
pub fn database_folder(database: &str) -> String {
    format!("{}/", encode(database))
}

/// The key of the lease of this database. No backup's folder and no database's folder can have this name.
pub fn lease_key(database: &str) -> String {
    lease_key_of(database, BackupKind::Full)
}

/// The key of the lease under which backups of this kind are made. Fulls and increments have one each, so that a long
/// full does not keep increments from being made.
pub fn lease_key_of(database: &str, kind: BackupKind) -> String {
    let name = match kind {
        BackupKind::Full => LEASE,
        BackupKind::Incremental => INCREMENTS_LEASE,
    };
    format!("{}/{name}", encode(database))
}

/// The database whose folder has this name, if `encode` can have made the name.
pub fn database_of_folder(folder: &str) -> Option<String> {
    decode(folder)
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    // Euclidean division rounds towards the past, both before and after 1970.
    let seconds = time.as_nanosecond().div_euclid(1_000_000_000);
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(time)
}

/// A database's name as one path segment. Only characters that a file's name or an object's key cannot have are
/// escaped, so that people recognise their databases: the separators of any system, the escape sign itself, control
/// characters, the two code points that XML (and so an S3 listing) cannot hold, and a leading dot, which would hide
/// the folder or make it `..`.
///
/// PostgreSQL's names are at most 63 bytes long, so three times that and `.sql.zst.gpg` are less than the 255 bytes
/// of a file's name.
fn encode(database: &str) -> String {
    let mut text = String::with_capacity(database.len());
    for (at, char) in database.char_indices() {
        let escape =
            matches!(char, '/' | '\\' | '%' | '\u{fffe}' | '\u{ffff}') || char.is_control() || (at == 0 && char == '.');
        if escape {
            for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
        } else {
            text.push(char);
        }
    }
    text
}

/// The inverse of [`encode`]. Refuses text that `encode` does not make, so that no two folders mean the same
/// database.
fn decode(text: &str) -> Option<String> {
    let database = percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .ok()?
        .into_owned();
    (!database.is_empty() && encode(&database) == text).then_some(database)
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = TimeZone::UTC.to_datetime(self.timestamp);
        write!(
            f,
            "{}/{:04}{:02}{:02}T{:02}{:02}{:02}Z-{}",
            encode(&self.database),
            time.year(),
            time.month(),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            self.kind.in_id()
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a backup id such as shop/20250131T040500Z-full")]
pub struct NotAnId(String);

impl FromStr for BackupId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        parse(text).ok_or_else(|| NotAnId(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<BackupId> {
    let (folder, stamp) = text.split_once('/')?;
    let database = decode(folder)?;
    let (time, kind) = stamp.split_once('-')?;
    let kind = match kind {
        "full" => BackupKind::Full,
        "incr" => BackupKind::Incremental,
        _ => return None,
    };
    Some(BackupId {
        database,
        timestamp: parse_time(time)?,
        kind,
    })
}

/// Accepts `YYYYMMDDTHHMMSSZ` and no other spelling.
fn parse_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| {
        bytes[from..to].iter().try_fold(0_i16, |sum, digit| {
            digit.is_ascii_digit().then(|| sum * 10 + i16::from(digit - b'0'))
        })
    };
    let small = |from: usize| number(from, from + 2).and_then(|value| i8::try_from(value).ok());
    let time = DateTime::new(
        number(0, 4)?,
        small(4)?,
        small(6)?,
        small(9)?,
        small(11)?,
        small(13)?,
        0,
    )
    .ok()?;
    TimeZone::UTC.to_timestamp(time).ok()
}

impl Serialize for BackupId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BackupId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
