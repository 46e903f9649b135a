//! The syntax of single settings: retention, compression, sizes, durations, switches. Pure functions; an error is only
//! the reason, because the caller knows the setting's name.

use std::time::Duration;

use super::span::parse_span;
use super::{Compression, Policy, nearest};
use crate::repository::retention::Tier;
use crate::run::telemetry::log_directives;

type Parsed<T> = Result<T, String>;

/// A hundred years. More is a typing error, and S3 counts days in 32 bits.
const MOST_DAYS: u32 = 36_500;

pub fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

pub fn number(text: &str, range: std::ops::RangeInclusive<u64>) -> Parsed<u64> {
    let (low, high) = (range.start(), range.end());
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is not a whole number from {low} to {high}")),
    }
}

/// Seconds, or a duration with a unit (`90s`, `5m`, `1h`). At least one second: none of these limits can be switched
/// off.
pub fn duration(text: &str) -> Parsed<Duration> {
    let parsed = match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => parse_span(text),
    };
    let limits = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
    parsed
        .filter(|duration| limits.contains(duration))
        .ok_or_else(|| format!("{text:?} is not a number of seconds from 1 to 604800"))
}

/// An age with its unit: some readers would take a bare number for days, others for hours.
pub fn age(text: &str) -> Parsed<Duration> {
    let limits = Duration::from_secs(60)..=Duration::from_secs(u64::from(MOST_DAYS) * 86_400);
    let parsed = parse_span(text);
    parsed
        .filter(|age| limits.contains(age) && text.parse::<u64>().is_err())
        .ok_or_else(|| format!("{text:?} is not a time such as 26h or 2d"))
}

/// Bytes, with an optional unit. `M` and `MB` are MiB, as people expect here.
pub fn size(text: &str) -> Parsed<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(format!("{text:?} is not a size such as 16MiB")),
    };
    let number: u64 = number
        .replace('_', "")
        .parse()
        .map_err(|_| format!("{text:?} is not a size such as 16MiB"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text:?} is too large"))
}

/// Checks the same directives with which the log starts.
pub fn log_filter(text: &str) -> Parsed<()> {
    tracing_subscriber::EnvFilter::builder()
        .parse(log_directives(text))
        .map(|_| ())
        .map_err(|_| format!("{text:?} is neither a level (error, warn, info, debug) nor module=level pairs"))
}

/// `30d`, `4w`, a bare number of days, or counts per tier.
pub fn retention(text: &str) -> Parsed<Policy> {
    if text.contains('=') {
        return tiers(text);
    }
    let lower = text.to_ascii_lowercase();
    let (number, unit) = lower.split_at(lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len()));
    let days = match unit.trim() {
        "" | "d" | "day" | "days" => 1,
        "w" | "week" | "weeks" => 7,
        "m" | "y" | "month" | "months" | "year" | "years" => {
            return Err(format!(
                "{text:?}: months and years differ in length; give days, or monthly=12,yearly=3"
            ));
        }
        _ => return Err(format!("{text:?} is not a retention such as 30d or daily=7,weekly=4")),
    };
    let days = number
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(days))
        .filter(|days| (1..=MOST_DAYS).contains(days));
    days.map(Policy::Days)
        .ok_or_else(|| format!("{text:?} is not a time from 1d to {MOST_DAYS}d"))
}

fn tiers(text: &str) -> Parsed<Policy> {
    const NAMES: &[(&str, Tier, u32)] = &[
        ("daily", Tier::Daily, 1),
        ("weekly", Tier::Weekly, 7),
        ("monthly", Tier::Monthly, 31),
        ("yearly", Tier::Yearly, 366),
    ];
    let mut tiers: Vec<(Tier, u32)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, count) = part
            .split_once('=')
            .ok_or_else(|| format!("{part:?} is not like daily=7"))?;
        let name = name.trim().to_ascii_lowercase();
        let Some((_, tier, days)) = NAMES.iter().find(|(known, ..)| *known == name) else {
            let near = nearest(&name, NAMES.iter().map(|(known, ..)| *known));
            let near = near.map_or(String::new(), |near| format!(", did you mean {near}?"));
            return Err(format!("{name:?} is not a tier (daily, weekly, monthly, yearly){near}"));
        };
        let most = u64::from(MOST_DAYS / days);
        let count = number(count.trim(), 0..=most).map_err(|why| format!("{name}: {why}"))?;
        if tiers.iter().any(|(known, _)| known == tier) {
            return Err(format!("{name} is given twice"));
        }
        tiers.push((*tier, u32::try_from(count).unwrap_or(MOST_DAYS)));
    }
    // With `weekly=0` there is no such tier.
    tiers.retain(|(_, count)| *count > 0);
    tiers.sort_unstable();
    if tiers.is_empty() {
        return Err(format!("{text:?} keeps nothing"));
    }
    Ok(Policy::Tiers(tiers))
}

/// An algorithm, and a level if the text names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionSpec {
    Auto,
    Zstd(Option<i32>),
    Gzip(Option<u32>),
    None,
}

