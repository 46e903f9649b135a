//! Whether a backup's files have their tags in the store, as far as the store had shown it by the commit.

use serde::{Deserialize, Serialize};

use crate::store::TagKeeping;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tagged {
    /// The store accepted the tags, and has not shown that it keeps none.
    Set,
    Refused,
    Forgotten,
    /// The settings say that pgstow sets no tags.
    Off,
    /// A value of a later version.
    #[serde(other)]
    Unknown,
}

impl Tagged {
    /// Whether the store was given tags, or has shown that it keeps none. If so, and the files have no tags, the
    /// store keeps none.
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
