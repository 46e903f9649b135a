//! What a person should know of the backup.

use crate::postgres::FOREIGN_TABLE;
use crate::repository::manifest::LeftOut;

/// Names of one kind in a warning.
const NAMED: usize = 5;

#[derive(Default)]
pub(super) struct Notes {
    pub warnings: Vec<String>,
    /// What the backup has not of the database.
    pub left_out: Vec<LeftOut>,
}

impl Notes {
    pub fn warn(&mut self, warning: String) {
        tracing::warn!("{warning}");
        self.warnings.push(warning);
    }

    /// What pg_dump has said although all went well.
    pub fn complaints(&mut self, complaints: Vec<String>) {
        for one in complaints {
            if !self.warnings.contains(&one) {
                self.warn(one);
            }
        }
    }

    /// People are told of each kind once, unless it is what everybody expects.
    pub fn left_out(&mut self, things: impl IntoIterator<Item = LeftOut>) {
        let things: Vec<LeftOut> = things.into_iter().collect();
        for of_a_kind in things.chunk_by(|one, next| (&one.kind, &one.why) == (&next.kind, &next.why)) {
            let LeftOut { kind, why, .. } = &of_a_kind[0];
            if kind != FOREIGN_TABLE {
                // The last may stand for many.
                let counted = |one: &LeftOut| one.name.strip_suffix(" more").and_then(|count| count.parse().ok());
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
