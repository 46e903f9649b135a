//! A table as a baseline and the changes after it make it, computed in the simplest way.

use std::collections::{BTreeMap, HashSet};

use pgstow::format::pgoutput::{Message, Old, Tuple, Value};

use super::chain::Increment;
use crate::support::program::{program, succeed};

/// Rows by their first column, which is the key.
pub struct Replayed {
    rows: BTreeMap<String, Vec<String>>,
    /// The transactions that the baseline has: all below `xmin`, and those below `xmax` that were not in progress.
    xmin: u64,
    xmax: u64,
    in_progress: HashSet<u64>,
}

impl Replayed {
    pub fn nothing() -> Self {
        Self {
            rows: BTreeMap::new(),
            xmin: 0,
            xmax: 0,
            in_progress: HashSet::new(),
        }
    }

    /// The rows of a baseline.
    pub fn of(increment: &Increment, name: &str) -> Self {
        let snapshot = &increment.baseline(name)["snapshot"];
        let number = |field: &str| snapshot[field].as_u64().unwrap();
        let rows = increment.rows(name, "id").into_iter().map(|row| {
            let values: Vec<String> = row.split('\t').map(str::to_owned).collect();
            (values[0].clone(), values)
        });
        Self {
            rows: rows.collect(),
            xmin: number("xmin"),
            xmax: number("xmax"),
            in_progress: snapshot["xip"]
                .as_array()
                .unwrap()
                .iter()
                .map(|xid| xid.as_u64().unwrap())
                .collect(),
        }
    }

    fn has(&self, xid: u32) -> bool {
        let xid = u64::from(xid);
        xid < self.xmin || (xid < self.xmax && !self.in_progress.contains(&xid))
    }

    /// Applies the changes of one table.
    pub fn hear(&mut self, increment: &Increment, oid: u32) {
        let unpacked = succeed(program("zstdcat").arg(increment.file("changes"))).stdout;
        let mut rest = &unpacked[..];
        let mut skips = false;
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (message, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            rest = after;
            match Message::parse(message).unwrap() {
                Message::Begin(begin) => skips = self.has(begin.xid),
                Message::Insert { relid, new } if relid == oid && !skips => self.put(None, new),
                Message::Update { relid, old, new } if relid == oid && !skips => self.put(old, new),
                Message::Delete { relid, old } if relid == oid && !skips => {
                    self.rows.remove(&texts(old.tuple())[0]).unwrap();
                }
                Message::Truncate { relids, .. } if relids.iter().any(|relid| relid == oid) && !skips => {
                    self.rows.clear();
                }
                _ => {}
            }
        }
    }

    fn put(&mut self, old: Option<Old<'_>>, new: Tuple<'_>) {
        let new = texts(new);
        let key = old.map_or_else(|| new[0].clone(), |old| texts(old.tuple())[0].clone());
        self.rows.remove(&key);
        self.rows.insert(new[0].clone(), new);
    }

    pub fn rows(&self) -> Vec<String> {
        let mut rows: Vec<String> = self.rows.values().map(|values| values.join("\t")).collect();
        rows.sort();
        rows
    }
}

fn texts(tuple: Tuple<'_>) -> Vec<String> {
    let text = |value| match value {
        Value::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
        Value::Null => "\\N".to_owned(),
        Value::Unchanged => panic!("no value here is stored apart"),
    };
    tuple.values().map(text).collect()
}
