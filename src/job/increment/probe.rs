//! Reads tables whose updates do not arrive, to see whether the rows that they had are still the same.
//!
//! The server has no cheap evidence that a table was not updated: its counts may be late or lost, and the size and the
//! file of a table stay when rows are changed in place. So the rows themselves are compared, as the text that COPY
//! gives. A heap keeps the order of its rows, and new rows come behind them while no space in it is free. So if the
//! text begins with the text from before, all earlier rows are as they were, and the others are new. If not, nothing is
//! known, and the table is stored. pgstow sends COPY and not a query, because planning a query may run code of the
//! table's owner.

use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::postgres::{Refusal, Rows, Session, Wire};
use crate::repository::seen_catalog::SeenRows;

/// The result of a look at one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probed {
    pub rows: SeenRows,
    /// The text begins with the earlier one.
    pub keeps_earlier: bool,
    /// The text is the earlier one.
    pub is_same: bool,
}

/// A session that reads one table after another.
pub(super) struct Probe {
    wire: Wire,
}

impl Probe {
    pub async fn open(session: &Session) -> Result<Self> {
        let mut wire = session.open_wire().await?;
        // Otherwise a scan may begin in the middle of a table.
        wire.execute(b"SET synchronize_seqscans = off; SET lock_timeout = '2s'")
            .await
            .map_err(Refusal::into_error)?;
        Ok(Self { wire })
    }

    /// `copy` is the statement, in the database's encoding. The inner `Err` is the server's refusal.
    pub async fn look(&mut self, copy: &[u8], earlier: Option<&SeenRows>) -> Result<Result<Probed, String>> {
        let mut summing = Summing::of(earlier);
        match self.wire.copy(copy, &mut summing).await {
            Ok(()) => Ok(Ok(summing.end_of(earlier))),
            Err(Refusal::Broken(error)) => Err(error),
            Err(refusal) => Ok(Err(refusal.into_error().message())),
        }
    }

    pub async fn close(self) {
        self.wire.close().await;
    }
}

/// The digest of a text, and of its beginning.
struct Summing {
    all: Sha256,
    bytes: u64,
    /// Where the beginning ends.
    mark: Option<u64>,
    beginning: Option<[u8; 32]>,
}

impl Summing {
    fn of(earlier: Option<&SeenRows>) -> Self {
        let mut summing = Self {
            all: Sha256::new(),
            bytes: 0,
            mark: earlier.map(|rows| rows.bytes),
            beginning: None,
        };
        summing.note_beginning();
        summing
    }

    fn note_beginning(&mut self) {
        if self.mark == Some(self.bytes) && self.beginning.is_none() {
            self.beginning = Some(self.all.clone().finalize().into());
        }
    }

    fn end_of(self, earlier: Option<&SeenRows>) -> Probed {
        let is_beginning = |earlier: &SeenRows| self.beginning.is_some_and(|sum| hex::encode(sum) == earlier.sha256);
        let keeps_earlier = earlier.is_some_and(is_beginning);
        Probed {
            is_same: keeps_earlier && earlier.is_some_and(|earlier| earlier.bytes == self.bytes),
            keeps_earlier,
            rows: SeenRows {
                bytes: self.bytes,
                sha256: hex::encode(self.all.finalize()),
            },
        }
    }
}

impl Rows for Summing {
    fn text(&mut self, bytes: &[u8]) {
        let before_mark = self.mark.and_then(|mark| mark.checked_sub(self.bytes)).unwrap_or_default();
        let cut = usize::try_from(before_mark).unwrap_or(bytes.len()).min(bytes.len());
        for part in [&bytes[..cut], &bytes[cut..]] {
            self.all.update(part);
            self.bytes += part.len() as u64;
            self.note_beginning();
        }
    }

    fn end(&mut self, _rows: u64) {}

    async fn turn(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &[u8]) -> SeenRows {
        SeenRows {
            bytes: text.len() as u64,
            sha256: hex::encode(Sha256::digest(text)),
        }
    }

    fn look(text: &[u8], piece: usize, earlier: Option<&SeenRows>) -> Probed {
        let mut summing = Summing::of(earlier);
        text.chunks(piece).for_each(|piece| summing.text(piece));
        summing.end_of(earlier)
    }

    #[test]
    fn a_text_that_only_grew_keeps_the_earlier_one_however_it_is_cut() {
        let (before, after) = (b"1\ta\n2\tb\n".as_slice(), b"1\ta\n2\tb\n3\tc\n".as_slice());
        for piece in 1..after.len() + 2 {
            let earlier = seen(before);
            let grown = look(after, piece, Some(&earlier));
            assert_eq!((grown.keeps_earlier, grown.is_same), (true, false), "{piece}");
            assert_eq!(grown.rows, seen(after));
            let same = look(before, piece, Some(&earlier));
            assert_eq!((same.keeps_earlier, same.is_same), (true, true), "{piece}");
            let changed = look(b"1\ta\n2\tB\n3\tc\n", piece, Some(&earlier));
            assert_eq!((changed.keeps_earlier, changed.is_same), (false, false), "{piece}");
            let shorter = look(b"1\ta\n", piece, Some(&earlier));
            assert_eq!((shorter.keeps_earlier, shorter.is_same), (false, false), "{piece}");
        }
    }

    #[test]
    fn an_empty_text_is_the_beginning_of_every_text() {
        assert!(look(b"1\n", 4, Some(&seen(b""))).keeps_earlier);
        assert!(look(b"", 4, Some(&seen(b""))).is_same);
        assert!(!look(b"1\n", 4, None).keeps_earlier);
    }
}
