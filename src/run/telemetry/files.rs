//! The log in files, for a process that serves: lines of JSON with the fields of the older systems.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::Fields;
use super::daily::{Daily, Kind};
use crate::error::Result;
use crate::printable;
use crate::run::files::io_error;

/// What is said under this target stands in the files `admin-…` too: who asked for what.
pub const ADMIN: &str = "pgstow::admin";
/// And under this one in `backup-…`: how runs begin and end.
pub const BACKUP: &str = "pgstow::backup";

/// `combined-…`, `error-…`, `admin-…` and `backup-…` in one folder.
#[derive(Debug)]
pub struct LogFiles {
    daily: Daily,
    /// Whether it was said that they cannot be written.
    is_said: AtomicBool,
}

impl LogFiles {
    /// # Errors
    /// `EACCES`, `ENOSPC` and the like if the folder cannot be used.
    pub fn new(folder: &Path, zone: TimeZone, days: u32) -> Result<Self> {
        let daily = Daily::new(folder, zone, days).map_err(|error| io_error("write a log file in", folder, error))?;
        Ok(Self {
            daily,
            is_said: AtomicBool::new(false),
        })
    }

    /// What the files have, whatever the log on stderr shows.
    pub(super) fn has(metadata: &Metadata<'_>) -> bool {
        match metadata.target().starts_with("pgstow") {
            true => *metadata.level() <= Level::INFO,
            false => *metadata.level() <= Level::WARN && !metadata.target().starts_with("aws_"),
        }
    }

    fn add(&self, metadata: &Metadata<'_>, line: &Map<String, Value>, now: Timestamp) {
        let Ok(text) = serde_json::to_string(line) else { return };
        let text = printable::json(&text) + "\n";
        let kinds = [
            (Kind::Combined, true),
            (Kind::Error, *metadata.level() == Level::ERROR),
            (Kind::Admin, metadata.target() == ADMIN),
            (Kind::Backup, metadata.target() == BACKUP),
        ];
        let mut failed = None;
        for (kind, _) in kinds.into_iter().filter(|(_, is_meant)| *is_meant) {
            failed = self.daily.write(kind, &text, now).err().or(failed);
        }
        match failed {
            None => self.is_said.store(false, Relaxed),
            // Not through the log itself, which would come here again.
            Some(error) if !self.is_said.swap(true, Relaxed) => {
                let _ = writeln!(io::stderr(), "the log files are not written: {error}");
            }
            Some(_) => {}
        }
    }
}

/// The fields of a span, for the lines within it.
struct OfSpan(Map<String, Value>);

impl<S> Layer<S> for LogFiles
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Map::new();
        attributes.record(&mut Fields(&mut fields));
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(OfSpan(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let now = Timestamp::now();
        let mut line = Map::new();
        let local = now.to_zoned_datetime(self.daily.zone().clone());
        line.insert(
            "timestamp".into(),
            json!(local.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()),
        );
        let level = event.metadata().level().as_str().to_lowercase();
        line.insert("level".into(), json!(level));
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(OfSpan(fields)) = span.extensions().get::<OfSpan>() {
                line.extend(fields.clone());
            }
        }
        event.record(&mut Fields(&mut line));
        self.add(event.metadata(), &line, now);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_line_stands_in_the_files_that_it_concerns() {
        let place = tempfile::tempdir().unwrap();
        let files = LogFiles::new(place.path(), TimeZone::UTC, 7).unwrap();
        let subscriber = tracing_subscriber::registry().with(files);
        tracing::subscriber::with_default(subscriber, || {
            let _run = tracing::info_span!("run", run = "r1").entered();
            tracing::error!(target: BACKUP, error = "no room\u{1b}[2J", "backup failed");
            tracing::info!(target: BACKUP, duration = 7_u64, "backup completed");
            tracing::info!(target: ADMIN, by = "user:ann", "cancel");
        });
        let mut texts = std::collections::BTreeMap::new();
        for entry in fs::read_dir(place.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            texts.insert(
                name.split('-').next().unwrap().to_owned(),
                fs::read_to_string(entry.path()).unwrap(),
            );
        }
        let lines = |kind: &str| -> Vec<Value> {
            texts[kind]
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        };
        assert_eq!((lines("combined").len(), lines("error").len()), (3, 1));
        assert_eq!((lines("admin").len(), lines("backup").len()), (1, 2));
        let failed = &lines("error")[0];
        assert_eq!(
            (
                failed["level"].as_str(),
                failed["message"].as_str(),
                failed["run"].as_str()
            ),
            (Some("error"), Some("backup failed"), Some("r1"))
        );
        assert!(!texts["error"].contains('\u{1b}'), "{failed}");
        assert_eq!(lines("backup")[1]["duration"], 7);
    }
}
