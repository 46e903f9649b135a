//! Where backups are kept.

use super::super::setting::{Setting, ValueKind, flag, kind};

pub const SETTINGS: &[Setting] = &[
    kind(
        ValueKind::List,
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
        "Whether a backup may begin in a store's folder that has no backup yet: always, never, or auto (unless \
         something shows that there were backups: a missing mount, another folder of its name, manifests in the \
         other stores) [default: auto]",
    ),
    flag(
        "BACKUP_STATE_DIR",
        "state-dir",
        "state_dir",
        "FOLDER",
        "Folder for what this machine remembers between runs: in which folders it made backups [default: \
         $STATE_DIRECTORY of systemd, /var/lib/pgstow for root, else ~/.local/state/pgstow]",
    ),
    kind(
        ValueKind::Switch,
        flag(
            "BACKUP_ADOPT",
            "adopt",
            "adopt",
            "BOOL",
            "Confirm that this is the database whose backups are in the store, although its server is a different \
             one: it was moved, restored or upgraded. Give it for one backup [default: false]",
        ),
    ),
];
