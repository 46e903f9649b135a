//! The connection to the server, with the bytes that were read from it and not used yet.
//!
//! Both stay together from the login's first byte to the last row: the login, the client library, simple queries and
//! COPY read from the same buffer, one after the other. So no early byte is lost between two of them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::error::{Code, Error};

/// The longest message that is not a row: an error, a notice, a column's description. Rows have no limit but
/// PostgreSQL's own.
pub(super) const MESSAGE_LIMIT: usize = 1 << 20;
/// The buffer's size for everything but COPY.
pub(super) const ROOM: usize = 16 << 10;
/// A message's type and length.
const HEADER: usize = 5;

/// A connection that carries bytes in both directions.
pub(super) trait Line: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Line for S {}

/// Why a session cannot go on.
#[derive(Debug)]
pub(super) enum StreamError {
    /// The server closed the connection.
    Closed,
    Io(io::Error),
    /// The server sent this instead of an expected message.
    Unexpected(String),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<StreamError> for Error {
    fn from(broken: StreamError) -> Self {
        match broken {
            StreamError::Closed => Error::new(Code::ConnErr, "the server closed the connection"),
            StreamError::Io(error) => Error::new(Code::ConnErr, "the connection to the server is lost").source(error),
            StreamError::Unexpected(what) => unexpected(&what),
        }
    }
}

pub(super) fn unexpected(what: &str) -> Error {
    Error::new(
        Code::ConnErr,
        format!("the server sent {what}, which is not PostgreSQL's protocol"),
    )
    .hint("connect to the server itself, not through a proxy")
}

/// A message's type and the length of its body.
pub(super) type Header = (u8, usize);

pub(super) struct Stream {
    line: Box<dyn Line>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Stream {
    /// With a buffer of this size, at least 8 bytes.
    pub fn new(line: Box<dyn Line>, room: usize) -> Self {
        Self {
            line,
            buffer: vec![0; room].into(),
            start: 0,
            end: 0,
        }
    }

    /// The same with a buffer of at least this size.
    pub fn with_room(mut self, room: usize) -> Self {
        if self.buffer.len() < room {
            let mut buffer = vec![0; room].into_boxed_slice();
            let held = self.end - self.start;
            buffer[..held].copy_from_slice(self.buffered());
            (self.buffer, self.start, self.end) = (buffer, 0, held);
        }
        self
    }

    /// The connection alone, and the bytes that were read from it and not used yet.
    pub fn into_line(self) -> (Vec<u8>, Box<dyn Line>) {
        (self.buffered().to_vec(), self.line)
    }

    /// The bytes that were read and not used yet.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Marks this number of the buffered bytes as used.
    pub fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start);
        self.start += count;
    }

    pub fn is_full(&self) -> bool {
        self.end - self.start == self.buffer.len()
    }

    /// The next message's header. Cancelling this call loses nothing.
    pub async fn header(&mut self) -> Result<Header, StreamError> {
        while self.end - self.start < HEADER {
            self.fill().await?;
        }
        let head = &self.buffer[self.start..self.start + HEADER];
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let kind = head[0];
        self.start += HEADER;
        let length = length
            .checked_sub(4)
            .ok_or_else(|| StreamError::Unexpected("a message without a valid length".to_owned()))?;
        Ok((kind, length))
    }

    /// The body after a header.
    pub async fn body(&mut self, length: usize, limit: usize) -> Result<Vec<u8>, StreamError> {
        if length > limit {
            return Err(StreamError::Unexpected(format!("a message of {length} bytes")));
        }
        let mut body = Vec::new();
        self.body_into(&mut body, length).await?;
        Ok(body)
    }

    /// The same in pieces: if this call is cancelled, `body` has the bytes that have arrived.
    pub async fn body_into(&mut self, body: &mut Vec<u8>, length: usize) -> Result<(), StreamError> {
        while body.len() < length {
            if self.start == self.end {
                self.fill().await?;
            }
            let count = (length - body.len()).min(self.end - self.start);
            body.extend_from_slice(&self.buffer[self.start..self.start + count]);
            self.start += count;
        }
        Ok(())
    }

    /// Reads once; the buffer must not be full.
    pub async fn fill(&mut self) -> Result<(), StreamError> {
        match poll_fn(|context| self.poll_fill(context)).await? {
            0 => Err(StreamError::Closed),
            _ => Ok(()),
        }
    }

    /// The same without waiting. It does not read from a connection that has ended.
    pub fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let mut room = ReadBuf::new(&mut self.buffer[self.end..]);
        ready!(Pin::new(&mut *self.line).poll_read(context, &mut room))?;
        let count = room.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Writes and flushes.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.line.write_all(bytes).await?;
        Ok(self.line.flush().await?)
    }

    pub fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.line).poll_write(context, bytes)
    }

    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.line).poll_flush(context)
    }

    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.line).poll_shutdown(context)
    }

    /// Ends the session; returns when the server has closed the connection. Messages that arrive meanwhile are
    /// dropped.
    pub async fn terminate(mut self) -> Result<(), StreamError> {
        self.send(&[b'X', 0, 0, 0, 4]).await?;
        loop {
            self.consume(self.end - self.start);
            match self.fill().await {
                Err(StreamError::Closed) => return Ok(()),
                read => read?,
            }
        }
    }
}

/// Appends one message to what will be sent: its type, its length, and these parts.
pub(super) fn append(messages: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) -> Result<(), Error> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length + 4).map_err(|_| Error::internal("a statement of more than 4 GB"))?;
    messages.push(kind);
    messages.extend_from_slice(&length.to_be_bytes());
    for part in parts {
        messages.extend_from_slice(part);
    }
    Ok(())
}
