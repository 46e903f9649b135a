//! The restore itself, which compares every block with the manifest while it passes. It is divided into steps by the
//! role that makes the objects.

mod rows;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::cluster::{Cluster, ClusterLogin, Ground};
use super::evidence::{Says, Witness};
use super::exclusion::DrillExclusion;
use super::makers::{Known, Maker, Makers, gives_the_systems, is_ground, is_of_events};
use super::{Job, sequences};
use crate::error::{Error, Result};
use crate::format::archive::Item;
use crate::job::restore::{Loader, Plan};
use crate::postgres::RestoreProgram;
use crate::repository::catalog::Located;
use crate::repository::stored_archive::StoredArchive;
use crate::run::private_folder::{PrivateFolder, answering};

/// How the restore proceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Several jobs at once, up to the first failure.
    Quick,
    /// One entry after the other, also after failures. An entry that fails then fails by itself: no other session
    /// blocked it, and the order of loading is not the cause.
    Careful,
}

/// How a restore ended, if this machine did not prevent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// Everything that is not excluded is made.
    Whole,
    /// The same, but a failed entry, which is named, may have left something.
    WithRemains(String),
    /// Something failed that may succeed with the careful pace, with the error.
    Doubtful(String),
}

/// Why a step did not end.
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

/// Entries to make.
#[derive(Clone, Copy)]
struct Work<'a> {
    /// Of the list in a file.
    name: &'a str,
    list: &'a [i64],
    jobs: usize,
}

impl<'a> Work<'a> {
    fn of(name: &'a str, list: &'a [i64], jobs: usize) -> Self {
        Self { name, list, jobs }
    }
}

/// What the server says about the objects that only a superuser can make.
async fn known(cluster: &Cluster<'_>, ground: &Ground) -> Result<Known> {
    let session = &ground.session;
    Ok(Known {
        languages: session.trusted_languages().await?,
        inert_languages: session.inert_languages().await?,
        guarded_settings: session.guarded_settings().await?,
        native_functions: session.native_functions().await?,
        keeps_files: cluster.keeps_files(),
    })
}

/// The tools of a restore in a drill.
struct Hands<'a> {
    cluster: &'a Cluster<'a>,
    ground: &'a Ground,
    by_loader: Loader<'a>,
    by_superuser: Loader<'a>,
    /// How many lists have this name: each needs a name of its own.
    lists: Mutex<HashMap<String, usize>>,
}

impl Hands<'_> {
    /// The first list of a step has the plain name.
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

    /// The superuser evaluates no code of the backup, and while it works, no other session is open.
    async fn make(&self, maker: Maker, step: &str, list: &[i64], jobs: usize) -> Result<()> {
        let step = self.name(step);
        if maker != Maker::Superuser {
            return self.by_loader.finish(&step, list, jobs).await;
        }
        self.cluster.raise(self.ground).await?;
        let made = self.by_superuser.finish(&step, list, jobs).await;
        match self.cluster.lower(self.ground).await {
            Ok(()) => made,
            // The first failure gives the reason.
            Err(error) => made.and(Err(error)),
        }
    }
}

