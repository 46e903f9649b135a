//! What a drill proved, table by table, and what it could not.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::restore::LeftOut;
use crate::verification::{Outcome, Status};
use crate::verify::Finding;

/// More tables than these are not told one by one in text.
const TABLES_IN_TEXT: usize = 100;
/// As many differences are told.
const TOLD: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Row for row.
    Equal,
    /// The same rows, which the second dump gave in another order.
    EqualInOtherOrder,
    Differs,
    NotProved,
}

#[derive(Debug, Clone, Serialize)]
pub struct TableProof {
    pub schema: String,
    pub name: String,
    pub rows: u64,
    pub result: Proof,
}

#[derive(Debug, Clone, Serialize)]
pub struct DrillReport {
    pub status: Status,
    /// The throwaway server's version.
    pub server: String,
    pub tables: Vec<TableProof>,
    pub sequences: usize,
    pub large_objects: u64,
    /// Definitions, comments and grants that were found again as they were.
    pub definitions: usize,
    pub duration_seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_proved: Vec<LeftOut>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Finding>,
}

impl DrillReport {
    pub(super) fn settle(&mut self) {
        let more = self.problems.len().saturating_sub(TOLD);
        self.problems.truncate(TOLD);
        if more > 0 {
            self.problems.push(Finding::of_file(
                "the restored database",
                format!("{more} more differences"),
            ));
        }
        self.status = if self.problems.is_empty() {
            Status::Ok
        } else {
            Status::Failed
        };
    }

    fn count(&self, result: Proof) -> usize {
        self.tables.iter().filter(|table| table.result == result).count()
    }

    /// As it stands in `verification.json`.
    pub fn outcome(&self, at: Timestamp) -> Outcome {
        let mut rest = Map::new();
        let mut tell = |name: &str, value: Value| {
            rest.insert(name.to_owned(), value);
        };
        tell("version", json!(env!("CARGO_PKG_VERSION")));
        tell("server", json!(self.server));
        tell("duration_seconds", json!(self.duration_seconds));
        tell("tables", json!(self.tables.len()));
        tell(
            "tables_equal",
            json!(self.count(Proof::Equal) + self.count(Proof::EqualInOtherOrder)),
        );
        tell("rows", json!(self.tables.iter().map(|table| table.rows).sum::<u64>()));
        tell("definitions", json!(self.definitions));
        if !self.not_proved.is_empty() {
            tell(
                "not_proved",
                json!(self.not_proved.iter().take(TOLD).collect::<Vec<_>>()),
            );
        }
        if !self.problems.is_empty() {
            tell("problems", json!(self.problems));
        }
        Outcome {
            status: self.status,
            at,
            rest,
        }
    }
}

impl fmt::Display for DrillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  drill {} on PostgreSQL {}: {} of {} tables equal, {} sequences, {} large objects, {} definitions, {:.1} s",
            self.status.name(),
            self.server,
            self.count(Proof::Equal) + self.count(Proof::EqualInOtherOrder),
            self.tables.len(),
            self.sequences,
            self.large_objects,
            self.definitions,
            self.duration_seconds
        )?;
        let told = |table: &&TableProof| self.tables.len() <= TABLES_IN_TEXT || table.result != Proof::Equal;
        for table in self.tables.iter().filter(told) {
            let result = match table.result {
                Proof::Equal => "equal",
                Proof::EqualInOtherOrder => "equal, in another order",
                Proof::Differs => "DIFFERS",
                Proof::NotProved => "not proved",
            };
            // A name may hold anything, line breaks too.
            let name = format!("{}.{}", table.schema, table.name).replace(char::is_control, "\u{fffd}");
            writeln!(f, "    {:>12} rows  {result:<24} {name}", table.rows)?;
        }
        for left in &self.not_proved {
            writeln!(f, "    not proved: {}: {}", left.what, left.why)?;
        }
        for problem in &self.problems {
            writeln!(f, "    {problem}")?;
        }
        Ok(())
    }
}
