//! Opens a session's connection, and checks it before it is used.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::error::{Code, Error, Result};
use crate::postgres::lent::{self, Lent};
use crate::postgres::pooler::{self, OurEnd};
use crate::postgres::refusal::{KIND_OF_SERVER, NO_TLS, NO_TLS_FOR_TOKENS, classify, for_target};
use crate::postgres::server::{self, ServerInfo};
use crate::postgres::startup::{Purpose, Started, Startup, connect_timeout, within};
use crate::postgres::{ConnectionInfo, Redactor, Whose, closed};

/// A connection to the server with the login done.
pub(super) struct Opened {
    pub client: Client,
    pub connection: JoinHandle<()>,
    pub lent: Lent,
    pub encrypted: bool,
    pub address: Option<IpAddr>,
    end: OurEnd,
}

/// The destination of a connection, and how to open it.
pub(super) struct ConnectOptions<'a> {
    pub info: &'a ConnectionInfo,
    pub redactor: &'a Redactor,
    pub connect_timeout: Duration,
    pub home: Option<&'a Path>,
}

impl ConnectOptions<'_> {
    /// A session that has begun, before pgstow's first statement.
    pub async fn start(&self, purpose: Purpose) -> Result<Started> {
        let startup = Startup {
            info: self.info,
            redactor: self.redactor,
            limit: self.limit(),
            home: self.home,
            purpose,
        };
        // The future of a handshake is large, and the callers' own futures need not contain it.
        let started = Box::pin(startup.open()).await;
        started.map_err(|error| in_context(self.info, error))
    }

    /// The same for the client library.
    pub async fn open(&self) -> Result<Opened> {
        let started = self.start(Purpose::Statements).await?;
        let lending = Box::pin(lent::lend(started.stream, &started.greeting));
        let (client, connection, lent) = lending.await?;
        Ok(Opened {
            client,
            connection,
            lent,
            encrypted: started.encrypted,
            address: started.address,
            end: started.end,
        })
    }

    pub fn limit(&self) -> Duration {
        connect_timeout(self.info, self.connect_timeout)
    }

    pub async fn empty_path(&self, opened: &Opened) -> Result<()> {
        let limit = self.limit();
        let emptied = within(limit, opened.client.batch_execute(server::EMPTY_SEARCH_PATH)).await;
        match emptied.map_err(|error| in_context(self.info, error))? {
            Ok(()) => Ok(()),
            Err(error) => Err(self.refused(&opened.client, &error).await),
        }
    }

    /// As libpq does, because the programs that connect later would refuse this server.
    pub async fn refuse_other_kind(&self, client: &Client, server: &ServerInfo) -> Result<()> {
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
                let limit = self.limit();
                let row = within(limit, client.query_one(question, &[])).await;
                let row = row.map_err(|error| in_context(self.info, error))?;
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

    /// The error if the server refused the first statement of every session.
    pub async fn refused(&self, client: &Client, error: &tokio_postgres::Error) -> Error {
        let told = classify(error, self.redactor);
        let told = if error.is_closed() { told.hint(ENDED) } else { told };
        let told = in_context(self.info, told);
        if told.code() != Code::Permission {
            return told;
        }
        let limit = self.limit();
        match within(limit, closed::closed_by_somebody(client, &told.message())).await {
            Ok(Ok(Some(hint))) => told.hint(hint),
            _ => told,
        }
    }

    /// Whether there is no pooler in between; a pooler that shares sessions is refused. All statements here name
    /// everything in full.
    pub async fn look_between(&self, opened: &Opened) -> Result<bool> {
        let failed = |error| in_context(self.info, classify(&error, self.redactor));
        let limit = self.limit();
        let absent = within(limit, pooler::is_absent(&opened.client, opened.end)).await;
        let absent = absent.map_err(|error| in_context(self.info, error))?;
        if absent.map_err(failed)? {
            return Ok(true);
        }
        // PgBouncer 1.18 gives a connection for good to a client that had to wait for it. So that neither of the two
        // sessions has to wait, another one connects before and leaves its connection to the pool.
        self.open().await?.close().await;
        let one = self.open().await?;
        // If there is no room for a third session, compare with the first.
        let other = self.open().await.ok();
        let second = other.as_ref().map_or(&opened.client, |other| &other.client);
        let refused = pooler::refuse_shared(&one.client, second).await;
        // They must not hold connections when pg_dump asks for one.
        one.close().await;
        if let Some(other) = other {
            other.close().await;
        }
        if refused.is_err() {
            // The server connection belongs to the pooler and will serve other clients.
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

const ENDED: &str = "the server, or a pooler in front of it, ended the session right after the login: look at its log, \
                     and at settings such as idle_session_timeout (ALTER ROLE <role> RESET idle_session_timeout, ALTER \
                     DATABASE … RESET idle_session_timeout)";

pub(super) fn in_context(info: &ConnectionInfo, error: Error) -> Error {
    if error.code() == Code::Config {
        return error;
    }
    let hint = error.hint_text();
    let hint = match info.whose {
        // With a token, no login is possible on an unencrypted connection.
        _ if hint == NO_TLS && info.keys.are_short_lived() => NO_TLS_FOR_TOKENS,
        Whose::Source => hint,
        Whose::Target => for_target(hint).unwrap_or(hint),
    };
    let hint = info.naming_the_role(hint);
    error.context(format!("cannot connect to {}", info.target())).hint(hint)
}
