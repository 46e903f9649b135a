//! A session in which we speak the protocol's simple query ourselves, for one purpose: COPY's rows
//! as they come from the socket, many to a read.
//!
//! Statements and rows are bytes in the database's own encoding, as in pg_dump's session. What is
//! expected of the server is little (docs: "Message Flow", simple query and COPY); anything else
//! ends the session.

mod filling;
mod single;

use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::error::SqlState;

use super::Redactor;
use super::connection::classify_server;
use super::tap::Line;
use crate::error::{Code, Error, Result};

pub(crate) use filling::Piece;

/// As much as a read may bring. Sockets seldom give more at once.
pub(crate) const READ: usize = 256 << 10;
/// How long a server may take to end a session.
const CLOSING: Duration = Duration::from_secs(2);
/// A message that is no row: an error, a notice, a column's description. Rows have no limit but
/// PostgreSQL's own.
const MESSAGE_LIMIT: usize = 1 << 20;

/// What one statement's rows go to.
pub(crate) trait Rows {
    /// COPY's text, cut anywhere.
    fn text(&mut self, bytes: &[u8]);
    /// A COPY has ended, and had so many rows.
    fn end(&mut self, rows: u64);
    /// Between two reads from the socket, of [`READ`] bytes at most: the place to wait.
    fn turn(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Where the server refuses a query whose rows a policy would filter (`row_security = off`).
pub(super) const ROW_SECURITY: &str = "check_enable_rls";

/// Why a statement failed.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The server said no. The session can go on.
    Server {
        state: SqlState,
        /// The place in the server's source that says no, which is the same in every language.
        routine: String,
        error: Error,
    },
    /// The session cannot be used any more, or the rows' receiver gave up.
    Broken(Error),
}

impl Refusal {
    pub fn into_error(self) -> Error {
        match self {
            Refusal::Server { error, .. } | Refusal::Broken(error) => error,
        }
    }

    /// What it means for a backup, in the words that pg_dump has for the same; `what` could not be done.
    pub fn of_reading(self, what: &str) -> Error {
        let (state, routine, error) = match self {
            Refusal::Server { state, routine, error } => (state, routine, error),
            Refusal::Broken(error) => {
                let text = format!("{what}: {}", error.message());
                return Error::new(error.code(), text).hint(error.hint_text().to_owned());
            }
        };
        let text = format!("{what}: {}", error.message());
        let state = state.code();
        if error.code() == Code::Permission {
            let error = Error::new(Code::Permission, text.clone());
            return if routine == ROW_SECURITY {
                error.hint(super::BYPASS_HINT)
            } else {
                error
            };
        }
        let of_the_session = ["08", "57P", "53", "40001"];
        if of_the_session.iter().any(|start| state.starts_with(start)) {
            return Error::new(Code::ConnErr, text).hint(error.hint_text().to_owned());
        }
        Error::new(Code::PgDumpErr, text)
    }

    /// What helps where a policy would filter the rows.
    pub fn hint_of_rows(&self) -> Option<&'static str> {
        match self {
            Refusal::Server { routine, .. } if routine == ROW_SECURITY => Some(super::BYPASS_HINT),
            _ => None,
        }
    }

    pub fn is(&self, state: &SqlState) -> bool {
        matches!(self, Refusal::Server { state: given, .. } if given == state)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Broken(error)
    }
}

pub(crate) struct Wire {
    line: Box<dyn Line>,
    redactor: Redactor,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

/// A message's type and the length of what follows.
type Header = (u8, usize);

impl Wire {
    pub(super) fn new(line: Box<dyn Line>, redactor: Redactor) -> Self {
        Self {
            line,
            redactor,
            buffer: vec![0; READ].into(),
            start: 0,
            end: 0,
        }
    }

    /// With a buffer of so many bytes: a message is cut wherever it ends.
    #[cfg(any(fuzzing, test))]
    pub fn with_room(
        line: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        redactor: Redactor,
        room: usize,
    ) -> Self {
        Self {
            buffer: vec![0; room].into(),
            ..Self::new(Box::new(line), redactor)
        }
    }

    /// Statements whose rows, if any, do not matter.
    pub async fn execute(&mut self, statements: &[u8]) -> Result<(), Refusal> {
        self.query(statements).await.map(|_| ())
    }

