//! The report of a drill: what it proved, table by table, and what it could not prove.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::RESTORED;
use super::cluster::{HOLDS_NONE, Roles};
use super::evidence::Fault;
use super::missing::LEFT_OUT;
use super::unproved::{FOREIGN, NOT_IN_A_SCRIPT, nothing_proved};
use crate::error::Result;
use crate::job::restore::LeftOut;
use crate::postgres::WITHHELD;
use crate::repository::manifest::Server;
use crate::repository::verification::{self, Finding, VerificationOutcome, VerificationStatus};
use crate::units::count;

/// The most tables that the text lists one by one.
const TABLES_IN_TEXT: usize = 100;
/// The most differences that are reported.
const TOLD: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofOutcome {
    /// Equal, row for row.
    Equal,
    /// The same rows, but in another order in the second dump.
    EqualInOtherOrder,
    Differs,
    NotProved,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct TableProof {
    pub schema: String,
    pub name: String,
    pub rows: u64,
    pub result: ProofOutcome,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct DrillReport {
    pub status: VerificationStatus,
    /// The throwaway server's version.
    pub server: String,
    pub major: u32,
    /// The source's major. If it is another one, nothing is proved for it.
    pub source_major: u32,
    pub tables: Vec<TableProof>,
    pub sequences: usize,
    pub large_objects: u64,
    /// Roles that have the same attributes, memberships, settings and comments again.
    pub roles: usize,
    /// Definitions, comments and grants that are the same again.
    pub definitions: usize,
    /// Whether the drill left something unproved that another drill could prove.
    pub partly: bool,
    pub duration_seconds: f64,
    /// Differences between this machine and the source's that are no damage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// A plain dump of an empty database gave an empty database again: nothing else can be proved.
    #[serde(skip)]
    pub(super) ran: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_proved: Vec<LeftOut>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Finding>,
    /// What to do about the first problem, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// The number of problems that are the source's own.
    #[serde(skip)]
    of_source: usize,
}

/// The start of the reason for a drill on another major.
const OTHER_MAJOR: &str = "the source is ";
/// The reason for entries about the database itself.
pub(super) const OF_DATABASE: &str = "a drill makes a database of its own; only `restore --create` restores these";
/// The starts of reasons that another drill could not remove, because the backup lacks the data for it.
const BEYOND_ANY: [&str; 7] = [
    LEFT_OUT,
    HOLDS_NONE,
    OTHER_MAJOR,
    OF_DATABASE,
    NOT_IN_A_SCRIPT,
    FOREIGN,
    WITHHELD,
];

impl DrillReport {
    pub(super) fn new(version: &str, major: u32, source: &Server) -> DrillReport {
        let source_major = source.version_num / 10_000;
        let other = (source_major != major).then(|| LeftOut {
            what: format!("PostgreSQL {source_major}"),
            why: format!(
                "{OTHER_MAJOR}{}, but the drill ran on {version}: it proves nothing for {source_major}",
                source.version
            ),
        });
        DrillReport {
            status: VerificationStatus::Ok,
            server: version.to_owned(),
            major,
            source_major,
            tables: Vec::new(),
            sequences: 0,
            large_objects: 0,
            roles: 0,
            definitions: 0,
            partly: false,
            duration_seconds: 0.0,
            notes: Vec::new(),
            ran: false,
            not_proved: other.into_iter().collect(),
            problems: Vec::new(),
            advice: None,
            of_source: 0,
        }
    }

    /// Whether the only findings are that the source breaks its own rules.
    fn blames_the_source(&self) -> bool {
        !self.problems.is_empty() && self.of_source == self.problems.len()
    }

    /// Adds the results for roles.
    pub(super) fn roles(&mut self, roles: &Roles) {
        self.roles = roles.compared.equal;
        self.not_proved.extend(roles.not_proved.iter().cloned());
        let differences = roles.compared.differences.iter();
        self.problems.extend(differences.map(|(role, how)| Finding {
            file: RESTORED.to_owned(),
            table: Some(role.clone()),
            what: how.clone(),
        }));
    }

    /// Adds a fault of an entry that the server refused.
    pub(super) fn blame(&mut self, file: &str, name: &str, fault: &Fault) {
        self.advice.get_or_insert_with(|| fault.advice.to_owned());
        self.of_source += usize::from(fault.of_source);
        self.problems.push(Finding {
            file: file.to_owned(),
            table: Some(name.to_owned()),
            what: fault.what.clone(),
        });
    }

    /// Ends the report. It is an error if nothing at all was proved: a drill that could not look says nothing about the
    /// backup, and leaves no result.
    pub(super) fn settle(&mut self) -> Result<()> {
        let could_be = |left: &LeftOut| !BEYOND_ANY.iter().any(|beginning| left.why.starts_with(beginning));
        self.partly = self.not_proved.iter().any(could_be);
        let more = self.problems.len().saturating_sub(TOLD);
        let of_source = self.blames_the_source();
        self.problems.truncate(TOLD);
        if more > 0 {
            self.problems.push(Finding::of_file(
                "the restored database",
                format!("{more} more {}", if more == 1 { "difference" } else { "differences" }),
            ));
        }
        if of_source {
            self.of_source = self.problems.len();
        }
        if !self.problems.is_empty() {
            self.status = VerificationStatus::Failed;
            return Ok(());
        }
        self.status = VerificationStatus::Ok;
        // An empty database may have a comment, and roles have settings.
        let of_none = |left: &&LeftOut| ![OF_DATABASE, WITHHELD].contains(&left.why.as_str());
        match self.not_proved.iter().find(of_none) {
            Some(left) if !self.ran && !self.proves_something() => {
                Err(nothing_proved(&format!("{}: {}", left.what, left.why)))
            }
            _ => Ok(()),
        }
    }

    /// Whether the drill proved something: at least one table, if the backup has tables.
    fn proves_something(&self) -> bool {
        if self.tables.is_empty() {
            self.definitions > 0
        } else {
            self.tables.iter().any(|table| table.result != ProofOutcome::NotProved)
        }
    }

    fn equal(&self) -> usize {
        self.count(ProofOutcome::Equal) + self.count(ProofOutcome::EqualInOtherOrder)
    }

    fn count(&self, result: ProofOutcome) -> usize {
        self.tables.iter().filter(|table| table.result == result).count()
    }

    /// The result for `verification.json`.
    pub fn outcome(&self, at: Timestamp) -> VerificationOutcome {
        let mut rest = Map::new();
        let mut tell = |name: &str, value: Value| {
            rest.insert(name.to_owned(), value);
        };
        tell("version", json!(env!("CARGO_PKG_VERSION")));
        tell("server", json!(self.server));
        tell(verification::MAJOR, json!(self.major));
        tell(verification::SOURCE_MAJOR, json!(self.source_major));
        tell("duration_seconds", json!(self.duration_seconds));
        tell(verification::TABLES, json!(self.tables.len()));
        tell(verification::TABLES_EQUAL, json!(self.equal()));
        tell(verification::PARTLY, json!(self.partly));
        tell("rows", json!(self.tables.iter().map(|table| table.rows).sum::<u64>()));
        tell("roles", json!(self.roles));
        tell("definitions", json!(self.definitions));
        if !self.notes.is_empty() {
            tell("notes", json!(self.notes));
        }
        if !self.not_proved.is_empty() {
            tell(
                "not_proved",
                json!(self.not_proved.iter().take(TOLD).collect::<Vec<_>>()),
            );
        }
        if !self.problems.is_empty() {
            tell("problems", json!(self.problems));
        }
        if self.blames_the_source() {
            tell(verification::SOURCE_FAULT, json!(true));
        }
        if let Some(advice) = &self.advice {
            tell("advice", json!(advice));
        }
        VerificationOutcome {
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
            "  drill {}{} on PostgreSQL {}: {} of {} equal, {}, {}, {}, {}, {:.1} s",
            self.status.name(),
            if self.partly { ", partly," } else { "" },
            self.server,
            self.equal(),
            count(self.tables.len(), "table"),
            count(self.sequences, "sequence"),
            count(self.large_objects, "large object"),
            count(self.definitions, "definition"),
            count(self.roles, "role"),
            self.duration_seconds
        )?;
        let told = |table: &&TableProof| self.tables.len() <= TABLES_IN_TEXT || table.result != ProofOutcome::Equal;
        for table in self.tables.iter().filter(told) {
            let result = match table.result {
                ProofOutcome::Equal => "equal",
                ProofOutcome::EqualInOtherOrder => "equal, in another order",
                ProofOutcome::Differs => "DIFFERS",
                ProofOutcome::NotProved => "not proved",
            };
            // A name may hold any character, also line breaks.
            let name = format!("{}.{}", table.schema, table.name).replace(char::is_control, "\u{fffd}");
            let rows = if table.rows == 1 { "row " } else { "rows" };
            writeln!(f, "    {:>12} {rows}  {result:<24} {name}", table.rows)?;
        }
        for note in &self.notes {
            writeln!(f, "    note: {note}")?;
        }
        for left in &self.not_proved {
            writeln!(f, "    not proved: {}: {}", left.what, left.why)?;
        }
        for problem in &self.problems {
            writeln!(f, "    {problem}")?;
        }
        if let Some(advice) = &self.advice {
            writeln!(f, "    {advice}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(results: &[ProofOutcome], definitions: usize, left: bool) -> DrillReport {
        let table = |result: &ProofOutcome| TableProof {
            schema: "s".into(),
            name: "t".into(),
            rows: 1,
            result: *result,
        };
        DrillReport {
            status: VerificationStatus::Ok,
            server: "17".into(),
            major: 17,
            source_major: 17,
            tables: results.iter().map(table).collect(),
            sequences: 0,
            large_objects: 0,
            roles: 0,
            definitions,
            partly: false,
            duration_seconds: 0.0,
            notes: Vec::new(),
            ran: false,
            not_proved: left
                .then(|| LeftOut {
                    what: "x".into(),
                    why: "y".into(),
                })
                .into_iter()
                .collect(),
            problems: Vec::new(),
            advice: None,
            of_source: 0,
        }
    }

    #[test]
    fn what_no_drill_can_prove_makes_none_a_part_of_one() {
        let mut told = report(&[ProofOutcome::Equal], 0, true);
        told.settle().unwrap();
        assert!(told.partly);
        for why in [&format!("{LEFT_OUT}so"), OF_DATABASE] {
            told.not_proved[0].why = why.to_owned();
            told.settle().unwrap();
            assert!(!told.partly);
        }
        let other = DrillReport::new(
            "17.5",
            17,
            &Server {
                version: "15.2".into(),
                version_num: 150_002,
                encoding: "UTF8".into(),
                system_identifier: None,
                database_oid: None,
            },
        );
        assert!(other.not_proved[0].why.starts_with(OTHER_MAJOR));
    }

    #[test]
    fn a_drill_that_proved_nothing_is_never_ok() {
        for (mut told, proves) in [
            // An empty database, and all of it.
            (report(&[], 0, false), true),
            (report(&[], 0, true), false),
            (report(&[], 1, true), true),
            (report(&[ProofOutcome::NotProved], 5, true), false),
            (report(&[ProofOutcome::NotProved, ProofOutcome::Equal], 0, true), true),
        ] {
            assert_eq!(told.settle().is_ok(), proves, "{told:?}");
        }
        let mut differs = report(&[ProofOutcome::NotProved, ProofOutcome::Differs], 0, true);
        differs.problems.push(Finding::of_file("f", "w"));
        differs.settle().unwrap();
        assert_eq!(differs.status, VerificationStatus::Failed);
        let mut commented = report(&[], 0, true);
        commented.not_proved[0].why = OF_DATABASE.into();
        commented.settle().unwrap();
        let mut script = report(&[], 0, true);
        script.ran = true;
        script.settle().unwrap();
    }
}
