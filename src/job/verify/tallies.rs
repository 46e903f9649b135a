//! The counts of an increment's changes, compared with the manifest.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use crate::format::changes::ChangesSummary;
use crate::repository::backup_id::MANIFEST;
use crate::repository::manifest::{Increment, Manifest, TableChanges, role};

/// What the manifest says otherwise than the changes themselves.
pub(super) fn differences(manifest: &Manifest, increment: &Increment, found: &ChangesSummary) -> Vec<Finding> {
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
