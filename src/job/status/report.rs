//! The report of `status`, for programs and for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::databases::{DatabaseProof, DatabaseStatus, IncrementsStatus, LastGood};
use super::stores::{Drift, StoreStatus};
use crate::printable;
use crate::repository::backup_id::BackupKind;
use crate::repository::lease::LeaseState;
use crate::repository::manifest::CoverageTally;
use crate::repository::verification::VerificationStatus;
use crate::repository::window::Window;
use crate::settings::Schedule;
use crate::units::{count, human_bytes, human_span};

/// The most items of one kind that are listed for people.
const SHOWN: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    Ok,
    Attention,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct StatusReport {
    /// `ok`, or `attention` if a person has to act.
    pub status: Judgement,
    /// The problems, each with what to do.
    pub problems: Vec<String>,
    /// The version of this pgstow.
    pub version: String,
    pub settings: SettingsReport,
    /// In cron's format, if the settings name it. The scheduler that starts pgstow may have another one.
    pub schedule: Schedule,
    /// From the first store that answers.
    pub databases: Vec<DatabaseStatus>,
    /// The first is the primary.
    pub stores: Vec<StoreStatus>,
}

/// The settings that matter here, without secrets.
#[derive(Debug, Deserialize, Serialize)]
pub struct SettingsReport {
    pub source: Option<SourceReport>,
    pub stores: Vec<String>,
    pub retention: String,
    pub keep_last: usize,
    /// How far back every moment can be restored, if increments are made.
    #[serde(default)]
    pub pitr: String,
    pub max_age_seconds: u64,
    pub compression: String,
    /// Whether a topic is set.
    pub notifications: bool,
    /// Whether a key that signs is set.
    pub signs: bool,
    /// The number of keys of which one must have signed every backup that is used.
    pub verify_keys: usize,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct SourceReport {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub database: Option<String>,
    pub user: Option<String>,
    /// The missing parts are in Secrets Manager.
    pub from_secret: bool,
}

impl StatusReport {
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.problems.is_empty())
    }
}

impl fmt::Display for StatusReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.problems.is_empty() {
            writeln!(f, "all is well")?;
        } else {
            writeln!(f, "needs attention:")?;
        }
        for problem in &self.problems {
            writeln!(f, "  - {problem}")?;
        }
        writeln!(f)?;
        for database in &self.databases {
            write!(f, "{database}")?;
        }
        for store in &self.stores {
            write!(f, "{store}")?;
        }
        write!(f, "{}", self.settings)?;
        let Schedule {
            full,
            incremental,
            cleanup,
        } = &self.schedule;
        for (what, when) in [("full", full), ("incremental", incremental), ("cleanup", cleanup)] {
            if let Some(when) = when {
                writeln!(
                    f,
                    "  schedule     {what} {when}: where `pgstow serve` runs; elsewhere cron or a timer begins the runs"
                )?;
            }
        }
        writeln!(f, "  pgstow       {}", self.version)
    }
}

impl fmt::Display for DatabaseStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "database {}", printable::line(&self.database))?;
        match &self.last_good {
            Some(last) => writeln!(
                f,
                "  last good    {}, {} ago, {}",
                last.id,
                human_span(last.age_seconds),
                human_bytes(last.bytes)
            )?,
            None => writeln!(f, "  last good    none")?,
        }
        if let Some(last) = &self.last_good {
            last.what_it_lacks(f)?;
        }
        writeln!(f, "  backups      {}, {}", self.backups, human_bytes(self.bytes))?;
        writeln!(f, "  verified     {}", Shown(self.last_verified.as_ref()))?;
        writeln!(f, "  drilled      {}", Shown(self.last_drilled.as_ref()))?;
        match &self.increments {
            Some(increments) => write!(f, "{increments}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for IncrementsStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.window {
            Some(Window { earliest, latest }) => writeln!(
                f,
                "  any moment   from {:.0} to {:.0}, {} ago",
                earliest.time,
                latest.time,
                human_span(self.rpo_seconds)
            )?,
            None => writeln!(
                f,
                "  any moment   none: no full backup can be the base of the increments"
            )?,
        }
        writeln!(
            f,
            "  increments   {}, {}, the newest {}",
            self.count,
            human_bytes(self.bytes),
            self.newest
        )?;
        let told = self
            .gaps
            .iter()
            .rev()
            .map(|gap| printable::line(&format!("between {} and {}: {}", gap.after, gap.before, gap.why)));
        some(f, "gap", &told.collect::<Vec<_>>())?;
        let CoverageTally {
            inserts,
            baseline,
            full_only,
            in_part,
            ..
        } = self.coverage;
        let partly = [
            (inserts, "exact only while rows are inserted"),
            (baseline, "exact at the ends of increments"),
            (full_only, "as in the full backups only"),
            (in_part, "not for the whole of the newest increment"),
        ];
        let partly = partly.into_iter().filter(|(count, _)| *count > 0);
        let partly: Vec<String> = partly
            .map(|(tables, how)| format!("{}: {how}", count(tables, "table")))
            .collect();
        some(f, "not exact", &partly)
    }
}

