//! The restore proper, which holds every block against the manifest as it passes. It is taken apart by who
//! makes what.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Job;
use super::cluster::{Cluster, Ground, Way};
use super::evidence::{Says, Witness};
use super::exclusion::Exclusion;
use super::makers::{Known, Maker, Makers, gives_the_systems, is_ground};
use crate::archive::Item;
use crate::catalog::Located;
use crate::error::{Error, Result};
use crate::postgres::RestoreProgram;
use crate::private_folder::PrivateFolder;
use crate::restore::{Load, Loader, Plan};
use crate::stored_archive::StoredArchive;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// All is made that is not excluded.
    Whole,
    /// The same, but what failed may have left something behind.
    WithRemains,
    /// Something failed that may go well with more care.
    Doubtful,
}

/// What keeps a step from its end.
enum Halt {
    Place(Error),
    Doubt,
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
                let remains = new.any(|id| exclusion.may_leave_something(*id));
                Ok(if remains { End::WithRemains } else { End::Whole })
            }
            Err(Halt::Doubt) => Ok(End::Doubtful),
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
        let closed = cluster.open_schemas(ground).await?;
        self.by_both(hands, &makers, "before", &before, 1, exclusion).await?;
        exclusion.leave_out_orphans(&ground.session).await?;
        self.data(hands, jobs, exclusion).await?;
        let (grants, after) = self.divide(&self.plan.after, Item::is_grant);
        let (late_grants, grants) = self.divide(&grants, gives_the_systems);
        let of_events = with_dependents(self.items, "EVENT TRIGGER");
        let (events, after) = self.divide(&after, |item| of_events.contains(&item.entry.dump_id));
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
        // They run at every change of a definition, as whoever makes it: nothing is made after them.
        self.step(hands, Maker::Superuser, "events", &events, 1, exclusion)
            .await?;
        ground.session.end_others().await?;
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
            Pace::Quick => Halt::Doubt,
            Pace::Careful => Halt::Place(error),
        }
    }

    async fn weigh(&self, since: u64, error: &Error, id: Option<i64>, exclusion: &Exclusion<'_>) -> Option<Says> {
        let item = id.and_then(|id| exclusion.item(id));
        let orphan = item.is_some_and(|item| exclusion.is_orphan(item));
        self.witness.judge(since, error, item, orphan).await
    }

    /// First all tables for whom order is nothing; then those whose checks call functions, which may look at others,
    /// one by one in the archive's order. What fails is tried again when others have come in, until none does: a
    /// table counts as wrong if it is that after all others.
    async fn data(&self, hands: &Hands<'_>, jobs: usize, exclusion: &mut Exclusion<'_>) -> Result<(), Halt> {
        let looking = looking_around(self.items);
        let looks = |load: &Load| load.list.iter().any(|id| looking.contains(id));
        let mut early = Vec::new();
        let mut late = Vec::new();
        for load in &self.plan.loads {
            if load.blocks.is_empty() {
                self.step(hands, Maker::Loader, "positions", &load.list, 1, exclusion)
                    .await?;
                continue;
            }
            if self.pace == Pace::Quick && !looks(load) && exclusion.remaining(&load.list).len() == load.list.len() {
                early.push(load.clone());
                continue;
            }
            for one in self.alone(load) {
                let to_do = exclusion.remaining(&one.list).len() == one.list.len();
                let list = match looks(&one) || self.pace == Pace::Careful {
                    true => &mut late,
                    false => &mut early,
                };
                list.extend(to_do.then_some(one));
            }
        }
        let order: HashMap<i64, usize> = self
            .items
            .iter()
            .enumerate()
            .map(|(at, item)| (item.entry.dump_id, at))
            .collect();
        let place = |load: &Load| load.list.first().and_then(|id| order.get(id)).copied();
        late.sort_by_key(|load| (looks(load), place(load)));
        let at_once = Plan {
            loads: early,
            ..Plan::default()
        };
        let since = self.witness.mark();
        if let Err(error) = hands.by_loader.data(&at_once, jobs, &Mutex::default()).await {
            let id = entry_of(&error);
            return Err(match self.weigh(since, &error, id, exclusion).await {
                Some(_) => self.doubt(error),
                None => Halt::Place(error),
            });
        }
        let mut number = at_once.loads.len();
        loop {
            let tried = late.len();
            let mut failed = Vec::new();
            for load in late {
                let since = self.witness.mark();
                number += 1;
                let loaded = hands.by_loader.load(number, &load, &CancellationToken::new()).await;
                if let Err(error) = loaded {
                    let id = entry_of(&error).filter(|id| load.list.contains(id));
                    let Some(says) = self.weigh(since, &error, id, exclusion).await else {
                        return Err(Halt::Place(error));
                    };
                    failed.push((load, id, says, error));
                }
            }
            if failed.is_empty() {
                return Ok(());
            }
            if failed.len() < tried {
                late = failed.into_iter().map(|(load, ..)| load).collect();
                continue;
            }
            for (_, id, says, error) in failed {
                let (Pace::Careful, Some(id)) = (self.pace, id) else {
                    return Err(self.doubt(error));
                };
                settle(id, says, error, exclusion)?;
            }
            return Ok(());
        }
    }

    /// The same, an entry at a time: each then fails alone, and can be tried again.
    fn alone(&self, load: &Load) -> Vec<Load> {
        let mut blocks = load.blocks.iter();
        let mut block = blocks.next();
        let mut loads = Vec::new();
        let mut list = Vec::new();
        for &id in &load.list {
            list.push(id);
            if let Some(&index) = block
                && self.stored.head.data[index].dump_id == id
            {
                loads.push(Load {
                    blocks: vec![index],
                    list: std::mem::take(&mut list),
                    part: load.part.clone(),
                    stored_bytes: 0,
                });
                block = blocks.next();
            }
        }
        loads
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
        Ok((program, PrivateFolder::watched(&settings.temp)?))
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

/// The rows of tables whose checks or generated columns call functions of the database's own, by themselves or by a
/// type: such a function may look at other tables, which must then be there before.
fn looking_around(items: &[Item]) -> HashSet<i64> {
    let kinds: HashMap<i64, &Item> = items.iter().map(|item| (item.entry.dump_id, item)).collect();
    let computes = |item: &Item| {
        matches!(item.entry.desc.as_str(), "TABLE" | "DOMAIN" | "TYPE")
            && ["CHECK (", "GENERATED ALWAYS AS ("]
                .iter()
                .any(|word| item.details.definition.contains(word))
    };
    let needs = |item: &Item, found: &HashSet<i64>| item.details.dependencies.iter().any(|id| found.contains(id));
    let functions = items
        .iter()
        .filter(|item| matches!(item.entry.desc.as_str(), "FUNCTION" | "OPERATOR" | "AGGREGATE"));
    let functions: HashSet<i64> = functions.map(|item| item.entry.dump_id).collect();
    let calls = items.iter().filter(|item| computes(item) && needs(item, &functions));
    let mut found: HashSet<i64> = calls.map(|item| item.entry.dump_id).collect();
    loop {
        // A table with a column of such a domain, or an heir.
        let passes_on = |item: &&Item| matches!(item.entry.desc.as_str(), "TABLE" | "DOMAIN" | "TYPE");
        let more = items.iter().filter(passes_on).filter(|item| needs(item, &found));
        let more: Vec<i64> = more
            .map(|item| item.entry.dump_id)
            .filter(|id| !found.contains(id))
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found.retain(|id| kinds.get(id).is_some_and(|item| item.entry.desc == "TABLE"));
    let rows = items
        .iter()
        .filter(|item| item.entry.desc == "TABLE DATA" && needs(item, &found));
    rows.map(|item| item.entry.dump_id).collect()
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
    use crate::archive::{Details, Entry, Section};
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

    #[test]
    fn tables_whose_checks_may_look_at_others_are_known_through_their_types_and_parents() {
        let item = |id, desc: &str, definition: &str, dependencies: &[i64]| Item {
            entry: Entry {
                dump_id: id,
                desc: desc.into(),
                ..Entry::default()
            },
            section: Section::PreData,
            details: Details {
                definition: definition.into(),
                dependencies: dependencies.into(),
                ..Details::default()
            },
        };
        let items = [
            item(1, "FUNCTION", "", &[]),
            item(2, "TABLE", "CREATE TABLE a (b int DEFAULT s.f());", &[1]),
            item(3, "TABLE", "CREATE TABLE b (CONSTRAINT c CHECK (s.f(a)));", &[1]),
            item(
                4,
                "DOMAIN",
                "CREATE DOMAIN d AS int CONSTRAINT c CHECK (s.f(VALUE));",
                &[1],
            ),
            item(5, "TABLE", "CREATE TABLE c (a s.d);", &[4]),
            item(6, "TABLE", "CREATE TABLE d (CONSTRAINT c CHECK ((a > 0)));", &[]),
            item(7, "TABLE", "CREATE TABLE e () INHERITS (b);", &[3]),
            item(12, "TABLE DATA", "", &[2]),
            item(13, "TABLE DATA", "", &[3]),
            item(15, "TABLE DATA", "", &[5]),
            item(16, "TABLE DATA", "", &[6]),
            item(17, "TABLE DATA", "", &[7]),
        ];
        assert_eq!(looking_around(&items), HashSet::from([13, 15, 17]));
    }
}
