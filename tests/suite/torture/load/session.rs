//! A session of the application: what the server refuses is an answer.

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

pub struct Session {
    runtime: Runtime,
    client: Client,
}

/// By its SQLSTATE. `None`: the session is lost.
#[derive(Debug)]
pub struct Refused {
    pub state: Option<String>,
    pub text: String,
}

impl Session {
    /// `None`: the server is down.
    pub fn open(url: &str) -> Option<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let config: Config = url.parse().unwrap();
        let (client, connection) = runtime.block_on(config.connect(NoTls)).ok()?;
        runtime.spawn(connection);
        let session = Self { runtime, client };
        session
            .ask("SET lock_timeout = '1500ms'; SET search_path = public, other; SET client_min_messages = error")
            .ok()?;
        Some(session)
    }

    /// The rows of the last statement, or of all of them if several give rows.
    pub fn ask(&self, script: &str) -> Result<Vec<Vec<String>>, Refused> {
        let answer = self.runtime.block_on(self.client.simple_query(script));
        let messages = answer.map_err(|error| Refused {
            state: error.as_db_error().map(|told| told.code().code().to_owned()),
            text: error
                .as_db_error()
                .map_or_else(|| error.to_string(), |told| format!("{told:?}")),
        })?;
        let texts = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|at| row.get(at).unwrap_or_default().to_owned())
                    .collect(),
            ),
            _ => None,
        });
        Ok(texts.collect())
    }

    /// Leaves no transaction open when a statement of it was refused.
    pub fn does(&self, script: &str) -> Result<(), Refused> {
        self.ask(script).map(drop).inspect_err(|_| drop(self.ask("ROLLBACK")))
    }

    pub fn value(&self, script: &str) -> Result<String, Refused> {
        Ok(self.ask(script)?.pop().unwrap().remove(0))
    }
}
