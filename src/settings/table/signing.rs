//! Whose signatures are made, and whose count.

use super::super::setting::{Kind, Setting, flag, kind, plain};

pub const SETTINGS: &[Setting] = &[
    flag(
        "BACKUP_SIGN_KEY",
        "sign-key",
        "sign_key",
        "FILE|KMS-ARN",
        "Sign manifests and the results of verifications: minisign's secret key (pgstow keygen, minisign -G), or the ARN \
         of a KMS key for SIGN_VERIFY of the spec ECC_NIST_EDWARDS25519 or ECC_NIST_P256",
    ),
    kind(
        Kind::Secret,
        plain(
            "BACKUP_SIGN_KEY_PASSWORD",
            "sign_key_password",
            "PASSWORD",
            "The password of that file, where it has one; of a key that `keygen` makes",
        ),
    ),
    plain(
        "BACKUP_SIGN_KEY_PASSWORD_FILE",
        "sign_key_password_file",
        "FILE",
        "A file with that password",
    ),
    kind(
        Kind::List,
        flag(
            "BACKUP_VERIFY_KEYS",
            "verify-key",
            "verify_keys",
            "KEY",
            "Refuse a backup whose manifest none of these keys has signed: public keys as files, as minisign's line of \
             base64, or as ARNs of KMS keys. Repeat it for several; several in the variable, separated by spaces",
        ),
    ),
];
