//! TLS before the login, if it is asked for: after a question to the server (`SSLRequest`), or at once.

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::{Code, Error, Result};
use crate::postgres::stream::{Broken, Line};
use crate::postgres::tls::{self, Attempt};
use crate::postgres::{Redactor, refusal};

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
        let agrees = ask(&mut socket).await;
        let agrees = agrees.map_err(|error| refusal::of_login(Broken::Io(error), redactor))?;
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

/// Whether the server agrees. This reads exactly one byte: any unencrypted bytes after it go to the handshake, which
/// then fails, and never to the login (CVE-2021-23222).
async fn ask(socket: &mut impl Line) -> std::io::Result<bool> {
    let mut question = BytesMut::new();
    frontend::ssl_request(&mut question);
    socket.write_all(&question).await?;
    socket.flush().await?;
    let mut answer = [0];
    socket.read_exact(&mut answer).await?;
    Ok(answer == [b'S'])
}
