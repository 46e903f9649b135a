//! The reports of `incremental`, for programs and for people.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::tables::CoveredTables;
use crate::format::Lsn;
use crate::job::backup::BackupReport;
use crate::job::status::Judgement;
use crate::postgres::{PublicationKind, Slot, SlotName};
use crate::printable;
use crate::repository::backup_id::BackupId;
use crate::units::{count, human_bytes, human_span};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IncrementalReport {
    pub database: String,
    #[serde(flatten)]
    pub result: Incremental,
}

/// By what the command did.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum Incremental {
    #[serde(rename = "start")]
    Started(Started),
    /// Nothing was changed. By lines: what has several lines is printed in one.
    #[serde(rename = "print-sql")]
    Script {
        sql: Vec<String>,
    },
    #[serde(rename = "stop")]
    Stopped(Stopped),
    Status(Box<StatusOfStream>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    pub slot: String,
    pub publications: Vec<String>,
    /// Where the stream of a new slot begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Lsn>,
    /// What was made or mended. Empty: everything was there.
    pub done: Vec<String>,
    pub tables: CoveredTables,
    pub warnings: Vec<String>,
    /// The first full backup, if one was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<Box<BackupReport>>,
}

/// What was dropped. Empty: there was nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    pub slot: Option<String>,
    pub publications: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusOfStream {
    /// `ok`, or `attention` if a person has to act.
    pub status: Judgement,
    pub problems: Vec<String>,
    pub warnings: Vec<String>,
    /// Whether increments were started for this database and store.
    pub started: bool,
    /// The slot's name, whether there is one or not.
    pub name: String,
    /// Those that exist.
    pub publications: Vec<String>,
    pub slot: Option<Slot>,
    /// The newest increment in the primary store.
    pub last: Option<LastIncrement>,
    pub oldest_transaction: Option<String>,
    pub tables: CoveredTables,
    /// Streams of this database to other stores.
    pub others: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastIncrement {
    pub id: BackupId,
    pub to: Lsn,
    /// Everything that was committed before this moment is stored.
    pub seen_to: Timestamp,
    pub age_seconds: i64,
}

impl Started {
    pub(super) fn of(name: &SlotName) -> Self {
        let publications = [PublicationKind::All, PublicationKind::Inserts].map(|kind| name.publication(kind));
        Self {
            slot: name.to_string(),
            publications: publications.into(),
            position: None,
            done: Vec::new(),
            tables: CoveredTables::default(),
            warnings: Vec::new(),
            full: None,
        }
    }
}

impl IncrementalReport {
    /// As `status`: 1 if a person has to act.
    pub fn exit_code(&self) -> u8 {
        match &self.result {
            Incremental::Status(status) => u8::from(!status.problems.is_empty()),
            _ => 0,
        }
    }
}

impl fmt::Display for IncrementalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = printable::line(&self.database);
        match &self.result {
            Incremental::Script { sql } => writeln!(f, "{}", sql.join("\n")),
            Incremental::Stopped(stopped) => {
                if stopped.slot.is_none() && stopped.publications.is_empty() {
                    return writeln!(
                        f,
                        "database {database}: increments were not started; nothing is left on the server"
                    );
                }
                writeln!(
                    f,
                    "database {database}: increments are stopped; nothing is left on the server"
                )?;
                let dropped = stopped.slot.iter().map(|slot| format!("slot {slot}"));
                let publications = stopped.publications.iter().map(|name| format!("publication {name}"));
                for one in dropped.chain(publications) {
                    writeln!(f, "  dropped      {one}")?;
                }
                Ok(())
            }
            Incremental::Started(started) => {
                writeln!(f, "database {database}: increments are started")?;
                started.fmt(f)
            }
            Incremental::Status(status) => {
                let state = match (status.started, status.status) {
                    (false, _) => "increments are not started",
                    (true, Judgement::Ok) => "all is well",
                    (true, Judgement::Attention) => "needs attention",
                };
                writeln!(f, "database {database}: {state}")?;
                status.fmt(f)
            }
        }
    }
}

impl fmt::Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  slot         {}", self.slot)?;
        writeln!(f, "  publications {}", self.publications.join(", "))?;
        for one in &self.done {
            writeln!(f, "  done         {}", printable::line(one))?;
        }
        if self.done.is_empty() {
            writeln!(f, "  done         nothing: everything was there")?;
        }
        self.tables.fmt(f)?;
        for warning in &self.warnings {
            writeln!(f, "  warning      {}", printable::line(warning))?;
        }
        if let Some(full) = &self.full {
            writeln!(f, "  full backup  {}", full.id)?;
        }
        writeln!(
            f,
            "  next         run `pgstow backup --kind incremental` regularly, or with --follow"
        )
    }
}

impl fmt::Display for StatusOfStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "  - {}", printable::line(problem))?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning      {}", printable::line(warning))?;
        }
        match &self.slot {
            None => writeln!(f, "  slot         {}: none", self.name)?,
            Some(slot) => describe(f, slot)?,
        }
        match self.publications.as_slice() {
            [] => writeln!(f, "  publications none")?,
            names => writeln!(f, "  publications {}", names.join(", "))?,
        }
        match &self.last {
            Some(last) => {
                let age = human_span(last.age_seconds);
                writeln!(f, "  stored       to {}, {age} ago ({})", last.to, last.id)?;
            }
            None => writeln!(f, "  stored       no increment yet")?,
        }
        if let Some(oldest) = &self.oldest_transaction {
            writeln!(f, "  oldest       {}", printable::line(oldest))?;
        }
        for other in &self.others {
            writeln!(
                f,
                "  other store  {other} (`pgstow incremental stop --slot {other}` ends it)"
            )?;
        }
        if !self.started {
            writeln!(f, "  next         run `pgstow incremental start`; then the tables are:")?;
        }
        self.tables.fmt(f)
    }
}

fn describe(f: &mut fmt::Formatter<'_>, slot: &Slot) -> fmt::Result {
    let read = match (slot.reader, slot.inactive_since) {
        (Some(process), _) => format!("read by process {process}"),
        (None, Some(since)) => format!("not read since {since:.0}"),
        (None, None) => "not being read".into(),
    };
    writeln!(f, "  slot         {}, {read}", slot.name)?;
    let kept = slot.retained_bytes.map_or("unknown".into(), human_bytes);
    let left = slot.safe_bytes.map_or("no limit is known".into(), |bytes| {
        format!("lost after {} more", human_bytes(bytes))
    });
    let state = slot.wal_status.as_deref().unwrap_or("unknown");
    writeln!(f, "  log kept     {kept}, {left} ({state})")?;
    match slot.catalog_age {
        Some(age) => writeln!(f, "  catalogs     VACUUM is held back by {}", count(age, "transaction")),
        None => Ok(()),
    }
}
