//! Where backups are kept.

use super::super::setting::{Kind, Setting, flag, kind};

pub const SETTINGS: &[Setting] = &[
    kind(
        Kind::List,
        flag(
            "BACKUP_STORE",
            "store",
            "store",
            "URL",
            "Where backups go: ./backups, file:///srv/backups or s3://bucket/prefix. Repeat it for copies; the first \
             is the primary [default: ./backups]",
        ),
    ),
    flag(
        "BACKUP_STORE_CREATE",
        "store-create",
        "store_create",
        "WHEN",
        "What a backup does where a store's folder has no backup yet: auto begins there unless something says that \
         there were some (a mount that is missing, another folder of its name, other stores' manifests); always; \
         never [default: auto]",
    ),
    flag(
        "BACKUP_STATE_DIR",
        "state-dir",
        "state_dir",
        "FOLDER",
        "What this machine remembers between runs: the folders in which backups were made [default: $STATE_DIRECTORY of \
         systemd, /var/lib/pgstow for root, else ~/.local/state/pgstow]",
    ),
    kind(
        Kind::Switch,
        flag(
            "BACKUP_ADOPT",
            "adopt",
            "adopt",
            "BOOL",
            "The database is the one whose backups are in the store, though its server is another: it was moved, \
             restored or upgraded. Give it for one backup [default: false]",
        ),
    ),
];
