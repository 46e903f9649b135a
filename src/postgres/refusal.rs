//! The meaning of an error from the server, and the hint for it: for errors of the client library, of pgstow's own
//! sessions, and of the login.

mod at_login;

use tokio_postgres::error::SqlState;

pub(super) use self::at_login::refused_login;
use super::authentication;
use super::redaction::{Redactor, without_values};
use super::stream::StreamError;
use super::tls::NoAgreement;
use crate::error::{Code, Error};

/// The function in the server that refuses a query whose rows a policy would filter (`row_security = off`).
pub(super) const ROW_SECURITY: &str = "check_enable_rls";

/// The hint for a role from which row-level security would hide rows.
pub(super) const BYPASS_HINT: &str = "the role must bypass row-level security: ALTER ROLE <role> BYPASSRLS, or work \
     as the tables' owner (where it is forced on the owner too: ALTER TABLE … NO FORCE ROW LEVEL SECURITY)";

/// Why a statement failed.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The server refused it. The session can go on.
    Server {
        state: SqlState,
        /// The function in the server's source that reported the error; it is the same in every language.
        routine: String,
        error: Error,
    },
    /// The session cannot be used any more, or the receiver of the rows stopped.
    Broken(Error),
}

impl Refusal {
    pub fn into_error(self) -> Error {
        match self {
            Refusal::Server { error, .. } | Refusal::Broken(error) => error,
        }
    }

    /// The meaning for a backup, in the same words as for pg_dump's errors; `what` is the action that failed.
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
                error.hint(BYPASS_HINT)
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

    /// The hint if a policy would filter the rows.
    pub fn hint_of_rows(&self) -> Option<&'static str> {
        match self {
            Refusal::Server { routine, .. } if routine == ROW_SECURITY => Some(BYPASS_HINT),
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

impl From<StreamError> for Refusal {
    fn from(broken: StreamError) -> Self {
        Refusal::Broken(broken.into())
    }
}

/// An error's fields, with message and detail as one text.
pub(super) struct ServerComplaint {
    pub state: SqlState,
    pub routine: String,
    pub text: String,
}

impl ServerComplaint {
    /// The error that it stands for, without secrets.
    pub fn error(&self, redactor: &Redactor) -> Error {
        classify_server(&self.state, &redactor.clean(&format!("{SERVER_SAYS}: {}", self.text)))
    }

    /// The same for a statement.
    pub fn into_refusal(self, redactor: &Redactor) -> Refusal {
        Refusal::Server {
            error: self.error(redactor),
            state: self.state,
            routine: self.routine,
        }
    }
}

/// Reads a message of type `E`.
pub(super) fn complaint(body: &[u8]) -> ServerComplaint {
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
        // The detail without the values of a row: they are the owner's data.
        Some(detail) => format!("{message} ({})", without_values(&detail)),
        None => message,
    };
    ServerComplaint { state, routine, text }
}

pub(super) const SERVER_SAYS: &str = "the server says";

/// The error that a protocol error stands for.
pub(super) fn classify(error: &tokio_postgres::Error, redactor: &Redactor) -> Error {
    if let Some(server) = error.as_db_error() {
        let mut text = format!("{SERVER_SAYS}: {}", server.message());
        if let Some(detail) = server.detail() {
            text = format!("{text} ({detail})");
        }
        let told = classify_server(server.code(), &redactor.clean(&text));
        return match server.routine() {
            Some(ROW_SECURITY) => told.hint(BYPASS_HINT),
            _ => told,
        };
    }
    let (text, tls_failed) = with_causes(error);
    let text = redactor.clean(&text);
    if tls_failed {
        return Error::new(Code::ConnErr, text).hint(CHECK_TLS);
    }
    Error::new(Code::ConnErr, text)
}

/// The error and its causes as one text, and whether TLS is among them.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> (String, bool) {
    let mut text = error.to_string();
    let mut tls_failed = text.contains("TLS");
    let mut cause = causes_of(error, &mut tls_failed);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = causes_of(inner, &mut tls_failed);
    }
    (text, tls_failed)
}

