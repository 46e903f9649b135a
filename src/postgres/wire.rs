//! A session in which pgstow itself speaks the protocol's simple query: for the rows of COPY, many in each read from
//! the socket, and for replication.
//!
//! Statements and rows are bytes in the database's own encoding, as in pg_dump's session. pgstow expects only a few
//! kinds of messages (docs: "Message Flow", simple query and COPY); any other message ends the session.

mod both;
mod filling;
mod row;
mod single;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use super::Redactor;
use super::refusal::{Refusal, complaint};
use super::stream::{MESSAGE_LIMIT, Stream, append, unexpected};
use crate::error::{Error, Result};

pub(crate) use both::Partial;
pub(crate) use filling::Piece;
pub(crate) use row::Row;

/// The most that one read brings. A socket seldom gives more at once.
pub(crate) const READ: usize = 256 << 10;
/// No message of a server is longer, because the server could not build it in memory.
const LONGEST: usize = 1 << 30;
/// No description of a statement's rows is longer: a server has at most 1664 columns in one, with short names.
const LONGEST_DESCRIPTION: usize = 16 << 20;
/// How long a server may take to end a session.
const CLOSING: Duration = Duration::from_secs(2);

/// The receiver of one statement's rows.
pub(crate) trait Rows {
    /// A piece of COPY's text, cut anywhere.
    fn text(&mut self, bytes: &[u8]);
    /// A COPY has ended; it had this number of rows.
    fn end(&mut self, rows: u64);
    /// Called between two reads from the socket, of at most [`READ`] bytes each: the place to wait.
    fn turn(&mut self) -> impl Future<Output = Result<()>> + Send;
}

pub(crate) struct Wire {
    stream: Stream,
    redactor: Redactor,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(stream: Stream, redactor: Redactor) -> Self {
        Self {
            stream: stream.with_room(READ),
            redactor,
        }
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// With a buffer of this size; a message may be cut at its end.
    #[cfg(any(fuzzing, test))]
    pub fn with_room(
        line: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        redactor: Redactor,
        room: usize,
    ) -> Self {
        Self::over(Stream::new(Box::new(line), room), redactor)
    }

    /// With the stream's own buffer.
    #[cfg(any(fuzzing, test))]
    pub(super) fn over(stream: Stream, redactor: Redactor) -> Self {
        Self { stream, redactor }
    }

    /// Runs statements and ignores their rows.
    pub async fn execute(&mut self, statements: &[u8]) -> Result<(), Refusal> {
        self.query(statements).await.map(|_| ())
    }

    /// The rows of all statements, each column as text or NULL.
    pub async fn query(&mut self, statements: &[u8]) -> Result<Vec<Row>, Refusal> {
        self.send(statements).await?;
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            let (kind, length) = self.stream.header().await?;
            match kind {
                b'D' => {
                    let body = self.stream.body(length, LONGEST).await?;
                    rows.push(Row::parse(&body).ok_or_else(|| unexpected("an invalid row"))?);
                }
                b'Z' => {
                    self.stream.body(length, MESSAGE_LIMIT).await?;
                    return refused.map_or(Ok(rows), Err);
                }
                _ => self.other(kind, length, &mut refused).await?,
            }
        }
    }

    /// Sends the text of the statements' COPYs to `rows`.
    pub async fn copy(&mut self, statements: &[u8], rows: &mut impl Rows) -> Result<(), Refusal> {
        self.send(statements).await?;
        let mut refused = None;
        loop {
            let (kind, length) = self.stream.header().await?;
            if kind != b'd' && length > self.stream.buffered().len() {
                // The next message needs a read, and no row has called `turn` before it.
                rows.turn().await?;
            }
            match kind {
                b'd' => self.copy_data(length, rows).await?,
                b'C' => {
                    let tag = self.stream.body(length, MESSAGE_LIMIT).await?;
                    if let Some(count) = tag.strip_prefix(b"COPY ") {
                        let count = std::str::from_utf8(count).ok();
                        let count = count.and_then(|text| text.trim_end_matches('\0').parse().ok());
                        rows.end(count.ok_or_else(|| unexpected("a COPY without a number of rows"))?);
                    }
                }
                b'Z' => {
                    self.stream.body(length, MESSAGE_LIMIT).await?;
                    return refused.map_or(Ok(()), Err);
                }
                _ => self.other(kind, length, &mut refused).await?,
            }
            self.whole_rows(rows);
            if self.stream.buffered().len() < 5 {
                rows.turn().await?;
            }
        }
    }

    /// Takes the rows that are complete in the buffer. Nearly all rows are, so their bytes are touched only once,
    /// without waiting.
    fn whole_rows(&mut self, rows: &mut impl Rows) {
        while let Some((&[b'd', a, b, c, d], rest)) = self.stream.buffered().split_first_chunk::<5>() {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let Some(row) = length.checked_sub(4).and_then(|length| rest.get(..length)) else {
                return;
            };
            rows.text(row);
            self.stream.consume(1 + length);
        }
    }

    /// Resolves when the server ends the session, with the server's error.
    pub async fn ended(&mut self) -> Error {
        let mut refused = None;
        loop {
            let heard = match self.stream.header().await {
                Ok((kind, length)) => self.other(kind, length, &mut refused).await,
                Err(broken) => Err(broken.into()),
            };
            match (heard, refused.take()) {
                (_, Some(refusal)) => return refusal.into_error(),
                (Err(error), None) => return error,
                (Ok(()), None) => {}
            }
        }
    }

    /// Ends the session, and returns when the server has closed it.
    pub async fn close(self) {
        // pgstow ends the session, so an error here does not matter.
        let _ = tokio::time::timeout(CLOSING, self.stream.terminate()).await;
    }

    async fn send(&mut self, statements: &[u8]) -> Result<()> {
        let mut message = Vec::with_capacity(statements.len() + 6);
        append(&mut message, b'Q', &[statements, b"\0"])?;
        Ok(self.stream.send(&message).await?)
    }

    /// A row that crosses the buffer's end, or is longer than the buffer.
    async fn copy_data(&mut self, length: usize, rows: &mut impl Rows) -> Result<()> {
        let mut left = length;
        while left > 0 {
            if self.stream.buffered().is_empty() {
                rows.turn().await?;
                self.stream.fill().await?;
            }
            let here = self.stream.buffered();
            let count = left.min(here.len());
            rows.text(&here[..count]);
            self.stream.consume(count);
            left -= count;
        }
        Ok(())
    }

    /// Messages that may come at any time, and the server's error.
    async fn other(&mut self, kind: u8, length: usize, refused: &mut Option<Refusal>) -> Result<()> {
        let limit = match kind {
            b'T' => LONGEST_DESCRIPTION,
            _ => MESSAGE_LIMIT,
        };
        let body = self.stream.body(length, limit).await?;
        self.noted(kind, &body, refused)
    }

    /// The same for one that is read.
    fn noted(&self, kind: u8, body: &[u8], refused: &mut Option<Refusal>) -> Result<()> {
        match kind {
            b'E' => {
                *refused = Some(complaint(body).into_refusal(&self.redactor));
                Ok(())
            }
            // Notice, parameter, notification; the description of rows; the end of COPY and of a statement; an empty
            // statement.
            b'N' | b'S' | b'A' | b'T' | b'H' | b'c' | b'C' | b'I' => Ok(()),
            other => Err(unexpected(&format!("a message of type {:?}", char::from(other)))),
        }
    }
}
