//! One store of a run: what the run put into it, and whether it still takes part.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use crate::dataflow::pipeline::{COPYS_PATIENCE, within};
use crate::error::Error;
use crate::repository::manifest::Predecessor;
use crate::run::stop::Stop;
use crate::store::{Mark, Store};

pub(super) struct Replica {
    pub store: Arc<dyn Store>,
    /// Why this store takes no further part.
    pub failed: Option<Error>,
    /// Objects that this run made visible in it, for the clean-up.
    pub written: Vec<Written>,
    /// The marks of the uploads that were opened in it, by key.
    pub marks: BTreeMap<String, Mark>,
    pub committed: bool,
    /// The SHA-256 of the manifest that was published.
    pub manifest_sha256: Option<[u8; 32]>,
    /// The newest backup in it before this run.
    pub predecessor: Option<Predecessor>,
}

/// A key under which something was put.
pub(super) struct Written {
    key: String,
    /// Set if it is unknown whether the upload was completed: the object belongs to this run if it came from that
    /// upload.
    perhaps: Option<Mark>,
}

impl Written {
    pub fn surely(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            perhaps: None,
        }
    }
}

impl Replica {
    pub fn new(store: &Arc<dyn Store>, failed: Option<Error>) -> Self {
        Self {
            store: Arc::clone(store),
            failed,
            written: Vec::new(),
            marks: BTreeMap::new(),
            committed: false,
            manifest_sha256: None,
            predecessor: None,
        }
    }

    pub fn takes_part(&self) -> bool {
        self.failed.is_none()
    }

    pub fn may_hold(&mut self, key: &str) {
        self.written.extend(self.marks.get(key).map(|mark| Written {
            key: key.to_owned(),
            perhaps: Some(mark.clone()),
        }));
    }

    /// Leaves this copy out of the rest of the run, and removes this run's objects from it.
    pub async fn drop_out(&mut self, error: Error, stop: &Stop) {
        let discarding = discard(&*self.store, std::mem::take(&mut self.written), stop);
        let discarded = within(Some(COPYS_PATIENCE), async { Ok(discarding.await) }).await;
        let failed = discarded.unwrap_or_else(|late| vec![late]);
        self.failed = Some(failed.into_iter().fold(error, Error::also));
    }
}

/// The limit for one step in a store. The primary needs none: its own limits end the backup.
pub(super) fn patience(index: usize) -> Option<Duration> {
    (index > 0).then_some(COPYS_PATIENCE)
}

/// Discards all at once, so that a failing store is awaited once, not once per file. Returns the failures.
pub(super) async fn discard(store: &dyn Store, written: Vec<Written>, stop: &Stop) -> Vec<Error> {
    let discard = async |one: &Written| match &one.perhaps {
        Some(mark) if !store.came_from(&one.key, mark).await? => Ok(()),
        _ => store.discard(&one.key).await,
    };
    let discarding = written
        .iter()
        .map(|one| stop.or_give_up("giving up what was stored", discard(one)));
    join_all(discarding).await.into_iter().filter_map(Result::err).collect()
}
