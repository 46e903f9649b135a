//! Sends COPY's rows to the server in a session of pgstow's own, so that they are part of one transaction with other
//! statements.

use bytes::Bytes;
use tokio::sync::mpsc::Receiver;

use super::{MESSAGE_LIMIT, Refusal, Wire, unexpected};
use crate::error::{Error, Result};

/// A message from the sender of the rows.
#[derive(Debug)]
pub(crate) enum Piece {
    /// COPY's text, cut anywhere.
    Rows(Bytes),
    /// The end of the rows. Without it, the COPY fails.
    End,
}

impl Wire {
    /// Runs one `COPY … FROM STDIN` with these rows; returns their number. If the rows end without [`Piece::End`],
    /// the server keeps none of them.
    pub async fn copy_in(&mut self, statement: &[u8], pieces: &mut Receiver<Piece>) -> Result<u64, Refusal> {
        self.send(statement).await?;
        let mut refused = None;
        loop {
            let (kind, length) = self.stream.header().await?;
            match kind {
                b'G' => {
                    self.stream.body(length, MESSAGE_LIMIT).await?;
                    break;
                }
                b'Z' => {
                    self.stream.body(length, MESSAGE_LIMIT).await?;
                    let nothing = || Refusal::Broken(unexpected("no COPY, although one was asked for"));
                    return Err(refused.unwrap_or_else(nothing));
                }
                _ => self.other(kind, length, &mut refused).await?,
            }
        }
        // A server that has refused a row still reads the others, and drops them.
        let mut whole = true;
        while refused.is_none() {
            match pieces.recv().await {
                Some(Piece::Rows(bytes)) => self.send_rows(&bytes).await?,
                Some(Piece::End) => break,
                None => {
                    whole = false;
                    break;
                }
            }
            while refused.is_none() && self.stream.has_spoken().await? {
                let (kind, length) = self.stream.header().await?;
                self.other(kind, length, &mut refused).await?;
            }
        }
        let end: &[u8] = if whole {
            b"c\0\0\0\x04"
        } else {
            b"f\0\0\0\x14incomplete rows\0"
        };
        self.stream.send(end).await?;
        let mut rows = None;
        loop {
            let (kind, length) = self.stream.header().await?;
            match kind {
                b'C' => {
                    let tag = self.stream.body(length, MESSAGE_LIMIT).await?;
                    let count = tag
                        .strip_prefix(b"COPY ")
                        .and_then(|text| std::str::from_utf8(text).ok());
                    rows = count.and_then(|text| text.trim_end_matches('\0').parse().ok());
                }
                b'Z' => {
                    self.stream.body(length, MESSAGE_LIMIT).await?;
                    return match (refused, rows) {
                        (Some(refused), _) => Err(refused),
                        (None, Some(rows)) => Ok(rows),
                        (None, None) => Err(Refusal::Broken(unexpected("a COPY without a number of rows"))),
                    };
                }
                _ => self.other(kind, length, &mut refused).await?,
            }
        }
    }

    async fn send_rows(&mut self, bytes: &Bytes) -> Result<()> {
        let length = u32::try_from(bytes.len() + 4).map_err(|_| Error::internal("rows of more than 4 GB at once"))?;
        self.stream.write(b"d").await?;
        self.stream.write(&length.to_be_bytes()).await?;
        Ok(self.stream.write(bytes).await?)
    }
}
