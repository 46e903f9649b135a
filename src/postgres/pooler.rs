//! Detects a pooler between pgstow and the server. A pooler in transaction mode runs pgstow's statements, and
//! pg_dump's, on any free connection. Session settings are then lost, or end up in other clients' sessions; one of
//! them is the search path, on which pgstow's safety depends.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::error::{Code, Error, Result};

/// A pool with several idle connections may give each client its own for a while.
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

type Answer<T> = std::result::Result<T, tokio_postgres::Error>;

/// The client's end of the connection, as pgstow sees it.
#[derive(Debug, Clone, Copy)]
pub(super) enum OurEnd {
    /// The local port.
    Port(Option<u16>),
    /// A socket file, and the process that listens on it.
    Socket(Option<i32>),
}

/// Whether the server sees the same client end as pgstow: then no pooler is in between. A socket file has no ends to
/// compare, but the listening process must be the parent of the process that serves this session.
pub(super) async fn is_absent(client: &Client, end: OurEnd) -> Answer<bool> {
    Ok(match end {
        OurEnd::Port(port) => {
            let seen = told(client, "SELECT pg_catalog.inet_client_port()").await?;
            seen.is_some() && seen == port.map(|port| port.to_string())
        }
        OurEnd::Socket(listener) => {
            let process = process(client).await?;
            let parent = process.and_then(|process| parent(&process));
            parent.is_some() && parent == listener
        }
    })
}

/// A pooler shows when it moves one of two clients to another server process, or lets both share one.
pub(super) async fn refuse_shared(first: &Client, second: &Client) -> Result<Answer<()>> {
    let Ok(shared) = timeout(PATIENCE, shares_processes(first, second)).await else {
        let text = "a pooler in front of the server does not give two sessions a connection at the same time";
        return Err(Error::new(Code::ConnErr, text).hint("connect to the server itself"));
    };
    match shared {
        Ok(false) => Ok(Ok(())),
        Err(error) => Ok(Err(error)),
        Ok(true) => Err(Error::new(
            Code::ConnErr,
            "the connection goes through a pooler that shares sessions (PgBouncer in transaction mode, or the like)",
        )
        .hint("connect to the server itself, or through a pool in session mode")),
    }
}

/// Whether the two sessions ever have something else than one server process each.
async fn shares_processes(first: &Client, second: &Client) -> Answer<bool> {
    let ours = (process(first).await?, process(second).await?);
    // A pool with one connection would block one client while the other's transaction is open.
    if ours.0 == ours.1 {
        return Ok(true);
    }
    for _ in 0..ROUNDS {
        // Each client takes a connection, and the first client returns its connection last. A pool that reuses the
        // newest connection then gives it to the second client; a pool that reuses the oldest gives it another.
        second.batch_execute("BEGIN").await?;
        first.batch_execute("BEGIN").await?;
        let during = (process(first).await?, process(second).await?);
        second.batch_execute("ROLLBACK").await?;
        first.batch_execute("ROLLBACK").await?;
        let theirs = process(second).await?;
        let after = (process(first).await?, theirs);
        if during != ours || after != ours {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The server process that serves a session.
async fn process(client: &Client) -> Answer<Option<String>> {
    told(client, "SELECT pg_catalog.pg_backend_pid()").await
}

/// The parent of a process on this machine.
fn parent(process: &str) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before this may contain any character.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// The answer to one question that is sent in one message. A prepared statement would take three messages, and a pool
/// might answer each from another connection.
async fn told(client: &Client, question: &str) -> Answer<Option<String>> {
    let messages = client.simple_query(question).await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}
