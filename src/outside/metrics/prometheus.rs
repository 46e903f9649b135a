//! Prometheus's text format. All metrics are gauges about the last runs; times are seconds since 1970, so that a rule
//! can compute how long ago they were.
//!
//! The file also holds samples of earlier runs and other databases. The parser accepts only what [`Samples::render`]
//! writes.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Timestamp;

use super::{Backup, CheckTally, End, Increment, IncrementEnd, LastGood, Observation, Run, VerificationMetrics};
use crate::error::DEGRADED;
use crate::printable;

/// The first line, which marks a file that pgstow may replace.
const MARK: &str = "# Written by pgstow after each run; what it says of other databases is kept.";

/// Name and help. The order is the file's.
const FAMILIES: &[(&str, &str)] = &[
    (
        "pgstow_backup_last_run_timestamp_seconds",
        "When the last run ended, with or without an error.",
    ),
    (
        "pgstow_backup_last_run_success",
        "1 if it made a backup, 0 if it failed.",
    ),
    (
        "pgstow_backup_last_run_degraded",
        "1 if it made a backup and a copy of it failed, else 0.",
    ),
    (
        "pgstow_backup_last_run_exit_code",
        "The exit code of the last run; 0: no error, 3: a copy failed.",
    ),
    ("pgstow_backup_last_run_duration_seconds", "How long the last run took."),
    (
        "pgstow_backup_last_run_notifications_failed",
        "Messages about the last run that could not be sent.",
    ),
    (
        "pgstow_backup_last_success_timestamp_seconds",
        "When the newest good backup began; 0: there is none.",
    ),
    (
        "pgstow_backup_duration_seconds",
        "How long the last backup that was made took.",
    ),
    ("pgstow_backup_bytes", "Its size as stored, all files together."),
    ("pgstow_backup_tables", "Its tables."),
    ("pgstow_backup_rows", "The rows in them."),
    (
        "pgstow_backup_read_bytes_per_second",
        "Bytes per second that were read from the database.",
    ),
    (
        "pgstow_backup_size_deviation_ratio",
        "The factor by which its size differs from the median of earlier backups, in either direction.",
    ),
    (
        "pgstow_verify_last_run_timestamp_seconds",
        "When the last verification ended.",
    ),
    (
        "pgstow_verify_last_run_success",
        "1 if every byte was as the manifest says, else 0.",
    ),
    (
        "pgstow_verify_last_success_timestamp_seconds",
        "When a verification last found no difference.",
    ),
    (
        "pgstow_verify_duration_seconds",
        "How long the last verification took, with its drill.",
    ),
    ("pgstow_drill_last_run_timestamp_seconds", "When the last drill ended."),
    (
        "pgstow_drill_last_run_success",
        "1 if the restored database was equal to the source, else 0.",
    ),
    (
        "pgstow_drill_last_success_timestamp_seconds",
        "When a drill last proved a backup.",
    ),
    (
        "pgstow_increment_last_run_timestamp_seconds",
        "When the last run for an increment ended, with or without an error.",
    ),
    (
        "pgstow_increment_last_run_success",
        "1 if all changes up to then were stored, 0 if it failed.",
    ),
    (
        "pgstow_increment_last_run_exit_code",
        "The exit code of the last run for an increment.",
    ),
    (
        "pgstow_increment_chain_broken",
        "1 if the last run found that the increments have a hole, else 0.",
    ),
    (
        "pgstow_increment_duration_seconds",
        "How long the last increment that was made took.",
    ),
    ("pgstow_increment_bytes", "Its size as stored, all files together."),
    ("pgstow_increment_transactions", "The transactions in it."),
    ("pgstow_increment_baselines", "The tables that it read whole."),
    (
        "pgstow_recovery_point_timestamp_seconds",
        "What was committed before this moment of the source's clock is stored.",
    ),
    (
        "pgstow_slot_wal_retained_bytes",
        "How much of its log the server keeps for the slot.",
    ),
    (
        "pgstow_slot_wal_safe_bytes",
        "How much more log the server can write before the slot is lost.",
    ),
    (
        "pgstow_chain_last_run_timestamp_seconds",
        "When it was last checked whether increments lead from one full backup to another.",
    ),
    ("pgstow_chain_last_run_success", "1 if they did, else 0."),
];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    service: String,
    /// Empty if the run failed before it was known: to Prometheus an empty label is no label.
    database: String,
}

/// The samples of a file, by their position among the families and by their labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Samples(BTreeMap<(usize, Labels), f64>);

