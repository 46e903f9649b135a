//! What a setting is: its names in every layer, and what its values look like.

use super::table::SETTINGS;

/// One setting, as its user may name it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// What its values are keyed by, whatever layer they come from.
    pub variable: &'static str,
    pub flag: Option<&'static str>,
    /// Dotted where it stands in a TOML table.
    pub key: Option<&'static str>,
    pub kind: Kind,
    /// What stands for the value in the help text.
    pub value: &'static str,
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Several values: a repeated flag, words in a variable, an array in TOML.
    List,
    /// Never quoted in a message.
    Secret,
    /// True or false; as a flag alone it means true.
    Switch,
}

pub const fn flag(
    variable: &'static str,
    flag: &'static str,
    key: &'static str,
    value: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        variable,
        flag: Some(flag),
        key: Some(key),
        kind: Kind::Text,
        value,
        help,
    }
}

pub const fn plain(variable: &'static str, key: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting {
        variable,
        flag: None,
        key: Some(key),
        kind: Kind::Text,
        value,
        help,
    }
}

/// Whether a variable's value is shown to nobody: by the table, or by its name, as libpq and older systems have it.
pub fn is_secret(variable: &str) -> bool {
    let listed = |setting: &Setting| setting.variable == variable && setting.kind == Kind::Secret;
    let named = ["PASSWORD", "PASSPHRASE", "SECRET_KEY", "TOKEN"];
    // Others' are for the programs that we start, as a profile's credential_process.
    let ours = ["BACKUP_", "DB_", "PG"].iter().any(|start| variable.starts_with(start));
    SETTINGS.iter().any(listed) || (ours && named.iter().any(|word| variable.contains(word)))
}

pub const fn kind(kind: Kind, setting: Setting) -> Setting {
    Setting { kind, ..setting }
}

pub fn by_variable(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.variable == name)
}

pub fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == Some(key))
}

/// The name among `names` that a misspelt `name` most likely meant.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    names
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.88)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

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
