//! Two catalogs and a stream to compare, and the messages of a stream.

use std::collections::BTreeSet;

use crate::format::pgoutput::Message;
use crate::job::increment::difference::*;
use crate::postgres::{CatalogColumn, Memberships, Postponed, TableCatalog, sample_table};

pub(super) const FROM: Lsn = Lsn(1000);
pub(super) const ORDERS: u32 = 20_000;
pub(super) const EVENTS: u32 = 21_000;
pub(super) const PART: u32 = 21_001;

pub(super) fn column(number: i16, name: &str, type_oid: u32) -> CatalogColumn {
    CatalogColumn {
        number,
        name: name.into(),
        type_name: "text".into(),
        type_oid,
        modifier: -1,
        generated: None,
        identity: None,
    }
}

/// `public.t<oid>(id, v)` with a primary key.
pub(super) fn table(oid: u32) -> CatalogTable {
    CatalogTable {
        columns: vec![column(1, "id", 23), column(2, "v", 25)],
        ..sample_table(oid)
    }
}

pub(super) fn keyless(oid: u32) -> CatalogTable {
    CatalogTable {
        identity_index: None,
        key: Vec::new(),
        primary_key: None,
        ..table(oid)
    }
}

pub(super) fn parent(oid: u32) -> CatalogTable {
    CatalogTable {
        kind: TableKind::Partitioned,
        filenode: 0,
        ..table(oid)
    }
}

pub(super) fn leaf(oid: u32, parent: u32) -> CatalogTable {
    CatalogTable {
        parent: Some(parent),
        ..table(oid)
    }
}

pub(super) fn catalog(tables: Vec<CatalogTable>) -> TableCatalog {
    let mut tables = tables;
    tables.sort_by_key(|table| table.oid);
    TableCatalog { major: 18, tables }
}

/// Published as they should be.
pub(super) fn members(catalog: &TableCatalog) -> BTreeMap<u32, PublicationKind> {
    let publishing = catalog.publishing();
    let covered = publishing.iter();
    covered.filter_map(|(oid, one)| Some((*oid, one.covered?))).collect()
}

/// Each by an entry with this OID.
pub(super) fn by(members: &BTreeMap<u32, PublicationKind>, entry: u32) -> Memberships {
    members.keys().map(|oid| (*oid, entry.to_string())).collect()
}

pub(super) fn seen(tables: Vec<CatalogTable>) -> SeenCatalog {
    let catalog = catalog(tables);
    let members = members(&catalog);
    let fingerprint = String::new();
    let memberships = by(&members, 1);
    SeenCatalog::first(catalog, Lsn(900), fingerprint, (&members, &memberships))
}

/// A world to compare: the tables now, with the counts and the messages of the stream.
#[derive(Default)]
pub(super) struct World {
    pub(super) tables: Vec<CatalogTable>,
    pub(super) counted: BTreeMap<u32, u64>,
    pub(super) unpublished: Vec<u32>,
    pub(super) postponed: BTreeMap<u32, String>,
    pub(super) interrupted: BTreeSet<u32>,
    /// They were taken out of their publication and added again.
    pub(super) added_again: bool,
    pub(super) messages: Vec<Vec<u8>>,
}

impl World {
    pub(super) fn of(tables: Vec<CatalogTable>) -> Self {
        Self {
            tables,
            ..Self::default()
        }
    }

    pub(super) fn hearing(tables: Vec<CatalogTable>, messages: Vec<Vec<u8>>) -> Self {
        Self {
            messages,
            ..Self::of(tables)
        }
    }

    pub(super) fn differences(self, previous: Option<&SeenCatalog>) -> Vec<Decision> {
        let catalog = catalog(self.tables);
        let mut after = members(&catalog);
        after.retain(|oid, _| !self.unpublished.contains(oid) && !self.postponed.contains_key(oid));
        let postponed = |(oid, why): (u32, String)| Postponed {
            oid,
            schema: "public".into(),
            name: format!("t{oid}"),
            breaks_updates: false,
            why,
        };
        let memberships = by(&after, if self.added_again { 2 } else { 1 });
        let publications = PublicationChanges {
            memberships: (memberships.clone(), memberships),
            before: after.clone(),
            after,
            interrupted: self.interrupted,
            postponed: self.postponed.into_iter().map(postponed).collect(),
        };
        let mut facts = StreamFacts::new(previous, FROM);
        for message in &self.messages {
            facts.hear(&Message::parse(message).unwrap());
        }
        let now = Now {
            publishing: &catalog.publishing(),
            catalog: &catalog,
            publications: &publications,
            counted: &self.counted,
            from: FROM,
        };
        difference(previous, &now, &facts)
    }

    pub(super) fn action(self, previous: &SeenCatalog, oid: u32) -> Action {
        let decisions = self.differences(Some(previous));
        let mut of_table = decisions.into_iter().filter(|decision| decision.oid == oid);
        let decision = of_table.next().unwrap();
        assert!(of_table.next().is_none());
        decision.action
    }
}

pub(super) fn begin(commit: u64) -> Vec<u8> {
    [
        &b"B"[..],
        &commit.to_be_bytes(),
        &0_i64.to_be_bytes(),
        &7_u32.to_be_bytes(),
    ]
    .concat()
}

pub(super) fn commit(commit: u64) -> Vec<u8> {
    let (at, end) = (commit.to_be_bytes(), (commit + 8).to_be_bytes());
    [&b"C\0"[..], &at, &end, &0_i64.to_be_bytes()].concat()
}

pub(super) fn insert(oid: u32) -> Vec<u8> {
    [&b"I"[..], &oid.to_be_bytes(), b"N\0\0"].concat()
}

pub(super) fn truncate(oid: u32) -> Vec<u8> {
    [&b"T"[..], &1_u32.to_be_bytes(), b"\0", &oid.to_be_bytes()].concat()
}

pub(super) fn relation(table: &CatalogTable) -> Vec<u8> {
    let mut message = vec![b'R'];
    message.extend(table.oid.to_be_bytes());
    message.extend(format!("{}\0{}\0d", table.schema, table.name).bytes());
    message.extend(u16::try_from(table.columns.len()).unwrap().to_be_bytes());
    for column in &table.columns {
        message.push(u8::from(table.key.contains(&column.name)));
        message.extend(format!("{}\0", column.name).bytes());
        message.extend(column.type_oid.to_be_bytes());
        message.extend(column.modifier.to_be_bytes());
    }
    message
}

/// Two transactions, which commit at 2000 and 3000, with these messages.
pub(super) fn two(first: Vec<Vec<u8>>, second: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let first = [vec![begin(2000)], first, vec![commit(2000)]].concat();
    [first, vec![begin(3000)], second, vec![commit(3000)]].concat()
}

pub(super) fn read(action: Action) -> Reading {
    match action {
        Action::Read(reading) => reading,
        other => panic!("{other:?}"),
    }
}
