//! The restore proper, which holds every block against the manifest as it passes. It is taken apart by who
//! makes what.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::Job;
use super::cluster::{Cluster, Ground, Way};
use super::makers::{Known, Maker, Makers, is_ground};
use crate::archive::Item;
use crate::catalog::Located;
use crate::error::Result;
use crate::postgres::RestoreProgram;
use crate::private_folder::PrivateFolder;
use crate::restore::{Loader, Plan};
use crate::stored_archive::StoredArchive;

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
    pub async fn by_loader(&self, cluster: &Cluster<'_>, ground: &Ground) -> Result<()> {
        let (program, folder) = self.tools().await?;
        let loading = cluster.loader(ground);
        let by_loader = self.restorer(&loading, &program, &folder);
        let ruling = cluster.superuser(ground);
        let by_superuser = self.restorer(&ruling, &program, &folder);
        let jobs = self.jobs();

        let is_ground = |id: &i64| {
            self.items
                .iter()
                .any(|item| item.entry.dump_id == *id && is_ground(item))
        };
        let (first, before): (Vec<i64>, Vec<i64>) = self.plan.before.iter().partition(|id| is_ground(id));
        self.as_superuser(cluster, ground, &by_superuser, "first", &first, 1)
            .await?;
        let known = Known {
            languages: ground.session.trusted_languages().await?,
            guarded_settings: ground.session.guarded_settings().await?,
        };
        let makers = Makers::of(self.items, &known);
        let closed = cluster.open_schemas(ground).await?;
        for (number, (maker, run)) in makers.runs(&before).iter().enumerate() {
            let step = step("before", number);
            match maker {
                Maker::Loader => by_loader.finish(&step, run, 1).await?,
                Maker::Superuser => self.as_superuser(cluster, ground, &by_superuser, &step, run, 1).await?,
            }
        }
        by_loader.data(self.plan, jobs, &Mutex::default()).await?;
        let is_grant = |id: &i64| {
            self.items
                .iter()
                .any(|item| item.entry.dump_id == *id && item.is_grant())
        };
        let (grants, after): (Vec<i64>, Vec<i64>) = self.plan.after.iter().partition(|id| is_grant(id));
        let of_events = event_triggers(self.items);
        let (events, after): (Vec<i64>, Vec<i64>) = after.iter().partition(|id| of_events.contains(id));
        for (number, (maker, run)) in makers.runs(&after).iter().enumerate() {
            let step = step("after", number);
            match maker {
                Maker::Loader => by_loader.finish(&step, run, jobs).await?,
                Maker::Superuser => self.as_superuser(cluster, ground, &by_superuser, &step, run, 1).await?,
            }
        }
        ground.session.end_others().await?;
        ground.session.close_schemas(&closed).await?;
        self.as_superuser(cluster, ground, &by_superuser, "grants", &grants, jobs)
            .await?;
        // They run at every change of a definition, as whoever makes it: nothing is made after them.
        self.as_superuser(cluster, ground, &by_superuser, "events", &events, 1)
            .await
    }

    /// All of it as the superuser, for what no other can restore: the walls around the server are what
    /// is left then.
    pub async fn by_superuser(&self, cluster: &Cluster<'_>, ground: &Ground) -> Result<()> {
        let (program, folder) = self.tools().await?;
        let ruling = cluster.superuser(ground);
        let restorer = self.restorer(&ruling, &program, &folder);
        cluster.raise(ground).await?;
        restorer.definitions(&self.plan.before, false).await?;
        restorer.data(self.plan, self.jobs(), &Mutex::default()).await?;
        restorer.finish("after", &self.plan.after, self.jobs()).await
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

/// The event triggers, and what is said about them.
fn event_triggers(items: &[Item]) -> HashSet<i64> {
    let triggers = items.iter().filter(|item| item.entry.desc == "EVENT TRIGGER");
    let triggers: HashSet<i64> = triggers.map(|item| item.entry.dump_id).collect();
    let about = items
        .iter()
        .filter(|item| item.details.dependencies.iter().any(|id| triggers.contains(id)));
    about
        .map(|item| item.entry.dump_id)
        .chain(triggers.iter().copied())
        .collect()
}

/// The first has the plain name.
fn step(name: &str, number: usize) -> String {
    match number {
        0 => name.to_owned(),
        _ => format!("{name}-{number}"),
    }
}
