//! COPY in both directions at once, as replication uses it (documentation: "Streaming Replication Protocol").

use super::{LONGEST, MESSAGE_LIMIT, Refusal, Wire, append, unexpected};
use crate::postgres::refusal::complaint;
use crate::postgres::stream::{Header, StreamError};

/// The bytes of the next message so far. A wait for it can be cancelled at any moment, and continued with this.
#[derive(Default)]
pub(crate) struct Partial {
    begun: Option<(Header, Vec<u8>)>,
    /// The server has ended the COPY with an error.
    refused: Option<Refusal>,
}

impl Wire {
    /// Runs a statement that begins such a COPY.
    pub async fn begin_both(&mut self, statement: &[u8]) -> Result<(), Refusal> {
        self.send(statement).await?;
        let mut refused = None;
        loop {
            let (kind, length) = self.stream.header().await?;
            match kind {
                b'W' => {
                    self.stream.body(length, MESSAGE_LIMIT).await?;
                    return Ok(());
                }
                b'Z' => {
                    self.stream.body(length, MESSAGE_LIMIT).await?;
                    let nothing = || Refusal::Broken(unexpected("no COPY, although one was asked for"));
                    return Err(refused.unwrap_or_else(nothing));
                }
                _ => self.other(kind, length, &mut refused).await?,
            }
        }
    }

    /// The server's next message; `None` at the end. The wait can be cancelled.
    pub async fn hear_both(&mut self, partial: &mut Partial) -> Result<Option<Vec<u8>>, Refusal> {
        loop {
            let (kind, body) = match self.message(partial).await {
                Ok(message) => message,
                // The server sent the reason before it closed the connection.
                Err(broken) => return Err(partial.refused.take().unwrap_or_else(|| broken.into())),
            };
            match kind {
                b'd' if partial.refused.is_none() => return Ok(Some(body)),
                // `C` comes if the server has ended the COPY without `c`.
                b'c' | b'C' if partial.refused.is_none() => return Ok(None),
                b'E' => partial.refused = Some(complaint(&body).into_refusal(&self.redactor)),
                b'Z' => {
                    let nothing = || Refusal::Broken(unexpected("an invalid end of a COPY"));
                    return Err(partial.refused.take().unwrap_or_else(nothing));
                }
                b'N' | b'S' | b'A' => {}
                _ => return Err(not_due(kind).into()),
            }
        }
    }

    /// Sends data to the server.
    pub async fn say_both(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut message = Vec::with_capacity(bytes.len() + 5);
        append(&mut message, b'd', &[bytes])?;
        Ok(self.stream.send(&message).await?)
    }

    /// Ends the client's side of the COPY, and waits until the session takes a statement again. It drops what the
    /// server still sends for the COPY.
    pub async fn end_both(&mut self, partial: &mut Partial) -> Result<(), Refusal> {
        self.stream.send(b"c\0\0\0\x04").await?;
        loop {
            let (kind, body) = match self.message(partial).await {
                Ok(message) => message,
                Err(broken) => return Err(partial.refused.take().unwrap_or_else(|| broken.into())),
            };
            match kind {
                b'E' => partial.refused = Some(complaint(&body).into_refusal(&self.redactor)),
                b'Z' => return partial.refused.take().map_or(Ok(()), Err),
                b'd' | b'c' | b'C' | b'N' | b'S' | b'A' | b'T' | b'D' => {}
                _ => return Err(not_due(kind).into()),
            }
        }
    }

    /// The next message. The wait can be cancelled.
    pub(super) async fn message(&mut self, partial: &mut Partial) -> Result<(u8, Vec<u8>), StreamError> {
        if partial.begun.is_none() {
            let header = self.stream.header().await?;
            let limit = if header.0 == b'd' { LONGEST } else { MESSAGE_LIMIT };
            if header.1 > limit {
                return Err(StreamError::Unexpected(format!("a message of {} bytes", header.1)));
            }
            partial.begun = Some((header, Vec::new()));
        }
        if let Some(((_, length), body)) = &mut partial.begun {
            self.stream.body_into(body, *length).await?;
        }
        let ((kind, _), body) = partial.begun.take().unwrap_or_default();
        Ok((kind, body))
    }
}

fn not_due(kind: u8) -> StreamError {
    StreamError::Unexpected(format!("a message of type {:?}", char::from(kind)))
}
