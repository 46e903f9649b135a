//! pg_dump's custom archive: read as a stream, and written with its blocks compressed inside the format.
//! docs/FORMAT.md describes it; the source is PostgreSQL's `src/bin/pg_dump/pg_backup_archiver.c` and
//! `pg_backup_custom.c`.
//!
//! ```text
//! backup:   Input (bytes, positions) → Head (header and table of contents) → reader (blocks) → BlockSink
//! moment:   Blocks (each at its place) → reader → Unpack → BlockCheck → Changing → Writer
//! restore:  Blocks (each at its place) → reader → Unpack → BlockCheck → Writer, or Discard
//! in parts: Sealed (some of a table's chunks) → reader → Unpack → PartCheck → Writer
//! ```
//!
//! No code here trusts the input: it never allocates a length before it has read as many bytes, and malformed input
//! gives a typed error that names the position.

mod blocks;
mod changing;
mod check;
mod contents;
mod digest;
mod head;
mod input;
mod layout;
mod loading;
mod part_check;
mod range;
mod reader;
#[cfg(test)]
mod sample;
mod texts;
mod unpack;
mod writer;

pub use blocks::Blocks;
pub use changing::{Changing, Renumbered, empty_block};
pub use check::{BlockCheck, Discard, difference};
pub use contents::{Item, Section, contents};
pub use digest::{BlockContent, BlockDigest, ContentDigest, END_OF_COPY, LargeObjectsDigest, TableDigest, TextCount};
pub use head::{Addition, ArchiveVersion, BlockCompression, Details, Graft, Head, Place, TocEntry};
pub use input::Input;
pub use layout::{BlockKind, Layout};
pub use loading::{Loading, leading_names};
pub use part_check::PartCheck;
pub use range::{RangeCheck, Sealed, SealedRange, Spoilt};
pub use reader::{BlockSink, read_block, read_blocks, read_part};
pub use texts::Texts;
pub use unpack::Unpack;
pub use writer::Writer;

use crate::error::{Code, Error};

/// Why an archive could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("the archive ends early, at byte {at}: {missing}")]
    EndsEarly { at: u64, missing: String },
    #[error("not a whole archive: byte {at}: {what}")]
    Malformed { at: u64, what: String },
    #[error("archive version {0}.{1}.{2} is not one that this pgstow reads (1.14 to 1.16)")]
    Version(u8, u8, u8),
    /// A block's content is wrong. The caller knows which table the block belongs to.
    #[error("{0}")]
    Content(String),
    #[error("reading the archive failed")]
    Io(#[from] std::io::Error),
    /// The receiver of the blocks stopped. It reports the reason itself.
    #[error("the receiver of the archive stopped")]
    Stopped,
}

impl From<ArchiveError> for Error {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Io(source) => Error::new(Code::PgDumpErr, "reading pg_dump's output failed").source(source),
            ArchiveError::Version(..) => Error::new(Code::PgDumpErr, error.to_string())
                .hint("use pg_dump 12 to 18 (BACKUP_PG_BIN, BACKUP_PG_DUMP_MAJOR)"),
            other => Error::new(Code::PgDumpErr, other.to_string()),
        }
    }
}
