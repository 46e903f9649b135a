//! What a setting is: its names in every layer, and what its values look like.

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

pub const fn kind(kind: Kind, setting: Setting) -> Setting {
    Setting { kind, ..setting }
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
