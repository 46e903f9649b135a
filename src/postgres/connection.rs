//! Our own session with the server: how it is opened, and what each refusal means.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::future::BoxFuture;
use rustix::net::sockopt;
use secrecy::ExposeSecret;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::{Client, Config, NoTls};

use super::authentication::{self, Gate, Methods, is_local};
use super::explaining;
use super::pooler::{self, OurEnd};
use super::server::{self, ENGLISH, Language, ServerInfo};
use super::tap::{Line, Tap, Tapped};
use super::tls::{self, Attempt, NoAgreement};
use super::wire::{self, Wire};
use super::{BYPASS_HINT, ConnectionInfo, Redactor, Whose};
use crate::error::{Code, Error, Result};
use crate::settings;

/// An idle session must live as long as the dump, through firewalls that forget quiet
/// connections after a few minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long a server may take to end a session.
const CLOSING: Duration = Duration::from_secs(2);

/// The pauses after which a login that was refused midway is tried again, with a password asked for anew.
pub(super) const ROTATION: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

/// One connection of ours, set up as pg_dump sets up its own. It lives until dropped.
pub struct Session {
    pub(super) client: Client,
    pub(super) server: ServerInfo,
    pub(super) redactor: Redactor,
    /// What we wrote was encrypted, whatever becomes of it behind a pooler.
    pub(super) encrypted: bool,
    /// Nobody is in between.
    pub(super) is_direct: bool,
    /// Whether the snapshot's transaction is open: it must not be broken by a failing question.
    pub(super) in_transaction: AtomicBool,
    connection: JoinHandle<()>,
    tap: Tap,
    info: ConnectionInfo,
    /// The options of `info` without those that are for reading.
    loading_options: Option<String>,
    connect_timeout: Duration,
    home: Option<PathBuf>,
}

impl Session {
    /// Connects, logs in and asks the server who it is.
    ///
    /// `CONN_ERR` if the server cannot be reached or has no such database, `AUTH` if it refuses
    /// the login, `PERMISSION` if the role may not connect to this database, `CONFIG` if a
    /// parameter or certificate file cannot be used. `CONN_ERR` too if a pooler is in between that
    /// shares sessions: it is found before anything else is asked than an empty search path.
    ///
    /// The password is asked for first, as it is now.
    pub async fn connect(info: &ConnectionInfo, settings: &settings::Postgres) -> Result<Session> {
        Self::connect_as_given(&info.renewed().await?, settings).await
    }

    /// The same with the password that is there: it was asked for a moment ago.
    pub async fn connect_as_given(info: &ConnectionInfo, settings: &settings::Postgres) -> Result<Session> {
        let home = settings.child_env.iter().find(|(name, _)| name == "HOME");
        let home = home.map(|(_, home)| PathBuf::from(home));
        // All that it takes is large, and the callers' own frames need not hold it.
        Box::pin(Self::open(
            info.settled()?,
            settings.connect_timeout,
            home,
            Between::Somebody,
        ))
        .await
    }

    /// To a server that we have started.
    pub(crate) async fn connect_to_our_own(info: &ConnectionInfo, settings: &settings::Postgres) -> Result<Session> {
        Self::open(info.settled()?, settings.connect_timeout, None, Between::Nobody).await
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
        if matches!(between, Between::Nobody) {
            return Self::open_our_own(info, quiet, connect_timeout, home).await;
        }
        // A superuser alone may say so; who is one is known only when a trigger at the login has run.
        match Self::open_as_told(quiet, connect_timeout, home.clone(), between).await {
            // Older than 17; no superuser; or a pooler, which may not even say what it does not know.
            Err(error) if error.message().contains(SERVER_SAYS) && error.code() != Code::Auth => {}
            opened => return opened,
        }
        match Self::open_as_told(info.clone(), connect_timeout, home.clone(), between).await {
            // The one that was refused may still be counted.
            Err(error) if is_full(&error) => {
                tokio::time::sleep(FORGOTTEN).await;
                Self::open_as_told(info, connect_timeout, home, between).await
            }
            opened => opened,
        }
    }

