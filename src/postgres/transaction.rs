//! A transaction of a session that asks, defines and takes rows as well.

use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use tokio::sync::mpsc::Receiver;

use super::connection::classify;
use super::quoting::literal;
use super::{Piece, Refusal, Session, TakesRows};
use crate::error::{Code, Error, Result};

/// How long a server may take to roll back, of which nobody waits for news.
const ROLLING_BACK: Duration = Duration::from_secs(30);

/// A session whose transaction takes rows in this encoding.
#[derive(Debug)]
pub(crate) struct Filling<'a> {
    session: &'a Session,
    encoding: &'a str,
}

impl Session {
    pub(crate) async fn say(&self, statements: &str) -> Result<(), Refusal> {
        let done = self.client.batch_execute(statements).await;
        done.map_err(|error| self.refusal(&error))
    }

    /// After an error, of which it is no news. A server that does not answer any more rolls back when the session ends.
    pub(crate) async fn roll_back(&self) {
        let _ = tokio::time::timeout(ROLLING_BACK, self.say("ROLLBACK")).await;
    }

    pub(crate) fn filling<'a>(&'a self, encoding: &'a str) -> Filling<'a> {
        Filling {
            session: self,
            encoding,
        }
    }

    fn refusal(&self, error: &tokio_postgres::Error) -> Refusal {
        let told = classify(error, &self.redactor);
        match error.as_db_error() {
            Some(server) => Refusal::Server {
                state: server.code().clone(),
                routine: server.routine().unwrap_or_default().to_owned(),
                error: told,
            },
            None => Refusal::Broken(told),
        }
    }
}

impl Filling<'_> {
    /// As this session speaks, which is not as the rows are written.
    async fn statement(&self, statement: &[u8]) -> Result<String> {
        let text = if statement.is_ascii() || self.encoding == "UTF8" {
            String::from_utf8(statement.to_vec()).ok()
        } else {
            let texts = self.session.texts_of(self.encoding, &[statement.to_vec()]).await?;
            texts.into_iter().next().flatten()
        };
        let text = text.ok_or_else(|| {
            let what = "a COPY statement of the backup is no text in the encoding that the backup names";
            Error::new(Code::Integrity, what)
        })?;
        Ok(format!("{text} WITH (ENCODING {})", literal(self.encoding)))
    }
}

impl TakesRows for Filling<'_> {
    async fn copy_in(&mut self, statement: &[u8], pieces: &mut Receiver<Piece>) -> Result<u64, Refusal> {
        let statement = self.statement(statement).await?;
        let refused = |error| self.session.refusal(&error);
        let rows = self.session.client.copy_in::<str, Bytes>(&statement);
        let rows = rows.await.map_err(refused)?;
        tokio::pin!(rows);
        loop {
            match pieces.recv().await {
                Some(Piece::Rows(bytes)) => rows.as_mut().feed(bytes).await.map_err(refused)?,
                Some(Piece::End) => return rows.as_mut().finish().await.map_err(refused),
                // What is dropped before its end is taken back by the server.
                None => return Err(Error::new(Code::RestoreErr, "the rows ended before their end").into()),
            }
        }
    }
}
