//! Plans the changes of the publications: pure functions.

use std::collections::{BTreeMap, BTreeSet};

use super::{Published, add_table, drop_table};
use crate::postgres::{CatalogTable, PublicationKind, SlotName, TableCatalog};

/// The OIDs that each publication lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing(BTreeMap<PublicationKind, BTreeSet<u32>>);

impl Listing {
    pub(super) fn set(&mut self, kind: PublicationKind, oids: BTreeSet<u32>) {
        self.0.insert(kind, oids);
    }

    pub fn lists(&self, kind: PublicationKind, oid: u32) -> bool {
        self.0.get(&kind).is_some_and(|oids| oids.contains(&oid))
    }

    /// The tables that a publication should list and does not.
    pub fn missing<'a>(&self, catalog: &'a TableCatalog) -> Vec<&'a CatalogTable> {
        let adds = steps(self, catalog)
            .into_iter()
            .flat_map(|step| step.together.into_iter().chain([step.changing]));
        adds.filter(|change| change.adds)
            .filter_map(|change| catalog.table(change.oid))
            .collect()
    }

    /// How the changes of each table arrive.
    pub fn published(&self, catalog: &TableCatalog) -> Published {
        let one = |table: &CatalogTable| {
            if table.is_unlogged {
                return None;
            }
            let listed = |oid: u32| {
                let by = |kind| self.lists(kind, oid).then_some(kind);
                by(PublicationKind::All).or_else(|| by(PublicationKind::Inserts))
            };
            let own = std::iter::once(table).chain(catalog.ancestors(table));
            let best = own.filter_map(|table| listed(table.oid)).min()?;
            Some((table.oid, best))
        };
        catalog.tables.iter().filter_map(one).collect()
    }
}

/// One statement about one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub kind: PublicationKind,
    pub oid: u32,
    pub adds: bool,
}

/// A change, with the changes without which it would interrupt the stream of some tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub changing: Change,
    /// Updates of the application fail until it is done.
    pub is_urgent: bool,
    pub together: Vec<Change>,
}

impl Change {
    pub fn statement(self, names: &SlotName, table: &CatalogTable) -> String {
        if self.adds {
            add_table(names, self.kind, table)
        } else {
            drop_table(names, self.kind, table)
        }
    }
}

impl Step {
    /// Whether it only adds a table, and nothing else depends on when.
    pub fn is_addition(&self) -> bool {
        self.changing.adds && !self.is_urgent && self.together.is_empty()
    }

    /// `None` if it is a single statement.
    pub fn in_one_transaction(&self, names: &SlotName, catalog: &TableCatalog) -> Option<String> {
        if self.together.is_empty() {
            return None;
        }
        let mut statements = vec!["BEGIN".to_owned()];
        for change in self.together.iter().chain([&self.changing]) {
            statements.push(change.statement(names, catalog.table(change.oid)?));
        }
        statements.push("COMMIT".into());
        Some(statements.join("; "))
    }
}

/// First what must not stay, then what is to be added, and last what need not stay.
pub(super) fn steps(listing: &Listing, catalog: &TableCatalog) -> Vec<Step> {
    let publishing = catalog.publishing();
    let wanted = |kind, oid: u32| publishing.get(&oid).is_some_and(|one| one.listed == Some(kind));
    let mut adds: Vec<Change> = Vec::new();
    let mut drops: Vec<Change> = Vec::new();
    for table in &catalog.tables {
        for kind in [PublicationKind::All, PublicationKind::Inserts] {
            let change = |adds| Change {
                kind,
                oid: table.oid,
                adds,
            };
            match (wanted(kind, table.oid), listing.lists(kind, table.oid)) {
                (true, false) => adds.push(change(true)),
                (false, true) => drops.push(change(false)),
                _ => {}
            }
        }
    }
    let is_urgent = |change: &Change| {
        let covered = publishing.get(&change.oid).and_then(|one| one.covered);
        change.kind == PublicationKind::All && covered != Some(PublicationKind::All)
    };
    let (urgent, needless): (Vec<Change>, Vec<Change>) = drops.into_iter().partition(is_urgent);
    let mut steps = Vec::new();
    for changing in urgent {
        // The table itself, and what is below it.
        let belongs = |change: &Change| {
            let table = catalog.table(change.oid);
            let is_below = |table| catalog.ancestors(table).any(|above| above.oid == changing.oid);
            change.oid == changing.oid || table.is_some_and(is_below)
        };
        let (together, rest) = adds.into_iter().partition(belongs);
        adds = rest;
        steps.push(Step {
            changing,
            is_urgent: true,
            together,
        });
    }
    let single = |changing| Step {
        changing,
        is_urgent: false,
        together: Vec::new(),
    };
    steps.extend(adds.into_iter().map(single));
    steps.extend(needless.into_iter().map(single));
    steps
}

#[cfg(test)]
mod tests;
