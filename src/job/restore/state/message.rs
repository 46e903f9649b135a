//! What an error says about the target: the state that a restore left it in, and what to do then.

use super::{ANEW, Milestone, PERMISSION};
use crate::error::{Code, Error};
use crate::postgres::TransactionEnd;
use crate::units::count;

/// The state in words, and the hint unless everything is as it was. `made`: the restore made the database;
/// `made_roles`: it made roles.
pub(super) fn of(milestone: Milestone, made: bool, made_roles: bool) -> (String, Option<&'static str>) {
    match milestone {
        Milestone::Untouched | Milestone::Making { database: None } if made_roles => {
            ("the database is as it was".to_owned(), None)
        }
        Milestone::Untouched => ("nothing was changed in the target".to_owned(), None),
        Milestone::TakenBack => (
            "the new database was still empty, and was removed again".to_owned(),
            None,
        ),
        Milestone::Placing(exchange) => (exchange.before(), Some(ANEW)),
        Milestone::Removing { exchange, removed } => (exchange.after(removed), Some(ANEW)),
        Milestone::Making { database: None } => {
            ("roles may have been made; the database is as it was".to_owned(), None)
        }
        Milestone::Making { database: Some(name) } => (
            format!("the database {name} may have been made, and is empty"),
            Some(ANEW),
        ),
        Milestone::Cleaning => ("the removal was rolled back: the target is as it was".to_owned(), None),
        Milestone::CommittingRemoval => (
            "the removal was being committed, and the server does not say whether it is: the target is as it was, \
             or the objects to be replaced are gone, with their rows"
                .to_owned(),
            Some("correct the cause, and run it again with --clean: it restores the removed objects too"),
        ),
        Milestone::Together => (
            "all of it was one transaction, which was rolled back: the target is as it was".to_owned(),
            None,
        ),
        Milestone::Defining { atomic: true, .. }
        | Milestone::Running {
            end: TransactionEnd::RolledBack,
        } if made => (
            "everything in it was rolled back: the new database is empty".to_owned(),
            Some("correct the cause, and run it again with --clean"),
        ),
        Milestone::Defining {
            atomic: true,
            cleaned: 0,
        } => (
            "the definitions were rolled back: the target is as it was".to_owned(),
            None,
        ),
        Milestone::Defining { atomic: true, cleaned } => (
            format!(
                "{} had been removed; the definitions were rolled back: the target lacks what was removed",
                count(cleaned, "object")
            ),
            Some("correct the cause, and run it again: it restores the removed objects too"),
        ),
        Milestone::Defining { atomic: false, .. } => (
            "the target holds some of the definitions, and no data".to_owned(),
            Some("correct the cause, and run it again with --clean"),
        ),
        Milestone::Loading {
            loaded,
            of,
            first_lacking,
            sure,
        } => (
            format!(
                "the target holds all definitions, and the data of {}{loaded} of {}; {}without data: {}",
                if sure { "" } else { "at least " },
                count(of, "table"),
                if sure { "" } else { "perhaps " },
                match first_lacking.len() {
                    0 => "none".to_owned(),
                    _ => first_lacking.join(", "),
                }
            ),
            Some("correct the cause, and run it again with --clean"),
        ),
        Milestone::Finishing => (
            "the target holds all data; indexes, constraints, triggers or grants are missing".to_owned(),
            Some(
                "correct the cause, and run it again with --clean; if the backup's own rows break a constraint, \
                 such as a foreign key, leave it out with --exclude KIND:NAME, or continue after it with \
                 --keep-going",
            ),
        ),
        Milestone::Whole => (
            "all objects of the backup were made before that, and its rows were loaded".to_owned(),
            Some(
                "the target is complete; for the steps that are missing (comparing the rows, setting up the \
                 database) run it again with --clean; --no-check skips the comparison",
            ),
        ),
        Milestone::Committing => (
            "the transaction was being committed, and the server does not say whether it is".to_owned(),
            Some("look at the target; if the rows of the backup are not there, run it again"),
        ),
        Milestone::Committed => (
            "the rows are committed and were compared, but not every sequence was set".to_owned(),
            Some("set the sequences by hand (setval), or run it again"),
        ),
        Milestone::Running {
            end: TransactionEnd::RolledBack,
        } => (
            "the script ran in one transaction, which was rolled back: the target is as it was".to_owned(),
            None,
        ),
        Milestone::Running {
            end: TransactionEnd::Committed,
        } => (
            "its transaction was committed before that: the target holds everything that the script did until then"
                .to_owned(),
            Some("look at the target, correct the cause, and run it again with --create --clean"),
        ),
        Milestone::Running {
            end: TransactionEnd::Unknown,
        } => (
            "the script ran in one transaction, and the server does not say whether it was rolled back".to_owned(),
            Some("look at the target; if it holds nothing, run it again"),
        ),
    }
}

/// The hint of the error, with `again`: how to repeat the restore.
pub(super) fn hint(error: &Error, again: Option<String>, whole: bool) -> String {
    match (error.code(), again) {
        (Code::RestoreErr, Some(_)) if whole && error.has_own_hint() => error.hint_text().to_owned(),
        (_, Some(again)) if whole && error.has_own_hint() => format!("{}; {again}", error.hint_text()),
        (_, Some(again)) if whole => again,
        (Code::Interrupted(_), Some(again)) => again.replace("correct the cause, and ", ""),
        (Code::RestoreErr, Some(again)) if error.has_own_hint() => format!("{}; then {again}", error.hint_text()),
        (Code::RestoreErr, Some(again)) => again,
        (Code::RestoreErr, None) if !error.has_own_hint() => "correct the cause, and run it again".to_owned(),
        // The default hint is about backups.
        (Code::Permission, again) if !error.has_own_hint() => match again {
            Some(again) => format!("{PERMISSION}; then {again}"),
            None => PERMISSION.to_owned(),
        },
        _ => error.hint_text().to_owned(),
    }
}
