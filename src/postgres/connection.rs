//! pgstow's own session with the server: how it opens, and what each refusal means.

mod start;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use self::start::ConnectOptions;
use super::authentication::{self, is_local};
use super::lent::Lent;
use super::refusal::{Refusal, SERVER_SAYS, classify, is_full};
use super::server::{self, ENGLISH, EVENT_TRIGGERS, Language, ServerInfo};
use super::startup::{self, Purpose, Started, within};
use super::wire::Wire;
use super::{ConnectionInfo, Redactor};
use crate::error::{Code, Error, Result};
use crate::postgres::settings;

/// How long a server may take to end a session.
const CLOSING: Duration = Duration::from_secs(2);

/// If a login is refused during a run, it is tried again after these pauses, each time with the current password.
pub(super) const ROTATION: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

/// One connection of pgstow's, with the same settings as pg_dump's. It lives until it is dropped.
pub struct Session {
    pub(super) client: Client,
    pub(super) server: ServerInfo,
    pub(super) redactor: Redactor,
    /// The connection up to the next hop is encrypted; behind a pooler it may not be.
    pub(super) encrypted: bool,
    /// There is no pooler in between.
    pub(super) is_direct: bool,
    /// Whether the snapshot's transaction is open: a question that fails must not end it.
    pub(super) in_transaction: AtomicBool,
    connection: JoinHandle<()>,
    lent: Lent,
    info: ConnectionInfo,
    /// The options of `info` without those that are only for reading.
    loading_options: Option<String>,
    connect_timeout: Duration,
    home: Option<PathBuf>,
}

impl Session {
    /// Connects, logs in and identifies the server.
    ///
    /// `CONN_ERR` if the server cannot be reached or has no such database, `AUTH` if it refuses the login,
    /// `PERMISSION` if the role may not connect to this database, `CONFIG` if a parameter or certificate file cannot
    /// be used. Also `CONN_ERR` if a pooler shares sessions: pgstow checks this before it sends anything but the
    /// empty search path.
    ///
    /// It asks for the current password first.
    pub async fn connect(info: &ConnectionInfo, settings: &settings::Postgres) -> Result<Session> {
        Self::connect_as_given(&info.renewed().await?, settings).await
    }

    /// The same with the password in `info`, which was asked for just before.
    pub async fn connect_as_given(info: &ConnectionInfo, settings: &settings::Postgres) -> Result<Session> {
        let home = settings.child_env.iter().find(|(name, _)| name == "HOME");
        let home = home.map(|(_, home)| PathBuf::from(home));
        // The future is large, and the callers' own futures need not contain it.
        Box::pin(Self::open(
            info.settled()?,
            settings.connect_timeout,
            home,
            Between::PerhapsPooler,
        ))
        .await
    }

    /// Connects to a server that pgstow itself has started.
    pub(crate) async fn connect_to_our_own(info: &ConnectionInfo, settings: &settings::Postgres) -> Result<Session> {
        Self::open(info.settled()?, settings.connect_timeout, None, Between::Nothing).await
    }

    async fn open(
        info: ConnectionInfo,
        connect_timeout: Duration,
        home: Option<PathBuf>,
        between: Between,
    ) -> Result<Session> {
        let Some(quiet) = without_event_triggers(&info) else {
            return Self::open_as_told(info, connect_timeout, home, between).await;
        };
        if matches!(between, Between::Nothing) {
            return Self::open_our_own(info, quiet, connect_timeout, home).await;
        }
        // Only a superuser may set it, and the role is known only after login triggers have run.
        match Self::open_as_told(quiet, connect_timeout, home.clone(), between).await {
            // Older than 17; no superuser; or a pooler, which may not even say which setting it does not know.
            Err(error) if error.message().contains(SERVER_SAYS) && error.code() != Code::Auth => {}
            opened => return opened,
        }
        match Self::open_as_told(info.clone(), connect_timeout, home.clone(), between).await {
            // The server may still count the login that it refused.
            Err(error) if is_full(&error) => {
                tokio::time::sleep(FORGOTTEN).await;
                Self::open_as_told(info, connect_timeout, home, between).await
            }
            opened => opened,
        }
    }

    /// No login may be refused here, because the log of such a server is read.
    async fn open_our_own(
        info: ConnectionInfo,
        quiet: ConnectionInfo,
        connect_timeout: Duration,
        home: Option<PathBuf>,
    ) -> Result<Session> {
        let session = Self::open_as_told(info, connect_timeout, home.clone(), Between::Nothing).await?;
        if session.server.major >= EVENT_TRIGGERS_SINCE
            && session.server.is_superuser
            && session.server.has_event_triggers
            && let Ok(quiet) = Self::open_as_told(quiet, connect_timeout, home, Between::Nothing).await
        {
            session.close().await;
            return Ok(quiet);
        }
        Ok(session)
    }

