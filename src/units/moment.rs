//! A moment as people write it, and as it is printed back to them.

use std::fmt;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// What help texts and hints say of it.
pub const FORMS: &str = "2025-01-31T14:02:59Z, 2025-01-31T14:02:59+01:00, or in local time: 2025-01-31 14:02:59, \
                         2025-01-31, 14:02:59, 14:02";

/// A moment, and how it was read. Printed, it names the zone that was assumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenMoment {
    pub time: Timestamp,
    /// The zone that the text was read in. `None`: the text itself says its offset.
    pub zone: Option<TimeZone>,
}

/// Why a text is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMoment {
    #[error("it is no time")]
    Shape,
    #[error("the clocks in {zone} showed that time {}: give its offset, as in 2025-01-31T14:02:59+01:00", if *.twice { "twice" } else { "never" })]
    Ambiguous { zone: String, twice: bool },
}

impl WrittenMoment {
    /// Reads RFC 3339; or a time without an offset, in this zone. A date is its beginning; a time of day is the last
    /// one before `now`.
    pub fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Self, NoMoment> {
        let text = text.trim();
        if let Ok(time) = text.parse() {
            return Ok(Self { time, zone: None });
        }
        let time = match (date(text), time_of_day(text), local(text)) {
            // Where the clocks go forward at midnight, the day begins later.
            (Some(date), _, _) => {
                let begin = date.to_zoned_datetime(zone.clone()).map_err(|_| NoMoment::Shape)?;
                begin.timestamp()
            }
            (_, Some(of_day), _) => {
                let today = zone.to_datetime(now).date();
                let time = the_only(today.to_datetime(of_day), zone)?;
                match time <= now {
                    true => time,
                    false => {
                        let yesterday = today.checked_sub(1.day()).map_err(|_| NoMoment::Shape)?;
                        the_only(yesterday.to_datetime(of_day), zone)?
                    }
                }
            }
            (_, _, Some(local)) => the_only(local, zone)?,
            _ => return Err(NoMoment::Shape),
        };
        let zone = Some(zone.clone());
        Ok(Self { time, zone })
    }
}

// jiff passes over parts that a type does not have, such as an offset: only the expected characters may be there.

fn date(text: &str) -> Option<Date> {
    let fits = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    text.parse().ok().filter(|_| fits)
}

fn time_of_day(text: &str) -> Option<Time> {
    let fits = text.contains(':')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'));
    text.parse().ok().filter(|_| fits)
}

/// A date with a time of day.
fn local(text: &str) -> Option<DateTime> {
    let (day, of_day) = text.split_once(['T', 't', ' '])?;
    Some(date(day)?.to_datetime(time_of_day(of_day)?))
}

/// The moment at which the clocks of the zone show this, if it is one.
fn the_only(local: DateTime, zone: &TimeZone) -> Result<Timestamp, NoMoment> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    let twice = ambiguous.offset();
    ambiguous.unambiguous().map_err(|_| NoMoment::Ambiguous {
        zone: name(zone),
        twice: matches!(twice, jiff::tz::AmbiguousOffset::Fold { .. }),
    })
}

fn name(zone: &TimeZone) -> String {
    zone.iana_name().unwrap_or("the local time zone").to_owned()
}

impl fmt::Display for WrittenMoment {
    /// `2025-01-31T14:02:59Z`, or `2025-01-31T14:02:59+01:00 (Europe/Berlin)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            None => self.time.fmt(f),
            Some(zone) => {
                let offset = zone.to_offset(self.time);
                write!(f, "{} ({})", self.time.display_with_offset(offset), name(zone))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    fn read(text: &str) -> Result<String, NoMoment> {
        let now = "2025-01-31T14:20:00+01:00".parse().unwrap();
        WrittenMoment::parse(text, now, &berlin()).map(|moment| moment.to_string())
    }

    #[test]
    fn a_time_with_an_offset_is_read_as_it_is_and_one_without_in_the_zone_that_is_printed_back() {
        let told = [
            ("2025-01-31T14:02:59Z", "2025-01-31T14:02:59Z"),
            ("2025-01-31T14:02:59.123456+05:30", "2025-01-31T08:32:59.123456Z"),
            ("2025-01-31 14:02:59", "2025-01-31T14:02:59+01:00 (Europe/Berlin)"),
            ("2025-07-31T14:02", "2025-07-31T14:02:00+02:00 (Europe/Berlin)"),
            ("2025-01-31", "2025-01-31T00:00:00+01:00 (Europe/Berlin)"),
            ("14:02:59.5", "2025-01-31T14:02:59.5+01:00 (Europe/Berlin)"),
            ("14:20", "2025-01-31T14:20:00+01:00 (Europe/Berlin)"),
            // It has not been so late today.
            ("14:21", "2025-01-30T14:21:00+01:00 (Europe/Berlin)"),
            (" 23:00 ", "2025-01-30T23:00:00+01:00 (Europe/Berlin)"),
        ];
        for (text, expected) in told {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_time_that_the_clocks_showed_twice_or_never_needs_its_offset() {
        let told = |text| read(text).unwrap_err().to_string();
        assert!(told("2025-10-26 02:30").starts_with("the clocks in Europe/Berlin showed that time twice"));
        assert!(told("2025-03-30 02:30").starts_with("the clocks in Europe/Berlin showed that time never"));
        assert_eq!(read("2025-10-26T02:30:00+01:00").as_deref(), Ok("2025-10-26T01:30:00Z"));
    }

    #[test]
    fn anything_else_is_no_time() {
        for text in [
            "",
            "yesterday",
            "25:00",
            "14",
            "2025-13-01",
            "2025-01-31T",
            "1738328579",
            "-1",
            "14:02 Z",
        ] {
            assert_eq!(read(text), Err(NoMoment::Shape), "{text:?}");
        }
    }
}
