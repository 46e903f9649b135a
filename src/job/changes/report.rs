//! The transactions, as JSON for programs and as an aligned table for people.

use std::collections::VecDeque;
use std::fmt;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use serde::{Deserialize, Serialize};

use super::counting::Counted;
use super::request::ChangesRequest;
use super::transaction::TransactionChanges;
use crate::repository::backup_id::BackupId;
use crate::repository::chain::{History, Run};
use crate::units::{count, human_bytes};

/// How many tables of a transaction a line names.
const NAMED: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangesStatus {
    Ok,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct ChangesReport {
    pub status: ChangesStatus,
    pub database: String,
    /// The store that answered.
    pub store: String,
    /// As they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// `since` and `until` as they were read, with the zone that was assumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_as: Vec<String>,
    /// The zone that was assumed; the lines for people show its times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The times between which the store has increments, by the source's clock.
    pub begins: Timestamp,
    pub ends: Timestamp,
    /// In the order of the commits.
    pub transactions: Vec<TransactionChanges>,
    /// There may be earlier ones that match.
    pub earlier_left_out: bool,
    /// How many increments were read, and how many bytes of their changes.
    pub increments: u64,
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl ChangesReport {
    pub(super) fn new(request: &ChangesRequest, database: &str, store: &str) -> Self {
        let moments = [("since", &request.since), ("until", &request.until)];
        let local = moments
            .iter()
            .filter_map(|(name, moment)| Some((name, moment.as_ref()?)));
        let local = local.filter_map(|(name, moment)| Some((format!("{name} {moment}"), moment.zone.as_ref()?)));
        let (read_as, zones): (Vec<String>, Vec<&TimeZone>) = local.unzip();
        Self {
            status: ChangesStatus::Ok,
            database: database.to_owned(),
            store: store.to_owned(),
            tables: request.tables.clone(),
            since: request.since.as_ref().map(|since| since.time),
            until: request.until.as_ref().map(|until| until.time),
            read_as,
            zone: zones.first().and_then(|zone| zone.iana_name()).map(str::to_owned),
            begins: Timestamp::UNIX_EPOCH,
            ends: Timestamp::UNIX_EPOCH,
            transactions: Vec::new(),
            earlier_left_out: false,
            increments: 0,
            bytes: 0,
            warnings: Vec::new(),
        }
    }

    /// Says between which times there are increments, and which of the times that were asked for they do not cover.
    pub(super) fn span(&mut self, history: &History, request: &ChangesRequest) {
        let runs = history.runs();
        let [since, until] = [&request.since, &request.until].map(|moment| moment.as_ref().map(|moment| moment.time));
        if let (Some(first), Some(last)) = (runs.first(), runs.last()) {
            (self.begins, self.ends) = (begin(first), last.last().until);
        }
        if since.is_some_and(|since| since < self.begins) {
            self.warnings.push(format!(
                "the increments begin at {}: earlier changes are not in the store",
                self.begins
            ));
        }
        if until.is_some_and(|until| until >= self.ends) {
            self.warnings.push(format!(
                "the increments end at {}: later changes are not in the store yet",
                self.ends
            ));
        }
        let between = runs.windows(2).zip(history.gaps());
        let is_asked = |pair: &[Run]| {
            let (from, to) = (pair[0].last().until, begin(&pair[1]));
            since.is_none_or(|since| since <= to) && until.is_none_or(|until| until >= from)
        };
        let gaps = between
            .filter(|(pair, _)| is_asked(pair))
            .map(|(_, gap)| gap.to_string());
        self.warnings.extend(gaps);
    }

    /// Takes the transactions of an earlier increment.
    pub(super) fn prepend(&mut self, increment: &BackupId, counted: Counted) {
        let Counted {
            mut transactions,
            more,
            bytes,
        } = counted;
        for transaction in &mut transactions {
            transaction.increment = Some(increment.clone());
        }
        let later = std::mem::take(&mut self.transactions);
        transactions.extend(VecDeque::from(later));
        self.transactions = transactions.into();
        self.earlier_left_out |= more;
        self.increments += 1;
        self.bytes += bytes;
    }
}

/// The time from which a run has changes, as far as it is known.
fn begin(run: &Run) -> Timestamp {
    let stream = &run.first().stream;
    let first = stream.first_commit.unwrap_or(stream.seen_to);
    // It has all changes since its first base, also if the first of them came later.
    run.bases().first().map_or(first, |base| first.min(base.end.time))
}

const COLUMNS: usize = 9;
const HEAD: [&str; COLUMNS] = [
    "TIME",
    "BEFORE",
    "AFTER",
    "XID",
    "INSERTS",
    "UPDATES",
    "DELETES",
    "TRUNCATES",
    "TABLES",
];
const RIGHT: [bool; COLUMNS] = [false, true, true, true, true, true, true, true, false];

impl TransactionChanges {
    fn cells(&self, zone: &TimeZone) -> [String; COLUMNS] {
        let number = |number: u64| match number {
            0 => "-".to_owned(),
            number => number.to_string(),
        };
        let time = match zone.to_offset(self.time) {
            Offset::UTC => self.time.to_string(),
            offset => self.time.display_with_offset(offset).to_string(),
        };
        let named: Vec<String> = self
            .tables
            .iter()
            .take(NAMED)
            .map(|table| format!("{}.{}", table.schema, table.name))
            .collect();
        let more = self.more_tables + (self.tables.len() - named.len()) as u64;
        let tables = match more {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        };
        [
            time,
            self.before.to_string(),
            self.lsn.to_string(),
            self.xid.to_string(),
            number(self.inserts),
            number(self.updates),
            number(self.deletes),
            number(self.truncates),
            tables,
        ]
    }
}

impl fmt::Display for ChangesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        if !self.read_as.is_empty() {
            writeln!(f, "{}", self.read_as.join(", "))?;
        }
        let zone = self.zone.as_deref().and_then(|zone| TimeZone::get(zone).ok());
        let zone = zone.unwrap_or(TimeZone::UTC);
        let rows: Vec<[String; COLUMNS]> = self.transactions.iter().map(|one| one.cells(&zone)).collect();
        if rows.is_empty() {
            let of = match self.tables.is_empty() {
                true => String::new(),
                false => format!(" changed {}", self.tables.join(" or ")),
            };
            writeln!(f, "no transaction{of} in that time")?;
        } else {
            let head = HEAD.map(str::to_owned);
            let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
                let cells = rows.iter().chain([&head]).map(|row| row[column].chars().count());
                cells.max().unwrap_or_default()
            });
            for row in [&head].into_iter().chain(&rows) {
                writeln!(f, "{}", line(row, &widths))?;
            }
        }
        if self.earlier_left_out {
            writeln!(
                f,
                "earlier transactions are left out: --until shows them, or a larger --limit"
            )?;
        }
        writeln!(
            f,
            "{} read, {} of changes; the increments of {} hold changes from {} to {}",
            count(self.increments, "increment"),
            human_bytes(self.bytes),
            self.database,
            self.begins,
            self.ends
        )?;
        if !rows.is_empty() {
            writeln!(
                f,
                "restore with --to-lsn BEFORE to have everything as it was before a transaction, with AFTER to have it too"
            )?;
        }
        Ok(())
    }
}

