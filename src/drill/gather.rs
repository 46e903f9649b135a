//! What an archive's blocks hold, in their order and regardless of it: a restore may put a table's
//! rows into other places on the disk, so a second dump may give them in another order.

use sha2::{Digest, Sha256};

use crate::archive::{ArchiveError, BlockDigest, BlockKind, BlockSink, ContentDigest, Head};

/// Rows come one by one from pg_dump; digested together they cost less.
const BATCH: usize = 256 << 10;

/// The sum of the SHA-256 of every row (or of every large object with its number), modulo 2^256:
/// equal for the same rows in any order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Unordered([u64; 4]);

impl Unordered {
    fn add(&mut self, digest: &[u8]) {
        let mut carry = false;
        for (limb, bytes) in self.0.iter_mut().zip(digest.chunks_exact(8)) {
            let mut other = [0; 8];
            other.copy_from_slice(bytes);
            let (sum, first) = limb.overflowing_add(u64::from_le_bytes(other));
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
    }

    pub fn merge(&mut self, other: Unordered) {
        let bytes: Vec<u8> = other.0.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        self.add(&bytes);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gathered {
    /// Of [`Head::data`].
    pub index: usize,
    pub digest: BlockDigest,
    pub unordered: Unordered,
}

/// A [`BlockSink`] for content.
pub(super) struct Gather<'a> {
    head: &'a Head,
    pub found: Vec<Gathered>,
    open: Option<Open>,
}

struct Open {
    index: usize,
    digest: ContentDigest,
    unordered: Unordered,
    batch: Vec<u8>,
    row: Sha256,
    /// The number of the large object that passes now, and its bytes.
    object: Option<(u32, u64)>,
}

impl<'a> Gather<'a> {
    pub fn new(head: &'a Head) -> Self {
        Self {
            head,
            found: Vec::new(),
            open: None,
        }
    }

    fn open(&mut self) -> Result<&mut Open, ArchiveError> {
        self.open
            .as_mut()
            .ok_or_else(|| ArchiveError::Content("there is content outside of any block".into()))
    }
}

impl Open {
    fn flush(&mut self) {
        self.digest.update(&self.batch);
        self.batch.clear();
    }

    fn end_row(&mut self) {
        let digest = self.row.finalize_reset();
        self.unordered.add(&digest);
    }
}

impl BlockSink for Gather<'_> {
    fn begin(&mut self, index: usize) -> Result<(), ArchiveError> {
        self.open = Some(Open {
            index,
            digest: ContentDigest::of(self.head.data[index].block_kind()),
            unordered: Unordered::default(),
            batch: Vec::with_capacity(BATCH),
            row: Sha256::new(),
            object: None,
        });
        Ok(())
    }

    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError> {
        let open = self.open()?;
        open.flush();
        open.digest.begin_object(oid);
        open.object = Some((oid as u32, 0));
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let open = self.open()?;
        if let Some((_, count)) = &mut open.object {
            *count += bytes.len() as u64;
            open.row.update(bytes);
        } else {
            let mut rest = bytes;
            while let Some(end) = memchr::memchr(b'\n', rest) {
                open.row.update(&rest[..=end]);
                open.end_row();
                rest = &rest[end + 1..];
            }
            open.row.update(rest);
        }
        open.batch.extend_from_slice(bytes);
        if open.batch.len() >= BATCH {
            open.flush();
        }
        Ok(())
    }

    fn end_object(&mut self) -> Result<(), ArchiveError> {
        let open = self.open()?;
        open.flush();
        open.digest.end_object();
        if let Some((oid, bytes)) = open.object.take() {
            let content = hex::encode(open.row.finalize_reset());
            open.row.update(format!("{oid} {bytes} {content}\n"));
            open.end_row();
        }
        Ok(())
    }

    fn end(&mut self, _at: u64) -> Result<(), ArchiveError> {
        let Some(mut open) = self.open.take() else {
            return Err(ArchiveError::Content("a block ends that has not begun".into()));
        };
        open.flush();
        let kind = self.head.data[open.index].block_kind();
        let digest = open
            .digest
            .finish()
            .ok_or_else(|| ArchiveError::Content("it does not end as COPY ends".into()))?;
        debug_assert!(kind == BlockKind::Table || open.object.is_none());
        self.found.push(Gathered {
            index: open.index,
            digest,
            unordered: open.unordered,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(rows: &[&str]) -> Unordered {
        let mut sum = Unordered::default();
        for row in rows {
            sum.add(&Sha256::digest(row.as_bytes()));
        }
        sum
    }

    #[test]
    fn the_sum_knows_which_rows_and_how_often_but_not_in_which_order() {
        assert_eq!(sum(&["a", "b", "c"]), sum(&["c", "a", "b"]));
        assert_ne!(sum(&["a", "b"]), sum(&["a", "c"]));
        assert_ne!(sum(&["a"]), sum(&["a", "a"]));
        // An exclusive or would take these for the same.
        assert_ne!(sum(&["a", "b", "b"]), sum(&["a", "c", "c"]));
        let mut halves = sum(&["a", "b"]);
        halves.merge(sum(&["c"]));
        assert_eq!(halves, sum(&["b", "c", "a"]));
    }
}