pub fn compression(text: &str) -> Parsed<CompressionSpec> {
    let lower = text.to_ascii_lowercase();
    let (name, level) = match lower.split_once(':') {
        Some((name, level)) => (name.trim(), Some(level.trim())),
        None => (lower.trim(), None),
    };
    match (name, level) {
        ("auto", None) => Ok(CompressionSpec::Auto),
        ("none", None) => Ok(CompressionSpec::None),
        ("zstd", level) => Ok(CompressionSpec::Zstd(level.map(zstd_level).transpose()?)),
        ("gzip", level) => Ok(CompressionSpec::Gzip(level.map(gzip_level).transpose()?)),
        ("auto" | "none", Some(_)) => Err(format!("{text:?}: {name} has no level")),
        _ => Err(format!("{text:?} is not auto, zstd:1..19, gzip:1..9 or none")),
    }
}

pub fn zstd_level(text: &str) -> Parsed<i32> {
    let level = number(text, 1..=19).map_err(|why| format!("the zstd level {why}"))?;
    Ok(i32::try_from(level).unwrap_or(19))
}

pub fn gzip_level(text: &str) -> Parsed<u32> {
    let level = number(text, 1..=9).map_err(|why| format!("the gzip level {why}"))?;
    Ok(u32::try_from(level).unwrap_or(9))
}

impl CompressionSpec {
    pub fn has_level(self) -> bool {
        matches!(self, CompressionSpec::Zstd(Some(_)) | CompressionSpec::Gzip(Some(_)))
    }

    pub fn takes_level(self) -> bool {
        matches!(self, CompressionSpec::Zstd(_) | CompressionSpec::Gzip(_))
    }

    pub fn with_level(self, text: &str) -> Parsed<CompressionSpec> {
        match self {
            CompressionSpec::Zstd(_) => Ok(CompressionSpec::Zstd(Some(zstd_level(text)?))),
            CompressionSpec::Gzip(_) => Ok(CompressionSpec::Gzip(Some(gzip_level(text)?))),
            other => Ok(other),
        }
    }

    pub fn settled(self, zstd: i32, gzip: u32) -> Compression {
        match self {
            CompressionSpec::Auto => Compression::Auto,
            CompressionSpec::Zstd(level) => Compression::Zstd(level.unwrap_or(zstd)),
            CompressionSpec::Gzip(level) => Compression::Gzip(level.unwrap_or(gzip)),
            CompressionSpec::None => Compression::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn retention_is_days_or_tiers() {
        assert_eq!(retention("30d"), Ok(Policy::Days(30)));
        assert_eq!(retention("30"), Ok(Policy::Days(30)));
        assert_eq!(retention("4w"), Ok(Policy::Days(28)));
        assert_eq!(
            retention("yearly=3, daily=7,weekly=0"),
            Ok(Policy::Tiers(vec![(Tier::Daily, 7), (Tier::Yearly, 3)]))
        );
        for text in [
            "",
            "d",
            "0d",
            "3m",
            "-1d",
            "30 x",
            "99999d",
            "daily=",
            "daily=x",
            "weekly=0",
            "daily=1,daily=2",
            "=",
            "4294967295w",
        ] {
            assert!(retention(text).is_err(), "{text:?}");
        }
        assert!(retention("dayly=3").unwrap_err().contains("did you mean daily"));
    }

    #[test]
    fn compression_has_an_algorithm_and_a_level() {
        assert_eq!(compression("zstd:19"), Ok(CompressionSpec::Zstd(Some(19))));
        assert_eq!(compression("GZIP"), Ok(CompressionSpec::Gzip(None)));
        for text in ["zstd:0", "zstd:20", "gzip:10", "gzip:", "auto:3", "none:1", "lz4", ""] {
            assert!(compression(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_and_durations_take_units() {
        assert_eq!(size("16MiB"), Ok(16 << 20));
        assert_eq!(size("16 mb"), Ok(16 << 20));
        assert_eq!(size("5242880"), Ok(5 << 20));
        assert!(size("99999999999999999999G").is_err() && size("17179869184G").is_err() && size("MiB").is_err());
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(age("26h"), Ok(Duration::from_secs(26 * 3_600)));
        assert_eq!(age("1day 2h"), age("26h"));
        assert_eq!(age("1month"), Ok(Duration::from_secs(2_630_016)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5_400)));
        assert!(duration("1month").is_err() && age("101y").is_err());
        assert!(age("26").is_err() && age("0").is_err() && age("5s").is_err() && age("soon").is_err());
        assert!(duration("0").is_err() && duration("soon").is_err() && duration("-1").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC*|[0-9a-z=:,. ]{0,24}") {
            let _ = (retention(&text), compression(&text), size(&text), duration(&text), age(&text), truth(&text));
        }

        #[test]
        fn tiers_come_out_sorted_positive_and_once(counts in proptest::collection::vec((0usize..4, 0u32..90), 1..5)) {
            let names = ["daily", "weekly", "monthly", "yearly"];
            let text = counts.iter().map(|(tier, count)| format!("{}={count}", names[*tier])).collect::<Vec<_>>().join(",");
            if let Ok(Policy::Tiers(tiers)) = retention(&text) {
                prop_assert!(tiers.windows(2).all(|pair| pair[0].0 < pair[1].0));
                prop_assert!(tiers.iter().all(|(_, count)| *count > 0));
            }
        }
    }
}
