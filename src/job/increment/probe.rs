//! Reads tables whose updates do not arrive, to see whether the rows that they had are still the same.
//!
//! The server has no cheap evidence that a table was not updated: its counts may be late or lost, and the size and the
//! file of a table stay when rows are changed in place. So the rows themselves are compared, as the text that COPY
//! gives. A heap keeps the order of its rows, and new rows come behind them while no space in it is free. If the text
//! begins with the text from before, and the rows behind it are exactly those that the stream has inserted since, then
//! the stream has all that happened. Otherwise nothing is known, and the table is stored: rows may have come and gone
//! again between two looks, so that the text alone is no proof. pgstow sends COPY and not a query, because planning a
//! query may run code of the table's owner.

use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::format::fold::Horizon;
use crate::format::script::{RowSum, Sum};
use crate::postgres::{Refusal, Rows, Session, Wire};
use crate::repository::seen_catalog::SeenRows;

/// The result of a look at one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probed {
    pub rows: SeenRows,
    /// The text begins with the earlier one.
    pub keeps_earlier: bool,
    /// The rows behind the earlier text.
    pub appended: Sum,
}

/// A session that reads one table after another, all of them as they were at one moment.
pub(in crate::job) struct Probe {
    wire: Wire,
    /// What it sees.
    pub(super) horizon: Horizon,
    /// Everything that it sees was committed before this position.
    pub at: Lsn,
}

impl Probe {
    pub(super) async fn open(session: &Session) -> Result<Self> {
        let (mut wire, (xmin, xmax, running)) = session.open_view().await?;
        // Otherwise a scan may begin in the middle of a table.
        let settings = wire.execute(b"SET synchronize_seqscans = off; SET lock_timeout = '2s'");
        settings.await.map_err(Refusal::into_error)?;
        let at = session.settled_position().await?;
        let at = at.ok_or_else(|| Error::new(Code::Stalled, "the server does not flush its log up to a snapshot"))?;
        Ok(Self {
            wire,
            horizon: Horizon::new(xmin, xmax, running),
            at,
        })
    }

    /// `copy` is the statement, in the database's encoding. The inner `Err` is the server's refusal.
    pub(super) async fn look(&mut self, copy: &[u8], earlier: Option<&SeenRows>) -> Result<Result<Probed, String>> {
        let mut summing = Summing::of(earlier);
        let failed = Refusal::into_error;
        self.wire.execute(b"SAVEPOINT one").await.map_err(failed)?;
        match self.wire.copy(copy, &mut summing).await {
            Ok(()) => Ok(Ok(summing.end_of(earlier))),
            Err(Refusal::Broken(error)) => Err(error),
            Err(refusal) => {
                self.wire.execute(b"ROLLBACK TO SAVEPOINT one").await.map_err(failed)?;
                Ok(Err(refusal.into_error().message()))
            }
        }
    }

    pub(super) async fn close(self) {
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
    /// What comes behind it.
    appended: RowSum,
}

impl Summing {
    fn of(earlier: Option<&SeenRows>) -> Self {
        let mut summing = Self {
            all: Sha256::new(),
            bytes: 0,
            mark: earlier.map(|rows| rows.bytes),
            beginning: None,
            appended: RowSum::of(&[]),
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
            keeps_earlier,
            appended: self.appended.finish(),
            rows: SeenRows {
                bytes: self.bytes,
                sha256: hex::encode(self.all.finalize()),
                ahead: None,
            },
        }
    }
}

impl Rows for Summing {
    fn text(&mut self, bytes: &[u8]) {
        let before_mark = self
            .mark
            .and_then(|mark| mark.checked_sub(self.bytes))
            .unwrap_or_default();
        let cut = usize::try_from(before_mark).unwrap_or(bytes.len()).min(bytes.len());
        for part in [&bytes[..cut], &bytes[cut..]] {
            if self.beginning.is_some() {
                self.appended.update(part);
            }
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
            ahead: None,
        }
    }

    fn sum(rows: &[&[u8]]) -> Sum {
        let mut sum = Sum::default();
        rows.iter().for_each(|row| sum.add(row));
        sum
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
            assert_eq!(
                (grown.keeps_earlier, grown.appended),
                (true, sum(&[b"3\tc"])),
                "{piece}"
            );
            assert_eq!(grown.rows, seen(after));
            let same = look(before, piece, Some(&earlier));
            assert_eq!((same.keeps_earlier, same.appended), (true, sum(&[])), "{piece}");
            let changed = look(b"1\ta\n2\tB\n3\tc\n", piece, Some(&earlier));
            assert!(!changed.keeps_earlier, "{piece}");
            let shorter = look(b"1\ta\n", piece, Some(&earlier));
            assert!(!shorter.keeps_earlier, "{piece}");
        }
    }

    #[test]
    fn an_empty_text_is_the_beginning_of_every_text() {
        let grown = look(b"1\n2\n", 4, Some(&seen(b"")));
        assert_eq!((grown.keeps_earlier, grown.appended), (true, sum(&[b"2", b"1"])));
        assert!(look(b"", 4, Some(&seen(b""))).keeps_earlier);
        assert!(!look(b"1\n", 4, None).keeps_earlier);
    }
}
