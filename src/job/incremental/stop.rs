//! `incremental stop`: leaves nothing on the server. It asks no store.

use std::collections::BTreeSet;
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
    let mut streams = session.streams().await?;
    match of_the_store {
        Some(name) if streams.contains(&name) => Ok(Some(name)),
        // Without a store, the only stream is meant. With one, the only stream may be that of another store, whose
        // increments go on.
        None if streams.len() <= 1 => Ok(streams.pop_first()),
        Some(_) if streams.is_empty() => Ok(None),
        of_the_store => Err(of_others(of_the_store.is_some(), &streams)),
    }
}

fn of_others(is_store_named: bool, streams: &BTreeSet<SlotName>) -> Error {
    let names: Vec<&str> = streams.iter().map(SlotName::slot).collect();
    let names = names.join(", ");
    let what = match (is_store_named, streams.len()) {
        (false, _) => format!("the database has several streams of pgstow's, and no store is named: {names}"),
        (true, 1) => format!(
            "the stream {names} is not that of the store that the settings name: increments of another store may need it"
        ),
        (true, _) => format!(
            "the database has several streams of pgstow's, none of them of the store that the settings name: {names}"
        ),
    };
    Error::config(what)
        .hint("name the store (--store); if the store was moved or is gone, name the stream: --slot NAME")
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
