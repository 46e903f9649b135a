//! Any bytes, read as the messages of a server.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::Result;
use crate::postgres::{ConnectionInfo, Redactor, Refusal, Row, Rows, Wire, log_in_over};

const PASSWORD: &str = "hunter2";
/// A longer message that is no row ends a session.
const MESSAGE_LIMIT: usize = 1 << 20;
/// A longer row of a query ends a session.
const ROW_LIMIT: usize = 1 << 30;
/// A longer description of rows ends a session.
const DESCRIPTION_LIMIT: usize = 16 << 20;
/// A longer message ends a login.
const LOGIN_LIMIT: usize = 64 << 10;

/// Tries the bytes as a server's messages in a session, and as its messages in a login and after it. pgstow accepts a
/// login if a simple reader accepts it, and the bytes after the login are there for the first statement.
pub fn check(bytes: &[u8]) {
    check_session(bytes, |room, at_once| wire(bytes, room, at_once));
    let after = after_login(bytes);
    for (room, at_once) in cuts(bytes) {
        let begun = now(log_in_over(Server::new(bytes, at_once), &info(), room));
        assert_eq!(begun.is_ok(), after.is_some(), "{at_once} bytes into {room}");
        if let Err(error) = begun {
            let told = format!("{error} {}", error.hint_text());
            assert!(!told.contains(PASSWORD), "{told}");
        }
    }
    if let Some(rest) = after {
        check_session(rest, |room, at_once| {
            now(log_in_over(Server::new(bytes, at_once), &info(), room)).expect("it was accepted")
        });
    }
}

/// Sizes of a buffer, and how many bytes one read returns.
fn cuts(bytes: &[u8]) -> [(usize, usize); 3] {
    [(8, 3), (32, usize::MAX), (1000, 1 + bytes.len() / 512)]
}

/// The statements get their answers one after the other until the session breaks. Rows, their numbers and refusals are
/// those that a simple reader finds in the messages, and do not depend on how the bytes are cut. The wire passes on no
/// more text than fits into a buffer before it lets the receiver wait. No error holds the password.
fn check_session(bytes: &[u8], session: impl Fn(usize, usize) -> Wire) {
    let mut said = bytes;
    let mut expected = Vec::new();
    loop {
        let answer = plain(&mut said, is_copy(expected.len()));
        let broken = answer.end == End::Broken;
        expected.push(answer);
        if broken {
            break;
        }
    }
    for (room, at_once) in cuts(bytes) {
        let mut wire = session(room, at_once);
        for (number, expected) in expected.iter().enumerate() {
            if is_copy(number) {
                let answer = copied(&mut wire, room);
                assert_eq!(answer, *expected, "statement {number}, {at_once} bytes into {room}");
            } else {
                queried(&mut wire, expected);
            }
        }
        let ended = now(session(room, at_once).ended());
        assert!(!ended.message().contains(PASSWORD), "{ended}");
    }
}

/// The bytes after a login over a safe connection, by a client with a password; `None` if the login fails.
fn after_login(bytes: &[u8]) -> Option<&[u8]> {
    let mut said = bytes;
    let (code, rest) = question(&mut said)?;
    match code {
        0 => {}
        3 if question(&mut said)?.0 == 0 => {}
        5 if rest.len() == 4 && question(&mut said)?.0 == 0 => {}
        // SCRAM too: kept bytes cannot answer the client's random value.
        _ => return None,
    }
    let mut told = 0;
    loop {
        let (kind, body) = whole(&mut said, MESSAGE_LIMIT)?;
        match kind {
            b'S' => {
                told += body.len();
                let ends = body.iter().filter(|byte| **byte == 0).count();
                if told > MESSAGE_LIMIT || ends != 2 || !body.ends_with(&[0]) {
                    return None;
                }
            }
            b'K' if body.len() == 8 => {}
            b'N' => {}
            b'Z' if body.len() == 1 => return Some(said),
            _ => return None,
        }
    }
}

fn question<'a>(said: &mut &'a [u8]) -> Option<(u32, &'a [u8])> {
    loop {
        match whole(said, LOGIN_LIMIT)? {
            (b'N', _) => {}
            (b'R', body) => {
                let (code, rest) = body.split_first_chunk::<4>()?;
                return Some((u32::from_be_bytes(*code), rest));
            }
            _ => return None,
        }
    }
}

/// A whole message that is not too long.
fn whole<'a>(said: &mut &'a [u8], limit: usize) -> Option<(u8, &'a [u8])> {
    let (kind, body, length) = message(said)?;
    (body.len() == length && length <= limit).then_some((kind, body))
}

/// Every other statement is a COPY.
fn is_copy(number: usize) -> bool {
    number.is_multiple_of(2)
}

type Columns = Vec<Option<Vec<u8>>>;

/// The answer to a statement.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    text: Vec<u8>,
    /// For each COPY, where in the text it ends, and its number of rows.
    copies: Vec<(usize, u64)>,
    /// The rows of a query.
    rows: Vec<Columns>,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    Refused,
    Broken,
}