    /// No login is refused: the log of such a server is read.
    async fn open_our_own(
        info: ConnectionInfo,
        quiet: ConnectionInfo,
        connect_timeout: Duration,
        home: Option<PathBuf>,
    ) -> Result<Session> {
        let session = Self::open_as_told(info, connect_timeout, home.clone(), Between::Nobody).await?;
        if session.server.major >= EVENT_TRIGGERS_SINCE
            && session.server.is_superuser
            && session.server.has_event_triggers
            && let Ok(quiet) = Self::open_as_told(quiet, connect_timeout, home, Between::Nobody).await
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
        let place = Place {
            info: &info,
            redactor: &redactor,
            connect_timeout,
            home: home.as_deref(),
        };
        let opened = place.open().await?;
        place.empty_path(&opened).await?;
        let is_direct = match between {
            Between::Nobody => true,
            Between::Somebody => place.look_between(&opened).await?,
        };
        let client = opened.client;
        let greeted = async {
            server::prepare_session(&client).await?;
            server::identify(&client).await
        };
        let limit = self::connect_timeout(&info, connect_timeout);
        let greeted = within(limit, greeted)
            .await
            .map_err(|(error, _)| in_context(&info, error))?;
        let server = match greeted {
            Ok(server) => server,
            Err(error) => return Err(place.refused(&client, &error).await),
        };
        place.refuse_other_kind(&client, &server).await?;
        // pg_dump leaves these to the role's own settings, which would translate the data or write
        // it otherwise from server to server. Options only where they are needed: a pooler may
        // refuse them.
        info.params.insert("client_encoding".into(), server.encoding.clone());
        // A pooler would refuse it, or give the language to others.
        if is_direct && server.language == Language::UntilSet {
            add_option(&mut info, ENGLISH);
        }
        let loading_options = info.params.get("options").cloned();
        for option in &server.to_settle {
            add_option(&mut info, option);
        }
        if let Some(address) = opened.address {
            // A name may stand for several servers. Whoever uses our snapshot must reach ours.
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
            tap: opened.tap,
            info,
            loading_options,
            connect_timeout,
            home,
        })
    }

    /// Another session, opened as this one was, with the password as it is now.
    pub(super) async fn connect_again(&self) -> Result<Session> {
        self.connect_again_by(&self.info).await
    }

    async fn connect_again_by(&self, info: &ConnectionInfo) -> Result<Session> {
        let open = async || {
            let info = info.renewed().await?;
            // Who is between was looked at when this one was opened.
            let opening = Self::open_as_told(info, self.connect_timeout, self.home.clone(), Between::Nobody);
            Box::pin(opening).await
        };
        let mut opened = open().await;
        if self.info.keys.may_change() {
            // A rotation changes the database a little before, or after, the secret.
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

    /// As a backup needs it while this one is open. A role or a database may be allowed one alone.
    pub async fn another_can_be_opened(&self) -> Result<()> {
        self.connect_again().await?.close().await;
        Ok(())
    }

    /// Another session with this server, for COPY of rows that are read: set up as this one, in the database's own
    /// encoding as pg_dump's is.
    pub(crate) async fn open_wire(&self) -> Result<Wire> {
        let mut wire = self.connect_again().await?.into_wire().await?;
        // As pg_dump finds them in the environment that we give it.
        let settled = format!("SET client_encoding = '{}'; SET TimeZone = 'UTC'", self.server.encoding);
        wire.execute(settled.as_bytes())
            .await
            .map_err(wire::Refusal::into_error)?;
        Ok(wire)
    }

    /// Another session with this server, which makes and loads: what is computed there goes by the database's own
    /// settings, as in pg_restore's sessions.
    pub(crate) async fn open_loading_wire(&self) -> Result<Wire> {
        let session = self.connect_again_by(&self.loading_info()).await?;
        let mut wire = session.into_wire().await?;
        let settled = format!(
            "SET client_encoding = '{}'; {}",
            self.server.encoding,
            server::FOR_LOADING
        );
        wire.execute(settled.as_bytes())
            .await
            .map_err(wire::Refusal::into_error)?;
        Ok(wire)
    }

    /// This very session, in whatever transaction it is, without the library: for COPY's rows.
    pub(crate) async fn into_wire(self) -> Result<Wire> {
        // The library closes its prepared statements in passing. After one more answer nothing is
        // on its way any more.
        let asked = self.client.batch_execute("").await;
        asked.map_err(|error| self.error("cannot prepare a session for COPY", &error))?;
        let line = self.tap.take();
        let line = line.ok_or_else(|| Error::internal("a session has no line to the server"))?;
        Ok(Wire::new(line, self.redactor.clone()))
    }

    /// Ends the session, and returns when the line is closed; a server that owes an answer and says nothing more is
    /// not waited for. Dropping ends it too, a little later.
    pub async fn close(self) {
        drop(self.client);
        let mut connection = self.connection;
        // It ends by our wish: how does not matter.
        if tokio::time::timeout(CLOSING, &mut connection).await.is_err() {
            connection.abort();
        }
    }

    pub fn server(&self) -> &ServerInfo {
        &self.server
    }

    /// How to reach this very server again: all defaults settled, and the address pinned
    /// (`hostaddr`), since a snapshot is known to one server only. Give this to pg_dump.
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// The same for what fills the database. Give this to pg_restore and psql.
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
        Error::new(inner.code(), text).hint(inner.hint_text().to_owned())
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

const EVENT_TRIGGERS: &str = "event_triggers";
/// The first server with triggers at a login, and with the setting.
const EVENT_TRIGGERS_SINCE: u32 = 17;
/// After which a server has let go of a login that it refused.
const FORGOTTEN: Duration = Duration::from_millis(200);

/// The same without event triggers, in which code of others would run as us: at the login, before we
/// can say anything. `None` where the options speak of them already.
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

fn add_option(info: &mut ConnectionInfo, option: &str) {
    let options = info.params.entry("options".into()).or_default();
    *options = format!("{options} -c {option}").trim_start().to_owned();
}

/// Whoever connects after us must find the line that we have found: somebody who reads the network
/// could decline TLS where the server itself does not, or ask for another proof.
fn settle_the_line(info: &mut ConnectionInfo, address: IpAddr, encrypted: bool) {
    let mode = if encrypted { "require" } else { "disable" };
    let undecided = match info.params.get("sslmode").map(String::as_str) {
        // Then it is verify-full.
        None => info.params.get("sslrootcert").is_none_or(|roots| roots != "system"),
        Some(mode) => mode == "allow" || mode == "prefer",
    };
    if undecided {
        info.params.insert("sslmode".into(), mode.into());
    }
    if !encrypted && !is_local(address) {
        let allowed = info.params.entry("require_auth".into());
        allowed.or_insert_with(|| authentication::ON_AN_OPEN_LINE.into());
    }
}

/// What a server may ask on a line to this address.
fn allowed(info: &ConnectionInfo, open: bool) -> Methods {
    match info.params.get("require_auth").map(String::as_str) {
        Some(list) => Methods::parse(list),
        None if open => Methods::parse(authentication::ON_AN_OPEN_LINE),
        None => Ok(Methods::any()),
    }
    // Checked when it was set. None at all, should it have come by another way.
    .unwrap_or_default()
}

/// A line to the server with the login done.
pub(super) struct Opened {
    pub(super) client: Client,
    connection: JoinHandle<()>,
    pub(super) tap: Tap,
    encrypted: bool,
    address: Option<IpAddr>,
    end: OurEnd,
}

/// What may be between us and the server.
#[derive(Debug, Clone, Copy)]
enum Between {
    Nobody,
    /// Perhaps: to be looked at.
    Somebody,
}

/// Where a line leads, and how it is opened.
struct Place<'a> {
    info: &'a ConnectionInfo,
    redactor: &'a Redactor,
    connect_timeout: Duration,
    home: Option<&'a Path>,
}

impl Place<'_> {
    async fn open(&self) -> Result<Opened> {
        let reached = open(self.info, self.redactor, self.connect_timeout, self.home).await;
        reached.map_err(|error| in_context(self.info, error))
    }

    async fn empty_path(&self, opened: &Opened) -> Result<()> {
        let limit = connect_timeout(self.info, self.connect_timeout);
        let emptied = within(limit, opened.client.batch_execute(server::EMPTY_SEARCH_PATH)).await;
        match emptied.map_err(|(error, _)| in_context(self.info, error))? {
            Ok(()) => Ok(()),
            Err(error) => Err(self.refused(&opened.client, &error).await),
        }
    }

    /// As libpq does it: the programs that come after us would refuse this server.
    async fn refuse_other_kind(&self, client: &Client, server: &ServerInfo) -> Result<()> {
        let wanted = self
            .info
            .params
            .get("target_session_attrs")
            .map_or("any", String::as_str);
        let fits = match wanted {
            "primary" => !server.in_recovery,
            "standby" => server.in_recovery,
            "read-write" | "read-only" => {
                let question =
                    "SELECT pg_catalog.current_setting('default_transaction_read_only') OPERATOR(pg_catalog.=) 'on'";
                let limit = connect_timeout(self.info, self.connect_timeout);
                let row = within(limit, client.query_one(question, &[])).await;
                let row = row.map_err(|(error, _)| in_context(self.info, error))?;
                let read_only = row.and_then(|row| row.try_get::<_, bool>(0));
                let read_only = read_only.map_err(|error| in_context(self.info, classify(&error, self.redactor)))?;
                (read_only || server.in_recovery) == (wanted == "read-only")
            }
            _ => true,
        };
        if fits {
            return Ok(());
        }
        let kind = if server.in_recovery { "standby" } else { "primary" };
        let text = format!("it is a {kind}, and target_session_attrs={wanted} asks for another kind of server");
        Err(in_context(
            self.info,
            Error::new(Code::ConnErr, text).hint(KIND_OF_SERVER),
        ))
    }

    /// What every session asks first was not answered.
    async fn refused(&self, client: &Client, error: &tokio_postgres::Error) -> Error {
        let told = in_context(self.info, classify(error, self.redactor));
        if told.code() != Code::Permission {
            return told;
        }
        let limit = connect_timeout(self.info, self.connect_timeout);
        match within(limit, explaining::closed_by_somebody(client, &told.message())).await {
            Ok(Ok(Some(hint))) => told.hint(hint),
            _ => told,
        }
    }

    /// Whether nobody is in between; a pooler that shares sessions is refused. Nothing is asked but what
    /// names all that it uses in full.
    async fn look_between(&self, opened: &Opened) -> Result<bool> {
        let failed = |error| in_context(self.info, classify(&error, self.redactor));
        let limit = connect_timeout(self.info, self.connect_timeout);
        let absent = within(limit, pooler::is_absent(&opened.client, opened.end)).await;
        let absent = absent.map_err(|(error, _)| in_context(self.info, error))?;
        if absent.map_err(failed)? {
            return Ok(true);
        }
        // PgBouncer 1.18 leaves to a client for good what it had to wait for: so that neither of the two
        // has to, one that goes before them leaves its connection to the pool.
        self.open().await?.close().await;
        let one = self.open().await?;
        // Where there is no room for a third, the first must do.
        let other = self.open().await.ok();
        let second = other.as_ref().map_or(&opened.client, |other| &other.client);
        let refused = pooler::refuse_shared(&one.client, second).await;
        // They must not still hold connections when pg_dump asks for one.
        one.close().await;
        if let Some(other) = other {
            other.close().await;
        }
        if refused.is_err() {
            // It is not ours, and will serve others.
            let _ = within(limit, opened.client.batch_execute("RESET search_path")).await;
        }
        refused?.map_err(failed)?;
        Ok(false)
    }
}

