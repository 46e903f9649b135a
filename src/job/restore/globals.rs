//! The roles of the backup's cluster, made before anything that they own.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::LeftOut;
use super::ready::{Target, some_of};
use super::state::State;
use crate::error::{Code, Error, Result};
use crate::postgres::quoting::identifier;
use crate::postgres::{GlobalsPlan, Powers, Session, statements};
use crate::repository::manifest::{Manifest, role};
use crate::repository::stored_archive::{file_of, read_file};
use crate::store::Store;

/// `globals.sql`, or why the backup has none.
pub(crate) async fn read(store: &dyn Store, manifest: &Manifest) -> Result<Bytes> {
    if let Some(why) = manifest.missing.get(role::GLOBALS) {
        return Err(
            Error::config(format!("--globals: the backup holds no roles: {why}")).hint("make the roles by hand first")
        );
    }
    read_file(store, &manifest.id, file_of(manifest, role::GLOBALS)?).await
}

/// What it would do on this server. Nothing is changed yet.
pub(crate) async fn plan(session: &Session, sql: &[u8], powers: Powers) -> Result<GlobalsPlan> {
    session.plan_globals(&statements(sql), powers).await
}

/// Roles that something in the backup needs: they must exist or be made.
pub(super) fn check(target: &Target, plan: &GlobalsPlan, needed: &BTreeSet<String>) -> Result<()> {
    let lacking: Vec<String> = needed
        .iter()
        .filter(|role| !target.found.roles.contains_key(*role))
        .cloned()
        .collect();
    let makes = plan.makes();
    let unknown: Vec<String> = lacking.iter().filter(|role| !makes.contains(role)).cloned().collect();
    if !unknown.is_empty() {
        return Err(Error::new(
            Code::RestoreErr,
            format!(
                "the target lacks roles that own things, have grants or are named by policies in the backup, and \
                 --globals makes none of them: {}",
                some_of(&unknown, unknown.len() as u64)
            ),
        )
        .hint(WITHOUT));
    }
    if lacking.is_empty() || target.found.is_superuser || target.found.may_create_roles {
        return Ok(());
    }
    let user = &target.session.server().user;
    Err(Error::new(
        Code::Permission,
        format!(
            "the role {user} may not make the roles that the target lacks: {}",
            some_of(&lacking, lacking.len() as u64)
        ),
    )
    .hint(format!("ALTER ROLE {} CREATEROLE; or {WITHOUT}", identifier(user))))
}

const WITHOUT: &str = "make the roles by hand, or leave out what names them: --no-owner, --no-privileges, --exclude \
                       POLICY, --exclude USER-MAPPING";

/// Makes the roles. Reports what could not be done, and what was done and gives rights over the server. A role that
/// is not a superuser can only give objects to roles that it is a member of: it joins the roles that it made, or only
/// those that will own something, if they are known.
pub(super) async fn apply(
    target: &Target,
    plan: &GlobalsPlan,
    owners: Option<&BTreeSet<String>>,
    state: &State,
) -> Result<Vec<String>> {
    let session = &target.session;
    let applied = session.apply_globals(plan).await?;
    state.roles(&applied.made);
    let powers = applied.privileged.iter();
    let powers = powers.map(|sql| format!("as --globals-privileged asked: {sql}"));
    let mut told: Vec<String> = applied.notes.into_iter().chain(powers).collect();
    if target.found.is_superuser {
        return Ok(told);
    }
    let user = identifier(&session.server().user);
    for role in joined(&applied.made, owners).map(|role| identifier(role)) {
        told.push(match session.execute(&format!("GRANT {role} TO {user}")).await {
            Ok(()) => format!(
                "{user} was made a member of {role}, to give it what it owned: REVOKE {role} FROM {user} ends that"
            ),
            Err(error) => format!("GRANT {role} TO {user}: {}", error.message()),
        });
    }
    Ok(told)
}

/// The new roles that a role which is not a superuser joins.
fn joined<'a>(made: &'a [String], owners: Option<&'a BTreeSet<String>>) -> impl Iterator<Item = &'a String> {
    made.iter()
        .filter(move |role| owners.is_none_or(|owners| owners.contains(*role)))
}

/// The steps in words that contain no values.
pub(super) fn steps(target: &Target, plan: &GlobalsPlan, owners: Option<&BTreeSet<String>>) -> Vec<String> {
    let is_superuser = target.found.is_superuser;
    let mut steps: Vec<String> = plan.steps(is_superuser).collect();
    if !is_superuser {
        let user = identifier(&target.session.server().user);
        let made = plan.makes();
        let joined = joined(&made, owners).map(|role| identifier(role));
        steps.extend(joined.map(|role| format!("GRANT {role} TO {user}, to give it what it owned")));
    }
    steps
}

/// Statements that are not run, for the report.
pub(super) fn left_out(plan: &GlobalsPlan) -> impl Iterator<Item = LeftOut> {
    plan.left_out.iter().chain(&plan.kept).map(|one| LeftOut {
        what: format!("globals.sql: {}", one.what),
        why: one.why.clone(),
    })
}
