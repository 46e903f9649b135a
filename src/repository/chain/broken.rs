//! Why a run begins where it begins.

use std::collections::BTreeMap;
use std::fmt;

use super::Link;
use crate::format::Lsn;
use crate::repository::backup_id::BackupId;

/// Why there is no link before a run's first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Break {
    /// It is the first of its stream.
    Beginning,
    /// The increment before it is not in the store.
    Missing(BackupId),
    /// The increment before it cannot be used, and why.
    Unusable(BackupId, String),
    /// The increment that it names ends at `to`, and it begins at `from`.
    Apart { id: BackupId, to: Lsn, from: Lsn },
    /// The increment that it names is of another stream.
    OtherStream(BackupId),
    /// Another increment follows the same one, and reaches further.
    Forked(BackupId),
    /// It ends before it begins.
    Backwards,
}

/// The link before this one, or why there is none.
pub(super) fn predecessor<'a>(
    link: &Link,
    links: &'a BTreeMap<BackupId, Link>,
    unusable: &BTreeMap<BackupId, String>,
) -> Result<&'a Link, Break> {
    if link.stream.to < link.stream.from {
        return Err(Break::Backwards);
    }
    let Some(id) = &link.stream.predecessor else {
        return Err(Break::Beginning);
    };
    let Some(before) = links.get(id) else {
        return Err(match unusable.get(id) {
            Some(why) => Break::Unusable(id.clone(), why.clone()),
            None => Break::Missing(id.clone()),
        });
    };
    let (one, other) = (&before.stream, &link.stream);
    let is_same = one.id == other.id
        && one.system_identifier == other.system_identifier
        && (one.timeline, one.database_oid) == (other.timeline, other.database_oid);
    if !is_same {
        return Err(Break::OtherStream(id.clone()));
    }
    if one.to != other.from || one.to < one.from {
        return Err(Break::Apart {
            id: id.clone(),
            to: one.to,
            from: other.from,
        });
    }
    Ok(before)
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Break::Beginning => f.write_str("a new stream begins: its slot was made then"),
            Break::Missing(id) => write!(f, "{id}, the increment before it, is not in the store"),
            Break::Unusable(id, why) => write!(f, "{id}, the increment before it, cannot be used: {why}"),
            Break::Apart { id, to, from } => {
                write!(
                    f,
                    "{id}, the increment before it, ends at {to}, and it begins at {from}"
                )
            }
            Break::OtherStream(id) => write!(f, "{id}, the increment before it, is of another stream"),
            Break::Forked(id) => write!(f, "another increment follows {id} too, and reaches further"),
            Break::Backwards => f.write_str("its manifest says that it ends before it begins"),
        }
    }
}
