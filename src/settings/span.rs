//! Spans of time as people write them: `90s`, `26h`, `1h 30min`, `1.5d`.
//!
//! jiff reads such text too, but accepts each unit only once and in order, accepts no fraction of a day, and does not
//! define how long a month is.

use std::time::Duration;

const SECOND: u128 = 1_000_000_000;
const DAY: u128 = 86_400 * SECOND;

/// In nanoseconds. Every month is 30.44 days and every year 365.25 days, so `1month` is always the same time.
const UNITS: &[(&[&str], u128)] = &[
    (&["ns", "nsec", "nanos"], 1),
    (&["us", "usec", "µs"], 1_000),
    (&["ms", "msec", "millis"], 1_000_000),
    (&["s", "sec", "secs", "second", "seconds"], SECOND),
    (&["m", "min", "mins", "minute", "minutes"], 60 * SECOND),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600 * SECOND),
    (&["d", "day", "days"], DAY),
    (&["w", "wk", "wks", "week", "weeks"], 7 * DAY),
    (&["M", "month", "months"], DAY * 3_044 / 100),
    (&["y", "yr", "yrs", "year", "years"], DAY * 36_525 / 100),
];

/// The sum of numbers with units, in any order; `0` needs no unit. `None` for any other text.
pub fn parse_span(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.trim();
    let mut nanoseconds = 0_u128;
    loop {
        let (number, after) = rest.split_at(rest.find(is_letter)?);
        let (unit, after) = after.split_at(after.find(|c: char| !is_letter(c)).unwrap_or(after.len()));
        let (_, length) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
        nanoseconds = nanoseconds.checked_add(times(number, *length)?)?;
        if after.is_empty() {
            break;
        }
        rest = after.trim_start();
    }
    let seconds = u64::try_from(nanoseconds / SECOND).ok()?;
    Some(Duration::new(seconds, u32::try_from(nanoseconds % SECOND).ok()?))
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || c == 'µ'
}

/// A number of units: digits, and optionally a point with more digits.
fn times(number: &str, unit: u128) -> Option<u128> {
    let number: String = number.chars().filter(|c| !c.is_whitespace()).collect();
    let (whole, part) = number.split_once('.').unwrap_or((&number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let (part, scale): (u64, u128) = (
        part.parse().ok()?,
        10_u128.checked_pow(u32::try_from(part.len()).ok()?)?,
    );
    u128::from(whole)
        .checked_mul(unit)?
        .checked_add(u128::from(part).checked_mul(unit)? / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_sum_of_numbers_with_units() {
        let minute = 60;
        let (hour, day) = (60 * minute, 86_400);
        for (text, seconds) in [
            ("90s", 90),
            ("5m", 5 * minute),
            ("5 min", 5 * minute),
            ("1h", hour),
            ("26h", 26 * hour),
            ("2d", 2 * day),
            ("7d", 7 * day),
            ("1week", 7 * day),
            ("2wks", 14 * day),
            ("1h 30m", hour + 30 * minute),
            ("1h30m", hour + 30 * minute),
            (" 1hr  30mins ", hour + 30 * minute),
            // In any order, and more than once.
            ("30m 1h", hour + 30 * minute),
            ("1h 1h", 2 * hour),
            ("1.5h", hour + 30 * minute),
            ("1.5d 6h", 42 * hour),
            ("0.25 w", 42 * hour),
            ("1 000 s", 1_000),
            ("0", 0),
            ("0s", 0),
            ("0s 1m", minute),
            ("1M", 2_630_016),
            ("1month", 2_630_016),
            ("12 months", 31_560_192),
            ("1y", 31_557_600),
            ("2yrs 1day", 2 * 31_557_600 + day),
        ] {
            assert_eq!(parse_span(text), Some(Duration::from_secs(seconds)), "{text:?}");
        }
        assert_eq!(parse_span("1500ms"), Some(Duration::from_millis(1_500)));
        assert_eq!(parse_span("1s 2ms 3us 4ns"), Some(Duration::new(1, 2_003_004)));
        assert_eq!(parse_span("7µs"), Some(Duration::from_micros(7)));
        assert_eq!(parse_span("18446744073709551615s"), Some(Duration::from_secs(u64::MAX)));
    }

    #[test]
    fn any_other_text_is_no_span() {
        for text in [
            "",
            " ",
            "90",
            "00",
            "s",
            "soon",
            "-1h",
            "+1h",
            "1h 30",
            "1h ago",
            "1,5h",
            ".5h",
            "1.h",
            "1.2.3h",
            "1H",
            "1 m in",
            "1Month",
            "1h, 2m",
            "PT1H",
            "2025-01-31",
            "1:30",
            "18446744073709551616s",
            "18446744073709551615s 1s",
            "99999999999999999999y",
            "1.00000000000000000000000000000000000000001s",
        ] {
            assert_eq!(parse_span(text), None, "{text:?}");
        }
    }
}
