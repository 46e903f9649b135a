//! Sends COPY's rows to the server in a session of pgstow's own, so that they are part of one transaction with other
//! statements.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use tokio::sync::mpsc::Receiver;

use super::{MESSAGE_LIMIT, Partial, Refusal, Wire, unexpected};
use crate::error::{Error, Result};
use crate::postgres::StallClock;
use crate::postgres::stream::StreamError;

/// A message from the sender of the rows.
#[derive(Debug)]
pub(crate) enum Piece {
    /// COPY's text, cut anywhere.
    Rows(Bytes),
    /// The end of the rows. Without it, the COPY fails.
    End,
}

/// What the server has said so far during one COPY.
#[derive(Default)]
struct Said {
    partial: Partial,
    refused: Option<Refusal>,
}

enum Step {
    /// The connection took this number of bytes.
    Taken(usize),
    /// The server sent a message.
    Heard(u8, Vec<u8>),
}

impl Wire {
    /// Runs one `COPY … FROM STDIN` with these rows; returns their number. If the rows end without [`Piece::End`],
    /// the server keeps none of them. The clock runs while the server takes no byte of a piece.
    pub async fn copy_in(
        &mut self,
        statement: &[u8],
        pieces: &mut Receiver<Piece>,
        clock: &StallClock,
    ) -> Result<u64, Refusal> {
        let mut said = Said::default();
        self.begin_copy_in(statement, &mut said).await?;
        // A server that has refused a row still reads the others, and drops them.
        let mut whole = true;
        while said.refused.is_none() {
            match pieces.recv().await {
                Some(Piece::Rows(bytes)) => self.send_rows(&bytes, &mut said, clock).await?,
                Some(Piece::End) => break,
                None => {
                    whole = false;
                    break;
                }
            }
            while said.refused.is_none()
                && let Some((kind, body)) = self.heard(&mut said.partial).await?
            {
                self.noted(kind, &body, &mut said.refused)?;
            }
        }
        let end: &[u8] = if whole {
            b"c\0\0\0\x04"
        } else {
            b"f\0\0\0\x14incomplete rows\0"
        };
        clock.begin();
        self.give(end, &mut said, clock).await?;
        // Nothing is left to be written but what the connection holds.
        self.step(&[], &mut said).await?;
        clock.end();
        self.end_copy_in(said).await
    }

    async fn begin_copy_in(&mut self, statement: &[u8], said: &mut Said) -> Result<(), Refusal> {
        self.send(statement).await?;
        loop {
            let (kind, length) = self.stream.header().await?;
            match kind {
                b'G' => {
                    self.stream.body(length, MESSAGE_LIMIT).await?;
                    return Ok(());
                }
                b'Z' => {
                    self.stream.body(length, MESSAGE_LIMIT).await?;
                    let nothing = || Refusal::Broken(unexpected("no COPY, although one was asked for"));
                    return Err(said.refused.take().unwrap_or_else(nothing));
                }
                _ => self.other(kind, length, &mut said.refused).await?,
            }
        }
    }

    /// The number of rows that the server has taken.
    async fn end_copy_in(&mut self, mut said: Said) -> Result<u64, Refusal> {
        let mut rows = None;
        loop {
            let (kind, body) = self.message(&mut said.partial).await?;
            match kind {
                b'C' => {
                    let count = body
                        .strip_prefix(b"COPY ")
                        .and_then(|text| std::str::from_utf8(text).ok());
                    rows = count.and_then(|text| text.trim_end_matches('\0').parse().ok());
                }
                b'Z' => {
                    return match (said.refused, rows) {
                        (Some(refused), _) => Err(refused),
                        (None, Some(rows)) => Ok(rows),
                        (None, None) => Err(Refusal::Broken(unexpected("a COPY without a number of rows"))),
                    };
                }
                _ => self.noted(kind, &body, &mut said.refused)?,
            }
        }
    }

    async fn send_rows(&mut self, bytes: &[u8], said: &mut Said, clock: &StallClock) -> Result<()> {
        let length = u32::try_from(bytes.len() + 4).map_err(|_| Error::internal("rows of more than 4 GB at once"))?;
        let mut head = [b'd', 0, 0, 0, 0];
        head[1..].copy_from_slice(&length.to_be_bytes());
        clock.begin();
        self.give(&head, said, clock).await?;
        self.give(bytes, said, clock).await?;
        clock.end();
        Ok(())
    }

    /// Writes all of this, and hears the server meanwhile: a server that has much to say, such as a warning for each
    /// row, takes no bytes until its own are read.
    async fn give(&mut self, mut bytes: &[u8], said: &mut Said, clock: &StallClock) -> Result<()> {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes, said).await?..];
            clock.begin();
        }
        Ok(())
    }

    /// Writes some of this, or flushes if it is empty; returns the number of bytes that were taken.
    async fn step(&mut self, bytes: &[u8], said: &mut Said) -> Result<usize> {
        loop {
            // After its refusal the server has nothing to say until it has dropped the rest.
            let hears = said.refused.is_none();
            match self.next_step(bytes, &mut said.partial, hears).await? {
                Step::Taken(count) => return Ok(count),
                Step::Heard(kind, body) => self.noted(kind, &body, &mut said.refused)?,
            }
        }
    }

    async fn next_step(&mut self, bytes: &[u8], partial: &mut Partial, hears: bool) -> Result<Step, StreamError> {
        poll_fn(|context| {
            let taken = match bytes {
                [] => self.stream.poll_flush(context).map_ok(|()| 0),
                bytes => self.stream.poll_write(context, bytes),
            };
            if let Poll::Ready(taken) = taken {
                return Poll::Ready(match taken {
                    Ok(0) if !bytes.is_empty() => Err(StreamError::Io(io::ErrorKind::WriteZero.into())),
                    taken => taken.map(Step::Taken).map_err(StreamError::from),
                });
            }
            if !hears {
                return Poll::Pending;
            }
            let hearing = pin!(self.message(partial));
            hearing.poll(context).map_ok(|(kind, body)| Step::Heard(kind, body))
        })
        .await
    }

    /// The next message, if all of it has arrived.
    async fn heard(&mut self, partial: &mut Partial) -> Result<Option<(u8, Vec<u8>)>, StreamError> {
        poll_fn(|context| {
            let hearing = pin!(self.message(partial));
            Poll::Ready(match hearing.poll(context) {
                Poll::Ready(message) => message.map(Some),
                Poll::Pending => Ok(None),
            })
        })
        .await
    }
}
