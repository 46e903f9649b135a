//! The table of contents in full: what a restore chooses from.

use super::head::Details;
use super::{ArchiveError, Entry, Head, Loading};

/// The phases in which a restore creates things: definitions, data, and what is better made when
/// the data is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    PreData,
    Data,
    PostData,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub entry: Entry,
    /// Where pg_restore counts it. An entry that is written without a section (a comment, a
    /// grant) belongs to that of the entries before it.
    pub section: Section,
    pub details: Details,
}

impl Item {
    /// The definition as it was written, in the database's encoding.
    pub fn definition(&self) -> &[u8] {
        let details = &self.details;
        details
            .definition_bytes
            .as_deref()
            .unwrap_or(details.definition.as_bytes())
    }

    /// Grants come last in a restore, so that none of them stands in its way.
    pub fn is_grant(&self) -> bool {
        matches!(self.entry.desc.as_str(), "ACL" | "DEFAULT ACL" | "ACL LANGUAGE")
    }

    /// What every restore needs and no list can leave out: encoding and the like.
    pub fn is_setting(&self) -> bool {
        matches!(self.entry.desc.as_str(), "ENCODING" | "STDSTRINGS" | "SEARCHPATH")
    }

    /// Whether it belongs to the database itself, which pg_restore touches with `--create` alone.
    pub fn is_of_database(&self) -> bool {
        matches!(self.entry.desc.as_str(), "DATABASE" | "DATABASE PROPERTIES")
            || (matches!(self.entry.desc.as_str(), "ACL" | "COMMENT" | "SECURITY LABEL")
                && self.entry.tag.starts_with("DATABASE "))
    }
}

/// All entries, in the archive's order.
pub fn contents(head: &Head) -> Result<Vec<Item>, ArchiveError> {
    let mut section = Section::PreData;
    let entries = head.read_entries()?;
    let items = entries.into_iter().map(|(entry, details)| {
        section = match details.section {
            2 => Section::PreData,
            3 => Section::Data,
            4 => Section::PostData,
            _ => section,
        };
        Item {
            entry,
            section,
            details,
        }
    });
    Ok(items.collect())
}

impl Loading<'_> {
    /// Whether it loads another table than the entry's own: the root of its partitions.
    pub fn is_through_another(&self, entry: &Entry) -> bool {
        self.path() != entry.path()
    }
}
