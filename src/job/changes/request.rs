//! What is asked of the changes.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::error::{Error, Result};
use crate::settings::parse_span;
use crate::units::moment::{FORMS, WrittenMoment};

/// How many transactions are told if nothing else is asked for.
pub const LIMIT: usize = 1000;
/// All of them are kept in memory.
const MOST: usize = 100_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesRequest {
    /// Only transactions that changed one of these: `SCHEMA.TABLE`, where `*` stands for any text. Empty: all tables.
    pub tables: Vec<String>,
    /// Only commits at this time or later, by the source's clock.
    pub since: Option<WrittenMoment>,
    /// Only commits at this time or earlier.
    pub until: Option<WrittenMoment>,
    /// At most so many transactions, the newest; at least 1.
    pub limit: usize,
    pub database: Option<String>,
}

impl ChangesRequest {
    /// All changes of all tables.
    pub fn all(database: Option<String>) -> Self {
        Self {
            tables: Vec::new(),
            since: None,
            until: None,
            limit: LIMIT,
            database,
        }
    }

    /// Only these times, as a person writes them: a moment, or a span back from `now`. A time without an offset is one
    /// of `zone`.
    pub fn between(self, since: Option<&str>, until: Option<&str>, now: Timestamp, zone: &TimeZone) -> Result<Self> {
        let read = |option: &str, text: Option<&str>| text.map(|text| moment(option, text, now, zone)).transpose();
        let (since, until) = (read("--since", since)?, read("--until", until)?);
        if let (Some(since), Some(until)) = (&since, &until)
            && since.time > until.time
        {
            return Err(Error::config(format!("--since {since} is later than --until {until}"))
                .hint("exchange the two, or give the day as well: 2025-01-31 14:02"));
        }
        Ok(Self { since, until, ..self })
    }

    /// At most so many transactions. `CONFIG` if that is none, or more than fit into memory.
    pub fn limited(self, limit: usize) -> Result<Self> {
        match (1..=MOST).contains(&limit) {
            true => Ok(Self { limit, ..self }),
            false => Err(Error::config(format!("--limit {limit} is not from 1 to {MOST}"))
                .hint("choose a shorter time instead: --since and --until")),
        }
    }
}

fn moment(option: &str, text: &str, now: Timestamp, zone: &TimeZone) -> Result<WrittenMoment> {
    if let Some(span) = parse_span(text)
        && let Ok(span) = SignedDuration::try_from(span)
        && let Ok(time) = now.checked_sub(span)
    {
        return Ok(WrittenMoment { time, zone: None });
    }
    WrittenMoment::parse(text, now, zone).map_err(|why| {
        Error::config(format!("{option}: {text:?}: {why}"))
            .hint(format!("give {FORMS}; or a span back from now: 2h, 7d"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn between(since: Option<&str>, until: Option<&str>) -> Result<ChangesRequest> {
        let now = "2025-01-31T14:20:00Z".parse().unwrap();
        ChangesRequest::all(None).between(since, until, now, &TimeZone::UTC)
    }

    #[test]
    fn times_are_moments_or_spans_back_from_now() {
        let request = between(Some("2h"), Some("14:10")).unwrap();
        let times = [request.since, request.until].map(|moment| moment.unwrap().to_string());
        assert_eq!(times, ["2025-01-31T12:20:00Z", "2025-01-31T14:10:00+00:00 (UTC)"]);
    }

    #[test]
    fn times_that_are_none_or_in_the_wrong_order_are_refused_with_a_hint() {
        let error = between(Some("soon"), None).unwrap_err();
        assert_eq!(
            (error.code(), &*error.message()),
            (Code::Config, "--since: \"soon\": it is no time")
        );
        assert!(
            error.hint_text().contains("2025-01-31 14:02:59"),
            "{}",
            error.hint_text()
        );
        // In the evening of the day before.
        let error = between(Some("14:00"), Some("15:00")).unwrap_err();
        assert!(
            error
                .message()
                .contains("is later than --until 2025-01-30T15:00:00+00:00"),
            "{error}"
        );
        for limit in [0, MOST + 1] {
            let error = ChangesRequest::all(None).limited(limit).unwrap_err();
            assert_eq!(error.code(), Code::Config);
        }
    }
}
