//! Makes the new database, and what belongs to it.

use std::time::Duration;

use super::denied::DeniedSetting;
use super::ready::Target;
use super::state::{Exchange, Milestone, State};
use super::{database, unfinished};
use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::postgres::{self, ConnectionInfo, Session};
use crate::settings;

/// How many temporary names are tried. The server has one lock for names of one hash.
const NAMES: usize = 5;
/// How often a new database is looked at until the restore's own sessions have left it, and the pause in between.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);

/// A database that this run makes.
pub(super) struct New {
    /// Its temporary name, if it replaces another.
    pub beside: Option<String>,
    /// What could not be set.
    pub notes: Vec<String>,
}

/// What the new database is made from.
pub(super) struct Source<'a> {
    pub items: &'a [Item],
    pub denied: &'a [DeniedSetting],
}

/// Makes the database with the settings under which its data was written.
pub(super) async fn make(target: &Target, source: &Source<'_>, request: &RestoreRequest, state: &State) -> Result<New> {
    let items = source.items;
    let replaces = target.exists && request.clean;
    let beside = match replaces {
        true => Some(claimed(target).await?),
        false => None,
    };
    let name = beside.as_deref().unwrap_or(target.name());
    let mut creation = database::creation(items, name)?;
    if request.no_tablespaces {
        creation = database::without_tablespace(&creation);
    }
    let mut notes = unfinished::sweep(target, request.clean).await?;
    if beside.is_some() {
        creation = unfinished::closed(&creation);
    }
    state.set(Milestone::Making {
        database: Some(name.to_owned()),
    });
    let created = target.session.execute(&creation).await;
    // A server that refuses it (a locale or a tablespace is missing, or another run has made it) has made nothing.
    if created.as_ref().is_err_and(|error| error.code() != Code::ConnErr) {
        state.set(Milestone::Untouched);
    }
    created?;
    if beside.is_none() {
        state.made();
    }
    let furnished = async {
        if let Some(beside) = &beside {
            unfinished::open(target, beside).await?;
        }
        furnish(target, source, request, name).await
    };
    let furnished: Result<Vec<String>> = furnished.await;
    match furnished {
        Ok(more) => {
            notes.extend(more);
            Ok(New { beside, notes })
        }
        Err(error) => {
            if let Some(beside) = &beside {
                discard(target, beside, state).await;
            }
            Err(error)
        }
    }
}

/// A temporary name, claimed before the database exists, so that no other run takes it for an unfinished one.
async fn claimed(target: &Target) -> Result<String> {
    for _ in 0..NAMES {
        let beside = database::beside(target.name());
        if target.session.claim(&beside).await? {
            return Ok(beside);
        }
    }
    let what = format!("the new database has no name: other sessions hold the locks of {NAMES} names that were tried");
    Err(Error::new(Code::RestoreErr, what).hint("run it again"))
}

/// Grants, settings and the owner, as far as objects in the database depend on them.
async fn furnish(target: &Target, source: &Source<'_>, request: &RestoreRequest, name: &str) -> Result<Vec<String>> {
    let items = source.items;
    if !target.found.is_superuser && !request.no_privileges {
        for grant in database::grants(items, name) {
            // They are made again at the end, and failures are reported then.
            drop(target.session.execute(&grant).await);
        }
    }
    let mut notes = Vec::new();
    for statement in database::properties(items, name, false).settings {
        // These are in the report already.
        if source.denied.iter().any(|one| one.is(&statement)) {
            continue;
        }
        match target.session.execute(&statement).await {
            Err(error) if error.code() == Code::ConnErr => return Err(error),
            done => notes.extend(note(statement, done)),
        }
    }
    // As pg_restore does: `public` belongs to the database's owner, who may then own objects there. A superuser does
    // not need that right. A role that would lose its own rights over the database gives it away at the end.
    if let Some(owner) = database::owner(items).filter(|_| !request.no_owner)
        && !target.found.is_superuser
        && target.session.stands_for(owner).await?
    {
        match target.session.execute(&giving(name, owner)).await {
            Err(error) if error.code() == Code::ConnErr => return Err(error),
            // It is given again at the end, and a failure is reported then.
            given => drop(given),
        }
    }
    Ok(notes)
}

/// How the new database is reached under its temporary name. `None` if one can only log in under the final name.
pub(super) async fn apart(
    info: &ConnectionInfo,
    beside: &str,
    settings: &settings::Postgres,
) -> Option<ConnectionInfo> {
    let mut apart = info.clone();
    apart.dbname = Some(beside.to_owned());
    let session = Session::connect(&apart, settings).await.ok()?;
    // PostgreSQL cannot rename a database that is in use.
    session.close().await;
    Some(apart)
}

/// Some extensions can only be made in a database of one name.
pub(super) fn explained(error: Error, target: &Target) -> Error {
    if error.code() != Code::RestoreErr {
        return error;
    }
    let first = match error.has_own_hint() {
        true => error.hint_text().to_owned(),
        false => "correct the cause, and run it again".to_owned(),
    };
    let name = postgres::quoting::identifier(target.name());
    error.hint(format!(
        "{first}; an extension that needs this name of the database, such as pg_cron, needs the old one to be renamed \
         first: ALTER DATABASE {name} RENAME TO another; then restore with --create alone"
    ))
}

/// Removes a new database that did not replace the old one.
pub(super) async fn discard(target: &Target, beside: &str, state: &State) {
    let force = if target.session.server().major >= 13 {
        " WITH (FORCE)"
    } else {
        ""
    };
    let unused = format!("DROP DATABASE {}{force}", postgres::quoting::identifier(beside));
    if target.session.execute(&unused).await.is_ok() {
        state.set(Milestone::Untouched);
    }
}

