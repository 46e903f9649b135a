//! Counts, sizes and durations for people.

pub mod moment;

use std::fmt::Display;

/// `1 table`, `3 tables`, `0 large objects`. `noun` is the singular.
pub fn count<N: Copy + Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let ending = if number == N::from(1) { "" } else { ending(noun) };
    let stem = match ending {
        "ies" => &noun[..noun.len() - 1],
        _ => noun,
    };
    format!("{number} {stem}{ending}")
}

fn ending(noun: &str) -> &'static str {
    let mut letters = noun.chars().rev();
    match (letters.next(), letters.next()) {
        (Some('y'), Some(before)) if !"aeiou".contains(before) => "ies",
        (Some('s' | 'x'), _) | (Some('h'), Some('c' | 's')) => "es",
        _ => "s",
    }
}

/// `a, b and 3 more`: the first `shown` names, and the number of the others.
pub fn some_of<T: AsRef<str>>(names: &[T], shown: usize) -> String {
    let first: Vec<&str> = names.iter().take(shown).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(shown) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// `was` or `were`, as the number needs.
pub fn were<N: Copy + PartialEq + From<u8>>(number: N) -> &'static str {
    if number == N::from(1) { "was" } else { "were" }
}

/// `1.5 GB`: powers of a thousand, as vendors of stores and disks count.
pub fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// `45 s`, `26 h`, `12 d`: one unit.
pub fn human_span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_all_else_are_many() {
        let told = [
            count(1_u64, "table"),
            count(0_usize, "large object"),
            count(2_u32, "entry"),
            count(5_i64, "day"),
            count(2, "index"),
            count(2, "batch"),
            count(1, "entry"),
        ];
        let expected = [
            "1 table",
            "0 large objects",
            "2 entries",
            "5 days",
            "2 indexes",
            "2 batches",
            "1 entry",
        ];
        assert_eq!(told, expected);
        assert_eq!([were(1_u64), were(0), were(2)], ["was", "were", "were"]);
    }

    #[test]
    fn sizes_and_ages_are_in_one_unit() {
        let sizes = [0, 999, 1000, 1_520_000_000, 999_960].map(human_bytes);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "1.5 GB", "1.0 MB"]);
        let ages = [-1, 45, 119, 120, 93_600, 1_000_000].map(human_span);
        assert_eq!(ages, ["0 s", "45 s", "119 s", "2 min", "26 h", "11 d"]);
    }
}
