//! What a restore did, or would do.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::failed::Failed;
use super::plan::LeftOut;
use crate::job::moment::MomentReport;
use crate::repository::backup_id::BackupId;
use crate::repository::signature::KeyId;
use crate::units::{count, human_bytes, were};

/// A copy of a table of the backup, made beside the existing table.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct CopyReport {
    pub table: String,
    pub copy: String,
    pub rows: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreStatus {
    Restored,
    Partial,
    Planned,
}

/// `status` comes first, as in a failure's document.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct RestoreReport {
    /// `restored`; `partial` if it continued after failures; `planned` for a dry run.
    pub status: RestoreStatus,
    pub id: BackupId,
    /// `user@host:port/database`.
    pub target: String,
    /// The store that was read.
    pub store: String,
    pub manifest_sha256: String,
    /// The key that signed the backup, if signatures are required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<KeyId>,
    pub created_database: bool,
    pub jobs: usize,
    /// The version of pg_restore; empty for a plain script.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pg_restore: String,
    /// These numbers are absent for a plain script that was not counted when it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_objects: Option<u64>,
    /// Stored bytes of the requested data.
    pub bytes_read: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definitions: Option<usize>,
    /// The number of indexes, constraints, triggers and grants; absent for a plain script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finishing: Option<usize>,
    pub duration_seconds: f64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// What could not be made or loaded, with `--keep-going`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failed>,
    /// How many tables were read again and hold the backup's rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared: Option<usize>,
    /// With `--data-only --clean`: the number of rows that the tables held before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_replaced: Option<u64>,
    /// What should have been compared and could not be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_proved: Vec<LeftOut>,
    /// With `--into`: the copy of each table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<CopyReport>,
    /// Objects that single tables need and that the target already had. They stayed unchanged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub already_there: Vec<String>,
    /// The moment, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moment: Option<MomentReport>,
    /// In a dry run: the steps, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The warning that was already printed before anything was changed.
    #[serde(skip)]
    pub said: Option<String>,
}

/// How many objects a line names.
const NAMED: usize = 5;

impl RestoreReport {
    pub fn is_partial(&self) -> bool {
        !self.failed.is_empty()
    }

    /// If the restore was partial: a line that says so, and what to do.
    pub fn partial(&self) -> Option<(String, &'static str)> {
        if !self.is_partial() {
            return None;
        }
        let roots = self.failed.iter().filter(|one| one.consequence_of.is_none());
        let named: Vec<String> = roots.map(|one| format!("{} {}", one.kind, one.name)).collect();
        let mut shown = named[..named.len().min(NAMED)].join(", ");
        if named.len() > NAMED {
            shown = format!("{shown} and {} more", named.len() - NAMED);
        }
        let message = format!(
            "the backup {} was restored in part into {}: {} of its objects failed: {shown}",
            self.id,
            self.target,
            self.failed.len()
        );
        Some((
            message,
            "the report lists each with the server's error: correct the causes, then make these objects by hand, or \
             restore again with --clean",
        ))
    }
}

impl fmt::Display for RestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.status {
            RestoreStatus::Planned => "would restore",
            RestoreStatus::Partial => "restored in part",
            RestoreStatus::Restored => "restored",
        };
        writeln!(f, "{verb} {} into {}", self.id, self.target)?;
        write!(f, "  ")?;
        if let (Some(tables), Some(rows), Some(objects)) = (self.tables, self.rows, self.large_objects) {
            let (tables, rows) = (count(tables, "table"), count(rows, "row"));
            write!(f, "{tables}, {rows}, {}, ", count(objects, "large object"))?;
        }
        writeln!(
            f,
            "{} read from {}, {}, {:.1} s",
            human_bytes(self.bytes_read),
            self.store,
            count(self.jobs, "job"),
            self.duration_seconds
        )?;
        if let Some(moment) = &self.moment {
            write!(f, "{moment}")?;
        }
        if let Some(rows) = self.rows_replaced {
            writeln!(f, "  in place of {} that {} there", count(rows, "row"), were(rows))?;
        }
        if let Some(compared) = self.compared {
            writeln!(
                f,
                "  {} read again: the rows are those of the backup",
                count(compared, "table")
            )?;
        }
        for one in &self.not_proved {
            writeln!(f, "  not compared: {}: {}", one.what, one.why)?;
        }
        for failed in &self.failed {
            print_failed(f, failed)?;
        }
        for copy in &self.copies {
            writeln!(f, "  {} as {}, {}", copy.table, copy.copy, count(copy.rows, "row"))?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {}. {step}", number + 1)?;
        }
        print_left_out(f, &self.left_out)?;
        for there in &self.already_there {
            writeln!(f, "  existed already, and stays as it is: {there}")?;
        }
        let is_new = |warning: &&String| self.said.as_ref() != Some(*warning);
        for warning in self.warnings.iter().filter(is_new) {
            writeln!(f, "  warning: {warning}")?;
        }
        if self.status != RestoreStatus::Planned {
            writeln!(f, "  run ANALYZE in the target: statistics are not part of a backup")?;
        }
        Ok(())
    }
}

