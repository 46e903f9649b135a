//! Checks the options against each other: refuses options that contradict each other and options that would have no
//! effect.

use super::into;
use crate::error::{Error, Result};
use crate::job::restore::RestoreRequest;

pub(super) fn check(request: &RestoreRequest, jobs: usize) -> Result<()> {
    if request.single_transaction {
        one_transaction(request, jobs)?;
    }
    if request.data_only && request.tables.is_empty() {
        return Err(
            Error::config("--data-only loads rows into existing tables: it needs --table")
                .hint("name each table with --table SCHEMA.TABLE, or leave --data-only out"),
        );
    }
    if request.check && request.no_check {
        return Err(
            Error::config("--check compares the rows with the backup, but --no-check forbids it")
                .hint("leave one of the two out"),
        );
    }
    if request.globals_privileged && !request.globals {
        return Err(
            Error::config("--globals-privileged says how roles are made, but without --globals none are made")
                .hint("give --globals too, or leave --globals-privileged out"),
        );
    }
    if request.allow_partial && request.moment.is_none() {
        let what = "--allow-partial is about a moment that cannot be had exactly, but no moment is asked for";
        return Err(Error::config(what).hint("give --to-time or --to-lsn too, or leave --allow-partial out"));
    }
    if request.create && (!request.tables.is_empty() || request.data_only) {
        return Err(
            Error::config("--create makes a whole database, but --table restores single tables")
                .hint("make the database first, or restore everything into it"),
        );
    }
    has_effect(request)
}

/// `--single-transaction`: all or nothing, over one session.
fn one_transaction(request: &RestoreRequest, jobs: usize) -> Result<()> {
    if jobs > 1 {
        let what = format!("--single-transaction uses one session, but --jobs (BACKUP_JOBS) asks for {jobs}");
        return Err(Error::config(what).hint("give --jobs 1, or leave --single-transaction out"));
    }
    if request.keep_going {
        return Err(Error::config(
            "--single-transaction restores all or nothing, but --keep-going continues after failures",
        )
        .hint("leave one of the two out"));
    }
    if request.create {
        return Err(Error::config(
            "--single-transaction excludes --create: PostgreSQL cannot create a database in a transaction",
        )
        .hint("make the database first, or leave one of the two out"));
    }
    Ok(())
}

/// Refuses an option that would have no effect, since the user expects one. An option that only waives something
/// (`--no-check`) is allowed where that would not be done anyway.
fn has_effect(request: &RestoreRequest) -> Result<()> {
    if request.force && !(request.create && request.clean) {
        let what = "--force ends the sessions in a database that is replaced, but no database is replaced";
        return Err(
            Error::config(what).hint("give --create --clean --force to replace the database, or leave --force out")
        );
    }
    Ok(())
}

/// Options that change the definitions that are made, but not the rows.
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

/// A plain script always runs in one transaction. Options that do not fit this are refused.
pub(super) fn check_script(request: &RestoreRequest) -> Result<()> {
    if request.into.is_some() {
        return Err(into::of_script());
    }
    let hint = "leave it out; or make backups with --format custom, which can be restored so";
    if request.keep_going {
        return Err(Error::config(
            "this backup is a plain script, which runs in one transaction: --keep-going cannot continue after an error",
        )
        .hint(hint));
    }
    if request.check {
        return Err(Error::config(
            "this backup is a plain script, of which --check cannot compare tables: all of its bytes are checked \
             before they are run",
        )
        .hint("leave it out; `verify --drill` compares every table of such a backup"));
    }
    Ok(())
}
