//! Any text, read as an `.env` file.

use super::halves;
use crate::settings::dotenv::{Malformed, parse};

/// The parser refuses the text and names a line that it has, or returns variables with valid names. A file that is
/// written from these gives the same variables. Line ends of Windows change nothing. Two texts, one after the other,
/// give the variables of both.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let parsed = parse(text);
    match &parsed {
        Err(malformed) => assert!((1..=text.split('\n').count()).contains(&malformed.line)),
        Ok(pairs) => {
            for (name, _) in pairs {
                assert!(
                    !name.is_empty() && !name.contains(['=', '"', '\'', '\n', ' ']),
                    "{name:?}"
                );
            }
            assert_eq!(parse(&written(pairs)).as_ref(), Ok(pairs), "written and read");
        }
    }
    if !text.contains('\r') {
        assert_eq!(parse(&text.replace('\n', "\r\n")), parsed, "with line ends of Windows");
    }
    let Some((before, after)) = halves(text) else {
        return;
    };
    // The byte order mark counts only at the start of a file.
    if let Ok(mut pairs) = parse(before)
        && !after.starts_with('\u{feff}')
    {
        let both = parse(after)
            .map(|more| {
                pairs.extend(more);
                pairs
            })
            .map_err(|malformed| Malformed {
                line: malformed.line + before.split('\n').count(),
                ..malformed
            });
        assert_eq!(parsed, both, "one after the other");
    }
}

fn written(pairs: &[(String, String)]) -> String {
    let line = |(name, value): &(String, String)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\r', "\\r");
        format!("{name}=\"{value}\"\n")
    };
    pairs.iter().map(line).collect()
}
