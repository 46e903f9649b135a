//! The head: whose stream the file holds, and where it begins.

use super::bytes::{Numbers, SKIPPABLE_HEADER, skippable, skipped};
use super::error::ChangesError;
use crate::format::{Lsn, pgoutput};

const MAGIC: &[u8; 8] = b"PGSTOWCH";
pub(super) const VERSION: u16 = 1;
const BODY: usize = 8 + 2 + 2 + 8 + 4 + 4 + 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub system_identifier: u64,
    pub timeline: u32,
    pub database_oid: u32,
    /// Every transaction of the file ends after this position.
    pub from: Lsn,
}

impl Head {
    /// The length in the file.
    pub const LENGTH: usize = SKIPPABLE_HEADER + BODY;

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = MAGIC.to_vec();
        body.extend_from_slice(&VERSION.to_be_bytes());
        body.extend_from_slice(&pgoutput::PROTOCOL.to_be_bytes());
        body.extend_from_slice(&self.system_identifier.to_be_bytes());
        body.extend_from_slice(&self.timeline.to_be_bytes());
        body.extend_from_slice(&self.database_oid.to_be_bytes());
        body.extend_from_slice(&self.from.0.to_be_bytes());
        skippable(&body).unwrap_or_default()
    }

    /// The first [`Head::LENGTH`] bytes of a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, ChangesError> {
        let broken = || ChangesError::Head("is not that of a file of changes");
        let mut body = Numbers(skipped(bytes).ok_or_else(broken)?);
        if body.array().as_ref() != Some(MAGIC) {
            return Err(broken());
        }
        match body.u16().ok_or_else(broken)? {
            VERSION => {}
            version => return Err(ChangesError::Version(version)),
        }
        if body.u16().ok_or_else(broken)? != pgoutput::PROTOCOL {
            return Err(ChangesError::Head("names a protocol that this pgstow does not read"));
        }
        let mut head = || {
            Some(Self {
                system_identifier: body.u64()?,
                timeline: body.u32()?,
                database_oid: body.u32()?,
                from: Lsn(body.u64()?),
            })
        };
        let head = head().ok_or_else(broken)?;
        match body.0 {
            [] => Ok(head),
            _ => Err(broken()),
        }
    }
}
