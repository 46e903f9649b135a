//! Prometheus's text format, read as strictly as its description allows: a scrape fails as a whole
//! where one line is wrong.

use std::collections::{BTreeMap, BTreeSet};

/// A family's name, and its labels.
pub type Key = (String, BTreeMap<String, String>);

/// Every sample. Panics at what a collector would refuse, or what would mislead one.
pub fn read(text: &str) -> BTreeMap<Key, f64> {
    assert!(text.ends_with('\n'), "the last line is not ended");
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut helped: Option<String> = None;
    let mut typed: Option<String> = None;
    for line in text.split_terminator('\n') {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !words.is_empty(), "{line}");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            (helped, typed) = (Some(name.to_owned()), None);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!((helped.as_deref(), kind), (Some(name), "gauge"), "{line}");
            typed = helped.take();
        } else if !line.starts_with('#') {
            let (name, labels, value) = sample(line);
            assert_eq!(
                typed.as_deref(),
                Some(name.as_str()),
                "{line} stands outside its family"
            );
            assert!(samples.insert((name, labels), value).is_none(), "{line} comes twice");
        }
    }
    samples
}

fn is_name(text: &str) -> bool {
    let fits =
        |(at, char): (usize, char)| char.is_ascii_alphabetic() || char == '_' || (at > 0 && char.is_ascii_digit());
    !text.is_empty() && text.char_indices().all(fits)
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (name, mut rest) = line.split_once('{').unwrap_or_else(|| panic!("no labels: {line}"));
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    loop {
        let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        assert!(is_name(label), "{line}");
        let mut value = String::new();
        let mut chars = after.chars();
        loop {
            match chars.next().unwrap_or_else(|| panic!("not closed: {line}")) {
                '"' => break,
                '\\' => value.push(match chars.next() {
                    Some('n') => '\n',
                    Some(char @ ('\\' | '"')) => char,
                    other => panic!("{other:?} is escaped: {line}"),
                }),
                char => value.push(char),
            }
        }
        assert!(
            labels.insert(label.to_owned(), value).is_none(),
            "{label} twice: {line}"
        );
        rest = chars.as_str();
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    let value = rest.strip_prefix("} ").unwrap_or_else(|| panic!("no value: {line}"));
    (name.to_owned(), labels, value.parse().unwrap())
}
