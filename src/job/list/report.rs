//! The list, as JSON for programs and as an aligned table for people.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::Format;
use crate::printable;
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::manifest::{CompressionRecord, format_name};
use crate::repository::retention::Tier;
use crate::repository::signature::SignatureState;
use crate::repository::verification::{Extent, VerificationStatus};
use crate::repository::window::Window;
use crate::units::{count, human_bytes, human_span};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ListStatus {
    Ok,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct ListReport {
    pub status: ListStatus,
    /// The store that answered.
    pub store: String,
    /// The backups with a usable manifest, newest first.
    pub backups: Vec<ListEntry>,
    /// The increments among them, joined; oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<ChainEntry>,
    /// Unusable manifests, backups that lack a file, stores that cannot be reached.
    pub problems: Vec<Problem>,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct ListEntry {
    pub id: BackupId,
    pub database: String,
    #[serde(rename = "type")]
    pub kind: BackupKind,
    pub timestamp: Timestamp,
    pub finished_at: Timestamp,
    pub age_seconds: i64,
    pub duration_seconds: f64,
    /// The size of all files in its folder.
    pub bytes: u64,
    pub tables: u64,
    pub rows: u64,
    pub tier: Tier,
    #[serde(with = "format_name")]
    pub format: Format,
    pub compression: CompressionRecord,
    pub server_version: String,
    /// Whether all files that the manifest names are there with their sizes.
    pub complete: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// The signature of its manifest, if keys are set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureState>,
    /// `null`: not yet.
    pub verified: Option<Proof>,
    pub drilled: Option<Proof>,
}

/// Increments without a hole between them.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct ChainEntry {
    pub database: String,
    pub first: BackupId,
    pub last: BackupId,
    pub increments: u64,
    pub bytes: u64,
    /// Since the last moment that it holds, on the source's clock.
    pub age_seconds: i64,
    /// From the first increment's first moment to the last one's.
    pub span_seconds: i64,
    /// The moments that can be restored. `null`: it has no base.
    pub window: Option<Window>,
    /// What separates it from the chain before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<String>,
    /// Why no full backup can be its base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_base: Option<String>,
    /// All increments of it, oldest first.
    pub ids: Vec<BackupId>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Proof {
    pub status: VerificationStatus,
    pub at: Timestamp,
    pub age_seconds: i64,
    /// How much a drill proved, if its result says that.
    #[serde(flatten)]
    pub extent: Option<Extent>,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Problem {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupId>,
    pub problem: String,
}

impl ListReport {
    pub(super) fn of(store: &str) -> Self {
        Self {
            status: ListStatus::Ok,
            store: store.to_owned(),
            backups: Vec::new(),
            chains: Vec::new(),
            problems: Vec::new(),
        }
    }
}

impl ChainEntry {
    fn cells(&self) -> [String; COLUMNS] {
        let first = self.first.to_string();
        let last = self.last.to_string();
        let name = match (self.increments, last.split_once('/')) {
            (2.., Some((_, last))) => format!("{first} to {last}"),
            _ => first,
        };
        let mut cells = [const { String::new() }; COLUMNS];
        cells[0] = name;
        cells[1] = human_span(self.age_seconds);
        cells[2] = human_bytes(self.bytes);
        cells[4] = human_span(self.span_seconds);
        cells[5] = count(self.increments, "increment");
        cells
    }

    /// What it is good for.
    fn notes(&self) -> Vec<String> {
        let window = match (&self.window, &self.no_base) {
            (Some(Window { earliest, latest }), _) => {
                format!(
                    "     any moment from {:.0} to {:.0} can be restored",
                    earliest.time, latest.time
                )
            }
            (None, why) => {
                let why = why.as_ref().map_or(String::new(), |why| format!(": {why}"));
                format!("  !  no full backup can be its base, so no moment of it can be restored{why}")
            }
        };
        let gap = self.gap.as_ref().map(|gap| format!("  !  after a gap {gap}"));
        gap.into_iter().chain([window]).collect()
    }
}

const COLUMNS: usize = 9;
/// The last column is shown only if keys are set.
const HEAD: [&str; COLUMNS] = [
    "BACKUP", "AGE", "SIZE", "TABLES", "TIME", "TIER", "VERIFIED", "DRILLED", "SIGNED",
];
/// Numbers are aligned to the right.
const RIGHT: [bool; COLUMNS] = [false, true, true, true, true, false, false, false, false];

impl ListEntry {
    fn cells(&self) -> [String; COLUMNS] {
        [
            self.id.to_string(),
            human_span(self.age_seconds),
            human_bytes(self.bytes),
            self.tables.to_string(),
            human_span(self.duration_seconds.ceil() as i64),
            self.tier.to_string(),
            proof(self.verified.as_ref()),
            proof(self.drilled.as_ref()),
            self.signature.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]
    }
}

fn proof(proof: Option<&Proof>) -> String {
    let Some(Proof {
        status,
        age_seconds,
        extent,
        ..
    }) = proof
    else {
        return "-".to_owned();
    };
    let age = human_span(*age_seconds);
    match (status, extent) {
        (VerificationStatus::Ok, None) => format!("{age} ago"),
        (VerificationStatus::Ok, Some(extent)) => format!("{age} ago, {extent}"),
        (VerificationStatus::Failed, _) => format!("FAILED {age} ago"),
        (VerificationStatus::Unknown, _) => format!("unknown {age} ago"),
    }
}

impl fmt::Display for ListReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of_backups, of_stores): (Vec<_>, Vec<_>) =
            self.problems.iter().partition(|problem| problem.backup.is_some());
        for Problem { problem, .. } in of_stores {
            writeln!(f, "warning: {problem}")?;
        }
        if self.backups.is_empty() && of_backups.is_empty() {
            return writeln!(f, "no backups in {}", self.store);
        }
        // A chain may have thousands of increments.
        let joined: BTreeSet<&BackupId> = self.chains.iter().flat_map(|chain| &chain.ids).collect();
        let alone = self.backups.iter().filter(|entry| !joined.contains(&entry.id));
        let rows: Vec<(&BackupId, [String; COLUMNS])> = alone
            .map(|entry| (&entry.id, entry.cells()))
            .chain(self.chains.iter().map(|chain| (&chain.last, chain.cells())))
            .collect();
        let mut head = HEAD.map(str::to_owned);
        if self.backups.iter().all(|entry| entry.signature.is_none()) {
            head[COLUMNS - 1].clear();
        }
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
            let cells = rows.iter().map(|(_, cells)| &cells[column]);
            let widths = cells.chain([&head[column]]).map(|cell| cell.chars().count());
            widths.max().unwrap_or_default()
        });
        // A problem comes below its backup, or in its place.
        let mut lines: Vec<(&BackupId, String)> = rows.iter().map(|(id, cells)| (*id, line(cells, &widths))).collect();
        for chain in &self.chains {
            lines.extend(
                chain
                    .notes()
                    .into_iter()
                    .map(|note| (&chain.last, printable::line(&note))),
            );
        }
        for Problem { backup, problem } in of_backups {
            let Some(id) = backup else { continue };
            let listed = rows.iter().any(|(listed, _)| *listed == id);
            let name = if listed { "  !".to_owned() } else { id.to_string() };
            lines.push((id, format!("{name}  {problem}")));
        }
        // Stable: a backup's own line comes before its problems.
        lines.sort_by_key(|(id, _)| (Reverse(id.timestamp()), *id));
        writeln!(f, "{}", line(&head, &widths))?;
        lines.iter().try_for_each(|(_, line)| writeln!(f, "{line}"))
    }
}

