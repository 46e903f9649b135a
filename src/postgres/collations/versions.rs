//! The collations that the database uses, as the source's catalog lists them. On another machine the library that
//! sorts text may have another version, and may sort differently.

use serde::{Deserialize, Serialize};

/// The most that one sentence names.
const NAMED: usize = 3;

/// A collation that has a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collation {
    /// Quoted, with its schema; `None` for the database's own collation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `libc`, `icu` or `builtin`.
    pub provider: String,
    pub locale: String,
    /// The version of its library when the collation was made or refreshed.
    pub version: String,
}

/// One sentence, if the server has other versions than the source; `None` in `here` is an unknown version.
pub fn sorted_otherwise(source: &[Collation], here: &[Option<String>]) -> Option<String> {
    let pairs = source.iter().zip(here);
    let other = pairs.filter_map(|(source, here)| {
        let here = here.as_ref().filter(|here| **here != source.version)?;
        let Collation {
            provider,
            locale,
            version,
            ..
        } = source;
        Some(format!(
            "{provider}'s {locale} has version {version} in the source and {here} here"
        ))
    });
    let mut told: Vec<String> = Vec::new();
    for one in other {
        if !told.contains(&one) {
            told.push(one);
        }
    }
    let more = told.len().saturating_sub(NAMED);
    told.truncate(NAMED);
    if told.is_empty() {
        return None;
    }
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    Some(format!(
        "text may sort differently than in the source, which matters for partitions, checks and exclusions that use \
         its order: {}{more}",
        told.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_versions_are_named_once_and_unknown_ones_are_not() {
        let collation = |locale: &str, version: &str| Collation {
            name: None,
            provider: "libc".into(),
            locale: locale.into(),
            version: version.into(),
        };
        let source = [
            collation("de_DE", "2.31"),
            collation("de_DE", "2.31"),
            collation("fr_FR", "2.31"),
            collation("it_IT", "2.36"),
        ];
        let here = |versions: [Option<&str>; 4]| versions.map(|version| version.map(str::to_owned));
        let same = here([None, Some("2.31"), None, Some("2.36")]);
        assert_eq!(sorted_otherwise(&source, &same), None);
        let other = here([Some("2.36"), Some("2.36"), None, Some("2.36")]);
        let told = sorted_otherwise(&source, &other).unwrap();
        assert!(
            told.ends_with("order: libc's de_DE has version 2.31 in the source and 2.36 here"),
            "{told}"
        );
        let many: Vec<Collation> = ["a", "b", "c", "d", "e"].map(|one| collation(one, "1")).into();
        let told = sorted_otherwise(&many, &["2"; 5].map(|one| Some(one.to_owned()))).unwrap();
        assert!(told.ends_with(" and 2 more") && !told.contains("libc's d "), "{told}");
    }
}
