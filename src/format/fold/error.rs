//! Why changes could not be applied.

use crate::error::{Code, Error};
use crate::units::human_bytes;

#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The changes contradict each other.
    #[error("the changes contradict each other: {0}")]
    Changes(String),
    /// The rows are not those that were changed.
    #[error("the changes do not fit the rows of the backup: {0}")]
    Base(String),
    /// The keys of the changed rows have to be in memory.
    #[error("the keys of the changed rows need more than {}", human_bytes(*.0))]
    Memory(u64),
    #[error("the file for the rows that do not fit into memory failed")]
    Io(#[from] std::io::Error),
}

impl From<FoldError> for Error {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Memory(_) => Error::new(Code::RestoreErr, error.to_string()).hint(
                "run it with more memory: half of what the task has is for the changes; or restore the tables one by one, with \
                 --table",
            ),
            FoldError::Io(source) => Error::new(
                Code::Enospc,
                "the file in TMPDIR for changed rows cannot be written or read",
            )
            .source(source),
            told => Error::new(Code::Integrity, told.to_string()),
        }
    }
}
