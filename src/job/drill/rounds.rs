//! Restores several times, until it is known which entries restore and which fail by their own fault.

use std::sync::Arc;

use super::Job;
use super::cluster::{Cluster, Ground};
use super::evidence::Witness;
use super::exclusion::DrillExclusion;
use super::refill::{End, Pace, Refill};
use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::{self, Plan, Without};
use crate::repository::catalog::Located;
use crate::repository::stored_archive::StoredArchive;

/// The most rounds. Each uses a new database. The second round finds almost all failures.
const ROUNDS: usize = 10;

pub(super) struct Rounds<'a> {
    pub job: &'a Job<'a>,
    pub located: &'a Located,
    pub stored: &'a Arc<StoredArchive>,
    pub items: &'a [Item],
    pub major: u32,
    pub witness: &'a Witness<'a>,
}

impl Rounds<'_> {
    /// Plans each table in one part, so that the rows come in the backup's order.
    pub fn plan(&self, exclusion: &DrillExclusion<'_>) -> Plan {
        restore::plan(self.stored, self.items, &exclusion.chosen(), Without::default(), 1)
    }

    /// Returns the database with everything that restores. Entries that failed are excluded, as wrong or as not proved.
    pub async fn run(&self, cluster: &Cluster<'_>, exclusion: &mut DrillExclusion<'_>) -> Result<Ground> {
        let manifest = &self.located.manifest;
        let mut ground = cluster.ground(self.items, manifest).await?;
        let mut pace = Pace::Quick;
        let mut last = String::new();
        exclusion.set_place(ground.locale.clone(), ground.withheld.clone());
        for _ in 0..ROUNDS {
            let refill = Refill {
                job: self.job,
                located: self.located,
                stored: self.stored,
                items: self.items,
                plan: &self.plan(exclusion),
                major: self.major,
                witness: self.witness,
                pace,
            };
            match refill.run(cluster, &ground, exclusion).await? {
                End::Whole => return Ok(ground),
                End::WithRemains(what) => last = format!("{what} did not restore, and may have left something"),
                End::Doubtful(how) => {
                    pace = Pace::Careful;
                    last = how;
                }
            }
            // Use a new database: the comparison could not explain objects that a failed round left.
            ground = cluster.ground_again(ground, self.items, manifest).await?;
        }
        Err(no_end(&last))
    }
}

fn no_end(last: &str) -> Error {
    let text = format!(
        "the drill did not end: pgstow restored {ROUNDS} times, and more failed each time; the last failure: {last}"
    );
    Error::new(Code::NotProved, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::drill::evidence::not_carried_out;

    #[test]
    fn a_restore_without_end_says_what_was_tried_last_and_nothing_of_the_backup() {
        let told = not_carried_out(&no_end("TABLE t did not restore"));
        assert_eq!(told.code(), Code::NotProved);
        assert!(told.message().contains("10 times") && told.message().ends_with("TABLE t did not restore"));
        assert!(!told.hint_text().contains("bug"), "{}", told.hint_text());
    }
}
