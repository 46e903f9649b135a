//! A setting: its names in every layer, and the form of its values.

/// One setting, with its names.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key of its values, for all layers.
    pub variable: &'static str,
    pub flag: Option<&'static str>,
    /// With a dot if it is in a TOML table.
    pub key: Option<&'static str>,
    pub kind: ValueKind,
    /// The placeholder for the value in the help text.
    pub value: &'static str,
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    Text,
    /// Several values: a repeated flag, words in a variable, an array in TOML.
    List,
    /// Messages never quote it.
    Secret,
    /// True or false; the flag without a value is true.
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
        kind: ValueKind::Text,
        value,
        help,
    }
}

pub const fn plain(variable: &'static str, key: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting {
        variable,
        flag: None,
        key: Some(key),
        kind: ValueKind::Text,
        value,
        help,
    }
}

pub const fn kind(kind: ValueKind, setting: Setting) -> Setting {
    Setting { kind, ..setting }
}

/// The one of `names` that the user most likely meant by a misspelt `name`.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    names
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.88)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}
