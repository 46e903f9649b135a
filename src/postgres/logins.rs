//! A socket for a program that logs in more than once, hours apart. It is in a folder that only this user can enter,
//! and asks for no password. Behind it pgstow logs in to the server, each time with the current password.
//!
//! pg_restore with several jobs logs in once for each of them and again when they have ended, always with the
//! password that it was started with. By then a secret may have been rotated, and an IAM token has expired.

use std::collections::HashMap;
use std::fmt;
use std::fs::DirBuilder;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::connection::ROTATION;
use super::quoting::literal;
use super::refusal::Refusal;
use super::startup::{Purpose, Startup, connect_timeout};
use super::stream::Line;
use super::{ConnectionInfo, Redactor, Wire};
use crate::error::{Code, Error, Result};
use crate::postgres::settings;

/// The number in a client's first message: a protocol version, or one of these.
const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
const VERSION: u32 = 3;
/// The longest first message; the server's own limit is 10,000 bytes.
const LONGEST: usize = 64 << 10;
/// The connection parameters that concern the session. The others concern the connection, which pgstow makes itself.
const OF_THE_SESSION: [&str; 4] = [
    "application_name",
    "client_encoding",
    "fallback_application_name",
    "options",
];
/// The parameters that the login has settled already.
const OF_THE_LOGIN: [&str; 4] = ["user", "database", "options", "replication"];
/// The settings that a server reports at each login.
const TOLD: [&str; 11] = [
    "server_version",
    "server_encoding",
    "client_encoding",
    "application_name",
    "is_superuser",
    "session_authorization",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
];

/// Dropping it refuses new clients; connected clients stay connected.
#[derive(Debug)]
pub(super) struct Logins {
    folder: PathBuf,
    door: Arc<Door>,
    listening: JoinHandle<()>,
}

/// How long a program's sessions have to end with it, and then how long pgstow may take to cancel their statements.
const LEAVING: Duration = Duration::from_millis(500);
const CANCELLING: Duration = Duration::from_secs(5);
/// How long to wait after a client could not be accepted, before the next attempt.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

impl Logins {
    /// Listens in a new folder of this name, with the socket name that libpq looks for.
    pub fn open(folder: PathBuf, info: &ConnectionInfo, settings: &settings::Postgres) -> io::Result<Logins> {
        let port = info.port.ok_or(io::ErrorKind::InvalidInput)?;
        DirBuilder::new().mode(0o700).create(&folder)?;
        let listener = Arc::new(UnixListener::bind(folder.join(format!(".s.PGSQL.{port}")))?);
        let home = settings.child_env.iter().find(|(name, _)| name == "HOME");
        let door = Arc::new(Door {
            info: info.clone(),
            connect_timeout: settings.connect_timeout,
            home: home.map(|(_, home)| PathBuf::from(home)),
            inside: Mutex::default(),
        });
        let entrance = Arc::clone(&door);
        let accept = move || {
            let listener = Arc::clone(&listener);
            async move { listener.accept().await }
        };
        let serve = move |(client, _): (UnixStream, _)| {
            let door = Arc::clone(&entrance);
            tokio::spawn(async move {
                // It ends when either side ends it; each side reports its own error.
                let _ = door.serve(client).await;
            });
        };
        let listening = tokio::spawn(receive(accept, serve));
        Ok(Logins {
            folder,
            door,
            listening,
        })
    }

    /// After the program has ended: cancels the statements of its sessions that are still running. A server that
    /// waits for a lock does not notice that the program has ended, and this process may end before it has passed on
    /// the program's own cancel request.
    pub async fn settle(&self) {
        let is_empty = || self.door.inside().is_empty();
        let ended = async {
            while !is_empty() {
                sleep(LEAVING / 10).await;
            }
        };
        if timeout(LEAVING, ended).await.is_ok() {
            return;
        }
        let left: Vec<i32> = self.door.inside().keys().copied().collect();
        let cancelled = left.into_iter().map(|session| self.door.cancel(session));
        let _ = timeout(CANCELLING, join_all(cancelled)).await;
    }

    /// The connection for the program. It contains the password only so that messages can hide it.
    pub fn way(&self, info: &ConnectionInfo) -> Result<ConnectionInfo> {
        let settled = info.settled()?;
        let params = settled.params.into_iter();
        Ok(ConnectionInfo {
            host: Some(self.folder.to_string_lossy().into_owned()),
            port: settled.port,
            user: settled.user,
            dbname: settled.dbname,
            password: settled.password,
            params: params
                .filter(|(name, _)| OF_THE_SESSION.contains(&name.as_str()))
                .collect(),
            whose: settled.whose,
            ..ConnectionInfo::default()
        })
    }
}

