//! What may stand between us and the server. A pooler in transaction mode gives our statements, and
//! pg_dump's, whichever connection is free: what is set for a session is lost, or gets into other
//! people's sessions; with it the search path, on which everything of ours rests.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::error::{Code, Error, Result};

/// A pool with several idle connections may give each client its own for a while.
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

type Answer<T> = std::result::Result<T, tokio_postgres::Error>;

/// Our end of the line, as we see it.
#[derive(Debug, Clone, Copy)]
pub(super) enum OurEnd {
    /// The address's port.
    Port(Option<u16>),
    /// A socket file, and the process that listens there.
    Socket(Option<i32>),
}

/// Whether the server's end of the line is ours: then nobody is in between. Over a socket file there
/// are no ends to compare; but whoever listens there is the parent of the process that serves us.
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

/// It shows when one of two clients of ours is moved to another server process, or shares the other's.
pub(super) async fn refuse_shared(first: &Client, second: &Client) -> Result<Answer<()>> {
    let Ok(shared) = timeout(PATIENCE, shares_processes(first, second)).await else {
        let text = "what is between us and the server gives two sessions no connections at the same time";
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

/// Whether two sessions are not served by one process each, all the time.
async fn shares_processes(first: &Client, second: &Client) -> Answer<bool> {
    let ours = (process(first).await?, process(second).await?);
    // A pool of one connection would let nobody in beside the other's transaction.
    if ours.0 == ours.1 {
        return Ok(true);
    }
    for _ in 0..ROUNDS {
        // Each takes a connection; the first's goes back last. A pool that gives out what came back
        // last then gives it to the second, and one that gives out what came back first, another.
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

/// The parent of a process of this machine.
fn parent(process: &str) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// What one question gives, in one message: a prepared statement would be three, and a pool may answer
/// each from elsewhere.
async fn told(client: &Client, question: &str) -> Answer<Option<String>> {
    let messages = client.simple_query(question).await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}