impl Opened {
    async fn close(self) {
        drop(self.client);
        let _ = self.connection.await;
    }
}

fn in_context(info: &ConnectionInfo, error: Error) -> Error {
    if error.code() == Code::Config {
        return error;
    }
    let text = format!("cannot connect to {}: {}", info.target(), error.message());
    let hint = error.hint_text();
    let hint = match info.whose {
        // By a token, nobody logs in on an open line.
        _ if hint == NO_TLS && info.keys.are_short_lived() => NO_TLS_FOR_TOKENS,
        Whose::Source => hint,
        Whose::Target => for_target(hint).unwrap_or(hint),
    };
    Error::new(error.code(), text).hint(hint)
}

pub(super) async fn open(
    info: &ConnectionInfo,
    redactor: &Redactor,
    setting: Duration,
    home: Option<&Path>,
) -> Result<Opened> {
    let limit = connect_timeout(info, setting);
    let attempts = tls::attempts(info, home)?;
    let mut first = None;
    for (number, attempt) in attempts.iter().enumerate() {
        match open_once(info, redactor, attempt, limit).await {
            Ok(opened) => return Ok(opened),
            // Of several ways the first one's error is told, but not where this server does not know the
            // setting: then all of them are tried without it.
            Err((error, _)) if error.message().contains(EVENT_TRIGGERS) => return Err(error),
            // Only what another way of opening may cure is worth a second attempt.
            Err((error, retry)) => {
                let last = number + 1 == attempts.len() || !retry;
                let first = first.get_or_insert(error);
                if last {
                    return Err(std::mem::replace(first, Error::internal("no attempt was made")));
                }
            }
        }
    }
    Err(Error::internal("no way to connect was tried"))
}

