//! The moment that a user asks for.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::repository::route::RecoveryTarget;
use crate::units::moment::{FORMS, WrittenMoment};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedMoment {
    pub target: RecoveryTarget,
    /// With the zone that was assumed, if the text names none.
    pub read_as: String,
}

impl AskedMoment {
    /// From `--to-time`: RFC 3339, or a time in this machine's zone.
    ///
    /// # Errors
    /// `CONFIG` if the text is no time, or one that the zone's clocks showed twice or never.
    pub fn at(text: &str, now: Timestamp) -> Result<Self> {
        let moment = WrittenMoment::parse(text, now, &TimeZone::system());
        let moment = moment.map_err(|why| {
            Error::config(format!("--to-time: {text:?}: {why}")).hint(format!("give one of these forms: {FORMS}"))
        })?;
        Ok(Self {
            target: RecoveryTarget::Time(moment.time),
            read_as: moment.to_string(),
        })
    }

    /// From `--to-lsn`.
    ///
    /// # Errors
    /// `CONFIG` if the text is no position.
    pub fn after(text: &str) -> Result<Self> {
        let lsn = text.trim().parse();
        let lsn = lsn.map_err(|why| {
            Error::config(format!("--to-lsn: {text:?} is {why}"))
                .hint("`pgstow changes` prints the positions of transactions")
        })?;
        let target = RecoveryTarget::Lsn(lsn);
        Ok(Self {
            read_as: target.to_string(),
            target,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn a_moment_is_a_time_or_a_position() {
        let now = "2025-01-31T14:20:00Z".parse().unwrap();
        let at = AskedMoment::at("2025-01-31T14:02:59Z", now).unwrap();
        assert_eq!(at.read_as, "2025-01-31T14:02:59Z");
        assert_eq!(
            AskedMoment::after("16/B374D848").unwrap().read_as,
            "the position 16/B374D848"
        );
        for refused in [AskedMoment::at("soon", now), AskedMoment::after("16")] {
            assert_eq!(refused.unwrap_err().code(), Code::Config);
        }
    }
}