    /// The rows of all statements, each column as text or NULL.
    pub async fn query(&mut self, statements: &[u8]) -> Result<Vec<Row>, Refusal> {
        self.send(statements).await?;
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            let (kind, length) = self.header().await?;
            match kind {
                b'D' => {
                    let body = self.body(length, usize::MAX).await?;
                    rows.push(Row::parse(&body).ok_or_else(|| unexpected("a row that is none"))?);
                }
                b'Z' => {
                    self.body(length, MESSAGE_LIMIT).await?;
                    return refused.map_or(Ok(rows), Err);
                }
                _ => self.other(kind, length, &mut refused).await?,
            }
        }
    }

    /// The text of the statements' COPYs into `rows`.
    pub async fn copy(&mut self, statements: &[u8], rows: &mut impl Rows) -> Result<(), Refusal> {
        self.send(statements).await?;
        let mut refused = None;
        loop {
            let (kind, length) = self.header().await?;
            if kind != b'd' && length > self.end - self.start {
                // A read is due for it, and no row asks for the moment before it.
                rows.turn().await?;
            }
            match kind {
                b'd' => self.copy_data(length, rows).await?,
                b'C' => {
                    let tag = self.body(length, MESSAGE_LIMIT).await?;
                    if let Some(count) = tag.strip_prefix(b"COPY ") {
                        let count = std::str::from_utf8(count).ok();
                        let count = count.and_then(|text| text.trim_end_matches('\0').parse().ok());
                        rows.end(count.ok_or_else(|| unexpected("a COPY of no number of rows"))?);
                    }
                }
                b'Z' => {
                    self.body(length, MESSAGE_LIMIT).await?;
                    return refused.map_or(Ok(()), Err);
                }
                _ => self.other(kind, length, &mut refused).await?,
            }
            self.whole_rows(rows);
            if self.end - self.start < 5 {
                rows.turn().await?;
            }
        }
    }

    /// The rows that are in the buffer as a whole: nearly all of them, so no byte of theirs is
    /// touched more than once, and nobody is waited for.
    fn whole_rows(&mut self, rows: &mut impl Rows) {
        while let Some((&[b'd', a, b, c, d], rest)) = self.buffer[self.start..self.end].split_first_chunk::<5>() {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let Some(row) = length.checked_sub(4).and_then(|length| rest.get(..length)) else {
                return;
            };
            rows.text(row);
            self.start += 1 + length;
        }
    }

    /// Resolves when the server ends the session: with what it says.
    pub async fn ended(&mut self) -> Error {
        let mut refused = None;
        loop {
            let heard = match self.header().await {
                Ok((kind, length)) => self.other(kind, length, &mut refused).await,
                Err(error) => Err(error),
            };
            match (heard, refused.take()) {
                (_, Some(refusal)) => return refusal.into_error(),
                (Err(error), None) => return error,
                (Ok(()), None) => {}
            }
        }
    }

