//! The large objects of a plain dump: three calls each.

use sha2::{Digest, Sha256};

use super::{LargeObjects, Sum};
use crate::format::archive::{BlockContent, BlockDigest, LargeObjectsDigest};

/// The large objects of one part of the script.
pub(super) struct Objects {
    digest: LargeObjectsDigest,
    content: Vec<u8>,
    /// OID, bytes and digest of the open object, if the reader gathers a sum.
    open: Option<(u32, u64, Sha256)>,
    sum: Option<Sum>,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

impl Objects {
    pub fn new(gathers: bool) -> Self {
        Self {
            digest: LargeObjectsDigest::default(),
            content: Vec::new(),
            open: None,
            sum: gathers.then(Sum::default),
        }
    }

    /// Reads one of the three calls, and ignores all other statements.
    pub fn statement(&mut self, sql: &[u8]) -> Result<(), String> {
        const STRANGE: &str = "has a large object that pg_dump does not write";
        let Some(call) = sql.strip_prefix(b"SELECT pg_catalog.") else {
            return Ok(());
        };
        if let Some(rest) = call.strip_prefix(b"lo_open('") {
            let oid = rest.strip_suffix(b"', 131072);").ok_or(STRANGE)?;
            let oid = std::str::from_utf8(oid).ok().and_then(|oid| oid.parse::<u32>().ok());
            let oid = oid.ok_or(STRANGE)?;
            self.digest.begin(oid);
            self.open = self.sum.is_some().then(|| (oid, 0, Sha256::new()));
        } else if let Some(rest) = call.strip_prefix(b"lowrite(0, '") {
            let text = rest.strip_suffix(b"');").ok_or(STRANGE)?;
            // pg_dump writes two if a backslash escapes.
            let text = text.strip_prefix(b"\\").ok_or(STRANGE)?;
            let text = text.strip_prefix(b"\\").unwrap_or(text);
            let text = text.strip_prefix(b"x").ok_or(STRANGE)?;
            self.content.resize(text.len() / 2, 0);
            hex::decode_to_slice(text, &mut self.content).map_err(|_| STRANGE)?;
            self.digest.update(&self.content);
            if let Some((_, bytes, sha256)) = &mut self.open {
                *bytes += self.content.len() as u64;
                sha256.update(&self.content);
            }
        } else if call == b"lo_close(0);" {
            self.digest.end();
            if let (Some((oid, bytes, sha256)), Some(sum)) = (self.open.take(), &mut self.sum) {
                sum.add(format!("{oid} {bytes} {}\n", hex::encode(sha256.finalize())).as_bytes());
            }
        }
        Ok(())
    }

    pub fn finish(self) -> LargeObjects {
        let (count, bytes, sha256) = self.digest.finish();
        LargeObjects {
            digest: BlockDigest {
                content: BlockContent::LargeObjects { count },
                bytes,
                sha256,
            },
            sum: self.sum.unwrap_or_default(),
        }
    }
}
