//! The settings, by their names.

use super::setting::{Setting, ValueKind};
use super::table::SETTINGS;

/// Whether a variable's value must never be shown: the table says so, or its name does (libpq's, older systems').
pub fn is_secret(variable: &str) -> bool {
    let listed = |setting: &Setting| setting.variable == variable && setting.kind == ValueKind::Secret;
    let named = ["PASSWORD", "PASSPHRASE", "SECRET_KEY", "TOKEN"];
    // Variables of others are for programs that pgstow starts, such as a profile's credential_process.
    let ours = ["BACKUP_", "DB_", "PG"].iter().any(|start| variable.starts_with(start));
    SETTINGS.iter().any(listed) || (ours && named.iter().any(|word| variable.contains(word)))
}

pub fn by_variable(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.variable == name)
}

pub fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == Some(key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::settings::nearest;

    #[test]
    fn no_two_settings_share_a_variable_a_flag_or_a_key() {
        let mut seen = BTreeSet::new();
        for setting in SETTINGS {
            assert!(seen.insert(setting.variable.to_owned()), "{}", setting.variable);
            if let Some(flag) = setting.flag {
                assert!(seen.insert(format!("--{flag}")), "{flag}");
            }
            if let Some(key) = setting.key {
                assert!(seen.insert(format!("{key} =")), "{key}");
            }
            assert!(!setting.help.is_empty());
        }
    }

    #[test]
    fn a_misspelt_name_finds_its_neighbour_and_a_strange_one_none() {
        let keys = || SETTINGS.iter().filter_map(|setting| setting.key);
        assert_eq!(nearest("retenton", keys()), Some("retention"));
        assert_eq!(nearest("Secret-Id", keys()), Some("secret_id"));
        assert_eq!(nearest("colour", keys()), None);
    }
}
