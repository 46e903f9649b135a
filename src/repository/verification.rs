//! `verification.json`: the newest result of `verify` and of a drill, beside the backup that they checked. It is a
//! report about the backup, not a part of it: no digest covers it, and a backup without one is just as good.

mod finding;
mod outcome;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::repository::backup_id::BackupId;

pub use finding::Finding;
use outcome::MANIFEST_SHA256;
pub use outcome::{
    Extent, MAJOR, PARTLY, SOURCE_FAULT, SOURCE_MAJOR, TABLES, TABLES_EQUAL, VerificationOutcome, VerificationStatus,
};

/// The schema that this program writes, and the newest that it reads.
pub const SCHEMA: u32 = 1;

/// When reading, fields that a later version adds are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    pub schema: u32,
    pub id: BackupId,
    /// The result of `verify`: it read every stored byte and compared it with the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerificationOutcome>,
    /// The result of a drill: it restored into a throwaway server and compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<VerificationOutcome>,
    /// The result of the proof that the increments since the full backup before lead exactly to this one. It is about
    /// the increments, so a failure does not condemn this backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<VerificationOutcome>,
    /// A proof that has begun in a task whose time is limited. Without a result, the time was too short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_begun: Option<ProofBegun>,
}

/// That a proof has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofBegun {
    pub at: Timestamp,
    /// How many seconds its task had left.
    pub seconds: i64,
}

/// The verdict of all results together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No check has run, or its result cannot be read.
    Unproved,
    Proved,
    /// A check found the backup damaged.
    Damaged,
}

/// Why a verification cannot be used. This does not change the backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerificationError {
    #[error("verification.json cannot be read: {0}")]
    Shape(String),
    #[error("verification.json has schema {0}, this pgstow reads up to {SCHEMA}: a newer pgstow wrote it")]
    NewerSchema(u64),
    #[error("verification.json belongs to the backup {claimed}: it was copied or moved")]
    OtherBackup { claimed: BackupId },
}

/// What [`Verification::parse_outline`] reads.
#[derive(Deserialize)]
struct Outline {
    schema: u32,
    id: BackupId,
    #[serde(default)]
    verify: Option<End>,
    #[serde(default)]
    drill: Option<End>,
    #[serde(default)]
    chain: Option<End>,
}

#[derive(Deserialize)]
struct End {
    status: VerificationStatus,
    at: Timestamp,
    #[serde(default)]
    manifest_sha256: Option<String>,
    #[serde(default)]
    major: Option<u64>,
    #[serde(default)]
    source_major: Option<u64>,
    #[serde(default)]
    source_fault: Option<bool>,
    #[serde(default)]
    tables: Option<u64>,
    #[serde(default)]
    tables_equal: Option<u64>,
    #[serde(default)]
    partly: Option<bool>,
}

impl End {
    fn outcome(self) -> VerificationOutcome {
        // No digest is longer.
        let digest = self
            .manifest_sha256
            .map(|said| said.get(..64).unwrap_or_default().to_owned());
        let said = [
            (MANIFEST_SHA256, digest.map(Value::from)),
            (MAJOR, self.major.map(Value::from)),
            (SOURCE_MAJOR, self.source_major.map(Value::from)),
            (SOURCE_FAULT, self.source_fault.map(Value::from)),
            (TABLES, self.tables.map(Value::from)),
            (TABLES_EQUAL, self.tables_equal.map(Value::from)),
            (PARTLY, self.partly.map(Value::from)),
        ];
        let said = said
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        VerificationOutcome {
            status: self.status,
            at: self.at,
            rest: said.collect(),
        }
    }
}

impl Verification {
    /// For a backup that no check has read yet.
    pub fn new(id: BackupId) -> Self {
        Self {
            schema: SCHEMA,
            id,
            verify: None,
            drill: None,
            chain: None,
            chain_begun: None,
        }
    }

    /// The file's bytes. The same verification always gives the same bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::internal("cannot write the verification as JSON").source(error))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads the verification found in `id`'s folder.
    pub fn parse(bytes: &[u8], id: &BackupId) -> Result<Self, VerificationError> {
        Self::read(bytes, id, |bytes| serde_json::from_slice(bytes))
    }

    /// The same, but only the status and the time. A list of thousands needs nothing else, and the rest is not taken
    /// into memory.
    pub fn parse_outline(bytes: &[u8], id: &BackupId) -> Result<Self, VerificationError> {
        Self::read(bytes, id, |bytes| {
            let outline: Outline = serde_json::from_slice(bytes)?;
            Ok(Self {
                schema: outline.schema,
                id: outline.id,
                verify: outline.verify.map(End::outcome),
                drill: outline.drill.map(End::outcome),
                chain: outline.chain.map(End::outcome),
                chain_begun: None,
            })
        })
    }

