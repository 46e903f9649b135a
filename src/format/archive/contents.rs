//! The whole table of contents, from which a restore chooses.

use super::head::Details;
use super::{ArchiveError, Head, Loading, TocEntry};

/// The phases of a restore: definitions, data, and objects that are better made after the data (indexes, constraints).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    PreData,
    Data,
    PostData,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub entry: TocEntry,
    /// The section as pg_restore sees it. An entry without a section (a comment, a grant) belongs to the section of the
    /// entries before it.
    pub section: Section,
    pub details: Details,
}

impl Item {
    /// The definition as in the archive, in the database's encoding.
    pub fn definition(&self) -> &[u8] {
        let details = &self.details;
        details
            .definition_bytes
            .as_deref()
            .unwrap_or(details.definition.as_bytes())
    }

    /// Whether it is a partitioned table, which has no rows of its own. Archives that do not have the kind name an access
    /// method for each ordinary table, and none for a partitioned one.
    pub fn is_partitioned(&self) -> bool {
        let details = &self.details;
        let has_no_method = || details.access_method.as_deref().is_none_or(str::is_empty);
        self.entry.desc == "TABLE" && details.relation_kind.map_or_else(has_no_method, |kind| kind == b'p')
    }

    /// Grants come last in a restore, so that none of them can make it fail.
    pub fn is_grant(&self) -> bool {
        matches!(self.entry.desc.as_str(), "ACL" | "DEFAULT ACL" | "ACL LANGUAGE")
    }

    /// Whether every restore needs it, and no list may omit it: the encoding and the like.
    pub fn is_setting(&self) -> bool {
        matches!(self.entry.desc.as_str(), "ENCODING" | "STDSTRINGS" | "SEARCHPATH")
    }

    /// Whether it belongs to the database itself, which pg_restore changes only with `--create`.
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
    /// Whether it loads a different table than the entry's own: the root of its partitions.
    pub fn is_through_another(&self, entry: &TocEntry) -> bool {
        self.path() != entry.path()
    }
}
