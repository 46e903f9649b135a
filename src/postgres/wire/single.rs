//! One statement and no more: the server itself refuses a text that holds several (docs: "Extended Query"). For
//! statements a part of which others have written.

use tokio::io::AsyncWriteExt;

use super::{MESSAGE_LIMIT, Refusal, Wire, lost};
use crate::error::{Code, Error};

impl Wire {
    /// Its rows, if any, do not matter.
    pub async fn execute_one(&mut self, statement: &[u8]) -> Result<(), Refusal> {
        if statement.contains(&0) {
            return Err(Error::new(Code::RestoreErr, "a statement holds a NUL byte").into());
        }
        let mut messages = Vec::with_capacity(statement.len() + 64);
        // Neither statement nor portal has a name, and there are no parameters.
        append(&mut messages, b'P', &[b"\0", statement, b"\0\0\0"])?;
        append(&mut messages, b'B', &[b"\0\0\0\0\0\0\0\0"])?;
        append(&mut messages, b'E', &[b"\0\0\0\0\0"])?;
        append(&mut messages, b'S', &[])?;
        let sent = async {
            self.line.write_all(&messages).await?;
            self.line.flush().await
        };
        sent.await.map_err(|error| lost(&error))?;
        let mut refused = None;
        loop {
            let (kind, length) = self.header().await?;
            match kind {
                // Parsed, bound; a row.
                b'1' | b'2' => drop(self.body(length, MESSAGE_LIMIT).await?),
                b'D' => drop(self.body(length, usize::MAX).await?),
                b'Z' => {
                    self.body(length, MESSAGE_LIMIT).await?;
                    return refused.map_or(Ok(()), Err);
                }
                _ => self.other(kind, length, &mut refused).await?,
            }
        }
    }
}

fn append(messages: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) -> Result<(), Error> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length + 4).map_err(|_| Error::internal("a statement of more than 4 GB"))?;
    messages.push(kind);
    messages.extend_from_slice(&length.to_be_bytes());
    for part in parts {
        messages.extend_from_slice(part);
    }
    Ok(())
}