impl LastGood {
    /// These facts need no action, but people who rely on the backup should know them.
    fn what_it_lacks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (role, why) in &self.missing {
            writeln!(f, "  lacks        {}: {}", printable::line(role), printable::line(why))?;
        }
        let kinds = self.left_out.0.iter();
        let kinds: Vec<String> = kinds
            .map(|(kind, count)| format!("{count} {}", printable::line(kind).replace('_', " ")))
            .collect();
        if !kinds.is_empty() {
            writeln!(
                f,
                "  left out     {} (see `left_out` in its manifest)",
                kinds.join(", ")
            )?;
        }
        match self.warnings.0 {
            0 => Ok(()),
            count => writeln!(f, "  warnings     {count} (see `warnings` in its manifest)"),
        }
    }
}

struct Shown<'a>(Option<&'a DatabaseProof>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(proof) = self.0 else {
            return f.write_str("never");
        };
        let failed = match proof.status {
            VerificationStatus::Ok => "",
            VerificationStatus::Failed => "FAILED, ",
            VerificationStatus::Unknown => "unknown, ",
        };
        write!(f, "{failed}{}, {} ago", proof.id, human_span(proof.age_seconds))?;
        match &proof.extent {
            Some(extent) if proof.status == VerificationStatus::Ok => write!(f, ", {extent}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for StoreStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "store {}", self.url)?;
        if let Some(error) = &self.error {
            return writeln!(f, "  NOT usable   {}: {}", error.code, error.message);
        }
        writeln!(f, "  backups      {}, {}", self.backups, human_bytes(self.bytes))?;
        if let Some(disk) = &self.disk {
            let (free, total) = (human_bytes(disk.free), human_bytes(disk.total));
            writeln!(f, "  disk         {free} free of {total}")?;
        }
        if let Some(said) = self.lifecycle.as_ref().map(of_lifecycle) {
            writeln!(f, "  lifecycle    {said}")?;
        }
        for lease in &self.leases {
            let (state, hold) = match &lease.seen {
                LeaseState::Free => continue,
                LeaseState::Held(hold) => ("held", hold),
                LeaseState::Expired(hold) => ("expired, never released:", hold),
            };
            writeln!(
                f,
                "  lease        {}{}: {state} by process {} on {}, until {:.0}",
                printable::line(&lease.database),
                match lease.kind {
                    BackupKind::Full => "",
                    BackupKind::Incremental => " (increments)",
                },
                hold.holder.pid,
                printable::line(&hold.holder.host),
                hold.until
            )?;
        }
        let uploads: Vec<String> = self.uploads_in_progress.iter().map(|one| one.key.clone()).collect();
        some(f, "in progress", &uploads)?;
        let lacking = self
            .incomplete
            .iter()
            .map(|one| format!("{}: {}", one.id, one.lacks.join(", ")));
        some(f, "lacks files", &lacking.collect::<Vec<_>>())?;
        let broken = self.broken.iter().map(|one| format!("{}: {}", one.id, one.problem));
        some(f, "broken", &broken.collect::<Vec<_>>())?;
        let unsigned = self.signatures.iter().filter(|one| !one.signature.is_signed());
        let unsigned = unsigned.map(|one| format!("{}: {}", one.id, one.signature.said()));
        some(f, "untrusted", &unsigned.collect::<Vec<_>>())?;
        if let Some(one) = self.signatures.iter().find(|one| one.signature.is_signed()) {
            writeln!(f, "  signed       {}, {}", one.id, one.signature.said())?;
        }
        let left = self
            .left_overs
            .iter()
            .map(|one| format!("{}, {}", one.id, human_bytes(one.bytes)));
        some(f, "no manifest", &left.collect::<Vec<_>>())?;
        some(f, "not seen", &self.unknown)
    }
}

fn of_lifecycle(drift: &Drift) -> &'static str {
    match drift {
        Drift::None => "as the retention wants it",
        Drift::NoTags => "none: this store keeps no tags; run `pgstow prune --allow-delete` instead",
        Drift::NotInstalled => "no rules of pgstow's",
        Drift::Overruled { .. } => "not as the retention wants it, by other rules",
        Drift::Drifted { .. } => "not as the retention wants it",
    }
}

fn some(f: &mut fmt::Formatter<'_>, what: &str, items: &[String]) -> fmt::Result {
    for item in items.iter().take(SHOWN) {
        writeln!(f, "  {what:<11}  {item}")?;
    }
    match items.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(f, "  {:<11}  and {more} more", ""),
    }
}

impl fmt::Display for SettingsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "settings")?;
        if let Some(source) = &self.source {
            let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
            let from = if source.from_secret {
                " (the rest from Secrets Manager)"
            } else {
                ""
            };
            let port = source.port.map_or(String::new(), |port| format!(":{port}"));
            writeln!(
                f,
                "  source       {}@{}{port}/{}{from}",
                part(&source.user),
                part(&source.host),
                part(&source.database)
            )?;
        }
        writeln!(f, "  stores       {}", self.stores.join(" "))?;
        let stay = match self.keep_last {
            1 => "the newest never expires".to_owned(),
            many => format!("the newest {many} never expire"),
        };
        writeln!(f, "  retention    {}, {stay}", self.retention)?;
        writeln!(f, "  increments   any moment of {}", self.pitr)?;
        let max_age = i64::try_from(self.max_age_seconds).unwrap_or(i64::MAX);
        writeln!(f, "  max age      {}", human_span(max_age))?;
        writeln!(f, "  compression  {}", self.compression)?;
        match (self.signs, self.verify_keys) {
            (false, 0) => Ok(()),
            (signs, keys) => {
                let signs = if signs {
                    "manifests are signed"
                } else {
                    "no key to sign with"
                };
                writeln!(f, "  signatures   {signs}; trusted keys: {keys}")
            }
        }
    }
}
