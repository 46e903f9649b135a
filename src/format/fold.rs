//! The net effect of many changes on the rows of a table, and the rewriting of the table's COPY text with it. So a
//! table of a full becomes the table of a later moment while its rows are on their way to the server: without an
//! index, without statements, and in one pass.
//!
//! ```text
//! changes → Net (per row: replaced, gone, added) → Rewriter: base rows in, rows of the moment out
//! ```
//!
//! Rows are COPY text, since that is what both the archive and the stream hold. A row is found by the text of its key
//! columns: the server writes equal values of a column as equal texts, if the settings of the session are equal.
//!
//! Every changed base row has to be met exactly once, and no added row's key may be in the base. But only the
//! comparison with a later full shows that no transaction is missing.

mod error;
mod horizon;
mod images;
mod keyed;
mod net;
mod rewriter;
mod tables;
#[cfg(test)]
mod tests;
mod text;
mod whole;

pub use error::FoldError;
pub use horizon::Horizon;
pub use images::Memory;
pub use net::{Net, RowKey, Tally};
pub use rewriter::Rewriter;
pub use tables::{Base, Broken, Changed, Fold};
pub use text::copy_row;
