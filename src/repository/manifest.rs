//! `manifest.json`: the commit record of a backup. A backup exists if and only if its manifest
//! does; everything that a restore or a proof needs to know stands in it.

mod blocks;
mod bounded;
mod collations;
mod extensions;
mod figures;
mod tagged;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{BackupId, Kind};
use crate::repository::retention::Tier;
use crate::settings::{Format, Trigger};
use crate::store::{Part, StoreChecksum};

pub use blocks::{LargeObjectsRecord, RangeRecord, ScriptRecord, TableRecord, Way};
pub use collations::{Collation, sorted_otherwise};
pub use extensions::Extension;
pub use figures::{Count, Figures, Kinds, Tally};
pub use tagged::Tagged;

/// The schema that this program writes, and the newest that it reads.
pub const SCHEMA: u32 = 1;
/// Of a file, in bytes, on every file system.
const LONGEST_NAME: usize = 255;

/// The keys of [`Manifest::files`]. A backup has either a dump or a script.
pub mod role {
    pub const DUMP: &str = "dump";
    pub const SQL: &str = "sql";
    pub const TOC: &str = "toc";
    pub const GLOBALS: &str = "globals";
    pub const SYSTEM_INFO: &str = "system_info";
}

/// Fields that a later version adds are passed over when reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub schema: u32,
    pub id: BackupId,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// When the run started; the id's time.
    pub timestamp: Timestamp,
    pub finished_at: Timestamp,
    /// Of the pgstow that made it.
    pub version: String,
    pub database: String,
    pub trigger: Trigger,
    /// The file beside it that holds its own digest: whether there must be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest_file: Option<String>,
    /// The newest backup of the database that this store held before: each manifest vouches for the one
    /// before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<Predecessor>,
    /// The store that it was made for: in another, it was copied there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The run's primary, and the copies that held backups of the database before: one that is found without
    /// any later has lost them.
    #[serde(default, deserialize_with = "bounded::stores", skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<String>,
    /// The object tags of its files in that store. `None`: a folder, or an older version did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tagged>,
    /// The event that asked for it: delivered again, it finds this backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    pub server: Server,
    pub pg_dump: PgDump,
    #[serde(with = "format_name", default = "custom")]
    pub format: Format,
    pub compression: Compression,
    pub snapshot: Snapshot,
    pub tier: Tier,
    /// `null`: not encrypted.
    #[serde(default, deserialize_with = "bounded::option")]
    pub encryption: Option<serde_json::Value>,
    #[serde(deserialize_with = "bounded::few")]
    pub files: BTreeMap<String, FileRecord>,
    /// What should have been saved beside the data and could not be, by role, and why.
    #[serde(
        default,
        deserialize_with = "bounded::few",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub missing: BTreeMap<String, String>,
    /// What is in the database and not in the backup, as far as that is known.
    #[serde(default, deserialize_with = "bounded::items", skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// The database's, by name. `None`: an older version, or a server, did not say.
    #[serde(
        default,
        deserialize_with = "bounded::known_items",
        skip_serializing_if = "Option::is_none"
    )]
    pub extensions: Option<Vec<Extension>>,
    /// Those that the database uses and that have versions. `None`: an older version, or a server, did not say.
    #[serde(
        default,
        deserialize_with = "bounded::known_items",
        skip_serializing_if = "Option::is_none"
    )]
    pub collations: Option<Vec<Collation>>,
    /// What a person should look at although the backup is good, as it was known at the commit.
    #[serde(default, deserialize_with = "bounded::items", skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Of a plain script that was counted as it was written. Without it, as older versions wrote them, a plain
    /// backup's `tables` are empty and say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<ScriptRecord>,
    #[serde(default)]
    pub tables: Vec<TableRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub large_objects: Vec<LargeObjectsRecord>,
    /// The archive's parts in the primary store: what its composite checksum is made of.
    #[serde(default)]
    pub parts: Vec<Part>,
    /// The archive's checksum as the primary store reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_checksum: Option<StoreChecksum>,
    /// Sizes, durations, host, rates.
    #[serde(default, deserialize_with = "bounded::map")]
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// By role, `sha256:` and hex digits: [`checksums`] of `files`.
    #[serde(default, deserialize_with = "bounded::few")]
    pub checksums: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    pub version: String,
    pub version_num: u32,
    pub encoding: String,
    /// Where the role may read it. As text: 64 bits do not survive every JSON reader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// Of the database; says something where the identifier cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_oid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    pub id: BackupId,
    /// Hex digits.
    pub manifest_sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgDump {
    pub version: String,
    /// Such as `1.16`; none for a plain script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_version: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    None,
    Gzip,
    Zstd,
}

