//! `incremental stop`: leaves nothing on the server. It asks no store.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::report::Stopped;
use super::{Job, name};
use crate::error::{Code, Error, Result};
use crate::postgres::{PublicationKind, Session, SlotName};

/// How long a reader may take to end: an increment that has been stopped, or is at its end.
const READER_MAY_TAKE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn run(job: &Job<'_>, session: &Session, asked: Option<&SlotName>) -> Result<Stopped> {
    let wanted = job.stop.or_stop(choose(job, session, asked)).await?;
    let Some(name) = wanted else {
        return Ok(Stopped::default());
    };
    job.observer.phase("dropping the slot");
    // First, because it is the slot that keeps the server's log.
    let slot = job.stop.or_stop(drop_slot(session, &name)).await?;
    job.observer.phase("dropping the publications");
    let mut publications = Vec::new();
    let mut failed = Vec::new();
    for kind in [PublicationKind::All, PublicationKind::Inserts] {
        match job.stop.or_stop(session.drop_publication(&name, kind)).await {
            Ok(true) => publications.push(name.publication(kind)),
            Ok(false) => {}
            Err(error) => failed.push(error),
        }
    }
    match Error::first_of(failed) {
        Some(error) if slot => Err(error.context(format!("the slot {name} was dropped, but a publication was not"))),
        Some(error) => Err(error),
        None => Ok(Stopped {
            slot: slot.then(|| name.to_string()),
            publications,
        }),
    }
}

/// The stream to end. `None`: there is none.
async fn choose(job: &Job<'_>, session: &Session, asked: Option<&SlotName>) -> Result<Option<SlotName>> {
    if let Some(asked) = asked {
        // A slot of this name that is not pgstow's is an error.
        session.slot(asked).await?;
        return Ok(Some(asked.clone()));
    }
    let of_the_store = name(job, session).ok();
    if let Some(name) = &of_the_store {
        session.slot(name).await?;
    }
    let streams = session.streams().await?;
    if let Some(name) = of_the_store.filter(|name| streams.contains(name)) {
        return Ok(Some(name));
    }
    let mut streams = streams.into_iter();
    match (streams.next(), streams.next()) {
        (None, _) => Ok(None),
        (Some(only), None) => Ok(Some(only)),
        (Some(first), Some(second)) => {
            let names: Vec<String> = [first, second].into_iter().chain(streams).map(|name| name.to_string()).collect();
            let what = format!(
                "the database has several streams of pgstow's, and none of them belongs to the store that the settings \
                 name: {}",
                names.join(", ")
            );
            Err(Error::config(what).hint("name the store (--store), or one of them: --slot NAME"))
        }
    }
}

async fn drop_slot(session: &Session, name: &SlotName) -> Result<bool> {
    let end = Instant::now() + READER_MAY_TAKE;
    loop {
        match session.drop_slot(name).await {
            Err(error) if error.code() == Code::Busy && Instant::now() < end => sleep(PAUSE).await,
            result => return result,
        }
    }
}