/// libpq's `connect_timeout` beats the setting; zero or less means none.
fn connect_timeout(info: &ConnectionInfo, setting: Duration) -> Duration {
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

/// An error, and whether the next way of opening may do better.
type Refusal = (Error, bool);

async fn open_once(
    info: &ConnectionInfo,
    redactor: &Redactor,
    attempt: &Attempt,
    limit: Duration,
) -> Result<Opened, Refusal> {
    let config = login(info);
    if info.is_socket() {
        let host = info.host.as_deref().unwrap_or_default();
        let path = Path::new(host).join(format!(".s.PGSQL.{}", info.port.unwrap_or_default()));
        let stream = within(limit, UnixStream::connect(&path))
            .await?
            .map_err(|error| (unreachable(&error), false))?;
        let listener = sockopt::socket_peercred(&stream).ok();
        let gates = Gates {
            plain: Some(Gate::new(allowed(info, false), false)),
            encrypted: Gate::new(allowed(info, false), false),
        };
        let (client, connection, tap) = within(limit, start(&config, stream, NoTls, gates))
            .await?
            .map_err(|error| refused(&error, redactor))?;
        return Ok(Opened {
            client,
            connection,
            tap,
            encrypted: false,
            address: None,
            end: OurEnd::Socket(listener.map(|listener| listener.pid.as_raw_nonzero().get())),
        });
    }
    let mut last = None;
    for address in resolve(info, limit).await? {
        let stream = match within(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                last = Some((unreachable(&error), false));
                continue;
            }
            Err((error, again)) => {
                last = Some((error.hint(SILENCE), again));
                continue;
            }
        };
        keep_alive(&stream).map_err(|error| (unreachable(&error), false))?;
        let local_port = stream.local_addr().ok().map(|address| address.port());
        let open = !is_local(address.ip());
        let plain = Gate::new(allowed(info, open), open);
        let gates = Gates {
            plain: match attempt {
                Attempt::Plain => Some(plain),
                Attempt::Offered(_) => Some(plain.after_asking_for_tls()),
                Attempt::Required(_) => None,
            },
            encrypted: Gate::new(allowed(info, false), false),
        };
        let (client, connection, tap) = within(limit, start_with(config.clone(), stream, attempt, gates))
            .await?
            .map_err(|error| refused(&error, redactor))?;
        return Ok(Opened {
            client,
            connection,
            encrypted: tap.is_encrypted(),
            tap,
            address: Some(address.ip()),
            end: OurEnd::Port(local_port),
        });
    }
    Err(last.unwrap_or_else(|| (Error::new(Code::ConnErr, "the host name has no address"), false)))
}

