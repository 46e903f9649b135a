//! What a killed run leaves beside the database that it was to replace, and how the next run knows that it is an
//! unfinished one of pgstow's, and that no live run uses it.
//!
//! A database that is made beside another refuses connections until it has a comment that says what it is; both are
//! set in one transaction. The session that makes it holds an advisory lock of its name. The comment changes before
//! the old database is removed: from then on the new one may be the only one left, and no run removes it.

use super::database;
use super::ready::Target;
use crate::error::{Code, Result};
use crate::postgres::quoting::{identifier, literal};

/// The comment while the old database exists.
fn unfinished(name: &str) -> String {
    format!("pgstow: an unfinished restore, to take the place of {name}")
}

/// The comment while the old database is removed.
fn finished(name: &str) -> String {
    format!("pgstow: a restore that takes the place of {name}, which is being removed")
}

/// Changes a statement that makes a database, so that it refuses connections.
pub(super) fn closed(creation: &str) -> String {
    format!(
        "{} ALLOW_CONNECTIONS = false",
        creation.trim_end().trim_end_matches(';')
    )
}

/// Sets the comment that says what it is, and allows connections.
pub(super) async fn open(target: &Target, beside: &str) -> Result<()> {
    let (quoted, comment) = (identifier(beside), literal(&unfinished(target.name())));
    let statements =
        format!("COMMENT ON DATABASE {quoted} IS {comment}; ALTER DATABASE {quoted} WITH ALLOW_CONNECTIONS true");
    target.session.execute(&statements).await
}

/// From now on no run removes it.
pub(super) async fn keep(target: &Target, beside: &str) -> Result<()> {
    let (quoted, comment) = (identifier(beside), literal(&finished(target.name())));
    let statement = format!("COMMENT ON DATABASE {quoted} IS {comment}");
    target.session.execute(&statement).await
}

/// The database has replaced the other; its own comment comes from the backup.
pub(super) async fn placed(target: &Target) {
    let statement = format!("COMMENT ON DATABASE {} IS NULL", identifier(target.name()));
    if let Err(error) = target.session.execute(&statement).await {
        tracing::warn!("{statement}: {}", error.message());
    }
}

/// With `--clean`, also if the target is absent now: removes what killed runs for this target have left, and reports
/// it; reports also what it does not remove.
pub(super) async fn sweep(target: &Target, clean: bool) -> Result<Vec<String>> {
    let (name, session) = (target.name(), &target.session);
    let (unfinished, finished) = (unfinished(name), finished(name));
    let beginning = database::beginning(name);
    let comments: &[&str] = &[&unfinished, &finished];
    let is_finished = |comment: Option<&str>| comment == Some(&*finished);
    let mut notes = Vec::new();
    for left in session.unfinished(&beginning, comments).await? {
        let quoted = identifier(&left.name);
        if is_finished(left.comment.as_deref()) {
            notes.push(may_be_the_only_one(&quoted, name));
            continue;
        }
        if !session.claim(&left.name).await? {
            notes.push(format!(
                "another restore is making the database {quoted}, to replace {name}"
            ));
            continue;
        }
        // Between the list and the claim, the run that made it may have continued, dropped the old database, and
        // ended. Under the claim no other run changes it.
        let now = session.unfinished(&beginning, comments).await?;
        if let Some(now) = now.iter().find(|now| now.name == left.name) {
            notes.push(match is_finished(now.comment.as_deref()) {
                true => may_be_the_only_one(&quoted, name),
                false => remove(target, &quoted, now.is_used, clean).await?,
            });
        }
        session.let_go(&left.name).await?;
    }
    Ok(notes)
}

/// Removes one that this run has claimed, unless something speaks against it; returns the warning.
async fn remove(target: &Target, quoted: &str, is_used: bool, clean: bool) -> Result<String> {
    let why = if is_used {
        Some("sessions are in it".to_owned())
    } else if !clean {
        Some("this restore is without --clean".to_owned())
    } else {
        match target.session.execute(&format!("DROP DATABASE {quoted}")).await {
            Err(error) if error.code() == Code::ConnErr => return Err(error),
            dropped => dropped.err().map(|error| error.message()),
        }
    };
    Ok(match why {
        None => format!("removed the database {quoted}, which an earlier restore had left unfinished"),
        Some(why) => format!(
            "an earlier restore left the database {quoted} unfinished, and it was not removed ({why}): run DROP \
             DATABASE {quoted}"
        ),
    })
}

fn may_be_the_only_one(quoted: &str, name: &str) -> String {
    format!(
        "the database {quoted} was made by a restore that was killed while it replaced {name}: look which of the two \
         you want, and rename or drop the other"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_beside_lets_nothing_in_at_first() {
        for creation in [
            "CREATE DATABASE \"a\" WITH TEMPLATE = template0;",
            "CREATE DATABASE \"a\" WITH TEMPLATE = template0",
        ] {
            let expected = "CREATE DATABASE \"a\" WITH TEMPLATE = template0 ALLOW_CONNECTIONS = false";
            assert_eq!(closed(creation), expected);
        }
        let name = database::beside("a");
        assert_eq!(name.len(), database::beginning("a").len() + 8);
        assert!(name.starts_with(&database::beginning("a")), "{name}");
        assert_ne!(unfinished("a"), finished("a"));
    }
}