/// The next cause that adds something. An `io::Error` that wraps another error has the same text as that error.
fn causes_of<'a>(
    error: &'a (dyn std::error::Error + 'static),
    tls_failed: &mut bool,
) -> Option<&'a (dyn std::error::Error + 'static)> {
    *tls_failed |= error.is::<rustls::Error>();
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(wrapped) => {
            *tls_failed |= wrapped.is::<rustls::Error>();
            wrapped.source()
        }
        None => error.source(),
    }
}

/// For a TLS handshake that failed.
pub(super) fn of_handshake(error: &std::io::Error, redactor: &Redactor) -> Error {
    let wrapped = error.get_ref();
    if let Some(stranger) = wrapped.and_then(|wrapped| wrapped.downcast_ref::<NoAgreement>()) {
        return Error::new(Code::ConnErr, stranger.to_string()).hint(
            "sslnegotiation=direct needs a PostgreSQL server of version 17 or newer at the other end: check host and \
             port, or leave it out",
        );
    }
    let (text, _) = with_causes(error);
    let text = redactor.clean(&format!("error performing TLS handshake: {text}"));
    Error::new(Code::ConnErr, text).hint(CHECK_TLS)
}

/// For a connection that broke before the login ended: with TLS 1.3, a server refuses the client's certificate only
/// then.
pub(super) fn of_login(broken: StreamError, redactor: &Redactor) -> Error {
    let StreamError::Io(error) = broken else {
        return broken.into();
    };
    let (text, tls_failed) = with_causes(&error);
    let text = redactor.clean(&format!("error communicating with the server: {text}"));
    let error = Error::new(Code::ConnErr, text);
    if tls_failed { error.hint(CHECK_TLS) } else { error }
}

/// For a server that asked for a proof that it may not ask for, or sent an invalid question.
pub(super) fn of_question(refused: authentication::Refused) -> Error {
    let code = if refused.is_of_a_stranger() {
        Code::ConnErr
    } else {
        Code::Auth
    };
    Error::new(code, refused.to_string()).hint(refused.hint())
}

const CHECK_TLS: &str = "check sslmode and sslrootcert: the server's certificate must be signed by a root in that file, \
                         and name the host for verify-full";

pub(super) const NO_TLS: &str = "the server has no TLS, and sslmode requires it: turn ssl on in the server's \
     configuration; or, if no other machine can read the connection, set sslmode=disable";
pub(super) const NO_TLS_FOR_TOKENS: &str = "IAM login needs TLS, and the server at the other end has none: check host and port (RDS has TLS), and \
                                 whether a pooler or tunnel is in between; or log in with a password (BACKUP_DB_AUTH=password, \
                                 BACKUP_TARGET_AUTH=password)";

pub(super) const NO_PASSWORD: &str = "give the password in DB_PASSWORD (or a file: DB_PASSWORD_FILE), in the URL, in the secret, in \
                           PGPASSWORD or ~/.pgpass";

/// The hint for a restore's target in place of a hint for the source, if the two differ.
pub(super) fn for_target(hint: &str) -> Option<&'static str> {
    match hint {
        NO_PASSWORD => Some(
            "give the password in BACKUP_TARGET_PASSWORD (or a file: BACKUP_TARGET_PASSWORD_FILE), in BACKUP_TARGET_URL, in the \
             secret, in PGPASSWORD or ~/.pgpass",
        ),
        TWO_CONNECTIONS => Some(
            "the server has no free connection for this role or database: a restore needs two, and one for each of --jobs: run \
             it when others have ended, raise max_connections, or raise the limit of the role or database (ALTER ROLE … \
             CONNECTION LIMIT 5, ALTER DATABASE … CONNECTION LIMIT …)",
        ),
        KIND_OF_SERVER => Some(
            "target_session_attrs asks for another kind of server than the one that this host is: name the primary, or leave \
             it out",
        ),
        NO_DATABASE => Some("check the database's name (`psql -l` lists them all), or let --create make it"),
        _ => None,
    }
}

