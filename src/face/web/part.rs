//! The part of a file that a client asks for: the headers `Range` and `If-Range`.

use std::ops::Range;

use axum::http::{HeaderMap, header};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Of(Range<u64>),
    /// It lies behind the end.
    None,
}

impl Part {
    /// `tag` is the file's ETag. A header that is not understood, or that asks for several parts, counts as absent.
    pub fn asked(headers: &HeaderMap, bytes: u64, tag: &str) -> Part {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &axum::http::HeaderValue| value.to_str().ok())
        };
        let is_same = text(header::IF_RANGE).is_none_or(|kept| kept == tag);
        let mut given = headers.get_all(header::RANGE).iter();
        match (text(header::RANGE), given.nth(1)) {
            (Some(range), None) if is_same => parsed(range, bytes).unwrap_or(Part::Whole),
            _ => Part::Whole,
        }
    }
}

fn parsed(range: &str, bytes: u64) -> Option<Part> {
    let (first, last) = range.trim().strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number that is too long is behind every end.
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = (first.trim(), last.trim());
    let (start, end) = match (first, last) {
        ("", last) => (bytes.saturating_sub(number(last)?), bytes),
        (first, "") => (number(first)?, bytes),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, last.saturating_add(1).min(bytes))
        }
    };
    Some(match start < end {
        true => Part::Of(start..end),
        false => Part::None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(range: &str) -> Part {
        let headers = [(header::RANGE, range.parse().unwrap())].into_iter().collect();
        Part::asked(&headers, 100, "\"a\"")
    }

    #[test]
    fn one_range_is_understood_in_its_three_spellings() {
        assert_eq!(asked("bytes=0-9"), Part::Of(0..10));
        assert_eq!(asked("bytes=90-"), Part::Of(90..100));
        assert_eq!(asked("bytes=-5"), Part::Of(95..100));
        assert_eq!(asked("bytes=-500"), Part::Of(0..100));
        assert_eq!(asked("bytes=99-99999999999999999999999"), Part::Of(99..100));
        assert_eq!(asked("bytes=100-"), Part::None);
        assert_eq!(asked("bytes=-0"), Part::None);
        for whole in [
            "bytes=9-0",
            "bytes=0-1,5-6",
            "bytes=a-b",
            "bytes=-",
            "bytes=+1-2",
            "lines=0-1",
            "",
        ] {
            assert_eq!(asked(whole), Part::Whole, "{whole}");
        }
    }

    #[test]
    fn a_part_of_another_file_is_not_sent() {
        let of = |tag: &str| {
            let headers = [(header::RANGE, "bytes=0-9"), (header::IF_RANGE, tag)];
            let headers = headers.into_iter().map(|(name, value)| (name, value.parse().unwrap()));
            Part::asked(&headers.collect(), 100, "\"a\"")
        };
        assert_eq!(of("\"a\""), Part::Of(0..10));
        assert_eq!(of("\"b\""), Part::Whole);
        assert_eq!(of("Sat, 31 Jan 2026 04:05:00 GMT"), Part::Whole);
    }

    proptest! {
        #[test]
        fn no_header_asks_for_more_than_there_is(range in "[ -~]{0,40}", spelled in "bytes=[0-9]{0,25}-[0-9]{0,25}", bytes in any::<u64>()) {
            for text in [range, spelled] {
                let headers: HeaderMap = [(header::RANGE, text.parse().unwrap())].into_iter().collect();
                if let Part::Of(part) = Part::asked(&headers, bytes, "\"a\"") {
                    prop_assert!(part.start < part.end && part.end <= bytes);
                }
            }
        }
    }
}
