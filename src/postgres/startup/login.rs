//! The login: the start-up message, the proof that the server asks for, and the server's greeting (documentation:
//! "Message Flow", start-up; "Message Formats", the messages of type `R`).

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;
use secrecy::ExposeSecret;

use super::{EVENT_TRIGGERS, Greeting, Key, Purpose, scram};
use crate::error::{Code, Error, Result};
use crate::postgres::authentication::{LONGEST, Questions, Refused};
use crate::postgres::refusal::{self, complaint};
use crate::postgres::stream::{MESSAGE_LIMIT, Stream, StreamError, unexpected};
use crate::postgres::{ConnectionInfo, Redactor};

pub(super) struct Login<'a> {
    pub info: &'a ConnectionInfo,
    pub redactor: &'a Redactor,
    pub purpose: Purpose,
    /// The data that binds the login to an encrypted connection.
    pub binding: Option<Vec<u8>>,
    pub questions: Questions,
}

/// A message of the server during the login.
pub(super) struct Question {
    pub code: u32,
    pub rest: Vec<u8>,
}

/// The login is done.
const DONE: u32 = 0;
const CLEAR_TEXT: u32 = 3;
const MD5: u32 = 5;
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

impl<'a> Login<'a> {
    /// Logs in, and reads everything that the server sends before it takes a statement.
    pub async fn log_in(mut self, stream: &mut Stream) -> Result<Greeting> {
        let mut message = BytesMut::new();
        frontend::startup_message(self.parameters(), &mut message).map_err(unwritable)?;
        self.send(stream, &message).await?;
        let Question { code, rest } = self.hear(stream).await?;
        match code {
            DONE => {
                self.need_no_binding()?;
                return self.greeting(stream).await;
            }
            CLEAR_TEXT => {
                self.need_no_binding()?;
                let password = self.password()?;
                self.give(stream, password).await?;
            }
            MD5 => {
                self.need_no_binding()?;
                let salt = rest.try_into().map_err(|_| unexpected("an invalid MD5 salt"))?;
                let user = self.info.user.as_deref().unwrap_or_default();
                let digest = md5_hash(user.as_bytes(), self.password()?, salt);
                self.give(stream, digest.as_bytes()).await?;
            }
            SASL => self.prove(stream, &rest).await?,
            _ => return Err(failed("unsupported authentication method")),
        }
        match self.hear(stream).await?.code {
            DONE => self.greeting(stream).await,
            _ => Err(unexpected("another question after the client's proof")),
        }
    }

    /// Whether there are options that pgstow has not added.
    fn has_options(&self) -> bool {
        let ours = format!("-c {EVENT_TRIGGERS}=off");
        let options = self.info.params.get("options").map_or("", String::as_str);
        !options.replace(&ours, "").trim().is_empty()
    }

    fn parameters(&self) -> Vec<(&'a str, &'a str)> {
        let info = self.info;
        let mut parameters = vec![
            ("client_encoding", "UTF8"),
            ("user", info.user.as_deref().unwrap_or_default()),
            ("database", info.dbname.as_deref().unwrap_or_default()),
        ];
        if let Some(options) = info.params.get("options") {
            parameters.push(("options", options));
        }
        let name = info.params.get("application_name").map_or("pgstow", String::as_str);
        parameters.push(("application_name", name));
        if self.purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
        parameters
    }