/// The server, the role or the database has no free connection.
pub(super) fn is_full(error: &Error) -> bool {
    let hint = error.hint_text();
    hint == TWO_CONNECTIONS || for_target(TWO_CONNECTIONS) == Some(hint)
}

const NO_DATABASE: &str = "check the database's name; `psql -l` lists them all";

const POOLER: &str = "a connection pooler is in between: connect to the server itself, or to a pool in session mode";

/// For a pooler in any mode.
pub(super) const STARTUP: &str = "PgBouncer does not pass on the options that a session starts with, which a \
                                  superuser, or a role or database with settings of its own (bytea_output, \
                                  quote_all_identifiers) needs: connect to \
                                  the server itself; or reset the setting (ALTER ROLE … RESET …, ALTER DATABASE … RESET …)";
pub(super) const TWO_CONNECTIONS: &str = "the server has no free connection for this role or database: a backup needs two, and one for each of --jobs: run it when others \
                                          have ended, raise max_connections, or raise the limit of the role or database \
                                          (ALTER ROLE … CONNECTION LIMIT 5, ALTER DATABASE … CONNECTION LIMIT …)";

/// For `target_session_attrs`.
pub(super) const KIND_OF_SERVER: &str = "target_session_attrs asks for another kind of server than the one that this host is: name \
                                         one that fits, or leave it out (a standby can be backed up)";
pub(super) const LOCKS: &str = "each table takes a lock, and the server has no room for more: raise \
                                max_locks_per_transaction, and restart it";
pub(super) const REPLAY: &str = "a standby delays replay for a backup only for a limited time: raise \
                                 max_standby_streaming_delay, or turn hot_standby_feedback on, or back up the primary";

/// For a statement that ran into a limit on its time, or that another session cancelled: the server's code is the same.
pub(super) const CANCELLED: &str = "the server ended a statement before pgstow could set its own limits: ALTER ROLE \
     <role> RESET statement_timeout, ALTER DATABASE … RESET statement_timeout, or raise it in the server's \
     configuration; or another session has cancelled the statement: run it again";

pub(super) fn classify_server(state: &SqlState, text: &str) -> Error {
    let code = state.code();
    // PgBouncer reports failed logins as a protocol violation.
    let login_refused = code.starts_with("28")
        || (code == "08P01" && (text.contains("authentication failed") || text.contains("no such user")));
    if login_refused {
        let error = Error::new(Code::Auth, text);
        return if text.contains("pg_hba.conf") {
            error.hint("the server's pg_hba.conf has no line for this host, user, database and encryption; see sslmode")
        } else {
            error
        };
    }
    match code {
        "3D000" => Error::new(Code::ConnErr, text).hint(NO_DATABASE),
        "53300" => Error::new(Code::ConnErr, text).hint(TWO_CONNECTIONS),
        "53200" => Error::new(Code::ConnErr, text).hint(LOCKS),
        // pgstow only reads here, so only replay can conflict with it.
        "40001" => Error::new(Code::ConnErr, text).hint(REPLAY),
        "57014" => Error::new(Code::ConnErr, text).hint(CANCELLED),
        "57P05" => Error::new(Code::ConnErr, text).hint(at_login::IDLE),
        "57P03" => Error::new(Code::ConnErr, text).hint("the server is starting up or shutting down; run it again"),
        "42501" => Error::new(Code::Permission, text),
        // Prepared statements that reached different servers, or an error of the pooler itself.
        "26000" | "42P05" => Error::new(Code::ConnErr, text).hint(POOLER),
        _ if text.contains("unsupported startup parameter") => Error::new(Code::ConnErr, text).hint(STARTUP),
        _ if text.contains("pooling mode") => Error::new(Code::ConnErr, text).hint(POOLER),
        _ => Error::new(Code::ConnErr, text),
    }
}
