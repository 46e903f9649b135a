//! Makes the definitions of a script a second time, over pgstow's own session: without rows and without psql.

use crate::error::Result;
use crate::format::archive::Item;
use crate::format::script::Contents;
use crate::job::drill::Job;
use crate::job::drill::cluster::{Cluster, Ground};
use crate::postgres::Session;
use crate::repository::catalog::Located;

/// Runs as the role that ran the script. The inner `Err`: why it cannot be made.
pub(super) async fn make(
    job: &Job<'_>,
    cluster: &Cluster<'_>,
    located: &Located,
    (first, creation): (&Ground, &[Item]),
    backup: &Contents,
) -> Result<std::result::Result<Ground, String>> {
    if located.manifest.server.encoding != "UTF8" {
        return Ok(Err("its encoding is not UTF-8".into()));
    }
    let ground = cluster.second_ground(first, creation, &located.manifest).await?;
    cluster.open_for_script(&ground).await?;
    let way = cluster.loader(&ground);
    let session = Session::connect_to_our_own(&way.info, &job.settings.postgres).await?;
    for (what, statements) in parts(backup) {
        for statement in statements.unwrap_or_default() {
            let Ok(statement) = std::str::from_utf8(statement) else {
                return Ok(Err(format!("{what} is not UTF-8 text")));
            };
            if let Err(error) = session.execute(statement).await {
                return Ok(Err(format!("{what}: {}", error.message())));
            }
        }
        if statements.is_none() {
            return Ok(Err(format!("{what} is too long")));
        }
    }
    session.close().await;
    cluster.close_for_script(&ground).await?;
    Ok(Ok(ground))
}

/// The settings at the start of the script, and the definitions of each part.
fn parts(backup: &Contents) -> impl Iterator<Item = (String, Option<&[Vec<u8>]>)> {
    let settings = ("the settings".to_owned(), Some(&backup.settings[..]));
    let definitions = backup.definitions.iter();
    let definitions = definitions.map(|one| (one.header.to_string(), one.statements.as_deref()));
    std::iter::once(settings).chain(definitions)
}