fn line(cells: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let padded = cells
        .iter()
        .zip(widths)
        .zip(RIGHT)
        .map(|((cell, &width), right)| match right {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
    let line: Vec<String> = padded.collect();
    line.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::transaction::ChangedTable;
    use super::*;
    use crate::format::Lsn;

    fn table(name: &str) -> ChangedTable {
        ChangedTable {
            oid: 1,
            schema: "public".into(),
            name: name.into(),
            inserts: 0,
            updates: 0,
            deletes: 5,
            truncates: 0,
        }
    }

    fn report() -> ChangesReport {
        let transaction = |time: &str, at: u64, tables: &[&str]| TransactionChanges {
            time: time.parse().unwrap(),
            before: Lsn(at),
            lsn: Lsn(at + 0x30),
            xid: 741,
            increment: Some("shop/20250131T130500Z-incr".parse().unwrap()),
            inserts: 0,
            updates: 0,
            deletes: 1200,
            truncates: 0,
            tables: tables.iter().map(|name| table(name)).collect(),
            more_tables: 0,
        };
        ChangesReport {
            status: ChangesStatus::Ok,
            database: "shop".into(),
            store: "/srv".into(),
            tables: Vec::new(),
            since: None,
            until: None,
            read_as: vec!["since 2025-01-31T14:00:00+01:00 (Europe/Berlin)".into()],
            zone: Some("Europe/Berlin".into()),
            begins: "2025-01-30T00:00:00Z".parse().unwrap(),
            ends: "2025-01-31T13:05:00Z".parse().unwrap(),
            transactions: vec![
                transaction("2025-01-31T13:03:00.25Z", 0x1_0000_0100, &["orders"]),
                transaction("2025-01-31T13:03:01Z", 0x1_0000_0200, &["a", "b", "c", "d"]),
            ],
            earlier_left_out: true,
            increments: 1,
            bytes: 2_000_000,
            warnings: vec!["changes of public.logs are not recorded".into()],
        }
    }

    #[test]
    fn the_table_has_the_positions_to_restore_to_and_the_times_of_the_zone_that_was_assumed() {
        let expected = "\
warning: changes of public.logs are not recorded
since 2025-01-31T14:00:00+01:00 (Europe/Berlin)
TIME                          BEFORE  AFTER  XID  INSERTS  UPDATES  DELETES  TRUNCATES  TABLES
2025-01-31T14:03:00.25+01:00   1/100  1/130  741        -        -     1200          -  public.orders
2025-01-31T14:03:01+01:00      1/200  1/230  741        -        -     1200          -  public.a, public.b, public.c and 1 more
earlier transactions are left out: --until shows them, or a larger --limit
1 increment read, 2.0 MB of changes; the increments of shop hold changes from 2025-01-30T00:00:00Z to 2025-01-31T13:05:00Z
restore with --to-lsn BEFORE to have everything as it was before a transaction, with AFTER to have it too
";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn that_nothing_was_found_is_said_with_what_was_looked_for() {
        let report = ChangesReport {
            transactions: Vec::new(),
            tables: vec!["public.orders".into()],
            earlier_left_out: false,
            ..report()
        };
        let text = report.to_string();
        assert!(
            text.contains("no transaction changed public.orders in that time\n"),
            "{text}"
        );
        assert!(!text.contains("--to-lsn"), "{text}");
    }

    #[test]
    fn a_printed_report_is_read_back() {
        let printed = serde_json::to_string(&report()).unwrap();
        let read: ChangesReport = serde_json::from_str(&printed).unwrap();
        assert_eq!(read.transactions, report().transactions);
        assert_eq!(serde_json::to_string(&read).unwrap(), printed);
    }
}
