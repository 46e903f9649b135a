//! What a full records for the increments that follow it.

use super::Job;
use crate::error::{Error, Result};
use crate::format::Lsn;
use crate::postgres::{Session, SlotName};
use crate::repository::seen_catalog::SeenCatalog;

/// The tables in the snapshot, and how their changes arrive: the first increment of a stream compares the database with
/// this. `None`: increments were not started for this database and this store.
pub(super) async fn catalog(job: &Job<'_>, session: &Session) -> Result<Option<Vec<u8>>> {
    let server = session.server();
    let Some(primary) = job.stores.first().filter(|_| !server.in_recovery) else {
        return Ok(None);
    };
    let slot = SlotName::of(primary.url(), &server.database);
    // A question that the server refuses must not end the snapshot.
    let reading = async {
        let publications = session.publications(&slot).await?;
        if !publications.are_complete() {
            return Ok(None);
        }
        let catalog = session.table_catalog().await?;
        let published = publications.listing.published(&catalog);
        let memberships = publications.memberships(&catalog);
        let fingerprint = session.definitions_fingerprint(&slot.publications()).await?;
        let at: Option<Lsn> = session.settled_position().await?;
        let at = at.ok_or_else(|| Error::internal("the server does not flush its log up to the snapshot"))?;
        let seen = SeenCatalog::first(catalog, at, fingerprint, (&published, &memberships));
        seen.to_bytes().map(Some)
    };
    session.apart(reading).await
}