    /// Proves that the client knows the password, and checks that the server knows it.
    async fn prove(&mut self, stream: &mut Stream, offered: &[u8]) -> Result<()> {
        let password = self.password()?;
        let binding = self.binding.clone().filter(|_| !self.wants_binding("disable"));
        let (mechanism, binding) =
            scram::choose(offered, binding).ok_or_else(|| failed("unsupported SASL mechanism"))?;
        if mechanism != SCRAM_SHA_256_PLUS {
            self.need_no_binding()?;
        }
        let mut scram = ScramSha256::new(password, binding);
        let mut message = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut message).map_err(unwritable)?;
        self.send(stream, &message).await?;
        let challenge = self.said(stream, SASL_CONTINUE).await?;
        scram.update(&challenge).map_err(|error| self.refuse(&error))?;
        message.clear();
        frontend::sasl_response(scram.message(), &mut message).map_err(unwritable)?;
        self.send(stream, &message).await?;
        let proof = self.said(stream, SASL_FINAL).await?;
        scram.finish(&proof).map_err(|error| self.refuse(&error))
    }

    /// The server's message at this point of the exchange. The server must not leave out its own proof.
    async fn said(&mut self, stream: &mut Stream, due: u32) -> Result<Vec<u8>> {
        let question = self.hear(stream).await?;
        if question.code != due {
            return Err(unexpected("an unexpected message of the login"));
        }
        Ok(question.rest)
    }

    /// The server's next message of the login. Notices may come before it.
    pub async fn hear(&mut self, stream: &mut Stream) -> Result<Question> {
        loop {
            let (kind, body) = self.message(stream, LONGEST).await?;
            match kind {
                b'R' => {
                    let Some((code, rest)) = body.split_first_chunk::<4>() else {
                        return Err(unexpected("an invalid question"));
                    };
                    let code = u32::from_be_bytes(*code);
                    self.questions.hear(code).map_err(refusal::of_question)?;
                    return Ok(Question {
                        code,
                        rest: rest.to_vec(),
                    });
                }
                b'N' => {}
                _ => return Err(not_due(kind)),
            }
        }
    }

    /// The next message, unless it is a refusal. A longer message is refused before it is read.
    async fn message(&self, stream: &mut Stream, limit: usize) -> Result<(u8, Vec<u8>)> {
        let broken = |broken: StreamError| refusal::of_login(broken, self.redactor);
        let (kind, length) = stream.header().await.map_err(broken)?;
        if limit == LONGEST && length > limit {
            return Err(refusal::of_question(Refused::TooLong(length)));
        }
        let body = stream.body(length, limit).await.map_err(broken)?;
        match kind {
            b'E' => Err(refusal::refused_login(
                &complaint(&body),
                self.info,
                self.has_options(),
                self.redactor,
            )),
            _ => Ok((kind, body)),
        }
    }

    pub async fn send(&self, stream: &mut Stream, message: &[u8]) -> Result<()> {
        let sent = stream.send(message).await;
        sent.map_err(|broken| refusal::of_login(broken, self.redactor))
    }

    async fn give(&self, stream: &mut Stream, proof: &[u8]) -> Result<()> {
        let mut message = BytesMut::new();
        frontend::password_message(proof, &mut message).map_err(unwritable)?;
        self.send(stream, &message).await
    }

    pub fn password(&self) -> Result<&'a [u8]> {
        match &self.info.password {
            Some(password) => Ok(password.expose_secret().as_bytes()),
            None => Err(
                Error::new(Code::Auth, "the server asks for a password, and none is given").hint(refusal::NO_PASSWORD),
            ),
        }
    }

    /// The error for an invalid proof of the server.
    pub fn refuse(&self, error: &std::io::Error) -> Error {
        failed(&self.redactor.clean(&error.to_string()))
    }

    /// libpq's `channel_binding`.
    pub fn wants_binding(&self, word: &str) -> bool {
        self.info
            .params
            .get("channel_binding")
            .is_some_and(|given| given == word)
    }

    /// For a login that is not bound to the connection.
    pub fn need_no_binding(&self) -> Result<()> {
        if self.wants_binding("require") {
            return Err(failed("server did not use channel binding"));
        }
        Ok(())
    }

    /// Reads until the server takes a statement.
    async fn greeting(&self, stream: &mut Stream) -> Result<Greeting> {
        let mut greeting = Greeting::default();
        let mut told = 0;
        loop {
            let (kind, body) = self.message(stream, MESSAGE_LIMIT).await?;
            match kind {
                b'S' => {
                    told += body.len();
                    if told > MESSAGE_LIMIT {
                        return Err(unexpected("more parameters than any server has"));
                    }
                    let (name, value) = parameter(&body).ok_or_else(|| unexpected("an invalid parameter"))?;
                    greeting.parameters.insert(name, value);
                }
                b'K' => greeting.key = Some(key(&body).ok_or_else(|| unexpected("an invalid session key"))?),
                b'N' => {}
                b'Z' if body.len() == 1 => return Ok(greeting),
                _ => return Err(not_due(kind)),
            }
        }
    }
}

/// Name and value, each with a NUL at its end.
fn parameter(body: &[u8]) -> Option<(String, String)> {
    let mut parts = body.strip_suffix(&[0])?.split(|byte| *byte == 0);
    let (name, value) = (parts.next()?, parts.next()?);
    let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
    parts.next().is_none().then(|| (text(name), text(value)))
}

/// In the protocol version that pgstow asks for, a key has four bytes.
fn key(body: &[u8]) -> Option<Key> {
    let (process, secret) = body.split_first_chunk::<4>()?;
    Some(Key {
        process: u32::from_be_bytes(*process),
        secret: secret.try_into().ok()?,
    })
}

/// The login failed because of one of its two sides.
pub(super) fn failed(what: &str) -> Error {
    Error::new(Code::Auth, format!("authentication error: {what}"))
}

pub(super) fn unwritable(error: std::io::Error) -> Error {
    Error::new(Code::ConnErr, "error encoding message to server").source(error)
}

fn not_due(kind: u8) -> Error {
    unexpected(&format!("a message of type {:?} during the login", char::from(kind)))
}