/// Reads a statement's answer from the whole bytes.
fn plain(said: &mut &[u8], copy: bool) -> Answer {
    let mut answer = Answer {
        text: Vec::new(),
        copies: Vec::new(),
        rows: Vec::new(),
        end: End::Done,
    };
    loop {
        let Some((kind, body, length)) = message(said) else {
            answer.end = End::Broken;
            return answer;
        };
        if kind == b'd' && copy {
            answer.text.extend_from_slice(body);
        }
        let limit = match kind {
            // These are passed on in pieces.
            b'd' if copy => usize::MAX,
            b'D' if !copy => ROW_LIMIT,
            b'T' => DESCRIPTION_LIMIT,
            _ => MESSAGE_LIMIT,
        };
        let broken = body.len() < length || length > limit;
        let understood = !broken
            && match kind {
                b'd' => copy,
                b'D' => !copy && columns(body).map(|row| answer.rows.push(row)).is_some(),
                b'C' if copy && body.starts_with(b"COPY ") => rows_of(body)
                    .map(|rows| answer.copies.push((answer.text.len(), rows)))
                    .is_some(),
                b'E' => {
                    answer.end = End::Refused;
                    true
                }
                b'Z' => return answer,
                _ => b"NSATHcCI".contains(&kind),
            };
        if !understood {
            answer.end = End::Broken;
            return answer;
        }
    }
}

/// The type of a message, as much of the content as there is, and the length that it claims.
fn message<'a>(said: &mut &'a [u8]) -> Option<(u8, &'a [u8], usize)> {
    let (&[kind, a, b, c, d], rest) = said.split_first_chunk::<5>()?;
    let length = (u32::from_be_bytes([a, b, c, d]) as usize).checked_sub(4)?;
    let (body, rest) = rest.split_at(length.min(rest.len()));
    *said = rest;
    Some((kind, body, length))
}

fn columns(body: &[u8]) -> Option<Columns> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length);
        let (value, after) = after.split_at_checked(if length == u32::MAX { 0 } else { length as usize })?;
        columns.push((length != u32::MAX).then(|| value.to_vec()));
        rest = after;
    }
    rest.is_empty().then_some(columns)
}

fn rows_of(tag: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(tag).ok()?;
    text["COPY ".len()..].trim_end_matches('\0').parse().ok()
}

fn copied(wire: &mut Wire, room: usize) -> Answer {
    let mut heard = Heard {
        room,
        since_turn: 0,
        text: Vec::new(),
        copies: Vec::new(),
    };
    let end = now(wire.copy(b"COPY", &mut heard));
    Answer {
        text: heard.text,
        copies: heard.copies,
        rows: Vec::new(),
        end: end_of(end.err()),
    }
}

fn queried(wire: &mut Wire, expected: &Answer) {
    match now(wire.query(b"SELECT")) {
        Ok(rows) => {
            assert_eq!(expected.end, End::Done);
            assert_eq!(rows.len(), expected.rows.len());
            for (row, columns) in rows.iter().zip(&expected.rows) {
                assert_row(row, columns);
            }
        }
        Err(refusal) => assert_eq!(end_of(Some(refusal)), expected.end),
    }
}

fn assert_row(row: &Row, columns: &Columns) {
    for (index, value) in columns.iter().enumerate() {
        assert_eq!(row.bytes(index), value.as_deref());
        assert!(row.text(index).is_some() || row.number::<u64>(index).is_none());
    }
    assert_eq!(row.bytes(columns.len()), None);
}

fn end_of(refusal: Option<Refusal>) -> End {
    let end = match refusal {
        None => return End::Done,
        Some(Refusal::Server { .. }) => End::Refused,
        Some(Refusal::Broken(_)) => End::Broken,
    };
    let error = refusal.map(Refusal::into_error).expect("there is one");
    assert!(!error.message().contains(PASSWORD), "{error}");
    end
}

struct Heard {
    room: usize,
    since_turn: usize,
    text: Vec<u8>,
    copies: Vec<(usize, u64)>,
}

impl Rows for Heard {
    fn text(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
        self.since_turn += bytes.len();
        assert!(self.since_turn <= self.room, "no moment to wait");
    }

    fn end(&mut self, rows: u64) {
        self.copies.push((self.text.len(), rows));
    }

    async fn turn(&mut self) -> Result<()> {
        self.since_turn = 0;
        Ok(())
    }
}

fn info() -> ConnectionInfo {
    let info = ConnectionInfo::parse_url(&format!("postgres://ada:{PASSWORD}@db.example/shop"));
    info.expect("a URL")
}

fn wire(said: &[u8], room: usize, at_once: usize) -> Wire {
    Wire::with_room(Server::new(said, at_once), Redactor::new(&info()), room)
}

/// The server always answers at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing to wait for")
}

/// Sends its bytes, whatever the client sends, and closes the connection.
struct Server {
    said: Vec<u8>,
    at: usize,
    at_once: usize,
}

impl Server {
    fn new(said: &[u8], at_once: usize) -> Self {
        Self {
            said: said.to_vec(),
            at: 0,
            at_once,
        }
    }
}

impl AsyncRead for Server {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let said = &self.said[self.at..];
        let count = said.len().min(self.at_once).min(buffer.remaining());
        buffer.put_slice(&said[..count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Server {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
