//! The drill of a plain dump.

use std::sync::Arc;

use super::cluster::Cluster;
use super::evidence::Says;
use super::{DrillReport, Job, report};
use crate::catalog::Located;
use crate::error::{Code, Result};
use crate::manifest::role;
use crate::postgres::Psql;
use crate::restore::{self, LeftOut};
use crate::verify::Finding;

/// A plain dump proves no more than that it runs: the manifest says nothing of its tables.
pub(super) async fn run(
    job: &Job<'_>,
    located: &Located,
    cluster: &Cluster<'_>,
    report: &mut DrillReport,
) -> Result<()> {
    job.observer.phase("running the script in the throwaway server");
    let settings = &job.settings.postgres;
    let manifest = &located.manifest;
    report.not_proved.push(LeftOut {
        what: "rows".into(),
        why: "a plain dump's manifest says nothing of its tables".into(),
    });
    let file = manifest.files.get(role::SQL).map_or("", |file| &file.name);
    let checked = match restore::script::check(&located.store, manifest, job.observer).await {
        Ok(checked) => Arc::new(checked),
        // No server has seen it yet: this is what the script says.
        Err(error) if error.code() == Code::RestoreErr => {
            let what = format!("it does not run: {}", error.message());
            report.problems.push(Finding::of_file(file, what));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let ground = cluster.ground(&[], manifest).await?;
    let psql = Psql::find(ground.session.server().major, settings).await?;
    cluster.open_for_script(&ground).await?;
    let way = cluster.loader(&ground);
    let place = restore::script::Place {
        psql: &psql,
        info: &way.info,
        passfile: Some(way.passfile),
        settings,
        stop: job.stop,
        observer: job.observer,
    };
    report.not_proved.extend(ground.not_proved.iter().cloned());
    let since = cluster.witness.mark();
    let Err(error) = restore::script::run(&place, &checked)
        .await
        .map_err(|failed| failed.error)
    else {
        report.ran = true;
        return Ok(());
    };
    match cluster.witness.judge(since, &error, None, false).await {
        // It is one transaction: nothing of it is there.
        Some(Says::Lacking(why)) => Err(report::nothing_proved(&why)),
        Some(Says::Wrong(fault)) => {
            report.blame(file, "the script", &fault);
            Ok(())
        }
        Some(Says::Contended) | None => Err(error),
    }
}