impl Samples {
    /// Adds a run's samples and replaces those of earlier runs. Samples that the run does not have stay: after a
    /// failure, those of the backup before.
    pub(super) fn observe(&mut self, service: &str, observation: &Observation) {
        let labels = Labels {
            service: service.to_owned(),
            database: plain_label(observation.database.as_deref().unwrap_or_default()),
        };
        let said = match &observation.run {
            Run::Backup(backup) => of_backup(backup, observation),
            Run::Increment(increment) => of_increment(increment, observation.at),
            Run::Verification(verification) => of_verification(verification, observation.at),
        };
        for (name, value) in said {
            let Some(family) = family(name) else { continue };
            if !labels.database.is_empty() {
                // An earlier run may have failed before its database was known. This run knows it, so it removes that
                // failure; nothing else would.
                let nameless = Labels {
                    database: String::new(),
                    ..labels.clone()
                };
                self.0.remove(&(family, nameless));
            }
            self.0.insert((family, labels.clone()), value);
        }
    }

    pub(super) fn render(&self) -> String {
        let mut text = format!("{MARK}\n");
        let mut last = None;
        for ((family, labels), value) in &self.0 {
            let (name, help) = FAMILIES[*family];
            // Writing to a String cannot fail.
            if last != Some(family) {
                let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
                last = Some(family);
            }
            let service = escaped(&labels.service);
            let _ = write!(text, "{name}{{service=\"{service}\"");
            if !labels.database.is_empty() {
                let _ = write!(text, ",database=\"{}\"", escaped(&labels.database));
            }
            let _ = writeln!(text, "}} {value}");
        }
        text
    }

    /// Reads what [`Samples::render`] has written, in this version or another; unknown families are left out. `Err`
    /// is the number of the first line that pgstow did not write.
    pub(super) fn parse(text: &str) -> Result<Self, usize> {
        let mut samples = Self::default();
        let mut lines = text.lines().enumerate();
        if lines.next().is_none_or(|(_, line)| line != MARK) {
            return Err(1);
        }
        for (at, line) in lines.filter(|(_, line)| !line.starts_with('#') && !line.is_empty()) {
            let (name, labels, value) = sample(line).ok_or(at + 1)?;
            if let Some(family) = family(name) {
                samples.0.insert((family, labels), value);
            }
        }
        Ok(samples)
    }
}

fn family(name: &str) -> Option<usize> {
    FAMILIES.iter().position(|(family, _)| *family == name)
}

fn of_backup(backup: &Backup, observation: &Observation) -> Vec<(&'static str, f64)> {
    let mut said = Vec::new();
    if let Some(began) = match backup.last_good {
        LastGood::Began(began) => Some(began.as_second() as f64),
        // Not an absent sample: then a rule on its age would not fire.
        LastGood::Never => Some(0.0),
        LastGood::Unknown => None,
    } {
        said.push(("pgstow_backup_last_success_timestamp_seconds", began));
    }
    let (success, exit_code, seconds) = match &backup.end {
        End::Made(made) => {
            said.extend([
                ("pgstow_backup_duration_seconds", made.seconds),
                ("pgstow_backup_bytes", made.bytes as f64),
                ("pgstow_backup_tables", made.tables as f64),
                ("pgstow_backup_rows", made.rows as f64),
                ("pgstow_backup_read_bytes_per_second", made.rate),
            ]);
            said.extend(
                made.deviation
                    .map(|factor| ("pgstow_backup_size_deviation_ratio", factor)),
            );
            (1.0, if made.degraded { DEGRADED } else { 0 }, made.seconds)
        }
        End::Failed { code, seconds } => (0.0, code.exit_code(), *seconds),
        End::Repeated => return said,
    };
    said.extend([
        ("pgstow_backup_last_run_timestamp_seconds", moment(observation.at)),
        ("pgstow_backup_last_run_success", success),
        (
            "pgstow_backup_last_run_degraded",
            f64::from(u8::from(exit_code == DEGRADED)),
        ),
        ("pgstow_backup_last_run_exit_code", f64::from(exit_code)),
        ("pgstow_backup_last_run_duration_seconds", seconds),
        (
            "pgstow_backup_last_run_notifications_failed",
            observation.notifications_failed as f64,
        ),
    ]);
    said
}

