//! Sizes, durations, host and rates of the run that made a backup.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounded;

/// No restore needs these figures. A figure that is missing, or that another version wrote in another shape, counts
/// as unknown.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Metadata {
    /// The uncompressed bytes that were read from the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_read: Option<u64>,
    /// The bytes of all files of the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_stored: Option<u64>,
    /// Bytes of content for each compression level.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub compression_levels: BTreeMap<i32, u64>,
    /// The size that the server reported before the run; `null` if it did not.
    pub database_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Only with `--nice`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pauses: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Sessions that read the database at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<u64>,
    /// Threads for compression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u64>,
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut told = bounded::map(deserializer)?;
        Ok(Self {
            bytes_read: known(&mut told, "bytes_read"),
            bytes_stored: known(&mut told, "bytes_stored"),
            compression_levels: known(&mut told, "compression_levels").unwrap_or_default(),
            database_bytes: known(&mut told, "database_bytes"),
            duration_seconds: known(&mut told, "duration_seconds"),
            host: known(&mut told, "host"),
            paused_seconds: known(&mut told, "paused_seconds"),
            pauses: known(&mut told, "pauses"),
            read_bytes_per_second: known(&mut told, "read_bytes_per_second"),
            rows: known(&mut told, "rows"),
            streams: known(&mut told, "streams"),
            threads: known(&mut told, "threads"),
        })
    }
}

fn known<T: DeserializeOwned>(told: &mut BTreeMap<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(told.remove(name)?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: Value) -> Metadata {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let whole = Metadata {
            bytes_read: Some(7),
            bytes_stored: Some(u64::MAX),
            compression_levels: BTreeMap::from([(-3, 5), (19, 6)]),
            database_bytes: None,
            duration_seconds: Some(1.5),
            host: Some("db-1".into()),
            paused_seconds: Some(0.25),
            pauses: Some(2),
            read_bytes_per_second: Some(3.0),
            rows: Some(4),
            streams: Some(1),
            threads: Some(2),
        };
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Metadata>(&text).unwrap(), whole);
        assert!(text.contains(r#""database_bytes":null"#), "{text}");
    }

    #[test]
    fn a_figure_of_another_shape_is_not_known_and_the_others_are() {
        let told = read(json!({"rows": "many", "threads": 2, "host": 7, "novelty": [1]}));
        assert_eq!((told.rows, told.threads, told.host), (None, Some(2), None));
        assert_eq!(read(json!({})), Metadata::default());
        assert!(serde_json::from_value::<Metadata>(json!([])).is_err());
    }
}
