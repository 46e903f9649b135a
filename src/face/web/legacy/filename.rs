//! The names of files by which the older systems' clients know a backup. A name is only ever compared with those of the
//! backups that are there; no path is made of it.

use crate::format::Format;
use crate::repository::backup_id::{BackupId, BackupKind};

/// `shop_2026-01-31_04-05-00.dump`, and `…_incr.changes` of an increment.
pub fn of(id: &BackupId, format: Format) -> String {
    let at = id.timestamp().strftime("%Y-%m-%d_%H-%M-%S");
    let (kind, ending) = match (id.kind(), format) {
        (BackupKind::Incremental, _) => ("_incr", "changes"),
        (BackupKind::Full, Format::Custom) => ("", "dump"),
        (BackupKind::Full, Format::Plain) => ("", "sql"),
    };
    // A name of a database may hold what a file's name may not.
    let database = percent_encoding::utf8_percent_encode(id.database(), NOT_IN_NAMES);
    format!("{database}_{at}{kind}.{ending}")
}

const NOT_IN_NAMES: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b'/')
    .add(b'\\')
    .add(b'"')
    .add(b'%')
    .add(b'?')
    .add(b'#');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_database_time_and_kind() {
        let name = |id: &str, format| of(&id.parse().unwrap(), format);
        assert_eq!(
            name("shop/20260131T040500Z-full", Format::Custom),
            "shop_2026-01-31_04-05-00.dump"
        );
        assert_eq!(
            name("shop/20260131T040500Z-full", Format::Plain),
            "shop_2026-01-31_04-05-00.sql"
        );
        assert_eq!(
            name("shop/20260131T040500Z-incr", Format::Custom),
            "shop_2026-01-31_04-05-00_incr.changes"
        );
    }
}
