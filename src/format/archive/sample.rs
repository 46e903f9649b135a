//! Entries for tests.

use super::TocEntry;
use super::contents::{Item, Section};
use super::head::Details;

impl Item {
    /// An entry among the definitions.
    pub(crate) fn sample(id: i64, desc: &str, tag: &str) -> Self {
        Self {
            entry: TocEntry {
                dump_id: id,
                desc: desc.into(),
                tag: tag.into(),
                ..TocEntry::default()
            },
            section: Section::PreData,
            details: Details::default(),
        }
    }

    pub(crate) fn in_schema(mut self, schema: &str) -> Self {
        self.entry.namespace = Some(schema.into());
        self
    }

    pub(crate) fn defined(mut self, definition: &str) -> Self {
        self.details.definition = definition.into();
        self
    }

    pub(crate) fn needing(mut self, dependencies: &[i64]) -> Self {
        self.details.dependencies = dependencies.into();
        self
    }
}
