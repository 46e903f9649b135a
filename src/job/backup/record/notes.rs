//! What a person should know about the backup.

use crate::postgres::FOREIGN_TABLE;
use crate::repository::manifest::Omission;

/// The most names of one kind in a warning.
const NAMED: usize = 5;

#[derive(Default)]
pub(super) struct Notes {
    pub warnings: Vec<String>,
    /// Objects of the database that the backup does not hold.
    pub left_out: Vec<Omission>,
}

impl Notes {
    pub fn warn(&mut self, warning: String) {
        tracing::warn!("{warning}");
        self.warnings.push(warning);
    }

    /// Messages of a pg_dump that succeeded.
    pub fn complaints(&mut self, complaints: Vec<String>) {
        for one in complaints {
            if !self.warnings.contains(&one) {
                self.warn(one);
            }
        }
    }

    /// Warns once of each kind, except of foreign tables: everybody expects that their rows are left out.
    pub fn left_out(&mut self, things: impl IntoIterator<Item = Omission>) {
        let things: Vec<Omission> = things.into_iter().collect();
        for of_a_kind in things.chunk_by(|one, next| (&one.kind, &one.why) == (&next.kind, &next.why)) {
            let Omission { kind, why, .. } = &of_a_kind[0];
            if kind != FOREIGN_TABLE {
                // The last entry may be a number of further ones.
                let counted = |one: &Omission| one.name.strip_suffix(" more").and_then(|count| count.parse().ok());
                let all: usize = of_a_kind.iter().map(|one| counted(one).unwrap_or(1)).sum();
                let mut names: Vec<&str> = of_a_kind.iter().take(NAMED).map(|one| one.name.as_str()).collect();
                let more = format!("{} more", all.saturating_sub(NAMED));
                names.extend((of_a_kind.len() > NAMED).then_some(more.as_str()));
                self.warn(format!(
                    "left out: {} {}: {why}",
                    kind.replace('_', " "),
                    names.join(", ")
                ));
            }
        }
        self.left_out.extend(things);
    }
}