fn of_increment(increment: &Increment, at: Timestamp) -> Vec<(&'static str, f64)> {
    let end = &increment.end;
    let exit_code = match end {
        IncrementEnd::Made(made) if made.degraded => DEGRADED,
        IncrementEnd::Failed { code, .. } => code.exit_code(),
        IncrementEnd::Made(_) | IncrementEnd::Idle { .. } | IncrementEnd::Renewed => 0,
    };
    let is_failed = matches!(end, IncrementEnd::Failed { .. });
    let mut said = vec![
        ("pgstow_increment_last_run_timestamp_seconds", moment(at)),
        ("pgstow_increment_last_run_success", f64::from(u8::from(!is_failed))),
        ("pgstow_increment_last_run_exit_code", f64::from(exit_code)),
        (
            "pgstow_increment_chain_broken",
            f64::from(u8::from(end.breaks_the_chain())),
        ),
    ];
    if let IncrementEnd::Made(made) = end {
        said.extend([
            ("pgstow_increment_duration_seconds", made.seconds),
            ("pgstow_increment_bytes", made.bytes as f64),
            ("pgstow_increment_transactions", made.transactions as f64),
            ("pgstow_increment_baselines", made.baselines as f64),
        ]);
    }
    said.extend(
        end.seen_to()
            .map(|seen_to| ("pgstow_recovery_point_timestamp_seconds", moment(seen_to))),
    );
    let (retained, safe) = increment.slot.map_or((None, None), |slot| (slot.retained, slot.safe));
    said.extend(retained.map(|bytes| ("pgstow_slot_wal_retained_bytes", bytes as f64)));
    said.extend(safe.map(|bytes| ("pgstow_slot_wal_safe_bytes", bytes as f64)));
    said
}

fn of_verification(verification: &VerificationMetrics, at: Timestamp) -> Vec<(&'static str, f64)> {
    let at = moment(at);
    let mut said = Vec::new();
    if verification.verify != CheckTally::default() {
        let good = verification.verify.failed == 0;
        said.extend([
            ("pgstow_verify_last_run_timestamp_seconds", at),
            ("pgstow_verify_last_run_success", f64::from(u8::from(good))),
            ("pgstow_verify_duration_seconds", verification.seconds),
        ]);
        said.extend(good.then_some(("pgstow_verify_last_success_timestamp_seconds", at)));
    }
    if let Some(drill) = verification.drill {
        let good = drill.failed == 0;
        said.extend([
            ("pgstow_drill_last_run_timestamp_seconds", at),
            ("pgstow_drill_last_run_success", f64::from(u8::from(good))),
        ]);
        said.extend(good.then_some(("pgstow_drill_last_success_timestamp_seconds", at)));
    }
    if let Some(chain) = verification.chain {
        said.extend([
            ("pgstow_chain_last_run_timestamp_seconds", at),
            ("pgstow_chain_last_run_success", f64::from(u8::from(chain.failed == 0))),
        ]);
    }
    said
}

fn moment(at: Timestamp) -> f64 {
    at.as_second() as f64
}

/// A line break is escaped; other characters that could steer a terminal are replaced.
fn plain_label(name: &str) -> String {
    name.split('\n').map(printable::line).collect::<Vec<_>>().join("\n")
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `name{service="…",database="…"} value`.
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let (name, rest) = line.split_once("{service=\"")?;
    let (service, rest) = quoted(rest)?;
    let (database, rest) = match rest.strip_prefix(",database=\"") {
        Some(rest) => quoted(rest)?,
        None => (String::new(), rest),
    };
    let value = rest
        .strip_prefix("} ")?
        .parse()
        .ok()
        .filter(|value: &f64| value.is_finite())?;
    Some((name, Labels { service, database }, value))
}

/// The value up to the closing quotation mark, and the rest of the text.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                char @ ('\\' | '"') => char,
                _ => return None,
            }),
            char => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            samples in proptest::collection::btree_map(
                (0..FAMILIES.len(), "(?s:.){0,10}", "(?s:.){0,10}"), -1e18..1e18_f64, 0..30)
        ) {
            let keyed = samples
                .into_iter()
                .map(|((family, service, database), value)| ((family, Labels { service, database }), value));
            let samples = Samples(keyed.collect());
            prop_assert_eq!(Samples::parse(&samples.render()), Ok(samples));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(?s:.){0,200}", line in "pgstow_backup_rows[{]service=\"(?s:.){0,30}") {
            let _ = Samples::parse(&text);
            let _ = Samples::parse(&format!("{MARK}\n{line}\n{text}"));
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_known_by_its_first_strange_line() {
        assert_eq!(Samples::parse("# HELP node_load1 Load\nnode_load1 0.5\n"), Err(1));
        assert_eq!(Samples::parse(""), Err(1));
        assert_eq!(
            Samples::parse(&format!("{MARK}\n\n# TYPE x gauge\nnode_load1 0.5\n")),
            Err(4)
        );
        let newer = format!("{MARK}\npgstow_news{{service=\"a\",database=\"b\"}} 7\n");
        assert_eq!(Samples::parse(&newer), Ok(Samples::default()));
    }
}