/// A host that is there refuses; a firewall says nothing.
const SILENCE: &str = "packets seem to be dropped on the way: a function or task must be in subnets that reach the \
                       database (its VPC), in a security group that the database's lets in on its port";

async fn within<F: Future>(limit: Duration, work: F) -> Result<F::Output, Refusal> {
    tokio::time::timeout(limit, work).await.map_err(|_| {
        let text = format!("no answer within {} s", limit.as_secs());
        (Error::new(Code::ConnErr, text), false)
    })
}

async fn resolve(info: &ConnectionInfo, limit: Duration) -> Result<Vec<SocketAddr>, Refusal> {
    let host = info.host.as_deref().unwrap_or_default();
    let port = info.port.unwrap_or_default();
    if let Some(address) = info.params.get("hostaddr").and_then(|text| text.parse::<IpAddr>().ok()) {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    match within(limit, tokio::net::lookup_host((host, port))).await? {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err((
            Error::new(Code::ConnErr, "the host name cannot be resolved")
                .source(error)
                .hint("check the host's spelling, and that this machine may ask the name server that knows it"),
            false,
        )),
    }
}

fn unreachable(error: &std::io::Error) -> Error {
    Error::new(Code::ConnErr, error.to_string())
}

pub(super) fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE / 4)?;
    Ok(())
}

