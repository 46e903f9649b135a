//! Text that cannot steer a terminal or a log. Other people choose the names of tables, databases, files and hosts,
//! and the messages of servers: they must be shown as text only. This module alone decides which characters are
//! dangerous and how they are replaced.

/// Control characters, and characters that change the direction of writing, break lines, or are invisible.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
        )
}

const INSTEAD: char = '\u{fffd}';

/// One line: line breaks and tabs become spaces, other steering characters are replaced.
pub fn line(text: &str) -> String {
    let plain = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if steers(c) => INSTEAD,
        c => c,
    };
    text.chars().map(plain).collect()
}

/// Our own text of several lines; the line breaks stay.
pub fn lines(text: &str) -> String {
    let plain = |c: char| if c != '\n' && steers(c) { INSTEAD } else { c };
    text.chars().map(plain).collect()
}

/// A JSON document with the same content. Steering characters can only be inside its strings, where they are escaped.
/// Line breaks between its parts stay.
pub fn json(document: &str) -> String {
    let mut text = String::with_capacity(document.len());
    let mut units = [0; 2];
    for c in document.chars() {
        if c == '\n' || !steers(c) {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_one_line_and_cannot_steer() {
        assert_eq!(
            line("a\u{1b}[2J\nb\u{202e}c\u{9b}d\te"),
            "a\u{fffd}[2J b\u{fffd}c\u{fffd}d e"
        );
        assert_eq!(lines("a\nb\u{7f}"), "a\nb\u{fffd}");
        assert_eq!(line("público.año 🐘 שלום"), "público.año 🐘 שלום");
    }

    proptest! {
        #[test]
        fn nothing_that_steers_is_left_and_json_keeps_its_content(text in "(?s:.){0,60}") {
            prop_assert!(!line(&text).chars().any(steers));
            prop_assert!(!lines(&text).chars().any(|c| c != '\n' && steers(c)));
            let document = serde_json::json!({ text.as_str(): [text.as_str()] });
            for printed in [document.to_string(), format!("{document:#}")] {
                let plain = json(&printed);
                prop_assert!(!plain.chars().any(|c| c != '\n' && steers(c)));
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&plain).unwrap(), &document);
            }
        }
    }
}
