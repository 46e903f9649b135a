//! Digests of an archive's blocks, one that depends on the order of rows and one that does not: a restore may store
//! rows in other places on the disk, so the second dump may have them in another order.

use sha2::{Digest, Sha256};

use super::columns::{ColumnOrder, reorder};
use crate::format::archive::{ArchiveError, BlockDigest, BlockKind, BlockSink, ContentDigest, Head};

/// pg_dump writes rows one by one; it costs less to digest them together.
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
    /// The index in [`Head::data`].
    pub index: usize,
    pub digest: BlockDigest,
    pub unordered: Unordered,
}

/// A [`BlockSink`] for content.
pub(super) struct Gather<'a> {
    head: &'a Head,
    /// For each of the head's blocks, if known: the order of its columns.
    orders: &'a [ColumnOrder],
    pub found: Vec<Gathered>,
    open: Option<Open>,
}

struct Open {
    index: usize,
    digest: ContentDigest,
    unordered: Unordered,
    batch: Vec<u8>,
    row: Sha256,
    /// The wanted order of columns and the unfinished row, if the columns are reordered.
    order: Option<(Vec<usize>, Vec<u8>)>,
    /// The number of the current large object, and its bytes.
    object: Option<(u32, u64)>,
}

impl<'a> Gather<'a> {
    pub fn new(head: &'a Head, orders: &'a [ColumnOrder]) -> Self {
        Self {
            head,
            orders,
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

    fn put(&mut self, bytes: &[u8]) {
        self.batch.extend_from_slice(bytes);
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    fn sum_rows(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.row.update(&rest[..=end]);
            self.end_row();
            rest = &rest[end + 1..];
        }
        self.row.update(rest);
    }

    /// Digests rows with reordered columns; `begun` is the unfinished row.
    fn rows_in(&mut self, order: &[usize], begun: &mut Vec<u8>, bytes: &[u8]) {
        let mut rows = Vec::with_capacity(begun.len() + bytes.len());
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            if begun.is_empty() {
                reorder(&rest[..end], order, &mut rows);
            } else {
                begun.extend_from_slice(&rest[..end]);
                reorder(begun, order, &mut rows);
                begun.clear();
            }
            rows.push(b'\n');
            rest = &rest[end + 1..];
        }
        begun.extend_from_slice(rest);
        self.sum_rows(&rows);
        self.put(&rows);
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
            order: match self.orders.get(index) {
                Some(ColumnOrder::Of(order)) => Some((order.clone(), Vec::new())),
                _ => None,
            },
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
        if let Some((order, mut row)) = open.order.take() {
            open.rows_in(&order, &mut row, bytes);
            open.order = Some((order, row));
            return Ok(());
        }
        if let Some((_, count)) = &mut open.object {
            *count += bytes.len() as u64;
            open.row.update(bytes);
        } else {
            open.sum_rows(bytes);
        }
        open.put(bytes);
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
        if let Some((_, rest)) = open.order.take() {
            open.put(&rest);
        }
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

    /// An archive's head with one table.
    fn head() -> Head {
        let mut bytes = b"PGDMP\x01\x0e\x00\x04\x08\x01".to_vec();
        let int = |number: u8| [0, number, 0, 0, 0];
        let text = |text: &str| [&int(u8::try_from(text.len()).unwrap())[..], text.as_bytes()].concat();
        let none = [1, 1, 0, 0, 0];
        bytes.extend([int(0); 8].concat());
        bytes.extend([text("d"), text("15"), text("15")].concat());
        bytes.extend([int(1), int(1), int(1)].concat());
        bytes.extend([text("0"), text("1"), text("t"), text("TABLE DATA")].concat());
        bytes.extend(int(3));
        bytes.extend([text(""), text(""), text("COPY s.t (a, b) FROM stdin;\n"), text("s")].concat());
        bytes.extend([none, none].concat());
        bytes.extend([text("o"), text("false")].concat());
        bytes.extend(none);
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 0]);
        Head::read(&mut crate::format::archive::Input::new(&bytes[..])).unwrap()
    }

    /// The digests of rows that come in pieces of so many bytes.
    fn gathered(orders: &[ColumnOrder], text: &str, piece: usize) -> Gathered {
        let head = head();
        let mut gather = Gather::new(&head, orders);
        gather.begin(0).unwrap();
        for piece in text.as_bytes().chunks(piece) {
            gather.data(piece).unwrap();
        }
        gather.end(0).unwrap();
        gather.found.pop().unwrap()
    }

    #[test]
    fn rows_are_the_same_in_another_order_of_columns_however_they_are_cut() {
        let plain = gathered(&[], "1\ta\n2\t\\N\n\t\n\\.\n\n\n", 7);
        for piece in [1, 2, 3, 5, 1000] {
            let other = gathered(&[ColumnOrder::Of(vec![1, 0])], "a\t1\n\\N\t2\n\t\n\\.\n\n\n", piece);
            assert_eq!(other, plain, "{piece}");
        }
    }

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