/// Serves every client, until it is cancelled. A client that cannot be accepted does not end it: the process may have
/// too many open files for a moment, and the program will connect again hours later.
async fn receive<C, A>(mut accept: impl FnMut() -> A, serve: impl Fn(C))
where
    A: Future<Output = io::Result<C>>,
{
    let mut is_failing = false;
    loop {
        match accept().await {
            Ok(client) => {
                is_failing = false;
                serve(client);
            }
            Err(error) => {
                // One warning for failures in a row, not ten per second.
                if !is_failing {
                    tracing::warn!("cannot accept a connection of pg_restore, trying again: {error}");
                }
                is_failing = true;
                sleep(AFTER_FAILURE).await;
            }
        }
    }
}

impl Drop for Logins {
    fn drop(&mut self) {
        self.listening.abort();
        // If this fails, the folder is removed with the folder around it.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Where clients connect.
struct Door {
    info: ConnectionInfo,
    connect_timeout: Duration,
    home: Option<PathBuf>,
    /// By the server's number for a session, the key with which its client may cancel a statement.
    inside: Mutex<HashMap<i32, [u8; 4]>>,
}

/// A client's first message.
enum Greeting {
    /// Names and values.
    Startup(Vec<(String, String)>),
    Cancel {
        session: i32,
        key: Vec<u8>,
    },
}

/// A session with the server, and what its client is told about it.
struct Inside {
    line: Box<dyn Line>,
    /// Bytes that arrived after the last answer.
    heard: Vec<u8>,
    session: i32,
    told: Vec<(&'static str, String)>,
}

impl Door {
    async fn serve(&self, mut client: UnixStream) -> io::Result<()> {
        let wanted = match greeting(&mut client).await? {
            Greeting::Startup(wanted) => wanted,
            Greeting::Cancel { session, key } => {
                if self.inside().get(&session).is_some_and(|known| known[..] == key) {
                    self.cancel(session).await;
                }
                return Ok(());
            }
        };
        let mut inside = match Box::pin(self.let_in(&wanted)).await {
            Ok(inside) => inside,
            Err(error) => return client.write_all(&complaint(&error)).await,
        };
        let key = key();
        self.inside().insert(inside.session, key);
        let passed = async {
            client.write_all(&welcome(&inside, key)).await?;
            client.write_all(&inside.heard).await?;
            tokio::io::copy_bidirectional(&mut client, &mut inside.line).await
        };
        let passed = passed.await;
        self.inside().remove(&inside.session);
        passed.map(drop)
    }

    fn inside(&self) -> MutexGuard<'_, HashMap<i32, [u8; 4]>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn let_in(&self, wanted: &[(String, String)]) -> Result<Inside> {
        let mut opened = self.log_in().await;
        // A rotation changes the password in the database shortly before or after the secret.
        for pause in ROTATION {
            if !matches!(&opened, Err(error) if error.code() == Code::Auth) {
                break;
            }
            sleep(pause).await;
            opened = self.log_in().await;
        }
        let mut wire = opened?;
        let (told, session) = self.settle(&mut wire, wanted).await?;
        let (heard, line) = wire.into_stream().into_line();
        Ok(Inside {
            line,
            heard,
            session,
            told,
        })
    }

    async fn log_in(&self) -> Result<Wire> {
        let info = self.info.renewed().await?.settled()?;
        let redactor = Redactor::new(&info);
        let startup = Startup {
            info: &info,
            redactor: &redactor,
            limit: connect_timeout(&info, self.connect_timeout),
            home: self.home.as_deref(),
            purpose: Purpose::Statements,
        };
        let started = startup.open().await?;
        Ok(Wire::new(started.stream, redactor))
    }

    /// Sets what the client asked for, and asks the server for its settings and the session's number.
    async fn settle(&self, wire: &mut Wire, wanted: &[(String, String)]) -> Result<(Vec<(&'static str, String)>, i32)> {
        let wanted = wanted.iter().filter(|(name, _)| {
            // These are options of the protocol.
            !OF_THE_LOGIN.contains(&name.as_str()) && !name.starts_with("_pq_.")
        });
        let wanted: Vec<_> = wanted.collect();
        let set: String = wanted
            .iter()
            .map(|(name, value)| {
                let (name, value) = (literal(name), literal(value));
                format!("SELECT pg_catalog.set_config({name}, {value}, false);")
            })
            .collect();
        let shown: String = TOLD.iter().map(|name| format!("SHOW {name};")).collect();
        let asked = format!("{set}{shown}SELECT pg_catalog.pg_backend_pid()");
        let answered = timeout(self.connect_timeout, wire.query(asked.as_bytes()))
            .await
            .map_err(|_| Error::new(Code::ConnErr, "the server does not answer"))?;
        let answers = answered.map_err(Refusal::into_error)?;
        // The answers to the settings come first.
        let values = answers.iter().skip(wanted.len()).filter_map(|answer| answer.text(0));
        let mut values: Vec<String> = values.map(str::to_owned).collect();
        let session = values.pop().and_then(|number| number.parse().ok());
        match session {
            Some(session) if values.len() == TOLD.len() => Ok((TOLD.into_iter().zip(values).collect(), session)),
            _ => Err(Error::new(Code::ConnErr, "the server does not identify itself")),
        }
    }

    /// A role may always cancel its own sessions. If the server cannot be reached, the session ends with its client.
    async fn cancel(&self, session: i32) {
        if let Ok(mut wire) = Box::pin(self.log_in()).await {
            let statement = format!("SELECT pg_catalog.pg_cancel_backend({session})");
            let _ = timeout(self.connect_timeout, wire.execute(statement.as_bytes())).await;
            wire.close().await;
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("info", &self.info).finish_non_exhaustive()
    }
}

async fn greeting(client: &mut UnixStream) -> io::Result<Greeting> {
    loop {
        let length = client.read_u32().await? as usize;
        let code = client.read_u32().await?;
        let rest = length.checked_sub(8).filter(|_| length <= LONGEST);
        let mut body = vec![0; rest.ok_or(io::ErrorKind::InvalidData)?];
        client.read_exact(&mut body).await?;
        match code {
            // The connection does not leave this machine.
            TLS | GSS => client.write_all(b"N").await?,
            CANCEL => {
                let (session, key) = body.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
                return Ok(Greeting::Cancel {
                    session: i32::from_be_bytes(*session),
                    key: key.to_vec(),
                });
            }
            _ if code >> 16 == VERSION => return Ok(Greeting::Startup(pairs(&body))),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Each name and each value ends with a zero byte, and the last pair with one more.
fn pairs(body: &[u8]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut parts = body.split(|byte| *byte == 0);
    let mut pairs = Vec::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        if name.is_empty() {
            break;
        }
        pairs.push((text(name), text(value)));
    }
    pairs
}

/// Hard to guess for other users, who cannot reach this socket anyway.
fn key() -> [u8; 4] {
    let number = RandomState::new().build_hasher().finish().to_be_bytes();
    [number[0], number[1], number[2], number[3]]
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// The end of a login, as the server sends it.
fn welcome(inside: &Inside, key: [u8; 4]) -> Vec<u8> {
    let mut welcome = message(b'R', &[0; 4]);
    for (name, value) in &inside.told {
        welcome.extend(message(b'S', format!("{name}\0{value}\0").as_bytes()));
    }
    let number = inside.session.to_be_bytes();
    welcome.extend(message(b'K', &[number, key].concat()));
    welcome.extend(message(b'Z', b"I"));
    welcome
}

/// A refusal in the form of the server's own.
fn complaint(error: &Error) -> Vec<u8> {
    let state = match error.code() {
        Code::Auth => "28P01",
        _ => "08006",
    };
    let text = error.message().replace('\0', " ");
    message(b'E', format!("SFATAL\0VFATAL\0C{state}\0M{text}\0\0").as_bytes())
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_client_that_cannot_be_accepted_is_not_the_last() {
        // From the last one to the first.
        let mut accepted = vec![
            Ok(2),
            Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
            Err(rustix::io::Errno::MFILE.into()),
            Ok(1),
        ];
        let accept = move || {
            let next = accepted.pop();
            async move {
                match next {
                    Some(accepted) => accepted,
                    None => std::future::pending().await,
                }
            }
        };
        let (sender, mut served) = mpsc::unbounded_channel();
        let receiving = receive(accept, |client| sender.send(client).unwrap());
        let both = timeout(Duration::from_secs(10), async {
            (served.recv().await, served.recv().await)
        });
        tokio::select! {
            () = receiving => panic!("it ended"),
            both = both => assert_eq!(both.unwrap(), (Some(1), Some(2))),
        }
    }

    #[tokio::test]
    async fn what_a_client_says_first_is_understood() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let begun = |code: u32, body: &[u8]| {
            let length = u32::try_from(body.len() + 8).unwrap();
            [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
        };
        theirs.write_all(&begun(TLS, b"")).await.unwrap();
        let startup = begun(VERSION << 16, b"user\0ada\0options\0\0\0");
        theirs.write_all(&startup).await.unwrap();
        let Greeting::Startup(pairs) = greeting(&mut ours).await.unwrap() else {
            panic!("no startup");
        };
        let wanted = [("user", "ada"), ("options", "")];
        assert!(pairs.iter().map(|(name, value)| (&**name, &**value)).eq(wanted));
        assert_eq!(theirs.read_u8().await.unwrap(), b'N');
        theirs
            .write_all(&begun(CANCEL, &[0, 0, 0, 7, 1, 2, 3, 4]))
            .await
            .unwrap();
        let Greeting::Cancel { session, key } = greeting(&mut ours).await.unwrap() else {
            panic!("no cancel");
        };
        assert_eq!((session, &key[..]), (7, &[1, 2, 3, 4][..]));
        for odd in [begun(7, b""), begun(CANCEL, b"x"), u64::MAX.to_be_bytes().to_vec()] {
            theirs.write_all(&odd).await.unwrap();
            assert!(greeting(&mut ours).await.is_err(), "{odd:?}");
        }
    }
}
