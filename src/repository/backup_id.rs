//! A backup's id, `<database>/<YYYYMMDDTHHMMSSZ>-<full|incr>`, and the names in its folder: the
//! one place that prints and parses them.

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
pub const SHA256SUMS: &str = "SHA256SUMS";
pub const MD5SUMS: &str = "MD5SUMS";
pub const MANIFEST: &str = "manifest.json";
/// The manifest's own digest, as `sha256sum -c` reads it.
pub const MANIFEST_DIGEST: &str = "manifest.json.sha256";
pub const VERIFICATION: &str = "verification.json";
/// As minisign names signatures.
const SIGNATURE_SUFFIX: &str = ".minisig";
const LEASE: &str = ".lease";

/// How far the clocks of two hosts may be apart. What is dated further ahead than this was made by a
/// clock that was wrong, or by somebody who wants it to pass for the newest.
pub const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What a backup holds: everything, or what changed since the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Full,
    Incremental,
}

impl Kind {
    /// As reports, manifests and options spell it; the id has a shorter form.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Full => "full",
            Kind::Incremental => "incremental",
        }
    }

    fn in_id(self) -> &'static str {
        match self {
            Kind::Full => "full",
            Kind::Incremental => "incr",
        }
    }
}

/// A text that is no kind of backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoKind;

impl FromStr for Kind {
    type Err = NoKind;

