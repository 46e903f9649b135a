//! When runs are due: lines of cron in a time zone. Pure functions of a moment; [`super::scheduler`] asks them.

mod civil;

use std::fmt;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::error::{Error, Result};
use civil::Moment;

/// A line of cron, as people write it: `0 2 * * *`.
#[derive(Clone)]
pub struct Line {
    text: String,
    cron: Cron,
    zone: TimeZone,
}

/// What a schedule asks for at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing until then. `None`: never again.
    Later(Option<Timestamp>),
    /// The run that was due then.
    Now(Timestamp),
    /// The same, so late that the run of that moment was missed.
    Missed(Timestamp),
}

/// A run that begins within this time after its moment is on time.
const ON_TIME: SignedDuration = SignedDuration::from_mins(2);

impl Line {
    /// Reads five fields, or six with the seconds first.
    ///
    /// # Errors
    /// `CONFIG`, with `name` for the setting.
    pub fn parse(name: &str, text: &str, zone: TimeZone) -> Result<Line> {
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(text).map_err(|error| {
            Error::config(format!("{name}: {text:?} is no line of cron: {error}"))
                .hint("give minute, hour, day, month and weekday: `0 2 * * *` is every night at two")
        })?;
        Ok(Line {
            text: text.to_owned(),
            cron,
            zone,
        })
    }

    /// The first moment after `after` at which it is due.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let from = Moment(after.to_zoned_datetime(self.zone.clone()));
        let found = self.cron.find_next_occurrence(&from, false).ok()?;
        Some(found.0.timestamp())
    }

    /// The last moment up to `now` at which it was due.
    pub fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let from = Moment(now.to_zoned_datetime(self.zone.clone()));
        let found = self.cron.find_previous_occurrence(&from, true).ok()?;
        Some(found.0.timestamp())
    }

    /// What it asks for `now`, where `done` is the last moment that was answered. However many moments were missed, it
    /// asks for one run. A clock that steps back asks for nothing twice.
    pub fn due(&self, done: Timestamp, now: Timestamp) -> Due {
        match self.last(now).filter(|last| *last > done) {
            None => Due::Later(self.next(now.max(done))),
            Some(last) if now.duration_since(last) <= ON_TIME => Due::Now(last),
            Some(last) => Due::Missed(last),
        }
    }

    /// The zone in which it is read.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {:?}", self.text, self.zone.iana_name())
    }
}

#[cfg(test)]
mod tests;