    async fn open_as_told(
        mut info: ConnectionInfo,
        connect_timeout: Duration,
        home: Option<PathBuf>,
        between: Between,
    ) -> Result<Session> {
        let redactor = Redactor::new(&info);
        let place = ConnectOptions {
            info: &info,
            redactor: &redactor,
            connect_timeout,
            home: home.as_deref(),
        };
        let opened = place.open().await?;
        place.empty_path(&opened).await?;
        let is_direct = match between {
            Between::Nothing => true,
            Between::PerhapsPooler => place.look_between(&opened).await?,
        };
        let client = opened.client;
        let greeted = async {
            server::prepare_session(&client).await?;
            server::identify(&client).await
        };
        let limit = startup::connect_timeout(&info, connect_timeout);
        let greeted = within(limit, greeted)
            .await
            .map_err(|error| start::in_context(&info, error))?;
        let server = match greeted {
            Ok(server) => server,
            Err(error) => return Err(place.refused(&client, &error).await),
        };
        place.refuse_other_kind(&client, &server).await?;
        let loading_options = settle_options(&mut info, &server, is_direct);
        if let Some(address) = opened.address {
            // One name may stand for several servers. Every user of the snapshot must reach this one.
            info.params.insert("hostaddr".into(), address.to_string());
            settle_the_line(&mut info, address, opened.encrypted);
        }
        Ok(Session {
            client,
            server,
            redactor,
            encrypted: opened.encrypted,
            is_direct,
            in_transaction: AtomicBool::new(false),
            connection: opened.connection,
            lent: opened.lent,
            info,
            loading_options,
            connect_timeout,
            home,
        })
    }

    /// Opens another session like this one, with the current password.
    pub(super) async fn connect_again(&self) -> Result<Session> {
        self.connect_again_by(&self.info).await
    }

    async fn connect_again_by(&self, info: &ConnectionInfo) -> Result<Session> {
        let open = async || {
            let info = info.renewed().await?;
            // The first session has already checked for a pooler.
            let opening = Self::open_as_told(info, self.connect_timeout, self.home.clone(), Between::Nothing);
            Box::pin(opening).await
        };
        let mut opened = open().await;
        if self.info.keys.may_change() {
            // A rotation changes the password in the database shortly before or after the secret.
            for pause in ROTATION {
                let Err(error) = opened else { break };
                if error.code() != Code::Auth {
                    return Err(error);
                }
                tokio::time::sleep(pause).await;
                opened = open().await;
            }
        }
        let mut session = opened?;
        session.is_direct = self.is_direct;
        Ok(session)
    }

    /// Tries what a backup needs while this session is open: a role or a database may be limited to one connection.
    pub async fn another_can_be_opened(&self) -> Result<()> {
        self.connect_again().await?.close().await;
        Ok(())
    }

    /// Opens another session with this server that reads rows by COPY: set up like this one, in the database's own
    /// encoding as pg_dump's.
    pub(crate) async fn open_wire(&self) -> Result<Wire> {
        let mut wire = self.connect_again().await?.into_wire().await?;
        // The values that pg_dump gets from the environment that pgstow gives it.
        let settled = format!("SET client_encoding = '{}'; SET TimeZone = 'UTC'", self.server.encoding);
        wire.execute(settled.as_bytes()).await.map_err(Refusal::into_error)?;
        Ok(wire)
    }

    /// Opens another session with this server that makes and loads objects: expressions there use the database's own
    /// settings, as in pg_restore's sessions.
    pub(crate) async fn open_loading_wire(&self) -> Result<Wire> {
        let session = self.connect_again_by(&self.loading_info()).await?;
        let mut wire = session.into_wire().await?;
        let settled = format!(
            "SET client_encoding = '{}'; {}",
            self.server.encoding,
            server::FOR_LOADING
        );
        wire.execute(settled.as_bytes()).await.map_err(Refusal::into_error)?;
        Ok(wire)
    }

    /// Opens another session with this server, without the library and before any statement.
    pub(super) async fn start_again(&self, purpose: Purpose) -> Result<(Started, Redactor)> {
        let info = self.info.renewed().await?;
        let redactor = Redactor::new(&info);
        let place = ConnectOptions {
            info: &info,
            redactor: &redactor,
            connect_timeout: self.connect_timeout,
            home: self.home(),
        };
        let started = place.start(purpose).await?;
        Ok((started, redactor))
    }

