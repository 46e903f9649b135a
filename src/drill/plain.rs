//! The drill of a plain dump.

use std::sync::Arc;

use super::cluster::Cluster;
use super::refill::{is_refusal, refused};
use super::{DrillReport, Job, report};
use crate::catalog::Located;
use crate::error::{Code, Error, Result};
use crate::manifest::{Manifest, role};
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
    let checked = match restore::script::check(&located.store, manifest, job.observer).await {
        Ok(checked) => Arc::new(checked),
        Err(error) => return does_not_run(error, manifest, report),
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
    match restore::script::run(&place, &checked)
        .await
        .map_err(|failed| failed.error)
    {
        Ok(()) => {
            report.ran = true;
            Ok(())
        }
        // It is one transaction: nothing of it is there.
        Err(error) if is_refusal(&error) => Err(report::nothing_proved(&refused(&error))),
        Err(error) => does_not_run(error, manifest, report),
    }
}

/// The script is at fault, unless the error says that something else is.
fn does_not_run(error: Error, manifest: &Manifest, report: &mut DrillReport) -> Result<()> {
    if !matches!(error.code(), Code::RestoreErr | Code::Integrity) {
        return Err(error);
    }
    let file = manifest.files.get(role::SQL).map_or("", |file| &file.name);
    let what = format!("it does not run: {}", error.message());
    report.problems.push(Finding::of_file(file, what));
    Ok(())
}
