//! Any bytes, read as a manifest.

use std::path::{Component, Path};

use crate::repository::backup_id::BackupId;
use crate::repository::manifest::{Figures, Manifest, SCHEMA, Summary, Tally, WRITTEN};

/// If the parser accepts a manifest, the manifest reads the same from the bytes that it writes. Its summary and its
/// figures can be read from the same bytes, its files are files in its folder, and its id is that of its folder.
pub fn check(bytes: &[u8]) {
    // Use the id in the bytes, so that the code after the check of the id is tested too.
    let claimed = serde_json::from_slice::<serde_json::Value>(bytes).ok();
    let claimed = claimed.and_then(|json| json["id"].as_str()?.parse().ok());
    let id: BackupId = claimed.unwrap_or_else(|| "shop/20250131T040500Z-full".parse().expect("an id"));
    assert_eq!(id.to_string().parse().as_ref(), Ok(&id));

    // These may return an error, but must not panic.
    let summary = Summary::parse(bytes, &id);
    let figures = Figures::parse(bytes, &id);
    let manifest = match Manifest::parse(bytes, &id) {
        Ok(manifest) => manifest,
        Err(broken) => {
            broken.into_error(&id);
            return;
        }
    };
    assert_eq!(manifest.id, id);
    assert_eq!(summary.as_ref(), Ok(&manifest.summary()));
    let tally = Tally {
        count: manifest.tables.len() as u64,
        rows: manifest
            .tables
            .iter()
            .fold(0, |sum, table| sum.saturating_add(table.rows)),
    };
    let figures = figures.expect("a manifest has figures");
    assert_eq!(figures.tables, tally);
    assert!(figures.seconds() >= 0.0);

    for file in manifest.files.values() {
        let mut parts = Path::new(&file.name).components();
        assert!(matches!(parts.next(), Some(Component::Normal(_))), "{:?}", file.name);
        assert_eq!(parts.next(), None, "{:?}", file.name);
    }

    for record in &manifest.tables {
        assert!(record.place.file.0 < manifest.data_files.len() || manifest.is_referenced(record.place));
        assert_eq!(
            record.place.end().checked_sub(record.place.offset),
            Some(record.place.length)
        );
    }
    assert_eq!(manifest.data_records().count(), manifest.data_files.len());

    // A manifest of any schema is written with the one that its content needs.
    let wanted = if manifest.references.is_some() { SCHEMA } else { WRITTEN };
    let written = manifest.to_bytes().expect("what was read is written");
    let schema = serde_json::from_slice::<serde_json::Value>(&written).map(|json| json["schema"].clone());
    assert_eq!(schema.ok(), Some(wanted.into()));
    let again = Manifest::parse(&written, &id).expect("what was written is read");
    assert_eq!(again, manifest, "written and read");
    assert_eq!(again.to_bytes().ok(), Some(written));
}