impl Algorithm {
    /// What a plain script compressed so has at the end of its name.
    pub fn extension(self) -> &'static str {
        match self {
            Algorithm::None => "",
            Algorithm::Gzip => ".gz",
            Algorithm::Zstd => ".zst",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    pub algorithm: Algorithm,
    pub level: i32,
}

/// The exported snapshot that pg_dump read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// As PostgreSQL prints it: `0/1A2B3C4`.
    pub lsn: Option<String>,
    pub xmin: u64,
    pub xmax: u64,
    #[serde(deserialize_with = "bounded::list")]
    pub xip: Vec<u64>,
}

/// Something that a restore of this backup will not bring back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Such as `subscription` or `extension_table`; later versions may have more.
    pub kind: String,
    pub name: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Within the backup's folder.
    pub name: String,
    pub bytes: u64,
    /// Hex digits.
    pub sha256: String,
}

/// What lists, plans and tags need of a manifest: reading it skips the tables, of which there may
/// be thousands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub id: BackupId,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub timestamp: Timestamp,
    pub finished_at: Timestamp,
    pub tier: Tier,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest_file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    #[serde(deserialize_with = "bounded::few")]
    pub files: BTreeMap<String, FileRecord>,
    /// Sizes, durations, host, rates.
    #[serde(default, deserialize_with = "bounded::map")]
    pub metadata: BTreeMap<String, serde_json::Value>,
}

/// Why a manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("{0}")]
    Unreadable(String),
    #[error("manifest.json is not JSON: {0}")]
    NotJson(String),
    #[error("manifest.json has schema {0}, this pgstow reads up to {SCHEMA}: a newer pgstow made this backup")]
    NewerSchema(u64),
    #[error("manifest.json is not a manifest: {0}")]
    Shape(String),
    #[error("manifest.json speaks of {claimed}: it was copied or moved")]
    OtherBackup { claimed: BackupId },
    #[error("{0}")]
    Altered(String),
    #[error("manifest.json names a file that cannot be in its folder: {0:?}")]
    FileName(String),
}