impl Refill<'_> {
    /// Loads rows and evaluates checks as a role that is no superuser. An error is about this machine. Entries that
    /// cannot be made are added to the exclusion.
    pub async fn run(&self, cluster: &Cluster<'_>, ground: &Ground, exclusion: &mut DrillExclusion<'_>) -> Result<End> {
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

    async fn fill(&self, hands: &Hands<'_>, exclusion: &mut DrillExclusion<'_>) -> Result<(), Halt> {
        let (cluster, ground) = (hands.cluster, hands.ground);
        let jobs = self.jobs();
        let (first, before) = self.divide(&self.plan.before, is_ground);
        leave_unmade(&Makers::of(self.items, &Known::default()), &first, exclusion);
        self.step(hands, Maker::Superuser, Work::of("first", &first, 1), exclusion)
            .await?;
        let makers = Makers::of(self.items, &known(cluster, ground).await?);
        leave_unmade(&makers, &before, exclusion);
        leave_unmade(&makers, &self.plan.after, exclusion);
        // Event triggers may be in several parts of the archive.
        let (events, before) = self.divide(&before, is_of_events);
        let (later_events, after) = self.divide(&self.plan.after, is_of_events);
        let events = [events, later_events].concat();
        let closed = cluster.open_schemas(ground).await?;
        self.by_both(hands, &makers, Work::of("before", &before, 1), exclusion)
            .await?;
        exclusion.leave_out_orphans(&ground.session).await?;
        self.data(hands, jobs, exclusion).await?;
        // The positions of sequences are set. Code that is evaluated from here on may take numbers from them.
        let moving = sequences::Moving::of_archive(self.items);
        let stood = match moving.is_nothing() {
            true => Vec::new(),
            false => ground.session.sequence_positions().await?,
        };
        let (grants, after) = self.divide(&after, Item::is_grant);
        let (late_grants, grants) = self.divide(&grants, gives_the_systems);
        let of_refreshes = with_dependents(self.items, "MATERIALIZED VIEW DATA");
        let (refreshes, after) = self.divide(&after, |item| of_refreshes.contains(&item.entry.dump_id));
        self.by_both(hands, &makers, Work::of("after", &after, jobs), exclusion)
            .await?;
        ground.session.end_others().await?;
        ground.session.close_schemas(&closed).await?;
        self.step(hands, Maker::Superuser, Work::of("grants", &grants, jobs), exclusion)
            .await?;
        if !refreshes.is_empty() {
            // A query may take numbers from a sequence, which has its position from the backup now.
            let stood = ground.session.sequence_positions().await?;
            // A view reads with the rights of its owner, which may come from a grant.
            self.step(hands, Maker::Loader, Work::of("refreshes", &refreshes, jobs), exclusion)
                .await?;
            ground.session.end_others().await?;
            ground.session.reset_sequences(&stood).await?;
        }
        self.step(
            hands,
            Maker::Superuser,
            Work::of("late-grants", &late_grants, 1),
            exclusion,
        )
        .await?;
        self.by_both(hands, &makers, Work::of("events", &events, 1), exclusion)
            .await?;
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
        work: Work<'_>,
        exclusion: &mut DrillExclusion<'_>,
    ) -> Result<(), Halt> {
        let Work { name, list, jobs } = work;
        for (maker, run) in &makers.runs(list) {
            let jobs = if *maker == Maker::Superuser { 1 } else { jobs };
            self.step(hands, *maker, Work::of(name, run, jobs), exclusion).await?;
        }
        Ok(())
    }

    /// Makes the entries. If one fails, it is left out with everything that needs it, and the rest is made.
    async fn step(
        &self,
        hands: &Hands<'_>,
        maker: Maker,
        work: Work<'_>,
        exclusion: &mut DrillExclusion<'_>,
    ) -> Result<(), Halt> {
        let Work { name, list, jobs } = work;
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
            // pg_restore works in the order of the list, so the entries before this one are made.
            list = exclusion.remaining(&list[at + 1..]);
        }
        Ok(())
    }

    /// If a failure is about no entry, the careful pace cannot give a better answer.
    fn doubt(&self, error: Error) -> Halt {
        match self.pace {
            Pace::Quick => Halt::Doubt(error),
            Pace::Careful => Halt::Place(error),
        }
    }

    async fn weigh(&self, since: u64, error: &Error, id: Option<i64>, exclusion: &DrillExclusion<'_>) -> Option<Says> {
        let item = id.and_then(|id| exclusion.item(id));
        self.witness.judge(since, error, item, &exclusion.excuses(item)).await
    }

    /// Divides the list into the entries for which this holds and the others.
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

    fn restorer<'a>(
        &'a self,
        way: &'a ClusterLogin<'a>,
        program: &'a RestoreProgram,
        folder: &'a PrivateFolder,
    ) -> Loader<'a> {
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

/// Leaves out the entries that neither role may make.
fn leave_unmade(makers: &Makers, list: &[i64], exclusion: &mut DrillExclusion<'_>) {
    for (id, why) in makers.unmade(&exclusion.remaining(list)) {
        // It may have been left out already, with an entry that it needs.
        if exclusion.knows(id) {
            exclusion.leave_out(id, why);
        }
    }
}

/// Notes the result for an entry that failed by itself.
fn settle(id: i64, says: Says, error: Error, exclusion: &mut DrillExclusion<'_>) -> Result<(), Halt> {
    match says {
        // No other session was open, so the conflict comes from this machine.
        Says::Contended => return Err(Halt::Place(error)),
        Says::Lacking(why) => exclusion.leave_out(id, &why),
        Says::Wrong(fault) => exclusion.blame(id, fault),
    }
    Ok(())
}

/// The entry that pg_restore names. Only the first one in the message is certainly pg_restore's own.
fn entry_of(error: &Error) -> Option<i64> {
    const ENTRY: &str = ": from TOC entry ";
    let message = error.message();
    let at = message.find(ENTRY)? + ENTRY.len();
    message[at..].split(';').next()?.parse().ok()
}

/// All entries of this kind, and everything that needs them.
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
