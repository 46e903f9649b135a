//! The files of an increment: its changes, read to the last message, and what else only increments have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Data, Finding, Job, data};
use crate::error::{Code, Result};
use crate::format::archive::{Head, Input};
use crate::format::changes::Summary;
use crate::repository::backup_id::{BackupId, MANIFEST};
use crate::repository::catalog::{self, Demand, Listed, Located, Read};
use crate::repository::manifest::{FileRecord, Increment, Manifest, TableChanges, role};
use crate::repository::signature::Trust;
use crate::repository::stored_archive::read_file;
use crate::repository::stored_changes::StoredChanges;
use crate::store::Store;

/// The roles of the data files whose contents are read here or as a full's; of others only the digest is compared.
pub(super) const READ: [&str; 2] = [role::CHANGES, role::DUMP];

/// Compares the changes with the manifest, and reads the small files as their readers do.
pub(super) async fn check(
    job: &Job<'_>,
    store: &Arc<dyn Store>,
    manifest: &Manifest,
    md5: Option<[u8; 16]>,
) -> Result<Data> {
    let mut seen = Data::from(changes(job, store, manifest, md5).await?);
    for role in [role::SCHEMA, role::CATALOG] {
        if let Some(file) = manifest.files.get(role).filter(|_| manifest.data_file(role).is_none()) {
            seen.findings.extend(small(store.as_ref(), &manifest.id, role, file).await?);
        }
    }
    Ok(seen)
}

/// The changes, if their index leads to them. Without it, only the digest of the file is compared.
async fn changes(
    job: &Job<'_>,
    store: &Arc<dyn Store>,
    manifest: &Manifest,
    md5: Option<[u8; 16]>,
) -> Result<(u64, Vec<Finding>)> {
    let Some(file) = manifest.files.get(role::CHANGES) else {
        let finding = Finding::of_file(MANIFEST, "names no file of changes, although it is an increment's");
        return Ok((0, vec![finding]));
    };
    match StoredChanges::open(store, manifest).await {
        Ok(stored) => data::changes(store, stored, manifest, md5, job.observer).await,
        Err(error) if error.code() == Code::Integrity => {
            let key = manifest.id.key(&file.name);
            let message = error.message();
            let what = message.strip_prefix(&format!("{key}: ")).unwrap_or(&message);
            let (read, mut findings) = data::object(store, &manifest.id, file, md5, job.observer).await?;
            findings.push(Finding::of_file(&file.name, what));
            Ok((read, findings))
        }
        Err(error) => Err(error),
    }
}

/// A small file whose digest is right must be what its role says. Its digest is compared with those of all small files.
async fn small(store: &dyn Store, id: &BackupId, role: &str, file: &FileRecord) -> Result<Option<Finding>> {
    let bytes = match read_file(store, id, file).await {
        Ok(bytes) => bytes,
        Err(error) if error.code() == Code::Integrity => return Ok(None),
        Err(error) => return Err(error),
    };
    let what = match role {
        role::SCHEMA => {
            let mut input = Input::new(&bytes[..]);
            match Head::read(&mut input) {
                Ok(head) if !head.data.is_empty() => Some("holds data, and not only definitions".to_owned()),
                Ok(_) if !matches!(input.available(), Ok([])) => Some("has bytes after its definitions".to_owned()),
                Ok(_) => None,
                Err(error) => Some(format!("is no archive of definitions: {error}")),
            }
        }
        _ => {
            let read = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes);
            read.err().map(|error| format!("is not JSON: {error}"))
        }
    };
    Ok(what.map(|what| Finding::of_file(&file.name, what)))
}

