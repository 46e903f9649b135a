//! The name of a stream's replication slot, and the names of its publications.
//!
//! A slot's name is unique in its cluster, and a publication's in its database. Several databases of a cluster may be
//! backed up, and one database to several stores, each with a stream of its own. So the name is made from the primary
//! store's URL and the database's name. After the store has moved, the old slot has a name that no store gives any
//! more; it is still found by its form.

use std::fmt;

use sha2::{Digest, Sha256};

use super::PublicationKind;

const PREFIX: &str = "pgstow_";
/// Hexadecimal digits after the prefix.
const DIGITS: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(String);

impl SlotName {
    /// `store` is the URL of the primary store, as [`Store::url`](crate::store::Store::url) gives it.
    pub fn of(store: &str, database: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(store.trim_end_matches('/'));
        digest.update([0]);
        digest.update(database);
        let digits = hex::encode(digest.finalize());
        Self(format!("{PREFIX}{}", &digits[..DIGITS]))
    }

    /// The name of a slot, if it has the form of pgstow's names.
    pub fn parse(slot: &str) -> Option<Self> {
        let digits = slot.strip_prefix(PREFIX)?;
        let is_digit = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        (digits.len() == DIGITS && digits.bytes().all(is_digit)).then(|| Self(slot.to_owned()))
    }

    /// The stream to which a publication belongs, if it has the form of pgstow's names.
    pub fn of_publication(name: &str) -> Option<(Self, PublicationKind)> {
        [PublicationKind::All, PublicationKind::Inserts]
            .into_iter()
            .find_map(|kind| Some((Self::parse(name.strip_suffix(suffix(kind))?)?, kind)))
    }

    pub fn slot(&self) -> &str {
        &self.0
    }

    pub fn publications(&self) -> [String; 2] {
        [PublicationKind::All, PublicationKind::Inserts].map(|kind| self.publication(kind))
    }

    pub fn publication(&self, kind: PublicationKind) -> String {
        format!("{}{}", self.0, suffix(kind))
    }
}

fn suffix(kind: PublicationKind) -> &'static str {
    match kind {
        PublicationKind::All => "_all",
        PublicationKind::Inserts => "_inserts",
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let name = SlotName::of("s3://bucket/prefix", "app");
        assert_eq!(SlotName::parse(name.slot()), Some(name.clone()));
        assert_eq!(name, SlotName::of("s3://bucket/prefix/", "app"));
        assert_ne!(name, SlotName::of("s3://bucket/prefix", "app2"));
        assert_ne!(name, SlotName::of("s3://bucket/other", "app"));
        for kind in [PublicationKind::All, PublicationKind::Inserts] {
            let publication = name.publication(kind);
            assert_eq!(SlotName::of_publication(&publication), Some((name.clone(), kind)));
            // What PostgreSQL allows for a name.
            assert!(publication.len() < 64);
        }
        for other in ["", "pgstow_", "pgstow_x", "pgstow_0123456789abcdeF", "pgstow_0123456789abcdef0"] {
            assert_eq!(SlotName::parse(other), None);
        }
        assert_eq!(SlotName::of_publication(name.slot()), None);
    }
}
