//! The events of a run, the same for the progress line, the log, the lease's body and the HTTP stream.

use serde::{Deserialize, Serialize};

use crate::error::ErrorReport;

/// The names in it come from the database. Code that prints them must replace steering characters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run has chosen the backup's id. The files in the store under that id are no backup yet.
    Begun { id: String },
    /// The run enters a new phase: `reading the database`.
    Phase { name: String },
    /// How far the run is. The number of these events has no meaning.
    Progress(Progress),
    /// The run continues, but a person should look at this.
    Warned { message: String },
    /// The backup is committed.
    Committed { id: String },
    /// The last event of a run that ends with an error.
    Failed { error: ErrorReport },
}

/// How far a run is, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Progress {
    /// What is being done now, as in [`Event::Phase`].
    pub phase: String,
    /// The table whose rows are being read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Before compression.
    pub bytes_read: u64,
    /// After compression.
    pub bytes_stored: u64,
    /// About how many bytes will be read in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<u64>,
    /// Bytes per second that were read recently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// How long the rest takes at this rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::{Code, Error};

    #[test]
    fn an_event_is_read_as_it_is_written() {
        let id = || "shop/20250131T040500Z-full".to_owned();
        let progress = Progress {
            phase: "reading the database".into(),
            bytes_read: 7,
            ..Progress::default()
        };
        let error = ErrorReport::from(&Error::new(Code::Store, "no answer").hint("look"));
        let events = [
            (Event::Begun { id: id() }, json!({"event": "begun", "id": id()})),
            (
                Event::Phase {
                    name: "committing".into(),
                },
                json!({"event": "phase", "name": "committing"}),
            ),
            (
                Event::Progress(progress),
                json!({"event": "progress", "phase": "reading the database", "bytes_read": 7, "bytes_stored": 0}),
            ),
            (
                Event::Warned { message: "look".into() },
                json!({"event": "warned", "message": "look"}),
            ),
            (Event::Committed { id: id() }, json!({"event": "committed", "id": id()})),
            (
                Event::Failed { error },
                json!({"event": "failed", "error": {"code": "STORE", "message": "no answer", "hint": "look"}}),
            ),
        ];
        for (event, written) in events {
            assert_eq!(serde_json::to_value(&event).unwrap(), written);
            assert_eq!(serde_json::from_value::<Event>(written).unwrap(), event);
        }
    }
}