/// Removes the new database of a restore that failed before it made anything in it. If others have made something there,
/// or are in it, it stays.
pub(super) async fn take_back(target: &Target, settings: &settings::Postgres, state: &State) {
    let Ok(session) = Session::connect(&target.info, settings).await else {
        return;
    };
    // Without that, others could make something between the look and the removal.
    if target.session.execute(&door(target, false)).await.is_err() {
        return session.close().await;
    }
    let is_unused = is_empty(&session).await.unwrap_or(false);
    session.close().await;
    let unused = format!("DROP DATABASE {}", postgres::quoting::identifier(target.name()));
    if is_unused && target.session.execute(&unused).await.is_ok() {
        state.set(Milestone::TakenBack);
    }
}

/// Lets others in again, if the new database stays.
pub(super) async fn open_door(target: &Target) {
    let opening = door(target, true);
    if let Err(error) = target.session.execute(&opening).await {
        tracing::warn!("others may not connect to the new database: {error}; `{opening}` lets them");
    }
}

fn door(target: &Target, is_open: bool) -> String {
    let name = postgres::quoting::identifier(target.name());
    format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {is_open}")
}

/// Whether nobody else is in the database of this session, which nobody can enter, and nothing was made in it. The
/// restore's own sessions are about to end.
async fn is_empty(session: &Session) -> Result<bool> {
    for _ in 0..LOOKS {
        if session.is_alone().await? {
            return Ok(session.survey_target().await?.objects == 0);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(false)
}

fn giving(database: &str, owner: &str) -> String {
    let (database, owner) = (
        postgres::quoting::identifier(database),
        postgres::quoting::identifier(owner),
    );
    format!("ALTER DATABASE {database} OWNER TO {owner}")
}

/// Gives the new database the name of the old one, which is removed.
pub(super) async fn replace(target: &Target, beside: &str, request: &RestoreRequest, state: &State) -> Result<()> {
    let (session, name) = (&target.session, target.name());
    let quoted = postgres::quoting::identifier(name);
    let exchange = Exchange {
        database: name.to_owned(),
        beside: beside.to_owned(),
        is_template: target.is_template,
    };
    state.set(Milestone::Placing(exchange.clone()));
    if target.is_template
        && let Err(error) = session.execute(&template(&quoted, false)).await
    {
        discard(target, beside, state).await;
        return Err(error);
    }
    // A session in the new database would prevent renaming it. The database is ours, so its sessions are ended.
    let end = format!(
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
          WHERE datname OPERATOR(pg_catalog.=) {}",
        postgres::quoting::literal(beside)
    );
    let _ = session.execute(&end).await;
    if let Err(error) = unfinished::keep(target, beside).await {
        return Err(given_up(error, target, &exchange, state).await);
    }
    state.set(Milestone::Removing {
        exchange: exchange.clone(),
        removed: false,
    });
    let force = if request.force { " WITH (FORCE)" } else { "" };
    let removed = session.execute(&format!("DROP DATABASE {quoted}{force}")).await;
    if let Err(error) = removed {
        // Without an answer the old database may be gone, and the new one may be the only one left.
        if error.code() != Code::ConnErr && session.is_whole(name).await.unwrap_or(false) {
            // The server refused it.
            return Err(given_up(error, target, &exchange, state).await);
        }
        return Err(error);
    }
    let renaming = exchange.renaming();
    state.set(Milestone::Removing {
        exchange,
        removed: true,
    });
    if session.execute(&renaming).await.is_err() {
        // A session has connected in between.
        let _ = session.execute(&end).await;
        session.execute(&renaming).await?;
    }
    unfinished::placed(target).await;
    Ok(())
}

fn template(quoted: &str, is: bool) -> String {
    format!("ALTER DATABASE {quoted} WITH IS_TEMPLATE {is}")
}

/// The error, when the old database is a template again and the new one is removed. What fails of that is attached.
async fn given_up(error: Error, target: &Target, exchange: &Exchange, state: &State) -> Error {
    state.set(Milestone::Placing(exchange.clone()));
    let quoted = postgres::quoting::identifier(target.name());
    let restored = match exchange.is_template {
        true => target.session.execute(&template(&quoted, true)).await,
        false => Ok(()),
    };
    discard(target, &exchange.beside, state).await;
    if restored.is_err() {
        state.set(Milestone::Placing(exchange.clone()));
    }
    error.with_clean_up(restored)
}

/// The report of a refused statement. It does not contain the value of a setting.
fn note(statement: String, done: Result<()>) -> Option<String> {
    let error = done.err()?;
    let told = match database::setting(&statement) {
        Some(setting) => format!("the database's setting {setting} could not be set"),
        None => statement,
    };
    Some(format!("{told}: {}", error.message()))
}

/// Sets what belongs to the database itself. The data is committed, so failures are only reported.
pub(super) async fn set_up(target: &Target, items: &[Item], request: &RestoreRequest) -> Result<Vec<String>> {
    let name = target.name();
    let owner = database::owner(items).filter(|_| !request.no_owner);
    let owner = owner.map(|owner| giving(name, owner));
    let properties = database::properties(items, name, !request.no_privileges).others;
    let mut notes = Vec::new();
    for statement in owner.into_iter().chain(properties) {
        let done = target.session.execute(&statement).await;
        notes.extend(note(statement, done));
    }
    Ok(notes)
}