fn line(cells: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let padded = cells.iter().zip(widths).zip(RIGHT).map(|((cell, &width), right)| {
        if right {
            format!("{cell:>width$}")
        } else {
            format!("{cell:<width$}")
        }
    });
    let line: Vec<String> = padded.collect();
    line.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::manifest::CompressionAlgorithm;

    fn entry(id: &str, bytes: u64, verified: Option<VerificationStatus>) -> ListEntry {
        let id: BackupId = id.parse().unwrap();
        ListEntry {
            database: id.database().to_owned(),
            kind: id.kind(),
            timestamp: id.timestamp(),
            finished_at: id.timestamp(),
            age_seconds: 93_600,
            duration_seconds: 11.2,
            bytes,
            tables: 120,
            rows: 7,
            tier: Tier::Daily,
            format: Format::Custom,
            compression: CompressionRecord {
                algorithm: CompressionAlgorithm::Zstd,
                level: 3,
            },
            server_version: "17.5".into(),
            complete: true,
            signature: None,
            lacks: Vec::new(),
            verified: verified.map(|status| Proof {
                status,
                at: id.timestamp(),
                age_seconds: 300,
                extent: None,
            }),
            drilled: None,
            id,
        }
    }

    #[test]
    fn the_table_is_aligned_and_says_what_is_wrong_where_it_is() {
        let problem = |id: &str, problem: &str| Problem {
            backup: Some(id.parse().unwrap()),
            problem: problem.to_owned(),
        };
        let mut report = ListReport::of("/srv/backups");
        report.backups = vec![
            entry(
                "shop/20250131T040500Z-full",
                1_520_000_000,
                Some(VerificationStatus::Ok),
            ),
            entry("ü/20250129T040500Z-full", 12, Some(VerificationStatus::Failed)),
        ];
        report.backups[0].drilled = Some(Proof {
            status: VerificationStatus::Ok,
            at: report.backups[0].timestamp,
            age_seconds: 7_200,
            extent: Some(Extent {
                tables: 500,
                tables_equal: 1,
                partly: true,
            }),
        });
        report.problems = vec![
            problem("shop/20250130T040500Z-full", "manifest.json is not JSON: EOF"),
            problem("ü/20250129T040500Z-full", "lacks ü.toc"),
        ];
        let expected = "\
BACKUP                       AGE    SIZE  TABLES  TIME  TIER   VERIFIED          DRILLED
shop/20250131T040500Z-full  26 h  1.5 GB     120  12 s  daily  5 min ago         2 h ago, partly, 1 of 500 tables proved
shop/20250130T040500Z-full  manifest.json is not JSON: EOF
ü/20250129T040500Z-full     26 h    12 B     120  12 s  daily  FAILED 5 min ago  -
  !  lacks ü.toc
";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn a_chain_is_one_line_with_what_can_be_restored_from_it() {
        let mut report = ListReport::of("/srv/backups");
        report.backups = vec![
            entry("shop/20250131T060500Z-incr", 10, None),
            entry("shop/20250131T050500Z-incr", 10, None),
            entry("shop/20250131T040500Z-full", 1_000, None),
        ];
        let id = |text: &str| -> BackupId { text.parse().unwrap() };
        let moment = |time: &str| crate::repository::chain::Moment {
            lsn: crate::format::Lsn(1),
            time: time.parse().unwrap(),
        };
        report.chains = vec![ChainEntry {
            database: "shop".into(),
            first: id("shop/20250131T050500Z-incr"),
            last: id("shop/20250131T060500Z-incr"),
            increments: 2,
            bytes: 20,
            age_seconds: 90_000,
            span_seconds: 7_200,
            window: Some(Window {
                earliest: moment("2025-01-31T04:05:01Z"),
                latest: moment("2025-01-31T06:05:00Z"),
            }),
            gap: None,
            no_base: None,
            ids: vec![id("shop/20250131T050500Z-incr"), id("shop/20250131T060500Z-incr")],
        }];
        let expected = "\
BACKUP                                                AGE    SIZE  TABLES  TIME  TIER          VERIFIED  DRILLED
shop/20250131T050500Z-incr to 20250131T060500Z-incr  25 h    20 B           2 h  2 increments
     any moment from 2025-01-31T04:05:01Z to 2025-01-31T06:05:00Z can be restored
shop/20250131T040500Z-full                           26 h  1.0 kB     120  12 s  daily         -         -
";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn no_backups_are_said_and_stores_out_of_reach_are_warned_of() {
        let mut report = ListReport::of("/srv/copy");
        report.problems.push(Problem {
            backup: None,
            problem: "cannot reach s3://acme".into(),
        });
        assert_eq!(
            report.to_string(),
            "warning: cannot reach s3://acme\nno backups in /srv/copy\n"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "status": "ok",
                "store": "/srv/copy",
                "backups": [],
                "problems": [{"problem": "cannot reach s3://acme"}]
            })
        );
    }
}