fn login(info: &ConnectionInfo) -> Config {
    let mut config = Config::new();
    config.user(info.user.as_deref().unwrap_or_default());
    config.dbname(info.dbname.as_deref().unwrap_or_default());
    if let Some(password) = &info.password {
        config.password(password.expose_secret());
    }
    if let Some(options) = info.params.get("options") {
        config.options(options);
    }
    let name = info.params.get("application_name").map_or("pgstow", String::as_str);
    config.application_name(name);
    config.channel_binding(match info.params.get("channel_binding").map(String::as_str) {
        Some("require") => ChannelBinding::Require,
        Some("disable") => ChannelBinding::Disable,
        _ => ChannelBinding::Prefer,
    });
    config.ssl_mode(SslMode::Disable);
    config
}

async fn start_with(
    mut config: Config,
    stream: TcpStream,
    attempt: &Attempt,
    gates: Gates,
) -> Result<Started, tokio_postgres::Error> {
    let settings = match attempt {
        Attempt::Plain => return start(&config, stream, NoTls, gates).await,
        Attempt::Offered(tls) => {
            config.ssl_mode(SslMode::Prefer);
            tls
        }
        Attempt::Required(tls) => {
            config.ssl_mode(SslMode::Require);
            tls
        }
    };
    if settings.direct {
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    start(&config, stream, settings.connector.clone(), gates).await
}

/// What the server may ask before the line is encrypted, and after.
struct Gates {
    plain: Option<Gate>,
    encrypted: Gate,
}

type Started = (Client, JoinHandle<()>, Tap);

/// Logs in and leaves the protocol to a task of its own, which ends when the client is dropped, or
/// when the tap has been used.
fn start<S, T>(
    config: &Config,
    stream: S,
    tls: T,
    gates: Gates,
) -> BoxFuture<'static, Result<Started, tokio_postgres::Error>>
where
    S: Line + 'static,
    T: TlsConnect<Tapped> + Send + 'static,
    T::Stream: Send + 'static,
    T::Future: Send + 'static,
{
    let config = config.clone();
    Box::pin(async move {
        let tap = Tap::default();
        let (client, connection) = config
            .connect_raw(tap.socket(stream, gates.plain), tap.encryption(tls, gates.encrypted))
            .await?;
        let connection = tokio::spawn(async move {
            // Its error reaches whoever asks the client next.
            let _ = connection.await;
        });
        Ok((client, connection, tap))
    })
}

fn refused(error: &tokio_postgres::Error, redactor: &Redactor) -> Refusal {
    let error = classify(error, redactor);
    let retry = matches!(error.code(), Code::Auth | Code::ConnErr);
    (error, retry)
}

const SERVER_SAYS: &str = "the server says";

/// What an error of the protocol means to the reader.
pub(super) fn classify(error: &tokio_postgres::Error, redactor: &Redactor) -> Error {
    if let Some(server) = error.as_db_error() {
        let mut text = format!("{SERVER_SAYS}: {}", server.message());
        if let Some(detail) = server.detail() {
            text = format!("{text} ({detail})");
        }
        let told = classify_server(server.code(), &redactor.clean(&text));
        return match server.routine() {
            Some(wire::ROW_SECURITY) => told.hint(BYPASS_HINT),
            _ => told,
        };
    }
    let mut text = error.to_string();
    let mut tls_failed = text.contains("TLS");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        tls_failed |= inner.is::<rustls::Error>();
        let wrapped = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(refused) = wrapped.and_then(|wrapped| wrapped.downcast_ref::<authentication::Refused>()) {
            let code = if refused.is_of_a_stranger() {
                Code::ConnErr
            } else {
                Code::Auth
            };
            return Error::new(code, refused.to_string()).hint(refused.hint());
        }
        if let Some(stranger) = wrapped.and_then(|wrapped| wrapped.downcast_ref::<NoAgreement>()) {
            return Error::new(Code::ConnErr, stranger.to_string()).hint(
                "sslnegotiation=direct needs PostgreSQL 17 or newer itself at the other end: check host and port, or \
                 leave it out",
            );
        }
        // The causes of an io::Error that wraps another error are that other's causes.
        cause = match wrapped {
            Some(wrapped) => {
                tls_failed |= wrapped.is::<rustls::Error>();
                wrapped.source()
            }
            None => inner.source(),
        };
    }
    let text = redactor.clean(&text);
    if text.contains("password missing") {
        return Error::new(Code::Auth, "the server asks for a password, and none is given").hint(NO_PASSWORD);
    }
    if text.contains("authentication error") {
        return Error::new(Code::Auth, text);
    }
    if text.contains("does not support TLS") {
        return Error::new(Code::ConnErr, text).hint(NO_TLS);
    }
    if tls_failed {
        return Error::new(Code::ConnErr, text).hint(
            "check sslmode and sslrootcert: the server's certificate must be signed by a root in that file, \
             and name the host for verify-full",
        );
    }
    Error::new(Code::ConnErr, text)
}