    /// Takes this session, in its current transaction, away from the library: for COPY's rows.
    pub(crate) async fn into_wire(self) -> Result<Wire> {
        // The library closes its prepared statements without waiting for the answers. After one more answer the
        // server owes none for these either.
        let asked = self.client.batch_execute("").await;
        asked.map_err(|error| self.error("cannot prepare a session for COPY", &error))?;
        let stream = self.lent.take();
        let stream = stream.ok_or_else(|| Error::internal("the server owes a session an answer"))?;
        Ok(Wire::new(stream, self.redactor.clone()))
    }

    /// Ends the session, and returns when the connection is closed. It does not wait for a server that owes an answer
    /// and sends nothing. Dropping the session ends it too, a little later.
    pub async fn close(self) {
        drop(self.client);
        let mut connection = self.connection;
        // pgstow ends the session, so an error here does not matter.
        if tokio::time::timeout(CLOSING, &mut connection).await.is_err() {
            connection.abort();
        }
    }

    pub fn server(&self) -> &ServerInfo {
        &self.server
    }

    /// How to reach this very server again: with all defaults filled in and the address fixed (`hostaddr`), because a
    /// snapshot exists on one server only. Give this to pg_dump.
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// The same for programs that fill the database. Give this to pg_restore and psql.
    pub fn loading_info(&self) -> ConnectionInfo {
        let mut info = self.info.clone();
        match &self.loading_options {
            Some(options) => drop(info.params.insert("options".into(), options.clone())),
            None => drop(info.params.remove("options")),
        }
        info
    }

    pub(super) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    pub(super) fn error(&self, what: &str, error: &tokio_postgres::Error) -> Error {
        let inner = classify(error, &self.redactor);
        let text = format!("{what}: {}", inner.message());
        Error::new(inner.code(), text).hint(self.info.naming_the_role(inner.hint_text()))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("info", &self.info)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// What may be between pgstow and the server.
#[derive(Debug, Clone, Copy)]
enum Between {
    Nothing,
    /// Checked before the session is used.
    PerhapsPooler,
}

/// The first server with login triggers, and with the setting that switches them off.
const EVENT_TRIGGERS_SINCE: u32 = 17;
/// The time after which a server no longer counts a login that it refused.
const FORGOTTEN: Duration = Duration::from_millis(200);

/// The same without event triggers: at the login they would run foreign code as this role before pgstow can send
/// anything. `None` if the options already contain the setting.
fn without_event_triggers(info: &ConnectionInfo) -> Option<ConnectionInfo> {
    let given = info.params.get("options").map_or("", String::as_str);
    if given.contains(EVENT_TRIGGERS) {
        return None;
    }
    let options = format!("{given} -c {EVENT_TRIGGERS}=off").trim_start().to_owned();
    let mut info = info.clone();
    info.params.insert("options".into(), options);
    Some(info)
}

/// What pg_dump and other sessions must set to read the same bytes. Returns the options of sessions that load rows.
fn settle_options(info: &mut ConnectionInfo, server: &ServerInfo, is_direct: bool) -> Option<String> {
    // pg_dump takes these from the role's own settings, which would translate the data or write it differently on each
    // server. Set options only where they are needed, because a pooler may refuse them.
    info.params.insert("client_encoding".into(), server.encoding.clone());
    // A pooler would refuse the option, or apply the language to other clients.
    if is_direct && server.language == Language::UntilSet {
        add_option(info, ENGLISH);
    }
    let loading_options = info.params.get("options").cloned();
    for option in &server.to_settle {
        add_option(info, option);
    }
    loading_options
}

fn add_option(info: &mut ConnectionInfo, option: &str) {
    let options = info.params.entry("options".into()).or_default();
    *options = format!("{options} -c {option}").trim_start().to_owned();
}

/// Fixes TLS and authentication for later logins to what this login has found. Otherwise an attacker on the network
/// could refuse TLS where the server has it, or ask for another proof.
fn settle_the_line(info: &mut ConnectionInfo, address: IpAddr, encrypted: bool) {
    let mode = if encrypted { "require" } else { "disable" };
    let undecided = match info.params.get("sslmode").map(String::as_str) {
        // Without a mode, `system` implies verify-full.
        None => info.params.get("sslrootcert").is_none_or(|roots| roots != "system"),
        Some(mode) => mode == "allow" || mode == "prefer",
    };
    if undecided {
        // The first login ignored missing files because the mode was weak.
        for name in ["sslrootcert", "sslcert"] {
            let is_missing = info.params.get(name).is_some_and(|file| !Path::new(file).exists());
            if is_missing {
                info.params.remove(name);
            }
        }
        info.params.insert("sslmode".into(), mode.into());
    }
    if !encrypted && !is_local(address) {
        let allowed = info.params.entry("require_auth".into());
        allowed.or_insert_with(|| authentication::ON_AN_OPEN_LINE.into());
    }
}