    /// As it is spelt, or as ids shorten it.
    fn from_str(text: &str) -> std::result::Result<Self, NoKind> {
        let known = [Kind::Full, Kind::Incremental].into_iter();
        let mut known = known.filter(|kind| [kind.name(), kind.in_id()].contains(&text));
        known.next().ok_or(NoKind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names one backup within a store. Ids of one database sort by age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId {
    /// As PostgreSQL knows it, not encoded; never empty.
    database: String,
    /// Whole seconds.
    timestamp: Timestamp,
    kind: Kind,
}

impl BackupId {
    /// The id for a run that starts `now`. Ids have a resolution of one second, and a clock may
    /// step back: the new one is always later than `newest`, which must be the newest folder of
    /// the database, with or without a manifest.
    pub fn next(database: &str, kind: Kind, now: Timestamp, newest: Option<&BackupId>) -> Self {
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

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it is dated in the future. Such a backup is never the newest one of anything.
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

    /// The archive's header and table of contents, offsets filled in.
    pub fn toc_name(&self) -> String {
        format!("{}.toc", encode(&self.database))
    }

    /// The plain script; `extension` is its compression's: empty, `.gz` or `.zst`.
    pub fn sql_name(&self, extension: &str) -> String {
        format!("{}.sql{extension}", encode(&self.database))
    }

    /// Whether pgstow itself gives this name to a file in the folder. Any other is somebody's own.
    pub fn makes(&self, name: &str) -> bool {
        const ALWAYS: [&str; 7] = [
            GLOBALS,
            SYSTEM_INFO,
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
            || [self.dump_name(), self.toc_name()]
                .into_iter()
                .chain(script())
                .any(|own| own == name)
            || [MANIFEST, VERIFICATION]
                .map(signature_name)
                .iter()
                .any(|own| own == name)
    }

    /// The id where only visible ASCII may stand, as in S3 metadata headers: percent-decoding
    /// gives the database's own name back.
    pub fn ascii(&self) -> String {
        // Spaces too: header values lose them at the ends, and signing folds runs of them.
        const HIDDEN: AsciiSet = CONTROLS.add(b' ');
        utf8_percent_encode(&self.to_string(), &HIDDEN).to_string()
    }

    /// Takes a key apart that lies directly in a backup's folder. `None` for any other key, and
    /// so for whatever somebody else keeps in the store.
    pub fn of_key(key: &str) -> Option<(BackupId, &str)> {
        let (id, file) = key.rsplit_once('/')?;
        if file.is_empty() {
            return None;
        }
        Some((id.parse().ok()?, file))
    }
}

/// The name of a file's signature, which lies beside it.
pub fn signature_name(file: &str) -> String {
    format!("{file}{SIGNATURE_SUFFIX}")
}

/// Whether a time is further in the future than clocks may differ.
pub fn is_ahead(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > SKEW
}

/// Whole seconds since `time`; none since one that is still to come.
pub fn age(time: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(time).as_secs().max(0)
}

/// The folder of all of a database's backups; ends in `/`, so that `shop/` is no prefix of `shop2/`.
pub fn database_folder(database: &str) -> String {
    format!("{}/", encode(database))
}

/// The key of the lease that a run on this database holds. No backup's folder can have this name,
/// nor can a database's.
pub fn lease_key(database: &str) -> String {
    format!("{}/{LEASE}", encode(database))
}

/// Whether it is some database's.
pub fn is_lease(key: &str) -> bool {
    key.rsplit('/').next() == Some(LEASE)
}

/// The database whose folder has this name, if it is one that we could have made.
pub fn database_of_folder(folder: &str) -> Option<String> {
    decode(folder)
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    // Euclid: towards the past on both sides of 1970.
    let seconds = time.as_nanosecond().div_euclid(1_000_000_000);
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(time)
}

/// A database's name as one path segment. Only what cannot stand in a file's name or an object's
/// key is escaped, so that people recognise their databases: the separators of any system, the
/// escape sign itself, control characters, the two code points that XML (and so an S3 listing)
/// cannot carry, and a leading dot, which would hide the folder or make it `..`.
///
/// PostgreSQL's names are at most 63 bytes long, so three times that and `.sql.zst.gpg` stay below
/// the 255 bytes of a file's name.
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

/// The inverse of [`encode`], and only that: text that `encode` does not make is refused, so that
/// no two folders mean the same database.
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
        "full" => Kind::Full,
        "incr" => Kind::Incremental,
        _ => return None,
    };
    Some(BackupId {
        database,
        timestamp: parse_time(time)?,
        kind,
    })
}

/// `YYYYMMDDTHHMMSSZ`, and nothing that merely resembles it.
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(database: &str) -> BackupId {
        BackupId::next(database, Kind::Full, "2025-01-31T04:05:00.987Z".parse().unwrap(), None)
    }

    #[test]
    fn the_id_is_database_and_start() {
        assert_eq!(id("shop").to_string(), "shop/20250131T040500Z-full");
        assert_eq!(id("shop").folder(), "shop/20250131T040500Z-full/");
        assert_eq!(id("shop").key(GLOBALS), "shop/20250131T040500Z-full/globals.sql");
        assert_eq!(id("shop").dump_name(), "shop.dump");
        assert_eq!(id("shop").sql_name(".zst"), "shop.sql.zst");
    }

    #[test]
    fn hostile_names_become_one_safe_segment_and_come_back() {
        for (database, folder) in [
            ("..", "%2E."),
            (".", "%2E"),
            (".lease", "%2Elease"),
            ("a/b\\c", "a%2Fb%5Cc"),
            ("100%", "100%25"),
            ("two\nlines\u{7f}", "two%0Alines%7F"),
            ("next\u{85}line", "next%C2%85line"),
            ("-rf *", "-rf *"),
            ("it's \"Ünïcode\" 🐘", "it's \"Ünïcode\" 🐘"),
            ("v1.2", "v1.2"),
        ] {
            assert_eq!(encode(database), folder);
            assert_eq!(database_of_folder(folder).as_deref(), Some(database));
            assert_eq!(id(database).to_string().parse(), Ok(id(database)));
        }
        assert_eq!(lease_key("a/b"), "a%2Fb/.lease");
        assert_eq!(database_folder("shop"), "shop/");
    }

    #[test]
    fn names_that_we_never_make_are_refused() {
        for folder in ["", "%2f", "%41", ".hidden", "a%2", "a%zz", "100%"] {
            assert_eq!(database_of_folder(folder), None, "{folder:?}");
        }
        for text in [
            "shop",
            "shop/",
            "shop/latest",
            "shop/20250131T040500Z",
            "shop/20250131T040500Z-FULL",
            "shop/20250131T040500Z-full/",
            "shop/20250230T040500Z-full",
            "shop/20250131T040560Z-full",
            "shop/20250131 040500Z-full",
            "shop/+0250131T040500Z-full",
            "shop/99991231T235959Z-full",
            "/20250131T040500Z-full",
            "a/b/20250131T040500Z-full",
        ] {
            assert!(text.parse::<BackupId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_files_that_we_make_are_told_from_others() {
        for name in [
            "shop.dump",
            "shop.toc",
            "shop.sql",
            "shop.sql.gz",
            "shop.sql.zst",
            GLOBALS,
            MANIFEST,
            MANIFEST_DIGEST,
            MD5SUMS,
        ] {
            assert!(id("shop").makes(name), "{name}");
        }
        for name in ["shop2.dump", "shop.dump.bak", "notes.txt", ".lease", "shop.sql.xz", ""] {
            assert!(!id("shop").makes(name), "{name}");
        }
        assert!(id("a/b").makes("a%2Fb.dump"));
    }

    #[test]
    fn a_header_gets_visible_ascii_only() {
        assert_eq!(id("Ü x%").ascii(), "%C3%9C%20x%25/20250131T040500Z-full");
    }

    #[test]
    fn a_second_run_within_the_second_or_after_a_clock_step_gets_a_later_id() {
        let now: Timestamp = "2025-01-31T04:05:00.2Z".parse().unwrap();
        let first = BackupId::next("shop", Kind::Incremental, now, None);
        let second = BackupId::next("shop", Kind::Full, now, Some(&first));
        assert_eq!(second.to_string(), "shop/20250131T040501Z-full");
        let earlier = now.checked_sub(SignedDuration::from_hours(5)).unwrap();
        let third = BackupId::next("shop", Kind::Full, earlier, Some(&second));
        assert_eq!(third.to_string(), "shop/20250131T040502Z-full");
    }

    #[test]
    fn a_key_is_ours_only_directly_in_a_backups_folder() {
        let key = "shop/20250131T040500Z-full/shop.dump";
        assert_eq!(BackupId::of_key(key), Some((id("shop"), "shop.dump")));
        for foreign in [
            "shop/.lease",
            "shop/notes.txt",
            "shop/20250131T040500Z-full",
            "shop/20250131T040500Z-full/",
            "shop/20250131T040500Z-full/deeper/shop.dump",
        ] {
            assert_eq!(BackupId::of_key(foreign), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn every_id_is_read_back_as_it_was_written(
            database in "\\PC{1,20}|[./\\\\%\\x00-\\x1f\\x7fa-z -]{1,63}|(?s:.){1,20}",
            second in 0_i64..253_370_764_800,
            incremental: bool,
        ) {
            let kind = if incremental { Kind::Incremental } else { Kind::Full };
            let id = BackupId::next(&database, kind, Timestamp::from_second(second).unwrap(), None);
            let text = id.to_string();
            prop_assert_eq!(text.parse::<BackupId>(), Ok(id.clone()));
            prop_assert_eq!(text.matches('/').count(), 1);
            prop_assert!(!text.starts_with('.'));
            prop_assert!(!text.chars().any(char::is_control));
            let visible = id.ascii();
            prop_assert!(visible.bytes().all(|byte| byte.is_ascii_graphic()));
            let decoded = percent_encoding::percent_decode_str(&visible).decode_utf8().unwrap().into_owned();
            let start = format!("{database}/");
            prop_assert!(decoded.starts_with(&start));
            if database.len() <= 63 {
                prop_assert!(id.sql_name(".zst.gpg").len() <= 255);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic_and_what_it_accepts_it_prints_the_same(text in "(?s:.){0,40}|[a%2Ef./]{0,6}/[0-9TZ-]{14,18}(full|incr)?") {
            if let Ok(id) = text.parse::<BackupId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn ids_of_one_database_sort_as_their_text_does(a in 0_i64..200_000_000_000, b in 0_i64..200_000_000_000) {
            let of = |second| BackupId::next("shop", Kind::Full, Timestamp::from_second(second).unwrap(), None);
            prop_assert_eq!(of(a).cmp(&of(b)), of(a).to_string().cmp(&of(b).to_string()));
        }
    }
}