impl Broken {
    /// For a command that wanted exactly this backup.
    pub fn into_error(self, id: &BackupId) -> Error {
        let hint = match self {
            Broken::NewerSchema(_) => Some("use the version of pgstow that made it, or a newer one"),
            Broken::Altered(_) => Some(
                "use another backup, or a copy of this one; where the report, the message or the log of the run that made \
                 it says this digest (`manifest_sha256`), give it as --expect-manifest: then the manifest is good",
            ),
            _ => None,
        };
        let error = Error::new(Code::Integrity, format!("cannot use backup {id}")).source(self);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl Manifest {
    /// The file's bytes: the same manifest always gives the same ones.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::internal("cannot write the manifest as JSON").source(error))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads the manifest found in `id`'s folder.
    pub fn parse(bytes: &[u8], id: &BackupId) -> Result<Self, Broken> {
        let manifest: Self = parse(bytes)?;
        check(id, &manifest.id, &manifest.files)?;
        Ok(manifest)
    }

    pub fn summary(&self) -> Summary {
        Summary {
            id: self.id.clone(),
            kind: self.kind,
            timestamp: self.timestamp,
            finished_at: self.finished_at,
            tier: self.tier,
            event_id: self.event_id.clone(),
            digest_file: self.digest_file.clone(),
            store: self.store.clone(),
            files: self.files.clone(),
            metadata: self.metadata.clone(),
        }
    }
}

impl Summary {
    /// Reads what matters of the manifest found in `id`'s folder.
    pub fn parse(bytes: &[u8], id: &BackupId) -> Result<Self, Broken> {
        let summary: Self = parse(bytes)?;
        check(id, &summary.id, &summary.files)?;
        Ok(summary)
    }
}

/// What [`Manifest::checksums`] says about these files.
pub fn checksums(files: &BTreeMap<String, FileRecord>) -> BTreeMap<String, String> {
    files
        .iter()
        .map(|(role, file)| (role.clone(), format!("sha256:{}", file.sha256)))
        .collect()
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Broken> {
    #[derive(Deserialize)]
    struct Schema {
        schema: u64,
    }
    // First, because a newer schema may have any shape beside this field.
    let schema: Schema = serde_json::from_slice(bytes).map_err(|error| broken(&error))?;
    if schema.schema > u64::from(SCHEMA) {
        return Err(Broken::NewerSchema(schema.schema));
    }
    serde_json::from_slice(bytes).map_err(|error| broken(&error))
}

fn broken(error: &serde_json::Error) -> Broken {
    match error.classify() {
        serde_json::error::Category::Data => Broken::Shape(error.to_string()),
        _ => Broken::NotJson(error.to_string()),
    }
}

fn check(folder: &BackupId, claimed: &BackupId, files: &BTreeMap<String, FileRecord>) -> Result<(), Broken> {
    if folder != claimed {
        return Err(Broken::OtherBackup {
            claimed: claimed.clone(),
        });
    }
    // These names become keys and paths: one that climbs out of the folder must go no further.
    for file in files.values() {
        let climbs = matches!(file.name.as_str(), "" | "." | "..")
            || file.name.contains(['/', '\\', '\0'])
            || file.name.len() > LONGEST_NAME;
        if climbs {
            return Err(Broken::FileName(file.name.clone()));
        }
    }
    Ok(())
}

/// The settings' own type, spelled as the option spells it.
pub(crate) mod format_name {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::settings::Format;

    pub fn serialize<S: Serializer>(format: &Format, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match format {
            Format::Custom => "custom",
            Format::Plain => "plain",
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Format, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "custom" => Ok(Format::Custom),
            "plain" => Ok(Format::Plain),
            other => Err(de::Error::unknown_variant(other, &["custom", "plain"])),
        }
    }
}

fn custom() -> Format {
    Format::Custom
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A whole manifest for the tests of this crate.
    pub(crate) fn sample(id: &BackupId, tier: Tier) -> Manifest {
        let files = BTreeMap::from([
            (
                role::DUMP.to_owned(),
                FileRecord {
                    name: id.dump_name(),
                    bytes: 4,
                    sha256: "11".repeat(32),
                },
            ),
            (
                role::TOC.to_owned(),
                FileRecord {
                    name: id.toc_name(),
                    bytes: 4,
                    sha256: "22".repeat(32),
                },
            ),
        ]);
        Manifest {
            schema: SCHEMA,
            id: id.clone(),
            kind: id.kind(),
            timestamp: id.timestamp(),
            finished_at: id.timestamp(),
            version: "0.1.0".into(),
            database: id.database().into(),
            trigger: Trigger::Schedule,
            digest_file: None,
            predecessor: None,
            store: None,
            stores: Vec::new(),
            tags: None,
            event_id: None,
            server: Server {
                version: "15.18 (Debian)".into(),
                version_num: 150_018,
                encoding: "UTF8".into(),
                system_identifier: Some("7412345678901234567".into()),
                database_oid: Some(16_384),
            },
            pg_dump: PgDump {
                version: "15.18".into(),
                archive_version: Some("1.14".into()),
            },
            format: Format::Custom,
            compression: Compression {
                algorithm: Algorithm::Gzip,
                level: 6,
            },
            snapshot: Snapshot {
                lsn: Some("0/1A2B3C4".into()),
                xmin: 731,
                xmax: 733,
                xip: vec![731],
            },
            tier,
            encryption: None,
            checksums: checksums(&files),
            files,
            missing: BTreeMap::new(),
            left_out: Vec::new(),
            extensions: None,
            collations: None,
            warnings: Vec::new(),
            script: None,
            tables: vec![TableRecord {
                schema: "public".into(),
                name: "orders".into(),
                owner: Some("shop".into()),
                rows: 3,
                bytes: 30,
                sha256: "33".repeat(32),
                offset: 100,
                length: 60,
                read: Way::PgDump,
                ranges: Vec::new(),
            }],
            large_objects: Vec::new(),
            parts: Vec::new(),
            store_checksum: None,
            metadata: BTreeMap::from([("host".to_owned(), json!("vm-1"))]),
        }
    }

    fn id() -> BackupId {
        "shop/20250131T040500Z-full".parse().unwrap()
    }

    #[test]
    fn the_manifest_has_the_contracts_names_and_shapes() {
        let bytes = sample(&id(), Tier::Monthly).to_bytes().unwrap();
        assert!(bytes.ends_with(b"}\n"));
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["schema"], 1);
        assert_eq!(json["id"], "shop/20250131T040500Z-full");
        assert_eq!(json["type"], "full");
        assert_eq!(json["timestamp"], "2025-01-31T04:05:00Z");
        assert_eq!(json["trigger"], "schedule");
        assert_eq!(json["tier"], "monthly");
        assert_eq!(json["encryption"], Value::Null);
        assert!(json.as_object().unwrap().contains_key("encryption"));
        assert_eq!(json["compression"], json!({"algorithm": "gzip", "level": 6}));
        assert_eq!(
            json["snapshot"],
            json!({"lsn": "0/1A2B3C4", "xmin": 731, "xmax": 733, "xip": [731]})
        );
        assert_eq!(
            json["files"]["dump"],
            json!({"name": "shop.dump", "bytes": 4, "sha256": "11".repeat(32)})
        );
        assert_eq!(json["checksums"]["dump"], format!("sha256:{}", "11".repeat(32)));
        assert_eq!(json["tables"][0]["rows"], 3);
        assert_eq!(json["parts"], json!([]));
    }

    #[test]
    fn it_is_read_back_whole_and_as_a_summary() {
        let manifest = sample(&id(), Tier::Daily);
        let bytes = manifest.to_bytes().unwrap();
        assert_eq!(Manifest::parse(&bytes, &id()), Ok(manifest.clone()));
        assert_eq!(Summary::parse(&bytes, &id()), Ok(manifest.summary()));
        assert_eq!(manifest.to_bytes().unwrap(), bytes);
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over() {
        let mut json: Value = serde_json::from_slice(&sample(&id(), Tier::Daily).to_bytes().unwrap()).unwrap();
        json["novelty"] = json!({"deep": [1, 2]});
        json["server"]["color"] = json!("blue");
        let bytes = serde_json::to_vec(&json).unwrap();
        assert!(Manifest::parse(&bytes, &id()).is_ok());
    }

    #[test]
    fn a_newer_schema_is_told_apart_from_a_broken_file() {
        let error = Manifest::parse(br#"{"schema": 2, "id": 7}"#, &id()).unwrap_err();
        assert_eq!(error, Broken::NewerSchema(2));
        let error = error.into_error(&id());
        assert_eq!(error.code(), Code::Integrity);
        assert!(error.message().contains("schema 2"), "{error}");
        assert!(error.hint_text().contains("newer"), "{}", error.hint_text());
        assert!(matches!(
            Manifest::parse(b"{\"schema\": 1", &id()),
            Err(Broken::NotJson(_))
        ));
        assert!(matches!(Manifest::parse(b"\0\0\0", &id()), Err(Broken::NotJson(_))));
        assert!(matches!(Manifest::parse(b"{}", &id()), Err(Broken::Shape(_))));
        assert!(matches!(Summary::parse(b"[]", &id()), Err(Broken::Shape(_))));
    }

    #[test]
    fn a_manifest_of_another_backup_or_with_a_climbing_name_is_broken() {
        let other: BackupId = "shop/20250201T040500Z-full".parse().unwrap();
        let mut manifest = sample(&other, Tier::Daily);
        let bytes = manifest.to_bytes().unwrap();
        assert!(matches!(
            Manifest::parse(&bytes, &id()),
            Err(Broken::OtherBackup { .. })
        ));
        manifest.files.get_mut(role::DUMP).unwrap().name = "../other.dump".into();
        let bytes = manifest.to_bytes().unwrap();
        assert!(matches!(Summary::parse(&bytes, &other), Err(Broken::FileName(_))));
    }
}
