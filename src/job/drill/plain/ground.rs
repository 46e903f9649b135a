//! The properties of the database of a plain dump: the file beside the script has them, the script does not.

use crate::error::Result;
use crate::format::archive::{Details, Item, Section, TocEntry};
use crate::job::drill::locale;
use crate::job::drill::settings::system_info;
use crate::repository::catalog::Located;

/// The entries as in an archive, and the reason if the locale is not known.
pub(super) async fn creation(located: &Located) -> Result<(Vec<Item>, Option<String>)> {
    let info = system_info(located).await?;
    let definition = locale::creation("x", &located.manifest.server.encoding, &info);
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