    fn read(
        bytes: &[u8],
        id: &BackupId,
        read: impl FnOnce(&[u8]) -> serde_json::Result<Self>,
    ) -> Result<Self, VerificationError> {
        #[derive(Deserialize)]
        struct Schema {
            schema: u64,
        }
        let shape = |error: serde_json::Error| VerificationError::Shape(error.to_string());
        // This check is first, because a newer schema may have any other shape.
        let Schema { schema } = serde_json::from_slice(bytes).map_err(shape)?;
        if schema > u64::from(SCHEMA) {
            return Err(VerificationError::NewerSchema(schema));
        }
        let verification = read(bytes).map_err(shape)?;
        if verification.id == *id {
            Ok(verification)
        } else {
            Err(VerificationError::OtherBackup {
                claimed: verification.id,
            })
        }
    }

    /// Drops results about another manifest than the one beside it, which has this digest: the file was put there
    /// from elsewhere. Also says whether there were such results. `strictly`: a result that names no manifest counts
    /// as one about another.
    pub fn about(mut self, sha256: &[u8; 32], strictly: bool) -> (Self, bool) {
        let sha256 = hex::encode(sha256);
        let mut others = false;
        for outcome in [&mut self.verify, &mut self.drill, &mut self.chain] {
            others |= outcome.take_if(|outcome| !outcome.is_of(&sha256, strictly)).is_some();
        }
        (self, others)
    }

    /// The drill, if its result says something about the source's major version. Success on another major version
    /// proves nothing for that one, and a drill that proved no table proves nothing.
    pub fn proving_drill(&self) -> Option<&VerificationOutcome> {
        let idle = |drill: &VerificationOutcome| drill.is_of_another_major() || drill.proves_no_table();
        let proves = |drill: &&VerificationOutcome| drill.status != VerificationStatus::Ok || !idle(drill);
        self.drill.as_ref().filter(proves)
    }

    /// Takes the result of a proof of the chain.
    pub fn chained(&mut self, proof: VerificationOutcome) {
        (self.chain, self.chain_begun) = (Some(proof), None);
    }

    /// Takes the result of a new drill, unless the recorded one proves more.
    pub fn drilled(&mut self, drill: VerificationOutcome) {
        let proves_less =
            drill.status == VerificationStatus::Ok && (drill.is_of_another_major() || drill.proves_no_table());
        if !proves_less || self.proving_drill().is_none() {
            self.drill = Some(drill);
        }
    }

