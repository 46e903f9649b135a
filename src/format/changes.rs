//! The file of changes: a span of a slot's stream, as the server sent it.
//!
//! It is a valid zstd file. `zstd -dc` gives, for each message, its length (4 bytes, big endian) and the message:
//!
//! ```text
//! skippable frame    the head: whose stream this is, and after which position it begins
//! frames             the messages, each frame with a checksum; cut between transactions, except in large ones
//! skippable frame    the index: what is in each frame, and every description of a table
//! ```
//!
//! docs/FORMAT.md describes it byte by byte.

mod bytes;
mod check;
mod error;
mod frame;
mod head;
mod index;
pub mod limits;
mod reader;
mod selection;
mod summary;
mod track;
mod writer;

pub use check::check;
pub use error::{ChangesError, Misplaced};
pub use head::Head;
pub use index::{Described, Frame, Index};
pub use reader::{Item, Reader};
pub use selection::Selection;
pub use summary::{ChangesSummary, IndexPlace, TableSummary};
pub use track::Transaction;
pub use writer::Writer;
