//! The restore proper, which holds every block against the manifest as it passes. It is taken apart by who
//! makes what.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::Job;
use super::cluster::{Cluster, Ground, Way};
use super::makers::{Known, Maker, Makers, gives_the_systems, is_ground};
use crate::archive::Item;
use crate::catalog::Located;
use crate::error::{Code, Error, Result};
use crate::postgres::RestoreProgram;
use crate::private_folder::PrivateFolder;
use crate::restore::{Loader, Plan};
use crate::stored_archive::StoredArchive;

/// How a refill that did not come to its end did end.
#[derive(Debug)]
pub(super) enum Ended {
    Failed(Error),
    /// By these entries, which a role that is no superuser may not make, each with the reason. What is said
    /// of them is all that follows from it: nothing is made by another role because of an error's words, which
    /// a function of the backup's may choose.
    Refused(Vec<(i64, String)>),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        match refused_entry(&error) {
            Some(id) => Ended::Refused(vec![(id, refused(&error))]),
            None => Ended::Failed(error),
        }
    }
}

pub(super) struct Refill<'a> {
    pub job: &'a Job<'a>,
    pub located: &'a Located,
    pub stored: &'a Arc<StoredArchive>,
    pub items: &'a [Item],
    pub plan: &'a Plan,
    pub major: u32,
}

impl Refill<'_> {
    /// Row by row and check by check as a role that is no superuser.
    pub async fn run(&self, cluster: &Cluster<'_>, ground: &Ground) -> Result<(), Ended> {
        let (program, folder) = self.tools().await?;
        let loading = cluster.loader(ground);
        let by_loader = self.restorer(&loading, &program, &folder);
        let ruling = cluster.superuser(ground);
        let by_superuser = self.restorer(&ruling, &program, &folder);
        let jobs = self.jobs();

        let (first, before) = self.divide(&self.plan.before, is_ground);
        all_made(&Makers::of(self.items, &Known::default()), &first)?;
        self.as_superuser(cluster, ground, &by_superuser, "first", &first, 1)
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
        all_made(&makers, &[&before[..], &self.plan.after].concat())?;
        let closed = cluster.open_schemas(ground).await?;
        let by_both = async |name: &str, list: &[i64], jobs: usize| {
            for (number, (maker, run)) in makers.runs(list).iter().enumerate() {
                let step = step(name, number);
                match maker {
                    Maker::Superuser => self.as_superuser(cluster, ground, &by_superuser, &step, run, 1).await?,
                    _ => by_loader.finish(&step, run, jobs).await?,
                }
            }
            Ok::<(), Error>(())
        };
        by_both("before", &before, 1).await?;
        by_loader.data(self.plan, jobs, &Mutex::default()).await?;
        let (grants, after) = self.divide(&self.plan.after, Item::is_grant);
        let (late_grants, grants) = self.divide(&grants, gives_the_systems);
        let of_events = with_dependents(self.items, "EVENT TRIGGER");
        let (events, after) = self.divide(&after, |item| of_events.contains(&item.entry.dump_id));
        let of_refreshes = with_dependents(self.items, "MATERIALIZED VIEW DATA");
        let (refreshes, after) = self.divide(&after, |item| of_refreshes.contains(&item.entry.dump_id));
        by_both("after", &after, jobs).await?;
        ground.session.end_others().await?;
        ground.session.close_schemas(&closed).await?;
        self.as_superuser(cluster, ground, &by_superuser, "grants", &grants, jobs)
            .await?;
        // A view reads as its owner, who may do so by a grant.
        by_loader.finish("refreshes", &refreshes, jobs).await?;
        // They run at every change of a definition, as whoever makes it: nothing is made after them.
        self.as_superuser(cluster, ground, &by_superuser, "events", &events, 1)
            .await?;
        self.as_superuser(cluster, ground, &by_superuser, "grants-1", &late_grants, 1)
            .await?;
        ground.session.end_others().await?;
        Ok(())
    }

    /// What evaluates nothing of the backup's; while it is at work, nothing else is.
    async fn as_superuser(
        &self,
        cluster: &Cluster<'_>,
        ground: &Ground,
        restorer: &Loader<'_>,
        step: &str,
        list: &[i64],
        jobs: usize,
    ) -> Result<()> {
        if list.is_empty() {
            return Ok(());
        }
        cluster.raise(ground).await?;
        let made = restorer.finish(step, list, jobs).await;
        cluster.lower(ground).await?;
        made
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

/// A refill begins only where all can be made.
fn all_made(makers: &Makers, list: &[i64]) -> Result<(), Ended> {
    let unmade = makers.unmade(list);
    if unmade.is_empty() {
        return Ok(());
    }
    let unmade = unmade.into_iter().map(|(id, why)| (id, why.to_owned()));
    Err(Ended::Refused(unmade.collect()))
}

/// Whether a role was refused what a superuser may. The server and pg_restore say so in words alone, and so
/// may a function of the backup's: it decides no more than whether something is missing or was not tried.
pub(super) fn is_refusal(error: &Error) -> bool {
    const WORDS: [&str; 8] = [
        "permission denied",
        "superuser",
        "must be owner of",
        "must be member of",
        "must be able to SET ROLE",
        "must have privileges of",
        "must have the ",
        "Only roles with",
    ];
    let message = error.message();
    error.code() == Code::RestoreErr && WORDS.iter().any(|words| message.contains(words))
}

pub(super) fn refused(error: &Error) -> String {
    format!("it wants a superuser, which a drill is not: {}", error.message())
}

/// The entry that pg_restore says it was at: what it says first is its own.
fn refused_entry(error: &Error) -> Option<i64> {
    const ENTRY: &str = ": from TOC entry ";
    let message = error.message();
    let at = message.find(ENTRY)? + ENTRY.len();
    let id = message[at..].split(';').next()?.parse().ok()?;
    is_refusal(error).then_some(id)
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

/// The first has the plain name.
fn step(name: &str, number: usize) -> String {
    match number {
        0 => name.to_owned(),
        _ => format!("{name}-{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_entry_that_pg_restore_was_at_and_no_other() {
        let error = |text: &str| Error::new(Code::RestoreErr, text);
        let of = |text: &str| match Ended::from(error(text)) {
            Ended::Refused(entries) => entries.first().map(|(id, _)| *id),
            Ended::Failed(_) => None,
        };
        let first =
            "pg_restore failed with exit status 1: from TOC entry 215; 1259 16385 TABLE t x: could not execute query: ";
        let refused = format!("{first}ERROR:  must be superuser | from TOC entry 7; 0 0 TABLE u");
        assert_eq!(of(&refused), Some(215));
        assert_eq!(of(&format!("{first}ERROR:  permission denied for table u")), Some(215));
        assert_eq!(of(&format!("{first}ERROR:  division by zero")), None);
        assert_eq!(of(&format!("{first}ERROR:  a price must be positive")), None);
        assert_eq!(of("pg_restore failed with exit status 1: must be superuser"), None);
        let integrity = Error::new(Code::Integrity, refused);
        assert!(matches!(Ended::from(integrity), Ended::Failed(_)));
    }
}
