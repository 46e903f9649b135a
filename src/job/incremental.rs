//! `incremental start`, `stop` and `status`: what increments need on the server, and only there.

pub mod readiness;
mod report;
mod request;
mod script;
mod start;
mod state;
mod stop;
mod tables;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::job::backup;
use crate::outside::secrets::Credentials;
use crate::postgres::{Session, SlotName};
use crate::repository::signature::Trust;
use crate::run::clock::Clock;
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::settings::Settings;
use crate::store::Store;

pub use report::{
    Incremental, IncrementalReport, LastIncrement, Started, StatusOfStream, Stopped,
};
pub use request::IncrementalRequest;
pub use tables::{CoveredTables, TableState};

/// Everything that a run needs. The app makes it.
pub struct Job<'a> {
    pub settings: &'a Settings,
    pub credentials: &'a Credentials,
    /// The first is the primary, whose URL is in the slot's name.
    pub stores: &'a [Arc<dyn Store>],
    /// For the manifest of the last increment. `None`: the command reads none.
    pub trust: Option<&'a Trust>,
    /// For the first full backup. `None`: the command makes none.
    pub backup: Option<&'a backup::Job<'a>>,
    pub clock: Clock,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

pub async fn run(job: &Job<'_>, request: &IncrementalRequest) -> Result<IncrementalReport> {
    job.observer.phase("connecting");
    let session = job.stop.or_stop(connect(job)).await?;
    let report = match request {
        IncrementalRequest::Start {
            accept_unbounded_wal,
            print_sql: false,
        } => start::run(job, &session, *accept_unbounded_wal).await.map(Incremental::Started),
        IncrementalRequest::Start { .. } => {
            let name = name(job, &session)?;
            let script = script::of_owner(&session, &name);
            job.stop.or_stop(script).await.map(|sql| Incremental::Script { sql })
        }
        IncrementalRequest::Stop { slot } => stop::run(job, &session, slot.as_ref()).await.map(Incremental::Stopped),
        IncrementalRequest::Status => {
            let found = state::look(job, &session);
            let found = job.stop.or_stop(found).await;
            found.map(|status| Incremental::Status(Box::new(status)))
        }
    };
    let result = report?;
    let database = session.server().database.clone();
    session.close().await;
    Ok(IncrementalReport { database, result })
}

async fn connect(job: &Job<'_>) -> Result<Session> {
    let (_, session) = job.credentials.connect(&job.settings.postgres).await?;
    Ok(session)
}

/// The name of the stream of this database into the primary store.
fn name(job: &Job<'_>, session: &Session) -> Result<SlotName> {
    match job.stores.first() {
        Some(store) => Ok(SlotName::of(store.url(), &session.server().database)),
        None => Err(Error::config("no store is set").hint("give --store, or set BACKUP_STORE")),
    }
}
