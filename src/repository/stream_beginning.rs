//! Where a stream of changes begins: the record of the full backup that was made for it.

use jiff::Timestamp;

use super::backup_id::BackupKind;
use super::catalog::{Demand, Listed, Read, read_genuine};
use super::manifest::StreamBeginning;
use super::signature::Trust;
use crate::error::Result;
use crate::format::Lsn;
use crate::postgres::StreamSource;
use crate::store::Store;

/// How many manifests of full backups are read in search of it.
const ASKED: usize = 50;

/// A slot as it is now.
#[derive(Clone, Copy)]
pub struct Sought<'a> {
    pub slot: &'a str,
    pub confirmed: Lsn,
    pub source: &'a StreamSource,
}

/// The beginning of the slot's stream, if one of the newest full backups records it. A slot that was made again under its
/// name is further than any that was recorded before.
pub async fn find(
    store: &dyn Store,
    listed: &[Listed],
    sought: Sought<'_>,
    trust: &Trust,
    now: Timestamp,
) -> Result<Option<StreamBeginning>> {
    let demand = Demand {
        trust,
        manifest: None,
        now,
        altered: false,
    };
    let is_full = |one: &&Listed| one.has_manifest && one.id.kind() == BackupKind::Full && !one.id.is_ahead(now);
    for one in listed.iter().filter(is_full).take(ASKED) {
        let Read::Genuine(genuine) = read_genuine(store, &one.id, &demand).await? else {
            continue;
        };
        let manifest = genuine.manifest;
        let source = sought.source;
        let system = manifest.server.system_identifier.as_ref();
        let timeline = manifest.snapshot.end.and_then(|end| end.timeline);
        let is_of_source = system.is_none_or(|system| *system == source.system_identifier)
            && timeline.is_none_or(|timeline| timeline == source.timeline);
        let beginning = manifest.beginning.filter(|_| is_of_source);
        let beginning = beginning.filter(|known| known.slot == sought.slot && known.from >= sought.confirmed);
        if beginning.is_some() {
            return Ok(beginning);
        }
    }
    Ok(None)
}