    pub fn verdict(&self) -> Verdict {
        let said = || [self.verify.as_ref(), self.proving_drill()].into_iter().flatten();
        if said().any(VerificationOutcome::condemns) {
            Verdict::Damaged
        } else if said().any(|one| one.status == VerificationStatus::Ok) {
            Verdict::Proved
        } else {
            Verdict::Unproved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    fn id() -> BackupId {
        "shop/20250131T040500Z-full".parse().unwrap()
    }

    fn read(verification: &Value) -> Result<Verification, VerificationError> {
        Verification::parse(verification.to_string().as_bytes(), &id())
    }

    #[test]
    fn what_was_found_out_comes_back_as_it_was_written() {
        let written = json!({
            "schema": 1,
            "id": id(),
            "verify": {"status": "ok", "at": "2025-02-01T00:00:00Z", "tables": 3},
            "drill": {"status": "failed", "at": "2025-02-02T00:00:00Z", "differences": ["public.orders"]}
        });
        let read_back = read(&written).unwrap();
        assert_eq!(read_back.verify.as_ref().unwrap().rest["tables"], 3);
        assert_eq!(serde_json::to_value(&read_back).unwrap(), written);
        assert_eq!(
            Verification::parse(&read_back.to_bytes().unwrap(), &id()),
            Ok(read_back)
        );
    }

    #[test]
    fn one_failure_outweighs_and_silence_proves_nothing() {
        let outcome = |status: &str| json!({"status": status, "at": "2025-02-01T00:00:00Z"});
        let verdict = |parts: Value| {
            let mut whole = json!({"schema": 1, "id": id(), "novelty": {"deep": []}});
            whole
                .as_object_mut()
                .unwrap()
                .extend(parts.as_object().unwrap().clone());
            read(&whole).unwrap().verdict()
        };
        assert_eq!(verdict(json!({})), Verdict::Unproved);
        assert_eq!(verdict(json!({"verify": outcome("ok")})), Verdict::Proved);
        assert_eq!(verdict(json!({"drill": outcome("ok")})), Verdict::Proved);
        assert_eq!(
            verdict(json!({"verify": outcome("ok"), "drill": outcome("failed")})),
            Verdict::Damaged
        );
        assert_eq!(verdict(json!({"verify": outcome("partly")})), Verdict::Unproved);
    }

    #[test]
    fn what_was_found_of_another_manifest_counts_for_nothing() {
        let outcome = |said: Value| {
            let mut outcome = json!({"status": "failed", "at": "2025-02-01T00:00:00Z"});
            outcome
                .as_object_mut()
                .unwrap()
                .extend(said.as_object().unwrap().clone());
            outcome
        };
        let own = [7; 32];
        let whole = json!({
            "schema": 1, "id": id(),
            "verify": outcome(json!({"manifest_sha256": "07".repeat(32)})),
            "drill": outcome(json!({"manifest_sha256": "08".repeat(32)})),
        });
        let bytes = whole.to_string().into_bytes();
        let read = [
            Verification::parse(&bytes, &id()),
            Verification::parse_outline(&bytes, &id()),
        ];
        for read in read.map(Result::unwrap) {
            let (about, others) = read.about(&own, true);
            assert!(others && about.verify.is_some() && about.drill.is_none());
        }
        let silent = json!({"schema": 1, "id": id(), "drill": outcome(json!({}))});
        let silent = self::read(&silent).unwrap();
        assert_eq!(silent.clone().about(&own, false), (silent.clone(), false));
        assert_eq!(silent.about(&own, true), (Verification::new(id()), true));
        let made = VerificationOutcome {
            status: VerificationStatus::Ok,
            at: Timestamp::UNIX_EPOCH,
            rest: Map::new(),
        };
        assert!(made.of_manifest(&own).is_of(&"07".repeat(32), true));
    }

    #[test]
    fn a_drill_on_another_major_proves_nothing_for_the_sources() {
        let drill = |status: &str, major: u32| {
            json!({"schema": 1, "id": id(), "drill":
                {"status": status, "at": "2025-02-01T00:00:00Z", "major": major, "source_major": 15}})
        };
        let of = |status: &str, major: u32| read(&drill(status, major)).unwrap();
        let outline = Verification::parse_outline(drill("ok", 17).to_string().as_bytes(), &id()).unwrap();
        for elsewhere in [of("ok", 17), outline] {
            assert_eq!(
                (elsewhere.verdict(), elsewhere.proving_drill()),
                (Verdict::Unproved, None)
            );
        }
        assert_eq!(of("ok", 15).verdict(), Verdict::Proved);
        assert_eq!(of("failed", 17).verdict(), Verdict::Damaged);
        let (own, other) = (of("ok", 15), of("ok", 17));
        let mut kept = own.clone();
        kept.drilled(other.drill.clone().unwrap());
        assert_eq!(kept, own);
        let mut replaced = other;
        replaced.drilled(own.drill.clone().unwrap());
        assert_eq!(replaced, own);
    }

    #[test]
    fn how_much_a_drill_proved_is_told_and_one_that_proved_no_table_counts_for_nothing() {
        let drill = |more: Value| {
            let mut drill = json!({"status": "ok", "at": "2025-02-01T00:00:00Z"});
            drill.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let whole = json!({"schema": 1, "id": id(), "drill": drill});
            Verification::parse_outline(whole.to_string().as_bytes(), &id()).unwrap()
        };
        let extent = |more: Value| {
            let of = drill(more).proving_drill().and_then(VerificationOutcome::extent);
            of.map(|extent| extent.to_string())
        };
        let counts = |equal: u64| json!({"tables": 500, "tables_equal": equal});
        assert_eq!(extent(counts(1)).unwrap(), "partly, 1 of 500 tables proved");
        assert_eq!(extent(counts(500)).unwrap(), "500 of 500 tables proved");
        let said = json!({"tables": 3, "tables_equal": 3, "partly": true});
        assert_eq!(extent(said).unwrap(), "partly, 3 of 3 tables proved");
        assert_eq!(drill(counts(0)).verdict(), Verdict::Unproved);
        let none = json!({"tables": 0, "tables_equal": 0, "partly": false});
        assert_eq!(drill(none).verdict(), Verdict::Proved);
        assert_eq!(drill(json!({})).verdict(), Verdict::Proved);
    }

    #[test]
    fn what_cannot_be_used_is_told_apart() {
        assert!(matches!(
            Verification::parse(b"{\"schema\"", &id()),
            Err(VerificationError::Shape(_))
        ));
        assert!(matches!(read(&json!([])), Err(VerificationError::Shape(_))));
        assert_eq!(
            read(&json!({"schema": 2, "id": 7})),
            Err(VerificationError::NewerSchema(2))
        );
        let other = json!({"schema": 1, "id": "shop2/20250131T040500Z-full"});
        assert!(matches!(read(&other), Err(VerificationError::OtherBackup { .. })));
    }
}
