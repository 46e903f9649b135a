//! A session that the client library uses for a while, for queries with typed answers.
//!
//! tokio-postgres stays for these. About a hundred catalog queries use its parameters and rows, and a copy of that
//! code would be no better. It neither opens a session nor logs in: it gets a session that has begun, and a copy of
//! the messages that end a login. pgstow can take the session back for COPY, in any transaction, without losing a
//! byte: between two queries the library gets nothing to read, and what arrives then stays in pgstow's [`Stream`].

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

use super::startup::Greeting;
use super::stream::{Stream, append};
use crate::error::{Error, Result};

/// Lends a session that has just begun. The task speaks the protocol for the client; it ends when the client is
/// dropped or the session is taken back.
pub(super) async fn lend(stream: Stream, greeting: &Greeting) -> Result<(Client, JoinHandle<()>, Lent)> {
    let lent = Lent(Arc::new(Mutex::new(Loan {
        stream: Some(stream),
        greeting: greeting_of(greeting)?,
        owed: 0,
        heard: Frames::with_header(HEADER),
        said: Frames::with_header(STARTUP_HEADER),
        over: None,
        waiting: None,
    })));
    let mut config = Config::new();
    // The library requires a user, but the value is never sent.
    config.user("pgstow").ssl_mode(SslMode::Disable);
    let (client, connection) = config
        .connect_raw(Borrowed(Arc::clone(&lent.0)), NoTls)
        .await
        .map_err(|error| Error::internal("the client library does not take the session").source(error))?;
    let connection = tokio::spawn(async move {
        // The next query of the client reports this error.
        let _ = connection.await;
    });
    Ok((client, connection, lent))
}

