//! The restore proper, which holds every block against the manifest as it passes. It is taken apart by who
//! makes what.

mod rows;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::cluster::{Cluster, Ground, Way};
use super::evidence::{Says, Witness};
use super::exclusion::Exclusion;
use super::makers::{Known, Maker, Makers, gives_the_systems, is_ground, is_of_events};
use super::{Job, sequences};
use crate::error::{Error, Result};
use crate::format::archive::Item;
use crate::job::restore::{Loader, Plan};
use crate::postgres::RestoreProgram;
use crate::repository::catalog::Located;
use crate::repository::stored_archive::StoredArchive;
use crate::run::private_folder::{PrivateFolder, answering};

/// How it is gone about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// By several at once, and to the first failure.
    Quick,
    /// One after the other, past what fails. What fails then fails by itself: no session stood in another's way,
    /// and no order of loading was the cause.
    Careful,
}

/// How a refill ended that nothing of this place kept from its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// All is made that is not excluded.
    Whole,
    /// The same, but what failed may have left something behind: what that was.
    WithRemains(String),
    /// Something failed that may go well with more care: how.
    Doubtful(String),
}

/// What keeps a step from its end.
enum Halt {
    Place(Error),
    Doubt(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Place(error)
    }
}

pub(super) struct Refill<'a> {
    pub job: &'a Job<'a>,
    pub located: &'a Located,
    pub stored: &'a Arc<StoredArchive>,
    pub items: &'a [Item],
    pub plan: &'a Plan,
    pub major: u32,
    pub witness: &'a Witness<'a>,
    pub pace: Pace,
}

/// What a refill works with.
struct Hands<'a> {
    cluster: &'a Cluster<'a>,
    ground: &'a Ground,
    by_loader: Loader<'a>,
    by_superuser: Loader<'a>,
    /// How often there was a list of this name: none may be there twice.
    lists: Mutex<HashMap<String, usize>>,
}

impl Hands<'_> {
    /// The first of a step has the plain name.
    fn name(&self, step: &str) -> String {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lists.entry(step.to_owned()).or_default();
        let name = match *before {
            0 => step.to_owned(),
            number => format!("{step}-{number}"),
        };
        *before += 1;
        name
    }

    /// Evaluates nothing of the backup's as superuser; while that one is at work, nothing else is.
    async fn make(&self, maker: Maker, step: &str, list: &[i64], jobs: usize) -> Result<()> {
        let step = self.name(step);
        if maker != Maker::Superuser {
            return self.by_loader.finish(&step, list, jobs).await;
        }
        self.cluster.raise(self.ground).await?;
        let made = self.by_superuser.finish(&step, list, jobs).await;
        match self.cluster.lower(self.ground).await {
            Ok(()) => made,
            // What failed first says why.
            Err(error) => made.and(Err(error)),
        }
    }
}

