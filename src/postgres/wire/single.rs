//! Runs exactly one statement: the server itself refuses a text with several (docs: "Extended Query"). For statements
//! that contain text from others.

use super::{LONGEST, MESSAGE_LIMIT, Refusal, Wire, append};
use crate::error::{Code, Error};

impl Wire {
    /// Its rows are ignored.
    pub async fn execute_one(&mut self, statement: &[u8]) -> Result<(), Refusal> {
        if statement.contains(&0) {
            return Err(Error::new(Code::RestoreErr, "a statement holds a NUL byte").into());
        }
        let mut messages = Vec::with_capacity(statement.len() + 64);
        // Neither the statement nor the portal has a name, and there are no parameters.
        append(&mut messages, b'P', &[b"\0", statement, b"\0\0\0"])?;
        append(&mut messages, b'B', &[b"\0\0\0\0\0\0\0\0"])?;
        append(&mut messages, b'E', &[b"\0\0\0\0\0"])?;
        append(&mut messages, b'S', &[])?;
        self.stream.send(&messages).await?;
        let mut refused = None;
        loop {
            let (kind, length) = self.stream.header().await?;
            match kind {
                // Answers to parse and bind; then a row.
                b'1' | b'2' => drop(self.stream.body(length, MESSAGE_LIMIT).await?),
                b'D' => drop(self.stream.body(length, LONGEST).await?),
                b'Z' => {
                    self.stream.body(length, MESSAGE_LIMIT).await?;
                    return refused.map_or(Ok(()), Err);
                }
                _ => self.other(kind, length, &mut refused).await?,
            }
        }
    }
}
