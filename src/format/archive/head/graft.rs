//! Entries of another archive's table of contents, put into this one.

use std::collections::HashMap;

use super::super::ArchiveError;
use super::super::input::encode_int;
use super::entry::Details;
use super::{DATA, Head, TocEntry};

/// An entry to take over, byte for byte but for its number and the entries that it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graft {
    /// Its dump id in the other archive.
    pub of: i64,
    pub dump_id: i64,
    pub dependencies: Vec<i64>,
    pub place: Place,
}

/// Where an entry comes among those that are there. pg_restore keeps this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Behind all definitions that come before the rows.
    BeforeRows,
    /// Before the first foreign key: it may need an index that is taken over.
    BeforeKeys,
    Last,
}

impl Head {
    /// With entries of `other`, in the order in which they are given. `needed`: what entries that are there depend on as
    /// well, by their dump ids. `None`: another version of pg_dump wrote `other`, in another
    /// form. The offsets are no longer right.
    pub fn grafted(
        &self,
        other: &Head,
        grafts: &[Graft],
        needed: &HashMap<i64, Vec<i64>>,
    ) -> Result<Option<Head>, ArchiveError> {
        let (form, of_other) = (self.form(), other.form());
        if (form.int_size, form.offset_size, form.version.minor)
            != (of_other.int_size, of_other.offset_size, of_other.version.minor)
        {
            return Ok(None);
        }
        let entries = self.read_entries()?;
        let first = |is: &dyn Fn(&(TocEntry, Details)) -> bool| {
            let found = entries.iter().find(|entry| is(entry));
            found.map_or(self.bytes.len(), |(_, details)| details.begins_at)
        };
        let at = |place| match place {
            Place::BeforeRows => first(&|(_, details)| details.section >= DATA),
            Place::BeforeKeys => first(&|(entry, _)| entry.desc == "FK CONSTRAINT"),
            Place::Last => self.bytes.len(),
        };
        let theirs: HashMap<i64, Details> = other
            .read_entries()?
            .into_iter()
            .map(|(entry, details)| (entry.dump_id, details))
            .collect();
        let mut edits = Vec::new();
        for place in [Place::BeforeRows, Place::BeforeKeys, Place::Last] {
            let mut written = Vec::new();
            for graft in grafts.iter().filter(|graft| graft.place == place) {
                let Some(details) = theirs.get(&graft.of) else { continue };
                other.copy_entry(graft, details, &mut written);
            }
            edits.push((at(place)..at(place), written));
        }
        for (entry, details) in &entries {
            if let Some(more) = needed.get(&entry.dump_id) {
                let end = details.dependencies_at.end;
                edits.push((end..end, self.written_dependencies(more)));
            }
        }
        self.spliced(edits, self.entries + grafts.len()).map(Some)
    }

    fn copy_entry(&self, graft: &Graft, details: &Details, out: &mut Vec<u8>) {
        encode_int(graft.dump_id, self.int_size, out);
        let after_id = details.begins_at + 1 + self.int_size;
        out.extend_from_slice(&self.bytes[after_id..details.dependencies_at.start]);
        out.extend(self.written_dependencies(&graft.dependencies));
        out.extend_from_slice(&self.bytes[details.dependencies_at.end..details.ends_at]);
    }

    fn written_dependencies(&self, dependencies: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        for dependency in dependencies {
            let text = dependency.to_string();
            encode_int(text.len() as i64, self.int_size, &mut out);
            out.extend_from_slice(text.as_bytes());
        }
        out
    }
}
