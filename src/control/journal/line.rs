//! One line of the journal: a record, and the digest that joins it to the lines before.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::Entry;
use super::head::{Digest, Mark};
use crate::error::{Error, Result};

/// One entry with its place and its time.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Record {
    pub seq: u64,
    pub at: Timestamp,
    #[serde(flatten)]
    pub entry: Entry,
}

/// `{"chain":"<64 hex digits>","record":{…}}`: the digest is of the digest before and of the record's bytes.
#[derive(Deserialize)]
struct Written<'a> {
    chain: &'a str,
    #[serde(borrow)]
    record: &'a RawValue,
}

pub(super) struct Line {
    pub record: Record,
    pub digest: Digest,
    /// With its end.
    pub text: String,
}

impl Line {
    pub fn after(last: Digest, record: &Record) -> Result<Line> {
        let body = serde_json::to_string(record)
            .map_err(|error| Error::internal("the journal's record is not JSON").source(error))?;
        let digest = joined(last, &body);
        Ok(Line {
            record: record.clone(),
            digest,
            text: format!("{{\"chain\":\"{}\",\"record\":{body}}}\n", hex::encode(digest)),
        })
    }

    /// A line as it is written, or `None`. Whether it follows from the one before is [`Line::is_after`].
    pub fn read(text: &[u8]) -> Option<Line> {
        let written: Written<'_> = serde_json::from_slice(text).ok()?;
        let mut digest = Digest::default();
        hex::decode_to_slice(written.chain, &mut digest).ok()?;
        Some(Line {
            record: serde_json::from_str(written.record.get()).ok()?,
            digest,
            text: String::new(),
        })
    }

    pub fn mark(&self) -> Mark {
        Mark {
            seq: self.record.seq,
            digest: self.digest,
        }
    }

    pub fn is_after(&self, last: Digest, text: &[u8]) -> bool {
        let written: Option<Written<'_>> = serde_json::from_slice(text).ok();
        written.is_some_and(|written| joined(last, written.record.get()) == self.digest)
    }
}

fn joined(last: Digest, body: &str) -> Digest {
    let mut hash = Sha256::new();
    hash.update(last);
    hash.update(body);
    hash.finalize().into()
}