    /// Ends the session, and returns when the server has let go of it.
    pub async fn close(mut self) {
        let ended = async {
            self.line.write_all(&[b'X', 0, 0, 0, 4]).await?;
            self.line.flush().await?;
            while self.line.read(&mut self.buffer).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        // It ends by our wish: how does not matter.
        let _ = tokio::time::timeout(CLOSING, ended).await;
    }

    async fn send(&mut self, statements: &[u8]) -> Result<()> {
        let length =
            u32::try_from(statements.len() + 5).map_err(|_| Error::internal("a statement of more than 4 GB"))?;
        let mut message = Vec::with_capacity(statements.len() + 6);
        message.push(b'Q');
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(statements);
        message.push(0);
        let sent = async {
            self.line.write_all(&message).await?;
            self.line.flush().await
        };
        sent.await.map_err(|error| lost(&error))
    }

    /// A row that lies across the buffer's end, or is longer than it.
    async fn copy_data(&mut self, length: usize, rows: &mut impl Rows) -> Result<()> {
        let mut left = length;
        while left > 0 {
            if self.start == self.end {
                rows.turn().await?;
                self.fill().await?;
            }
            let count = left.min(self.end - self.start);
            rows.text(&self.buffer[self.start..self.start + count]);
            self.start += count;
            left -= count;
        }
        Ok(())
    }

    /// What may come at any time, and the server's refusal.
    async fn other(&mut self, kind: u8, length: usize, refused: &mut Option<Refusal>) -> Result<()> {
        let body = self
            .body(length, if kind == b'T' { usize::MAX } else { MESSAGE_LIMIT })
            .await?;
        match kind {
            b'E' => {
                let Complaint { state, routine, text } = complaint(&body);
                let error = classify_server(&state, &self.redactor.clean(&format!("the server says: {text}")));
                *refused = Some(Refusal::Server { state, routine, error });
                Ok(())
            }
            // Notice, parameter, notification; what precedes rows; the end of COPY and of a
            // statement; an empty one.
            b'N' | b'S' | b'A' | b'T' | b'H' | b'c' | b'C' | b'I' => Ok(()),
            other => Err(unexpected(&format!("a message of type {:?}", char::from(other)))),
        }
    }

    async fn header(&mut self) -> Result<Header> {
        while self.end - self.start < 5 {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            self.fill().await?;
        }
        let head = &self.buffer[self.start..self.start + 5];
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let kind = head[0];
        self.start += 5;
        let length = length
            .checked_sub(4)
            .ok_or_else(|| unexpected("a message of no length"))?;
        Ok((kind, length))
    }

    async fn body(&mut self, length: usize, limit: usize) -> Result<Vec<u8>> {
        if length > limit {
            return Err(unexpected(&format!("a message of {length} bytes")));
        }
        let mut body = Vec::new();
        while body.len() < length {
            if self.start == self.end {
                self.fill().await?;
            }
            let count = (length - body.len()).min(self.end - self.start);
            body.extend_from_slice(&self.buffer[self.start..self.start + count]);
            self.start += count;
        }
        Ok(body)
    }

    async fn fill(&mut self) -> Result<()> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        let count = self.line.read(&mut self.buffer[self.end..]).await;
        match count {
            Ok(0) => Err(Error::new(Code::ConnErr, "the server closed the connection")),
            Ok(count) => {
                self.end += count;
                Ok(())
            }
            Err(error) => Err(lost(&error)),
        }
    }
}

/// One row of text.
#[derive(Debug)]
pub(crate) struct Row(Vec<Option<Vec<u8>>>);

impl Row {
    /// A column's bytes; nothing for NULL, and for a column that is not there.
    pub fn bytes(&self, column: usize) -> Option<&[u8]> {
        self.0.get(column)?.as_deref()
    }

    pub fn text(&self, column: usize) -> Option<&str> {
        std::str::from_utf8(self.bytes(column)?).ok()
    }

    pub fn number<N: std::str::FromStr>(&self, column: usize) -> Option<N> {
        self.text(column)?.parse().ok()
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let (count, mut rest) = body.split_first_chunk::<2>()?;
        let mut columns = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let (length, after) = rest.split_first_chunk::<4>()?;
            rest = after;
            columns.push(match u32::from_be_bytes(*length) {
                u32::MAX => None,
                length => {
                    let (value, after) = rest.split_at_checked(length as usize)?;
                    rest = after;
                    Some(value.to_vec())
                }
            });
        }
        rest.is_empty().then_some(Self(columns))
    }
}

/// An error's fields: message and detail are one text.
struct Complaint {
    state: SqlState,
    routine: String,
    text: String,
}

fn complaint(body: &[u8]) -> Complaint {
    let (mut state, mut routine) = (SqlState::INTERNAL_ERROR, String::new());
    let (mut message, mut detail) = (String::new(), None);
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, text)) = field.split_first() else {
            continue;
        };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'C' => state = SqlState::from_code(&text),
            b'M' => message = text,
            b'D' => detail = Some(text),
            b'R' => routine = text,
            _ => {}
        }
    }
    let text = match detail {
        // A row's values are nobody's business.
        Some(detail) => format!("{message} ({})", super::restoring::without_values(&detail)),
        None => message,
    };
    Complaint { state, routine, text }
}

fn lost(error: &std::io::Error) -> Error {
    Error::new(Code::ConnErr, format!("the connection to the server is lost: {error}"))
}