/// One line for each reason, which names all objects if they are few.
fn print_left_out(f: &mut fmt::Formatter<'_>, left_out: &[LeftOut]) -> fmt::Result {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for LeftOut { what, why } in left_out {
        let at = *places.entry(why).or_insert_with(|| {
            reasons.push((why, Vec::new()));
            reasons.len() - 1
        });
        reasons[at].1.push(what);
    }
    for (why, objects) in reasons {
        if objects.len() <= NAMED {
            for what in objects {
                writeln!(f, "  left out: {what}: {why}")?;
            }
            continue;
        }
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for what in &objects {
            *kinds.entry(kind(what)).or_default() += 1;
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, number)| format!("{number} {kind}")).collect();
        let first = objects[..NAMED].join(", ");
        writeln!(
            f,
            "  left out: {}, such as {first}: {why} (--json lists each)",
            kinds.join(", ")
        )?;
    }
    Ok(())
}

/// The kind of an archive's entry, such as `FK CONSTRAINT`: the capital words before its name.
fn kind(what: &str) -> &str {
    let is_kind = |word: &&str| word.bytes().all(|byte| byte.is_ascii_uppercase());
    let words = what.split(' ').take_while(is_kind);
    let length: usize = words.map(|word| word.len() + 1).sum();
    match what.get(..length.saturating_sub(1)) {
        None | Some("") => "objects",
        Some(kind) => kind,
    }
}

fn print_failed(f: &mut fmt::Formatter<'_>, failed: &Failed) -> fmt::Result {
    write!(f, "  FAILED: {} {}: {}", failed.kind, failed.name, failed.code)?;
    if let Some(state) = &failed.sqlstate {
        write!(f, " ({state})")?;
    }
    write!(f, ": {}", failed.message)?;
    if let Some(rows) = failed.rows_lost {
        let are = if rows == 1 { "is" } else { "are" };
        write!(f, "; {} {are} not there", count(rows, "row"))?;
    }
    match &failed.consequence_of {
        Some(cause) => writeln!(f, "; it needs {cause}, which failed"),
        None => writeln!(f),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_objects_with_one_reason_are_one_line() {
        struct Shown(Vec<LeftOut>);
        impl fmt::Display for Shown {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                print_left_out(f, &self.0)
            }
        }
        let left = |what: &str, why: &str| LeftOut {
            what: what.into(),
            why: why.into(),
        };
        let mut all = vec![left("SCHEMA auth", "it stays"), left("a comment", "only its owner may")];
        for table in ["a", "b", "c"] {
            all.push(left(&format!("TABLE auth.{table}"), "it stays"));
            all.push(left(&format!("FK CONSTRAINT auth.{table} k"), "it stays"));
        }
        assert_eq!(
            Shown(all).to_string(),
            "  left out: 3 FK CONSTRAINT, 1 SCHEMA, 3 TABLE, such as SCHEMA auth, TABLE auth.a, FK CONSTRAINT auth.a k, \
             TABLE auth.b, FK CONSTRAINT auth.b k: it stays (--json lists each)\n  left out: a comment: only its owner may\n"
        );
    }

    #[test]
    fn the_kind_of_an_entry_is_read_from_its_name() {
        for (what, expected) in [
            ("FK CONSTRAINT s.t k", "FK CONSTRAINT"),
            ("TABLE s.t", "TABLE"),
            ("membership of s.t", "objects"),
            ("ÄRGER x", "objects"),
            ("TABLE", "TABLE"),
            ("", "objects"),
        ] {
            assert_eq!(kind(what), expected, "{what}");
        }
    }
}