const NO_TLS: &str = "the server has no TLS, and sslmode insists on it: turn ssl on in the server's configuration; or, where \
                      nobody else is on the line, give sslmode=disable";
const NO_TLS_FOR_TOKENS: &str = "IAM login needs TLS, and the server at the other end has none: check host and port (RDS has TLS), and \
                                 whether a pooler or tunnel is in between; or log in with a password (BACKUP_DB_AUTH=password, \
                                 BACKUP_TARGET_AUTH=password)";

const NO_PASSWORD: &str = "give the password in DB_PASSWORD (or a file: DB_PASSWORD_FILE), in the URL, in the secret, in \
                           PGPASSWORD or ~/.pgpass";

/// What a hint for the source says where a restore's target is meant, if it is another.
fn for_target(hint: &str) -> Option<&'static str> {
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

/// The server, the role or the database has no connection left.
fn is_full(error: &Error) -> bool {
    let hint = error.hint_text();
    hint == TWO_CONNECTIONS || for_target(TWO_CONNECTIONS) == Some(hint)
}

const NO_DATABASE: &str = "check the database's name; `psql -l` lists them all";

const POOLER: &str = "a connection pooler is in the way: connect to the server itself, or to a pool in session mode";

/// Whatever the pool's mode.
pub(super) const STARTUP: &str = "PgBouncer does not pass on what a session is started with, which a superuser, or a role or \
                                  database with settings of its own (bytea_output, quote_all_identifiers) needs: connect to \
                                  the server itself; or reset the setting (ALTER ROLE … RESET …, ALTER DATABASE … RESET …)";
pub(super) const TWO_CONNECTIONS: &str = "the server has no free connection for this role or database: a backup needs two, and one for each of --jobs: run it when others \
                                          have ended, raise max_connections, or raise the limit of the role or database \
                                          (ALTER ROLE … CONNECTION LIMIT 5, ALTER DATABASE … CONNECTION LIMIT …)";

/// Of `target_session_attrs`.
pub(super) const KIND_OF_SERVER: &str = "target_session_attrs asks for another kind of server than the one that this host is: name \
                                         one that fits, or leave it out (a standby can be backed up)";
pub(super) const LOCKS: &str = "each table takes a lock, and the server has no room for more: raise \
                                max_locks_per_transaction, and restart it";
pub(super) const REPLAY: &str = "on a standby, replay gives way to a backup only for so long: raise \
                                 max_standby_streaming_delay, or turn hot_standby_feedback on, or back up the primary";

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
        // We only read, so nothing but replay can be in conflict with us.
        "40001" => Error::new(Code::ConnErr, text).hint(REPLAY),
        "57P03" => Error::new(Code::ConnErr, text).hint("the server is starting up or shutting down; run it again"),
        "42501" => Error::new(Code::Permission, text),
        // Prepared statements that went to different servers, or a pooler's own complaint.
        "26000" | "42P05" => Error::new(Code::ConnErr, text).hint(POOLER),
        _ if text.contains("unsupported startup parameter") => Error::new(Code::ConnErr, text).hint(STARTUP),
        _ if text.contains("pooling mode") => Error::new(Code::ConnErr, text).hint(POOLER),
        _ => Error::new(Code::ConnErr, text),
    }
}
