//! The changes of all tables, transaction by transaction.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::FoldError;
use super::horizon::Horizon;
use super::images::Memory;
use super::net::{Net, RowKey, Tally};
use crate::format::Lsn;
use crate::format::changes::{Item, Transaction};
use crate::format::pgoutput::{Identity, Message, Relation};

/// The rows that a table's changes are applied to.
#[derive(Debug, Clone, Default)]
pub struct Base {
    /// Which transactions are in the rows already.
    pub horizon: Horizon,
    /// The columns of the rows, in their order. `None`: there are no rows, so any columns fit.
    pub columns: Option<Vec<Vec<u8>>>,
    /// Transactions whose commit begins here or later are not applied. `None`: all of those that are applied to others.
    pub until: Option<Lsn>,
    /// The columns may get other names, and be the same columns.
    pub renamed: bool,
    /// Rows are only added, or all of them removed, whatever the stream says of a key.
    pub appends: bool,
}

/// A table whose changes could not be followed to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Everything up to this position was applied.
    pub until: Lsn,
    pub why: String,
}

/// What became of one table.
#[derive(Debug)]
pub struct Changed {
    pub net: Arc<Net>,
    /// The columns of its rows now.
    pub columns: Vec<Vec<u8>>,
    pub broken: Option<Broken>,
}

/// Takes the messages of a stream, and keeps the net effect on each wanted table.
pub struct Fold {
    memory: Arc<Memory>,
    /// Transactions whose commit begins here or later are not applied.
    cut: Option<Lsn>,
    /// Only transactions that this snapshot sees are applied.
    seen_by: Option<Horizon>,
    tables: HashMap<u32, Table>,
    /// Descriptions of wanted tables, as the stream sent them last.
    described: HashMap<u32, Relation>,
    /// The end of the last transaction that was applied.
    applied: Option<Transaction>,
    changes: u64,
}

struct Table {
    base: Base,
    /// `None`: no change was applied yet.
    followed: Option<Followed>,
    broken: Option<Broken>,
}

struct Followed {
    net: Net,
    shape: Shape,
}

/// What the changes of a table need to be the same from the first to the last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Shape {
    /// Names and types.
    columns: Vec<(Vec<u8>, u32)>,
    key: Vec<usize>,
    full: bool,
}

impl Shape {
    fn of(relation: &Relation, appends: bool) -> Self {
        let full = relation.identity == Identity::Full && !appends;
        let columns = relation.columns.iter();
        let keys = columns.clone().enumerate();
        let keys = keys.filter(|(_, column)| column.is_key && !full && !appends);
        Self {
            columns: columns.map(|column| (column.name.clone(), column.type_oid)).collect(),
            key: keys.map(|(number, _)| number).collect(),
            full,
        }
    }

    fn row_key(&self) -> RowKey {
        match (self.full, self.key.is_empty()) {
            (true, _) => RowKey::Whole,
            (false, true) => RowKey::Nothing,
            (false, false) => RowKey::Columns(self.key.clone()),
        }
    }

    fn names(&self) -> Vec<Vec<u8>> {
        self.columns.iter().map(|(name, _)| name.clone()).collect()
    }
}

impl Fold {
    /// `bases`: the wanted tables, by OID.
    pub fn new(bases: BTreeMap<u32, Base>, cut: Option<Lsn>, memory: Arc<Memory>) -> Self {
        let table = |base| Table {
            base,
            followed: None,
            broken: None,
        };
        Self {
            memory,
            cut,
            seen_by: None,
            tables: bases.into_iter().map(|(oid, base)| (oid, table(base))).collect(),
            described: HashMap::new(),
            applied: None,
            changes: 0,
        }
    }

    /// Applies only the transactions that this snapshot sees: the result is what the snapshot sees.
    #[must_use]
    pub fn seen_by(self, snapshot: Horizon) -> Self {
        Self {
            seen_by: Some(snapshot),
            ..self
        }
    }

    /// Takes the next message. Returns false when the rest of the stream is beyond the cut.
    pub fn take(&mut self, item: &Item<'_>) -> Result<bool, FoldError> {
        let Some(transaction) = item.transaction else {
            return Ok(true);
        };
        if self.cut.is_some_and(|cut| transaction.final_lsn >= cut) {
            return Ok(false);
        }
        if let Message::Relation(relation) = &item.message {
            if self.tables.contains_key(&relation.oid) {
                self.described.insert(relation.oid, relation.clone());
            }
            return Ok(true);
        }
        if self
            .seen_by
            .as_ref()
            .is_some_and(|snapshot| !snapshot.sees(transaction.xid))
        {
            return Ok(true);
        }
        match &item.message {
            Message::Commit(_) => self.applied = Some(transaction),
            Message::Insert { relid, new } => {
                if let Some(net) = self.net(*relid, &transaction, item.relation) {
                    net.insert(new.values()).map_err(|error| of(item.relation, error))?;
                    self.changes += 1;
                }
            }
            Message::Update { relid, old, new } => {
                if let Some(net) = self.net(*relid, &transaction, item.relation) {
                    let old = old.as_ref().map(|old| old.tuple().values());
                    net.update(old, new.values())
                        .map_err(|error| of(item.relation, error))?;
                    self.changes += 1;
                }
            }
            Message::Delete { relid, old } => {
                if let Some(net) = self.net(*relid, &transaction, item.relation) {
                    net.delete(old.tuple().values())
                        .map_err(|error| of(item.relation, error))?;
                    self.changes += 1;
                }
            }
            Message::Truncate { relids, .. } => {
                for relid in relids.iter() {
                    let relation = self.described.get(&relid).cloned();
                    if let Some(net) = self.net(relid, &transaction, relation.as_ref()) {
                        net.truncate();
                        self.changes += 1;
                    }
                }
            }
            _ => {}
        }
        Ok(true)
    }

