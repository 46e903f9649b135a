//! TLS before the login, if it is asked for: after a question to the server (`SSLRequest`), or at once.

use std::io;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::{Code, Error, Result};
use crate::postgres::stream::{Line, StreamError};
use crate::postgres::tls::{self, Attempt};
use crate::postgres::{Redactor, refusal};

/// The longest error that is read instead of an answer.
const LONGEST: usize = 8 << 10;

/// A connection on which the login can begin.
pub(super) struct Ready {
    pub line: Box<dyn Line>,
    pub encrypted: bool,
    /// The data that binds a login to this connection, if it is encrypted.
    pub binding: Option<Vec<u8>>,
}

impl Ready {
    fn plain(socket: impl Line + 'static) -> Self {
        Self {
            line: Box::new(socket),
            encrypted: false,
            binding: None,
        }
    }
}

/// Encrypts the connection, if the attempt wants it and the server supports it.
pub(super) async fn negotiate<S: Line + 'static>(
    mut socket: S,
    attempt: &Attempt,
    redactor: &Redactor,
) -> Result<Ready> {
    let (tls, insists) = match attempt {
        Attempt::Plain => return Ok(Ready::plain(socket)),
        Attempt::Offered(tls) => (tls, false),
        Attempt::Required(tls) => (tls, true),
    };
    if !tls.direct {
        let agrees = agrees(&mut socket, redactor).await?;
        if !agrees && !insists {
            return Ok(Ready::plain(socket));
        }
        if !agrees {
            let text = "error performing TLS handshake: server does not support TLS";
            return Err(Error::new(Code::ConnErr, text).hint(refusal::NO_TLS));
        }
    }
    let encrypted = tls.connector.clone().connect(socket).await;
    let encrypted = encrypted.map_err(|error| refusal::of_handshake(&error, redactor))?;
    Ok(Ready {
        binding: tls::binding(&encrypted),
        line: Box::new(encrypted),
        encrypted: true,
    })
}

/// Whether the server agrees. An error in place of an answer is reported, with a warning that it is not encrypted.
async fn agrees(socket: &mut impl Line, redactor: &Redactor) -> Result<bool> {
    let lost = |error: io::Error| refusal::of_login(StreamError::Io(error), redactor);
    match ask(socket).await.map_err(lost)? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        b'E' => {
            let words = words(socket).await.map_err(lost)?;
            let text = redactor.clean(&format!("the server refuses the request for TLS: {words}"));
            Err(Error::new(Code::ConnErr, text).hint(UNPROVED))
        }
        other => {
            let text = format!("the request for TLS got the byte 0x{other:02x}, which is not PostgreSQL's protocol");
            Err(Error::new(Code::ConnErr, text).hint(STRANGER))
        }
    }
}

const UNPROVED: &str = "look at the server's log; this message was not encrypted, so any machine on the network path \
                        may have written it";
const STRANGER: &str = "another program listens there: check host and port";

/// The server's answer. This reads exactly one byte: any unencrypted bytes after it go to the handshake, which then
/// fails, and never to the login (CVE-2021-23222).
async fn ask(socket: &mut impl Line) -> io::Result<u8> {
    let mut question = BytesMut::new();
    frontend::ssl_request(&mut question);
    socket.write_all(&question).await?;
    socket.flush().await?;
    let mut answer = [0];
    socket.read_exact(&mut answer).await?;
    Ok(answer[0])
}

/// The text of the error that follows. Nothing else is read from this connection.
async fn words(socket: &mut impl Line) -> io::Result<String> {
    let mut said = Vec::new();
    let mut socket = socket.take(LONGEST as u64);
    loop {
        if let Some(words) = words_in(&said) {
            return Ok(words);
        }
        if socket.read_buf(&mut said).await? == 0 {
            let what = "the server sent an error without an end";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
    }
}

/// The text, if the error is complete.
fn words_in(said: &[u8]) -> Option<String> {
    let (length, body) = said.split_first_chunk::<4>()?;
    let length = (u32::from_be_bytes(*length) as usize).checked_sub(4);
    match length.filter(|length| *length <= LONGEST - 4) {
        Some(length) => Some(refusal::complaint(body.get(..length)?).text),
        // A server that cannot make a process for the connection sends only a text and a zero byte. Bytes of a length
        // are no text.
        None => {
            let end = said.iter().position(|byte| *byte == 0).filter(|end| *end >= 4)?;
            Some(String::from_utf8_lossy(&said[..end]).trim().to_owned())
        }
    }
}