/// The end of a login without a password, as the library reads it.
fn greeting_of(greeting: &Greeting) -> Result<Vec<u8>> {
    let mut messages = Vec::new();
    append(&mut messages, b'R', &[&0_u32.to_be_bytes()])?;
    for (name, value) in &greeting.parameters {
        append(&mut messages, b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"])?;
    }
    if let Some(key) = greeting.key {
        append(&mut messages, b'K', &[&key.process.to_be_bytes(), &key.secret])?;
    }
    append(&mut messages, b'Z', &[b"I"])?;
    Ok(messages)
}

/// Takes a session back.
pub(super) struct Lent(Arc<Mutex<Loan>>);

impl Lent {
    /// Takes the session away from the library. `None` if the server owes an answer, or one side is within a message:
    /// then ask for an answer, wait for it, and try again.
    pub fn take(&self) -> Option<Stream> {
        let mut loan = lock(&self.0);
        let is_quiet = loan.owed == 0 && loan.heard.is_between() && loan.said.is_between() && loan.over.is_none();
        let stream = if is_quiet { loan.stream.take() } else { None };
        if let Some(waiting) = loan.waiting.take() {
            waiting.wake();
        }
        stream
    }
}

struct Loan {
    /// `None` when it was taken back.
    stream: Option<Stream>,
    /// What the library gets before the server's bytes.
    greeting: Vec<u8>,
    /// The number of answers that the server has not finished.
    owed: usize,
    heard: Frames,
    said: Frames,
    /// The server sends nothing more.
    over: Option<io::Result<()>>,
    /// The reader that waits for bytes.
    waiting: Option<Waker>,
}

fn lock(loan: &Mutex<Loan>) -> MutexGuard<'_, Loan> {
    loan.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Loan {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.greeting.is_empty() {
            let count = self.greeting.len().min(buffer.remaining());
            buffer.put_slice(&self.greeting[..count]);
            self.greeting.drain(..count);
            return Poll::Ready(Ok(()));
        }
        loop {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            // At the end there is nothing left to lose.
            let may_hear = self.owed > 0 || self.over.is_some();
            if may_hear && !stream.buffered().is_empty() {
                let here = stream.buffered();
                let here = &here[..here.len().min(buffer.remaining())];
                let count = self.heard.hear(here, |kind| {
                    if kind == b'Z' {
                        self.owed = self.owed.saturating_sub(1);
                    }
                    self.owed == 0 && self.over.is_none()
                });
                buffer.put_slice(&here[..count]);
                stream.consume(count);
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = &mut self.over {
                return Poll::Ready(std::mem::replace(end, Ok(())));
            }
            self.waiting = Some(context.waker().clone());
            // The server was not asked anything, and has sent more than the buffer holds: notices, which can wait.
            if stream.is_full() {
                return Poll::Pending;
            }
            match ready!(stream.poll_fill(context)) {
                Ok(0) => self.over = Some(Ok(())),
                Ok(_) => {}
                Err(error) => self.over = Some(Err(error)),
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        // The library's own startup message is dropped: the session has begun already.
        if self.said.header == STARTUP_HEADER {
            let mut begun = false;
            let count = self.said.hear(bytes, |_| {
                begun = true;
                true
            });
            if begun {
                self.said = Frames::with_header(HEADER);
            }
            return Poll::Ready(Ok(count));
        }
        let count = ready!(stream.poll_write(context, bytes))?;
        let mut asked = 0;
        self.said.hear(&bytes[..count], |kind| {
            if ASKS_FOR_AN_END.contains(&kind) {
                asked += 1;
            }
            false
        });
        self.owed += asked;
        if asked > 0
            && let Some(waiting) = self.waiting.take()
        {
            waiting.wake();
        }
        Poll::Ready(Ok(count))
    }
}

/// A query, a function call, or the end of several messages: the server then reports when it is ready again.
const ASKS_FOR_AN_END: [u8; 3] = *b"QFS";
/// A type and a length.
const HEADER: usize = 5;
/// The very first message has no type.
const STARTUP_HEADER: usize = 4;

/// Finds where messages begin and end in bytes that arrive in any pieces.
struct Frames {
    /// The length of each message's header.
    header: usize,
    head: [u8; HEADER],
    read: usize,
    /// The remaining bytes of the message after its header.
    left: usize,
}

impl Frames {
    fn with_header(header: usize) -> Self {
        Self {
            header,
            head: [0; HEADER],
            read: 0,
            left: 0,
        }
    }

    /// Whether the last message has ended and the next has not begun.
    fn is_between(&self) -> bool {
        self.read == 0
    }

    /// Reads these bytes, and stops after a message for whose type `stops` returns true. Returns how far it got.
    fn hear(&mut self, bytes: &[u8], mut stops: impl FnMut(u8) -> bool) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.read < self.header {
                self.head[self.read] = bytes[at];
                self.read += 1;
                at += 1;
                if self.read < self.header {
                    continue;
                }
                let length = self.head[..self.header]
                    .last_chunk::<4>()
                    .map_or(0, |length| u32::from_be_bytes(*length));
                // The reader reports an invalid length.
                self.left = length.saturating_sub(4) as usize;
            } else {
                let count = self.left.min(bytes.len() - at);
                self.left -= count;
                at += count;
            }
            if self.left == 0 {
                self.read = 0;
                if stops(self.head[0]) {
                    break;
                }
            }
        }
        at
    }
}

/// The library uses this as its socket.
struct Borrowed(Arc<Mutex<Loan>>);

impl AsyncRead for Borrowed {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Borrowed {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut lock(&self.0).stream {
            Some(stream) => stream.poll_flush(context),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut lock(&self.0).stream {
            Some(stream) => stream.poll_shutdown(context),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::postgres::stream::ROOM;
    use crate::postgres::{Redactor, Wire};

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut messages = Vec::new();
        append(&mut messages, kind, &[body]).unwrap();
        messages
    }

    async fn asked(client: &mut DuplexStream) -> Vec<u8> {
        assert_eq!(client.read_u8().await.unwrap(), b'Q');
        let length = client.read_u32().await.unwrap() as usize;
        let mut body = vec![0; length - 4];
        client.read_exact(&mut body).await.unwrap();
        body
    }

    async fn lent() -> (Client, JoinHandle<()>, Lent, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (client, connection, lent) = lend(Stream::new(Box::new(ours), ROOM), &Greeting::default())
            .await
            .unwrap();
        (client, connection, lent, theirs)
    }

    fn answer() -> Vec<u8> {
        [message(b'C', b"SELECT 0\0"), message(b'Z', b"I")].concat()
    }

    #[test]
    fn the_ends_of_messages_are_found_however_they_are_cut() {
        let said = [message(b'C', b"x"), message(b'Z', b"I"), message(b'N', &[b'Z'; 300])].concat();
        for cut in 1..40 {
            let mut frames = Frames::with_header(HEADER);
            let mut kinds = Vec::new();
            for piece in said.chunks(cut) {
                let heard = frames.hear(piece, |kind| {
                    kinds.push(kind);
                    false
                });
                assert_eq!(heard, piece.len());
            }
            assert_eq!(kinds, b"CZN");
            assert!(frames.is_between());
        }
        let mut frames = Frames::with_header(HEADER);
        assert_eq!(frames.hear(&said, |kind| kind == b'Z'), message(b'C', b"x").len() + 6);
    }

    #[tokio::test]
    async fn a_session_that_is_taken_back_has_every_byte() {
        let late = message(b'S', b"TimeZone\0UTC\0");
        for cut in 0..late.len() {
            let (client, connection, lent, mut theirs) = lent().await;
            let (first, second) = late.split_at(cut);
            let (first, second) = (first.to_vec(), second.to_vec());
            let server = tokio::spawn(async move {
                assert_eq!(asked(&mut theirs).await, b"SELECT 1\0");
                // Unasked, and in the same write as the answer.
                theirs.write_all(&[answer(), first].concat()).await.unwrap();
                assert_eq!(asked(&mut theirs).await, b"COPY\0");
                theirs.write_all(&[second, answer()].concat()).await.unwrap();
                theirs
            });
            client.batch_execute("SELECT 1").await.unwrap();
            // Meanwhile the library's task tries to read more.
            tokio::task::yield_now().await;
            let stream = lent.take().expect("the server owes no answer");
            drop(client);
            let mut wire = Wire::new(stream, Redactor::default());
            wire.execute(b"COPY").await.unwrap();
            drop(server.await.unwrap());
            connection.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_session_that_owes_an_answer_is_not_given_back() {
        let (client, _connection, lent, mut theirs) = lent().await;
        let asking = tokio::spawn(async move { client.batch_execute("SELECT 1").await });
        asked(&mut theirs).await;
        assert!(lent.take().is_none());
        theirs.write_all(&answer()).await.unwrap();
        asking.await.unwrap().unwrap();
        // The client was dropped with its task, and sends its goodbye.
        assert_eq!(theirs.read_u8().await.unwrap(), b'X');
    }

    #[tokio::test]
    async fn a_server_that_ends_an_idle_session_is_noticed() {
        let (client, connection, _lent, mut theirs) = lent().await;
        let words = message(b'E', b"SFATAL\0C57P01\0Mterminating connection\0\0");
        theirs.write_all(&words).await.unwrap();
        drop(theirs);
        connection.await.unwrap();
        assert!(client.is_closed());
    }

    #[tokio::test]
    async fn notices_without_end_do_not_fill_the_memory_of_an_idle_session() {
        let (client, _connection, lent, mut theirs) = lent().await;
        let notice = message(b'N', &[&b"SNOTICE\0C00000\0M"[..], &[b'x'; 100], b"\0\0"].concat());
        let notices = notice.repeat(500);
        let server = tokio::spawn(async move {
            theirs.write_all(&notices).await.unwrap();
            asked(&mut theirs).await;
            theirs.write_all(&answer()).await.unwrap();
            theirs
        });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        client.batch_execute("SELECT 1").await.unwrap();
        drop(server.await.unwrap());
        assert!(lent.take().is_some());
    }
}
