//! What is asked for, held against itself: options that contradict each other, or would change nothing.

use super::into;
use crate::command::RestoreRequest;
use crate::error::{Error, Result};

pub(super) fn check(request: &RestoreRequest) -> Result<()> {
    if request.data_only && request.tables.is_empty() {
        return Err(
            Error::config("--data-only loads rows into tables that are there: it needs --table")
                .hint("name each table with --table SCHEMA.TABLE, or leave --data-only out"),
        );
    }
    if request.check && request.no_check {
        return Err(
            Error::config("--check compares the rows with the backup, and --no-check does not")
                .hint("leave one of the two out"),
        );
    }
    if request.globals_privileged && !request.globals {
        return Err(
            Error::config("--globals-privileged says how roles are made, and without --globals none are")
                .hint("give --globals too, or leave --globals-privileged out"),
        );
    }
    if request.create && (!request.tables.is_empty() || request.data_only) {
        return Err(
            Error::config("--create makes a whole database, --table restores single tables")
                .hint("make the database first, or restore everything into it"),
        );
    }
    has_effect(request)
}

/// Who gives an option expects something of it: one that would change nothing is refused.
fn has_effect(request: &RestoreRequest) -> Result<()> {
    let single = !request.tables.is_empty();
    let safe = request.data_only || request.into.is_some();
    for (idle, what, hint) in [
        (
            request.force && !(request.create && request.clean),
            "--force ends the sessions in a database that is replaced, and none is",
            "give --create --clean --force to replace the database, or leave --force out",
        ),
        (
            request.no_verify && !request.clean,
            "--no-verify waives the reading of the backup before something is removed, and without --clean nothing is",
            "leave --no-verify out, or give --clean too",
        ),
        (
            request.no_verify && safe,
            "--no-verify waives the reading of the backup before something is removed, and here all is one transaction: a \
             damaged backup removes nothing",
            "leave --no-verify out",
        ),
        (
            request.no_check && !single,
            "--no-check waives the comparison of single tables with the backup, and a whole restore makes none",
            "leave --no-check out, or name tables with --table",
        ),
    ] {
        if idle {
            return Err(Error::config(what).hint(hint));
        }
    }
    if !request.data_only {
        return Ok(());
    }
    for (given, option) in of_definitions(request) {
        if given {
            let what = format!("{option} says how definitions are made, and --data-only makes none");
            return Err(Error::config(what).hint(format!("leave {option} out, or --data-only")));
        }
    }
    Ok(())
}

/// Options that shape what is made, and not the rows.
pub(super) fn of_definitions(request: &RestoreRequest) -> [(bool, &'static str); 6] {
    [
        (request.no_owner, "--no-owner"),
        (request.no_privileges, "--no-privileges"),
        (request.no_tablespaces, "--no-tablespaces"),
        (request.no_comments, "--no-comments"),
        (request.no_publications, "--no-publications"),
        (request.no_subscriptions, "--no-subscriptions"),
    ]
}

/// A script is one transaction, which is all there is to say of it.
pub(super) fn check_script(request: &RestoreRequest) -> Result<()> {
    if request.into.is_some() {
        return Err(into::of_script());
    }
    let hint = "leave it out; or make backups with --format custom, which can be restored so";
    if request.no_verify {
        return Err(Error::config(
            "this backup is a plain script, every byte of which is checked before anything is changed: --no-verify waives \
             nothing",
        )
        .hint("leave it out"));
    }
    if request.keep_going {
        return Err(Error::config(
            "this backup is a plain script, which runs in one transaction: --keep-going has nothing to go on to",
        )
        .hint(hint));
    }
    if request.check {
        return Err(Error::config(
            "this backup is a plain script, of which --check cannot compare tables: all of its bytes are checked before \
             they are run",
        )
        .hint("leave it out; `verify --drill` compares every table of such a backup"));
    }
    Ok(())
}
