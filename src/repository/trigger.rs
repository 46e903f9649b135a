//! What started a run, as manifests, options and events spell it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What started a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// A schedule, such as cron or EventBridge.
    Schedule,
    /// A person or a program that is none of the others.
    #[default]
    Manual,
    /// The HTTP API.
    Api,
    /// The command line.
    Cli,
}

impl Trigger {
    /// Every trigger.
    pub const ALL: [Trigger; 4] = [Trigger::Schedule, Trigger::Manual, Trigger::Api, Trigger::Cli];

    /// As manifests, options and events spell it.
    pub fn name(self) -> &'static str {
        match self {
            Trigger::Schedule => "schedule",
            Trigger::Manual => "manual",
            Trigger::Api => "api",
            Trigger::Cli => "cli",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is not a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoTrigger;

impl FromStr for Trigger {
    type Err = NoTrigger;

    fn from_str(text: &str) -> Result<Self, NoTrigger> {
        let known = Self::ALL.into_iter().find(|known| known.name() == text);
        known.ok_or(NoTrigger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_is_read_as_it_is_written() {
        for trigger in Trigger::ALL {
            assert_eq!(trigger.to_string().parse(), Ok(trigger));
            assert_eq!(serde_json::to_value(trigger).unwrap(), trigger.name());
        }
        assert_eq!("Cron".parse::<Trigger>(), Err(NoTrigger));
    }
}