impl Refill<'_> {
    /// Row by row and check by check as a role that is no superuser. An error is of the place. What cannot be
    /// made joins the exclusion.
    pub async fn run(&self, cluster: &Cluster<'_>, ground: &Ground, exclusion: &mut Exclusion<'_>) -> Result<End> {
        let before = exclusion.excluded().len();
        let (program, folder) = self.tools().await?;
        let loading = cluster.loader(ground);
        let ruling = cluster.superuser(ground);
        let hands = Hands {
            cluster,
            ground,
            by_loader: self.restorer(&loading, &program, &folder),
            by_superuser: self.restorer(&ruling, &program, &folder),
            lists: Mutex::default(),
        };
        let known = exclusion.excluded().clone();
        match self.fill(&hands, exclusion).await {
            Ok(()) if exclusion.excluded().len() == before => Ok(End::Whole),
            Ok(()) => {
                let mut new = exclusion.excluded().difference(&known);
                let remains = new.find(|id| exclusion.may_leave_something(**id));
                let name = |id: &i64| {
                    exclusion
                        .item(*id)
                        .map_or_else(String::new, |item| item.entry.to_string())
                };
                Ok(remains.map_or(End::Whole, |id| End::WithRemains(name(id))))
            }
            Err(Halt::Doubt(error)) => Ok(End::Doubtful(error.message())),
            Err(Halt::Place(error)) => Err(error),
        }
    }

    async fn fill(&self, hands: &Hands<'_>, exclusion: &mut Exclusion<'_>) -> Result<(), Halt> {
        let (cluster, ground) = (hands.cluster, hands.ground);
        let jobs = self.jobs();
        let (first, before) = self.divide(&self.plan.before, is_ground);
        leave_unmade(&Makers::of(self.items, &Known::default()), &first, exclusion);
        self.step(hands, Maker::Superuser, "first", &first, 1, exclusion)
            .await?;
        let makers = Makers::of(
            self.items,
            &Known {
                languages: ground.session.trusted_languages().await?,
                inert_languages: ground.session.inert_languages().await?,
                guarded_settings: ground.session.guarded_settings().await?,
                native_functions: ground.session.native_functions().await?,
                keeps_files: cluster.keeps_files(),
            },
        );
        leave_unmade(&makers, &before, exclusion);
        leave_unmade(&makers, &self.plan.after, exclusion);
        // Wherever the archive has them.
        let (events, before) = self.divide(&before, is_of_events);
        let (later_events, after) = self.divide(&self.plan.after, is_of_events);
        let events = [events, later_events].concat();
        let closed = cluster.open_schemas(ground).await?;
        self.by_both(hands, &makers, "before", &before, 1, exclusion).await?;
        exclusion.leave_out_orphans(&ground.session).await?;
        self.data(hands, jobs, exclusion).await?;
        // Where sequences stand is set. What is evaluated from here on may take numbers, if anything does.
        let moving = sequences::Moving::of_archive(self.items);
        let stood = match moving.is_nothing() {
            true => Vec::new(),
            false => ground.session.sequence_positions().await?,
        };
        let (grants, after) = self.divide(&after, Item::is_grant);
        let (late_grants, grants) = self.divide(&grants, gives_the_systems);
        let of_refreshes = with_dependents(self.items, "MATERIALIZED VIEW DATA");
        let (refreshes, after) = self.divide(&after, |item| of_refreshes.contains(&item.entry.dump_id));
        self.by_both(hands, &makers, "after", &after, jobs, exclusion).await?;
        ground.session.end_others().await?;
        ground.session.close_schemas(&closed).await?;
        self.step(hands, Maker::Superuser, "grants", &grants, jobs, exclusion)
            .await?;
        if !refreshes.is_empty() {
            // A query may take numbers from a sequence, which stood where the backup says.
            let stood = ground.session.sequence_positions().await?;
            // A view reads as its owner, who may do so by a grant.
            self.step(hands, Maker::Loader, "refreshes", &refreshes, jobs, exclusion)
                .await?;
            ground.session.end_others().await?;
            ground.session.reset_sequences(&stood).await?;
        }
        self.step(hands, Maker::Superuser, "late-grants", &late_grants, 1, exclusion)
            .await?;
        self.by_both(hands, &makers, "events", &events, 1, exclusion).await?;
        ground.session.end_others().await?;
        let moved: Vec<_> = stood.into_iter().filter(|at| moving.may_move(at.name())).collect();
        if !moved.is_empty() {
            ground.session.reset_sequences(&moved).await?;
        }
        Ok(())
    }

    async fn by_both(
        &self,
        hands: &Hands<'_>,
        makers: &Makers,
        name: &str,
        list: &[i64],
        jobs: usize,
        exclusion: &mut Exclusion<'_>,
    ) -> Result<(), Halt> {
        for (maker, run) in &makers.runs(list) {
            let jobs = if *maker == Maker::Superuser { 1 } else { jobs };
            self.step(hands, *maker, name, run, jobs, exclusion).await?;
        }
        Ok(())
    }

    /// What fails is left out, with what needs it, and the rest is made.
    async fn step(
        &self,
        hands: &Hands<'_>,
        maker: Maker,
        name: &str,
        list: &[i64],
        jobs: usize,
        exclusion: &mut Exclusion<'_>,
    ) -> Result<(), Halt> {
        let mut list = exclusion.remaining(list);
        let jobs = match self.pace {
            Pace::Quick => jobs,
            Pace::Careful => 1,
        };
        while !list.is_empty() {
            let since = self.witness.mark();
            let Err(error) = hands.make(maker, name, &list, jobs).await else {
                return Ok(());
            };
            let at = entry_of(&error).and_then(|id| list.iter().position(|one| *one == id));
            let id = at.map(|at| list[at]);
            let Some(says) = self.weigh(since, &error, id, exclusion).await else {
                return Err(Halt::Place(error));
            };
            let (Pace::Careful, Some(at)) = (self.pace, at) else {
                return Err(self.doubt(error));
            };
            settle(list[at], says, error, exclusion)?;
            // It works in the list's order, one after the other: what stands before is made.
            list = exclusion.remaining(&list[at + 1..]);
        }
        Ok(())
    }

    /// Of a failure that is about no entry, more care gives no better answer.
    fn doubt(&self, error: Error) -> Halt {
        match self.pace {
            Pace::Quick => Halt::Doubt(error),
            Pace::Careful => Halt::Place(error),
        }
    }

    async fn weigh(&self, since: u64, error: &Error, id: Option<i64>, exclusion: &Exclusion<'_>) -> Option<Says> {
        let item = id.and_then(|id| exclusion.item(id));
        self.witness.judge(since, error, item, &exclusion.excuses(item)).await
    }

    /// Those of the list for whom this holds, and the others.
    fn divide(&self, list: &[i64], holds: impl Fn(&Item) -> bool) -> (Vec<i64>, Vec<i64>) {
        let chosen = self.items.iter().filter(|item| holds(item));
        let chosen: HashSet<i64> = chosen.map(|item| item.entry.dump_id).collect();
        list.iter().partition(|id| chosen.contains(id))
    }

    async fn tools(&self) -> Result<(RestoreProgram, PrivateFolder)> {
        let settings = &self.job.settings.postgres;
        let version = (self.stored.head.version.major, self.stored.head.version.minor);
        let program = RestoreProgram::find(version, self.major, settings).await?;
        Ok((program, answering(&settings.temp, PrivateFolder::watched).await?))
    }

    fn jobs(&self) -> usize {
        self.job.settings.jobs.max(self.job.settings.threads)
    }

    fn restorer<'a>(&'a self, way: &'a Way<'a>, program: &'a RestoreProgram, folder: &'a PrivateFolder) -> Loader<'a> {
        Loader {
            store: &self.located.store,
            archive: self.stored,
            program,
            info: &way.info,
            passfile: Some(way.passfile),
            settings: &self.job.settings.postgres,
            folder,
            no_owner: false,
            no_privileges: false,
            no_tablespaces: true,
            stop: self.job.stop,
            observer: self.job.observer,
            reads_again: false,
            watch: None,
            silent: None,
        }
    }
}

