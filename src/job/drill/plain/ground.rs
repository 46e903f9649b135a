//! The properties of the database of a plain dump: the file beside the script has them, the script does not.

use serde_json::Value;

use crate::error::Result;
use crate::format::archive::{Details, Item, Section, TocEntry};
use crate::job::drill::locale;
use crate::repository::catalog::Located;
use crate::repository::manifest::role;
use crate::repository::stored_archive::read_file;

/// The entries as in an archive, and the reason if the locale is not known.
pub(super) async fn creation(located: &Located) -> Result<(Vec<Item>, Option<String>)> {
    let manifest = &located.manifest;
    let info: Value = match manifest.files.get(role::SYSTEM_INFO) {
        Some(file) => {
            let bytes = read_file(&*located.store, &manifest.id, file).await?;
            serde_json::from_slice(&bytes).unwrap_or_default()
        }
        None => Value::Null,
    };
    let definition = locale::creation("x", &manifest.server.encoding, &info);
    let item = Item {
        entry: TocEntry {
            desc: "DATABASE".into(),
            ..TocEntry::default()
        },
        section: Section::PreData,
        details: Details {
            definition,
            ..Details::default()
        },
    };
    let known = info["database"]["collate"].is_string();
    Ok((vec![item], (!known).then(|| locale::UNKNOWN.to_owned())))
}