    /// The net effect that a change of this transaction belongs to. `None`: it is not wanted, it is in the base already,
    /// or the table cannot be followed any more.
    fn net(&mut self, relid: u32, transaction: &Transaction, relation: Option<&Relation>) -> Option<&mut Net> {
        let table = self.tables.get_mut(&relid)?;
        let is_beyond = table.base.until.is_some_and(|until| transaction.final_lsn >= until);
        if table.broken.is_some() || is_beyond || table.base.horizon.sees(transaction.xid) {
            return None;
        }
        // A TRUNCATE may come without the table's description: any will do for it.
        let Base { renamed, appends, .. } = table.base;
        let is_known = match (&mut table.followed, relation) {
            (Some(Followed { shape, .. }), Some(relation)) => {
                shape.is_of(relation, appends) || renamed && shape.takes_names(relation, appends)
            }
            (Some(_), None) => true,
            (None, _) => false,
        };
        if !is_known && let Err(why) = table.follow(relation, &self.memory) {
            let until = self.applied.and_then(|applied| applied.end).unwrap_or_default();
            table.broken = Some(Broken { until, why });
            return None;
        }
        table.followed.as_mut().map(|followed| &mut followed.net)
    }

    /// The last transaction that was applied or, if all of its changes were in the bases already, passed over.
    pub fn applied(&self) -> Option<Transaction> {
        self.applied
    }

    /// The wanted tables that the stream has described: it does so before their first change.
    pub fn described(&self) -> impl Iterator<Item = u32> {
        self.described.keys().copied()
    }

    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The tables that are not as in their bases.
    pub fn finish(self) -> BTreeMap<u32, Changed> {
        let changed = self.tables.into_iter().filter_map(|(oid, table)| {
            let columns = table.followed.as_ref().map(|followed| followed.shape.names());
            let net = table.followed.map(|followed| followed.net);
            if net.as_ref().is_none_or(Net::is_untouched) && table.broken.is_none() {
                return None;
            }
            let memory = &self.memory;
            let net = net.unwrap_or_else(|| Net::new(0, RowKey::Nothing, Arc::clone(memory)));
            let changed = Changed {
                net: Arc::new(net),
                columns: columns.unwrap_or_default(),
                broken: table.broken,
            };
            Some((oid, changed))
        });
        changed.collect()
    }
}

impl Shape {
    /// Without making one: this is asked at every change.
    fn is_of(&self, relation: &Relation, appends: bool) -> bool {
        self.has_columns_of(relation, appends)
            && self
                .columns
                .iter()
                .zip(&relation.columns)
                .all(|((name, _), column)| *name == column.name)
    }

    /// Whether the description has the same columns, apart from their names. If so, they have its names from here on.
    fn takes_names(&mut self, relation: &Relation, appends: bool) -> bool {
        let same = self.has_columns_of(relation, appends);
        if same {
            *self = Self::of(relation, appends);
        }
        same
    }

    fn has_columns_of(&self, relation: &Relation, appends: bool) -> bool {
        let full = relation.identity == Identity::Full && !appends;
        let mut keys = self.key.iter().copied().peekable();
        self.full == full
            && self.columns.len() == relation.columns.len()
            && self
                .columns
                .iter()
                .zip(&relation.columns)
                .enumerate()
                .all(|(number, ((_, type_oid), column))| {
                    let is_key = keys.next_if_eq(&number).is_some();
                    *type_oid == column.type_oid && is_key == (column.is_key && !full && !appends)
                })
    }
}

impl Table {
    /// From here on, the changes have the shape that this description says.
    fn follow(&mut self, relation: Option<&Relation>, memory: &Arc<Memory>) -> Result<(), String> {
        let shape = relation.map_or_else(Shape::default, |relation| Shape::of(relation, self.base.appends));
        let (emptied, tally) = match &self.followed {
            Some(followed) if !followed.net.is_bare() => {
                return Err(
                    "its columns, their types or its identity changed, and rows were changed before that".into(),
                );
            }
            Some(followed) => (followed.net.is_emptied(), followed.net.tally()),
            None => (false, Tally::default()),
        };
        let same_names = |columns: &Vec<Vec<u8>>| match self.base.renamed {
            true => columns.len() == shape.columns.len(),
            false => *columns == shape.names(),
        };
        if let (false, Some(columns), Some(_)) = (emptied, &self.base.columns, relation)
            && !same_names(columns)
        {
            return Err("its columns are not those that its rows were backed up with".into());
        }
        let mut net = Net::new(shape.columns.len(), shape.row_key(), Arc::clone(memory));
        if emptied {
            net.truncate();
        }
        net.had(tally);
        self.followed = Some(Followed { net, shape });
        Ok(())
    }
}

/// Says of which table it is.
fn of(relation: Option<&Relation>, error: FoldError) -> FoldError {
    match (relation, error) {
        (Some(relation), FoldError::Changes(what)) => FoldError::Changes(format!("{}: {what}", relation.display())),
        (_, error) => error,
    }
}