/// What nobody makes, because of what it is.
fn leave_unmade(makers: &Makers, list: &[i64], exclusion: &mut Exclusion<'_>) {
    for (id, why) in makers.unmade(&exclusion.remaining(list)) {
        // With another that it needs, perhaps.
        if exclusion.knows(id) {
            exclusion.leave_out(id, why);
        }
    }
}

/// What follows for the entry that failed by itself.
fn settle(id: i64, says: Says, error: Error, exclusion: &mut Exclusion<'_>) -> Result<(), Halt> {
    match says {
        // There was no other session.
        Says::Contended => return Err(Halt::Place(error)),
        Says::Lacking(why) => exclusion.leave_out(id, &why),
        Says::Wrong(fault) => exclusion.blame(id, fault),
    }
    Ok(())
}

/// The entry that pg_restore says it was at: what it says first is its own.
fn entry_of(error: &Error) -> Option<i64> {
    const ENTRY: &str = ": from TOC entry ";
    let message = error.message();
    let at = message.find(ENTRY)? + ENTRY.len();
    message[at..].split(';').next()?.parse().ok()
}

/// What is of this kind, and all that needs it.
pub(super) fn with_dependents(items: &[Item], kind: &str) -> HashSet<i64> {
    let of_kind = items.iter().filter(|item| item.entry.desc == kind);
    let mut found: HashSet<i64> = of_kind.map(|item| item.entry.dump_id).collect();
    loop {
        let needs = |item: &&Item| item.details.dependencies.iter().any(|id| found.contains(id));
        let more: Vec<i64> = items
            .iter()
            .filter(needs)
            .map(|item| item.entry.dump_id)
            .filter(|id| !found.contains(id))
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn the_entry_is_the_one_that_pg_restore_was_at_and_no_other() {
        let error = |text: &str| Error::new(Code::RestoreErr, text);
        let first =
            "pg_restore failed with exit status 1: from TOC entry 215; 1259 16385 TABLE t x: could not execute query: ";
        let forged = format!("{first}ERROR:  must be superuser: from TOC entry 7; 0 0 TABLE u");
        assert_eq!(entry_of(&error(&forged)), Some(215));
        assert_eq!(
            entry_of(&error("pg_restore failed with exit status 1: must be superuser")),
            None
        );
    }
}