/// What the manifest says otherwise than the changes themselves.
pub(super) fn differences(manifest: &Manifest, increment: &Increment, found: &Summary) -> Vec<Finding> {
    let stream = &increment.stream;
    let mut differs = Vec::new();
    let name = manifest.files.get(role::CHANGES).map_or(MANIFEST, |file| &file.name);
    let mut of_file = |what: String| differs.push(Finding::of_file(name, what));
    if found.transactions != stream.transactions {
        of_file(format!(
            "has {} transactions, the manifest says {}",
            found.transactions, stream.transactions
        ));
    }
    let commits = stream.first_commit.zip(stream.last_commit);
    if found.commits != commits || stream.first_commit.is_some() != stream.last_commit.is_some() {
        let told = |commits: Option<(jiff::Timestamp, jiff::Timestamp)>| match commits {
            Some((first, last)) => format!("{first} to {last}"),
            None => "none".to_owned(),
        };
        of_file(format!(
            "has commits of {}, the manifest says {}",
            told(found.commits),
            told(commits)
        ));
    }
    let counts = |table: &TableChanges| [table.inserts, table.updates, table.deletes, table.truncates];
    let said: BTreeMap<u32, &TableChanges> = increment.changes.iter().map(|table| (table.oid, table)).collect();
    let tables: Vec<TableChanges> = found.tables.iter().map(TableChanges::from).collect();
    let found: BTreeMap<u32, &TableChanges> = tables.iter().map(|table| (table.oid, table)).collect();
    let oids: BTreeSet<u32> = said.keys().chain(found.keys()).copied().collect();
    for oid in oids {
        let [there, told] = [found.get(&oid), said.get(&oid)].map(|table| table.map_or([0; 4], |table| counts(table)));
        let Some(table) = said.get(&oid).or(found.get(&oid)) else {
            continue;
        };
        if there != told {
            differs.push(Finding {
                file: name.to_owned(),
                table: Some(format!("{}.{}", table.schema, table.name)),
                what: format!(
                    "has {} inserts, {} updates, {} deletes and {} truncates, the manifest says {}, {}, {} and {}",
                    there[0], there[1], there[2], there[3], told[0], told[1], told[2], told[3]
                ),
            });
        }
    }
    differs
}

/// Compares facts that the manifest holds twice, and those that it and its predecessor's manifest hold.
pub(super) async fn check_stream(located: &Located, around: &[Listed], now: jiff::Timestamp) -> Result<Vec<Finding>> {
    let manifest = &located.manifest;
    let Some(increment) = &manifest.increment else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    if increment.stream.from > increment.stream.to {
        found.push(format!(
            "says that the increment begins at {}, after its end {}",
            increment.stream.from, increment.stream.to
        ));
    }
    let tables: BTreeSet<u32> = manifest.tables.iter().filter_map(|table| table.oid).collect();
    for baseline in increment.baselines.iter().filter(|one| !tables.contains(&one.oid)) {
        found.push(format!(
            "has a baseline of {}.{}, and no place of its rows",
            baseline.schema, baseline.name
        ));
    }
    found.extend(before(located, increment, around, now).await?);
    Ok(found.into_iter().map(|what| Finding::of_file(MANIFEST, what)).collect())
}

/// The increment before must end where this one begins. If it has expired, or cannot be read, there is nothing to
/// compare: its own verification reports it.
async fn before(
    located: &Located,
    increment: &Increment,
    around: &[Listed],
    now: jiff::Timestamp,
) -> Result<Option<String>> {
    let stream = &increment.stream;
    let Some(id) = &stream.predecessor else {
        return Ok(None);
    };
    if !around.iter().any(|one| one.has_manifest && one.id == *id) {
        return Ok(None);
    }
    let demand = Demand {
        trust: &Trust::default(),
        manifest: None,
        now,
        altered: false,
    };
    let before = match catalog::read_genuine(located.store.as_ref(), id, &demand).await {
        Ok(Read::Genuine(before)) => before.manifest.increment,
        Ok(_) => return Ok(None),
        Err(error) if error.code() == Code::Integrity => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(match before {
        None => Some(format!("names {id} as the increment before it, which is none")),
        Some(before) if before.stream.id != stream.id => {
            Some(format!("is of another stream than {id}, the increment before it"))
        }
        Some(before) if before.stream.to != stream.from => Some(format!(
            "says that the increment begins at {}, but {id} before it ends at {}",
            stream.from, before.stream.to
        )),
        Some(_) => None,
    })
}