fn unexpected(what: &str) -> Error {
    Error::new(
        Code::ConnErr,
        format!("the server sent {what}, which is not PostgreSQL's protocol"),
    )
    .hint("connect to the server itself, not through a proxy")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a script of messages becomes.
    #[derive(Default)]
    struct Heard {
        text: Vec<u8>,
        ends: Vec<(usize, u64)>,
        turns: usize,
    }

    impl Rows for Heard {
        fn text(&mut self, bytes: &[u8]) {
            self.text.extend_from_slice(bytes);
        }
        fn end(&mut self, rows: u64) {
            self.ends.push((self.text.len(), rows));
        }
        async fn turn(&mut self) -> Result<()> {
            self.turns += 1;
            Ok(())
        }
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend_from_slice(body);
        message
    }

    /// A server that has said all this, in writes of `cut` bytes, and hangs up when it was asked so often.
    fn wire(said: &[u8], cut: usize, asked: usize) -> Wire {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let said = said.to_vec();
        tokio::spawn(async move {
            for piece in said.chunks(cut) {
                theirs.write_all(piece).await.unwrap();
            }
            for _ in 0..asked {
                let _ = theirs.read(&mut [0; 1024]).await;
            }
        });
        Wire::new(Box::new(ours), Redactor::default())
    }

    #[tokio::test]
    async fn copies_come_whole_however_the_bytes_are_cut() {
        let long = vec![b'x'; 300_000];
        let said = [
            message(b'H', b"\0\0\0"),
            message(b'd', b"1\ta\n"),
            message(b'd', &long),
            message(b'c', b""),
            message(b'C', b"COPY 2\0"),
            message(b'C', b"ROLLBACK\0"),
            message(b'H', b"\0\0\0"),
            message(b'C', b"COPY 0\0"),
            message(b'Z', b"T"),
        ]
        .concat();
        for cut in [1, 7, 4096, said.len()] {
            let mut heard = Heard::default();
            wire(&said, cut, 1).copy(b"COPY", &mut heard).await.unwrap();
            assert_eq!(heard.text.len(), 4 + long.len(), "cut {cut}");
            assert_eq!(heard.ends, [(4 + long.len(), 2), (4 + long.len(), 0)]);
        }
    }

    #[tokio::test]
    async fn between_two_reads_is_a_turn_whatever_is_cut() {
        // Rows that fit into the buffer, and notices that never do.
        let notice = vec![b'x'; READ - 100];
        let pair = [message(b'd', &[b'r'; 200]), message(b'N', &notice)].concat();
        let said = [pair.repeat(20), message(b'Z', b"T")].concat();
        let mut heard = Heard::default();
        wire(&said, 64 << 10, 1).copy(b"COPY", &mut heard).await.unwrap();
        assert_eq!(heard.text.len(), 20 * 200);
        assert!(heard.turns >= said.len() / READ, "{} turns", heard.turns);
    }

    #[tokio::test]
    async fn a_refusal_leaves_the_session_usable() {
        let said = [
            message(b'E', b"SERROR\0C55P03\0Mcanceling statement due to lock timeout\0\0"),
            message(b'Z', b"E"),
            message(b'T', b"\0\x01x\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"),
            message(b'D', b"\0\x02\0\0\0\x02ab\xff\xff\xff\xff"),
            message(b'C', b"SELECT 1\0"),
            message(b'Z', b"T"),
        ]
        .concat();
        let mut wire = wire(&said, said.len(), 2);
        let refused = wire.execute(b"COPY").await.unwrap_err();
        assert!(refused.is(&SqlState::LOCK_NOT_AVAILABLE), "{refused:?}");
        let rows = wire.query(b"SELECT").await.unwrap();
        assert_eq!(rows[0].text(0), Some("ab"));
        assert_eq!(rows[0].bytes(1), None);
    }

    #[tokio::test]
    async fn nonsense_and_silence_end_it() {
        for said in [
            message(b'?', b""),
            vec![b'd', 0, 0, 0, 1],
            message(b'D', b"\0\x05"),
            message(b'd', b"x"),
        ] {
            let refused = wire(&said, 3, 1).query(b"SELECT").await.unwrap_err();
            assert!(matches!(refused, Refusal::Broken(_)), "{said:?}");
        }
        let ended = wire(&message(b'E', b"SFATAL\0C57P01\0Mterminating connection\0\0"), 5, 0)
            .ended()
            .await;
        assert!(ended.message().contains("terminating connection"), "{ended}");
    }
}
