//! The key that signs, and the keys that pgstow trusts.

use super::super::setting::{Setting, ValueKind, flag, kind, plain};

pub const SETTINGS: &[Setting] = &[
    flag(
        "BACKUP_SIGN_KEY",
        "sign-key",
        "sign_key",
        "FILE|KMS-ARN",
        "Sign manifests and the results of verifications with this key: a file with minisign's secret key (`pgstow \
         keygen` or `minisign -G` makes one), or the ARN of a KMS key (SIGN_VERIFY, ECC_NIST_EDWARDS25519 or \
         ECC_NIST_P256)",
    ),
    kind(
        ValueKind::Secret,
        plain(
            "BACKUP_SIGN_KEY_PASSWORD",
            "sign_key_password",
            "PASSWORD",
            "The password of that file, if it has one; for `keygen` the password of the new key",
        ),
    ),
    plain(
        "BACKUP_SIGN_KEY_PASSWORD_FILE",
        "sign_key_password_file",
        "FILE",
        "A file with that password",
    ),
    kind(
        ValueKind::List,
        flag(
            "BACKUP_VERIFY_KEYS",
            "verify-key",
            "verify_keys",
            "KEY",
            "Refuse a backup whose manifest none of these keys has signed. A key is a file with a public key, \
             minisign's line of base64, or the ARN of a KMS key. Repeat the flag for several keys; separate them by \
             spaces in the variable",
        ),
    ),
];
