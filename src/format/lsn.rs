//! A position in a server's log, as PostgreSQL writes it: two hexadecimal numbers, `16/B374D848`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// On one server and timeline, positions have the order of the changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// The text is not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position in a server's log, such as 16/B374D848")]
pub struct NoLsn;

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

impl FromStr for Lsn {
    type Err = NoLsn;

    fn from_str(text: &str) -> Result<Self, NoLsn> {
        let half = |digits: &str| {
            let is_hex = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let (high, low) = text.split_once('/').ok_or(NoLsn)?;
        match (half(high), half(low)) {
            (Some(high), Some(low)) => Ok(Self((high << 32) | low)),
            _ => Err(NoLsn),
        }
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_is_read_as_postgresql_writes_it() {
        assert_eq!("16/B374D848".parse(), Ok(Lsn(0x16_B374_D848)));
        assert_eq!("0/0".parse(), Ok(Lsn(0)));
        for odd in ["", "/", "0", "0/", "/0", "0/+1", "0/g", "0/0/0", "123456789/0", " 0/0"] {
            assert_eq!(odd.parse::<Lsn>(), Err(NoLsn), "{odd:?}");
        }
    }

    proptest! {
        #[test]
        fn any_position_comes_back(number: u64) {
            prop_assert_eq!(Lsn(number).to_string().parse(), Ok(Lsn(number)));
        }
    }
}
