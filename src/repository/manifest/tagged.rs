//! What became of the tags that a backup's files were to get in its store, as the store had shown it by the commit.

use serde::{Deserialize, Serialize};

use crate::store::TagKeeping;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tagged {
    /// The store took them, and has not shown that it keeps none.
    Set,
    Refused,
    Forgotten,
    /// By the settings they got none.
    Off,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

impl Tagged {
    /// Whether the store was given tags, or has shown that it keeps none: if the files bear none, it keeps none.
    pub fn should_show(self) -> bool {
        matches!(self, Self::Set | Self::Refused | Self::Forgotten)
    }
}

impl From<TagKeeping> for Tagged {
    fn from(keeping: TagKeeping) -> Self {
        match keeping {
            TagKeeping::Unknown | TagKeeping::Kept => Self::Set,
            TagKeeping::Refused => Self::Refused,
            TagKeeping::Forgotten => Self::Forgotten,
            TagKeeping::Off => Self::Off,
        }
    }
}
