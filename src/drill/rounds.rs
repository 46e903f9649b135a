//! Restoring as often as it takes to know what restores, and what by its own fault does not.

use std::sync::Arc;

use super::cluster::{Cluster, Ground};
use super::evidence::Witness;
use super::exclusion::Exclusion;
use super::refill::{End, Pace, Refill};
use super::{Job, report};
use crate::archive::Item;
use crate::catalog::Located;
use crate::error::{Error, Result};
use crate::restore::{self, Plan, Without};
use crate::stored_archive::StoredArchive;

/// Each begins in a new database. In the second almost everything is found that there is to find.
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
    /// In one part each, so that the rows can be found in the backup's own order.
    pub fn plan(&self, exclusion: &Exclusion<'_>) -> Plan {
        restore::plan(self.stored, self.items, &exclusion.chosen(), Without::default(), 1)
    }

    /// The database with all that restores. Whatever failed is excluded, as wrong or as not proved.
    pub async fn run(&self, cluster: &Cluster<'_>, exclusion: &mut Exclusion<'_>) -> Result<Ground> {
        let manifest = &self.located.manifest;
        let mut ground = cluster.ground(self.items, manifest).await?;
        let mut pace = Pace::Quick;
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
                End::WithRemains => {}
                End::Doubtful => pace = Pace::Careful,
            }
            // What was made of it already would be found later, and not known.
            ground = cluster.ground_again(ground, self.items, manifest).await?;
        }
        Err(match exclusion.not_proved.first() {
            Some(left) => report::nothing_proved(&format!("{}: {}", left.what, left.why)),
            None => Error::internal("a restore is begun again and again"),
        })
    }
}
