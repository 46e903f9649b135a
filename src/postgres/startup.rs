//! How a session begins: a socket, TLS if it is asked for, the login, and what the server reports before the first
//! statement (documentation: "Message Flow", start-up).
//!
//! pgstow does this itself and not through the client library, for three reasons. Bytes that arrive with the login's
//! last answer stay in the session's [`Stream`] for the next reader. A session can be one for replication, which the
//! library does not support. And pgstow checks each question of the server before it answers. The library (`lent.rs`)
//! gets the session when all of this is done.

mod login;
mod negotiation;
mod reach;
mod scram;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use self::login::Login;
pub(super) use self::reach::{keep_alive, within};
use super::authentication::{self, Methods, Questions, is_local};
use super::pooler::OurEnd;
use super::server::EVENT_TRIGGERS;
use super::stream::{ROOM, Stream};
use super::tls::{self, Attempt};
use super::{ConnectionInfo, Redactor};
use crate::error::{Code, Error, Result};

/// The purpose of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Statements,
    /// Logical replication from the database (`replication=database`), and simple queries.
    Replication,
}

/// The destination of a session, and how to open it.
pub(super) struct Startup<'a> {
    pub info: &'a ConnectionInfo,
    pub redactor: &'a Redactor,
    /// For each step: to look up a host's addresses, to connect to one, to log in.
    pub limit: Duration,
    /// The home folder, which contains libpq's default certificate files.
    pub home: Option<&'a Path>,
    pub purpose: Purpose,
}

/// A session that is ready for its first statement.
pub(super) struct Started {
    pub stream: Stream,
    pub greeting: Greeting,
    pub encrypted: bool,
    pub address: Option<IpAddr>,
    pub end: OurEnd,
}

/// What the server reports when a session has begun.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    pub parameters: BTreeMap<String, String>,
    pub key: Option<Key>,
}

/// The data of a cancel request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub process: u32,
    pub secret: [u8; 4],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

/// Why a session did not begin, and whether another attempt may succeed.
struct Failure {
    error: Error,
    again: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: false }
    }
}

impl Failure {
    /// For an error after the connection to the server was made.
    fn of_talk(error: Error) -> Self {
        let again = matches!(error.code(), Code::Auth | Code::ConnErr);
        Self { error, again }
    }
}

impl Startup<'_> {
    /// Opens the session, trying the ways that the `sslmode` allows one after the other.
    ///
    /// `CONFIG` if a parameter or a certificate file cannot be used, `AUTH` if one side refuses the login, and for
    /// the server's refusals the codes of [`classify_server`](super::refusal::classify_server); otherwise `CONN_ERR`.
    pub async fn open(&self) -> Result<Started> {
        let attempts = tls::attempts(self.info, self.home)?;
        let mut first = None;
        for (number, attempt) in attempts.iter().enumerate() {
            match self.open_once(attempt).await {
                Ok(started) => return Ok(started),
                // If several ways fail, the first error is reported. But if this server does not know the setting,
                // all ways are tried again without it.
                Err(Failure { error, .. }) if error.message().contains(EVENT_TRIGGERS) => return Err(error),
                // A second attempt makes sense only after an error that another way may avoid.
                Err(Failure { error, again }) => {
                    let last = number + 1 == attempts.len() || !again;
                    let first = first.get_or_insert(error);
                    if last {
                        return Err(std::mem::replace(first, Error::internal("no attempt was made")));
                    }
                }
            }
        }
        Err(Error::internal("no way to connect was tried"))
    }

    async fn open_once(&self, attempt: &Attempt) -> Result<Started, Failure> {
        if self.info.is_socket() {
            let (socket, listener) = reach::unix(self.info, self.limit).await?;
            let mut stream = Stream::new(Box::new(socket), ROOM);
            let greeting = within(self.limit, self.login(false, None).log_in(&mut stream)).await?;
            return Ok(Started {
                stream,
                greeting: greeting.map_err(Failure::of_talk)?,
                encrypted: false,
                address: None,
                end: OurEnd::Socket(listener),
            });
        }
        let (socket, address) = reach::tcp(self.info, self.limit).await?;
        let local_port = socket.local_addr().ok().map(|address| address.port());
        let talk = async {
            let ready = negotiation::negotiate(socket, attempt, self.redactor).await?;
            let encrypted = ready.encrypted;
            let open = !encrypted && !is_local(address.ip());
            let mut stream = Stream::new(ready.line, ROOM);
            let greeting = self.login(open, ready.binding).log_in(&mut stream).await?;
            Ok::<_, Error>((stream, greeting, encrypted))
        };
        let (stream, greeting, encrypted) = within(self.limit, talk).await?.map_err(Failure::of_talk)?;
        Ok(Started {
            stream,
            greeting,
            encrypted,
            address: Some(address.ip()),
            end: OurEnd::Port(local_port),
        })
    }

    fn login(&self, open: bool, binding: Option<Vec<u8>>) -> Login<'_> {
        Login {
            info: self.info,
            redactor: self.redactor,
            purpose: self.purpose,
            binding,
            questions: Questions::new(allowed(self.info, open), open),
        }
    }
}

/// The questions that a server may ask over a connection to this address.
fn allowed(info: &ConnectionInfo, open: bool) -> Methods {
    match info.params.get("require_auth").map(String::as_str) {
        Some(list) => Methods::parse(list),
        None if open => Methods::parse(authentication::ON_AN_OPEN_LINE),
        None => Ok(Methods::any()),
    }
    // It was checked when it was set. If an invalid value came another way, no method is allowed.
    .unwrap_or_default()
}

/// libpq's `connect_timeout` takes precedence over the setting; zero or less means no limit.
pub(super) fn connect_timeout(info: &ConnectionInfo, setting: Duration) -> Duration {
    let given = info
        .params
        .get("connect_timeout")
        .and_then(|text| text.trim().parse::<i64>().ok());
    match given {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        Some(_) => Duration::from_secs(24 * 3600),
        None => setting,
    }
}

/// A login with any server messages, for [`fuzzing`](crate::fuzzing): returns the session as a [`Wire`](super::Wire)
/// with a buffer of this size.
#[cfg(any(fuzzing, test))]
pub(crate) async fn log_in_over(
    line: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    info: &ConnectionInfo,
    room: usize,
) -> Result<super::Wire> {
    let redactor = Redactor::new(info);
    let startup = Startup {
        info,
        redactor: &redactor,
        limit: Duration::MAX,
        home: None,
        purpose: Purpose::Statements,
    };
    let mut stream = Stream::new(Box::new(line), room);
    startup.login(false, None).log_in(&mut stream).await?;
    Ok(super::Wire::over(stream, redactor))
}
