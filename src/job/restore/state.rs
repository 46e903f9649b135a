//! How far a restore has come, so that its error can say in what state the target is.

mod message;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::load::Load;
use super::plan::Plan;
use super::ready::some_of;
use crate::error::{Code, Error};
use crate::postgres::quoting::identifier;
use crate::postgres::{ConnectionInfo, Session, TransactionEnd};
use crate::repository::stored_archive::StoredArchive;
use crate::settings;

/// Set by [`super::run`] before each step that changes the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Milestone {
    #[default]
    Untouched,
    /// The new database is made. The old one is as it was, but may not be a template any more.
    Placing(Exchange),
    /// The old database is being removed, and then the new one gets its name; `removed`: the first is done.
    Removing { exchange: Exchange, removed: bool },
    /// The database or roles are being made.
    Making { database: Option<String> },
    /// The new database was empty when the restore failed, and was removed again.
    TakenBack,
    /// Objects are being removed, in one transaction.
    Cleaning,
    /// That transaction is being committed, perhaps with the definitions of the new objects.
    CommittingRemoval,
    /// The whole restore is one transaction, which is open.
    Together,
    /// Definitions are being made, in one transaction or without one.
    Defining { atomic: bool, cleaned: usize },
    /// Rows are being loaded.
    Loading {
        loaded: usize,
        of: usize,
        first_lacking: Vec<String>,
        /// False if the target could not be asked: then more may be loaded than is known.
        sure: bool,
    },
    /// Indexes, constraints and grants are being made.
    Finishing,
    /// Everything is made. Only the comparison is left.
    Whole,
    /// Everything is done in one transaction, which is being committed.
    Committing,
    /// The transaction was committed. The sequences are set after it.
    Committed,
    /// A script was started in one transaction and did not finish.
    Running { end: TransactionEnd },
}

/// A database and the one that replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exchange {
    pub database: String,
    /// The temporary name of the new one.
    pub beside: String,
    /// The old one was a template, which PostgreSQL does not remove.
    pub is_template: bool,
}

impl Exchange {
    /// The statement that ends it.
    pub fn renaming(&self) -> String {
        let Self { database, beside, .. } = self;
        format!(
            "ALTER DATABASE {} RENAME TO {}",
            identifier(beside),
            identifier(database)
        )
    }

    fn of_template(&self) -> String {
        match self.is_template {
            true => format!(
                "; if {0} exists, it may not be a template any more: then run ALTER DATABASE {1} WITH IS_TEMPLATE true",
                self.database,
                identifier(&self.database)
            ),
            false => String::new(),
        }
    }

    /// The state of the target before anything is removed.
    fn before(&self) -> String {
        format!(
            "the database {} is as it was; the database {}, which was to replace it, may be left{}",
            self.database,
            self.beside,
            self.of_template()
        )
    }

    /// The same from then on.
    fn after(&self, removed: bool) -> String {
        let Self { database, beside, .. } = self;
        let renaming = self.renaming();
        match removed {
            true => format!(
                "the database {database} is removed, and its replacement may still have the name {beside}: if it \
                 has, run {renaming}"
            ),
            false => format!(
                "the database {database} may have been removed, and its replacement has the name {beside}: if \
                 {database} does not exist, run {renaming}{}",
                self.of_template()
            ),
        }
    }
}

/// How many names an error lists.
const NAMED: usize = 10;
/// How long the target may take to answer what it holds. The error waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to do if a database may have to be made again.
const ANEW: &str = "correct the cause, and run it again with --create --clean";
/// The hint if the server refuses the role something.
const PERMISSION: &str = "restore as a role that may do this, such as the owner of the replaced objects, or a \
                          superuser; or leave the object out, with everything that needs it: --exclude KIND:NAME";

/// Finds which tables have their data after a load that failed, from the numbers of the loads that finished. One
/// pg_restore loads several tables, each in its own transaction, so the target is asked about the others. Of a table
/// that is loaded in parts, some rows may be there.
pub(super) async fn survey(
    archive: &StoredArchive,
    plan: &Plan,
    done: &[usize],
    info: &ConnectionInfo,
    settings: &settings::Postgres,
) -> Milestone {
    let done: HashSet<usize> = done.iter().copied().collect();
    let is_open = |(number, load): (usize, &Load)| (!done.contains(&number)).then(|| load.blocks.clone());
    // In the archive's order, each once.
    let open: BTreeSet<usize> = plan.loads.iter().enumerate().filter_map(is_open).flatten().collect();
    let divided = plan.divided();
    let asking = async {
        let session = Session::connect(info, settings).await?;
        let mut lacking = Vec::new();
        let promised = |index: &&usize| archive.rows(**index) != Some(0);
        let asked = open
            .iter()
            .filter(promised)
            .filter_map(|index| archive.tables[*index].clone());
        let asked: Vec<(String, String)> = asked.collect();
        let held = session.holding_rows(&asked).await?;
        let held: HashMap<&(String, String), bool> = asked.iter().zip(held).collect();
        for &index in &open {
            let any = match (&archive.tables[index], archive.rows(index)) {
                (Some(_), Some(0)) => true,
                (Some(table), _) => held.get(table).copied().unwrap_or_default(),
                (None, _) => false,
            };
            match (any, divided.contains(&index)) {
                (true, false) => {}
                (true, true) => lacking.push((index, " (in part)")),
                (false, _) => lacking.push((index, "")),
            }
        }
        Ok::<_, Error>(lacking)
    };
    let asked = tokio::time::timeout(PATIENCE, asking).await;
    let (lacking, sure) = match asked {
        Ok(Ok(lacking)) => (lacking, true),
        _ => (open.iter().map(|index| (*index, "")).collect(), false),
    };
    let named = lacking.iter().take(NAMED);
    let mut first_lacking: Vec<String> = named
        .map(|(index, how)| format!("{}{how}", archive.name(*index)))
        .collect();
    if lacking.len() > NAMED {
        first_lacking.push(format!("{} more", lacking.len() - NAMED));
    }
    let of = plan.blocks().count();
    Milestone::Loading {
        loaded: of - lacking.len(),
        of,
        first_lacking,
        sure,
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    milestone: Mutex<Milestone>,
    /// This run made the database: after a rollback in it, it is empty.
    made: AtomicBool,
    /// Roles that this run made. They stay after a failure.
    roles: Mutex<Vec<String>>,
    /// What the user must know after any failure from now on.
    reminder: Mutex<Option<String>>,
    /// Extensions of the backup that the target lacks and that the chosen tables do not bring.
    lacking: Mutex<Vec<String>>,
}

impl State {
    pub fn set(&self, milestone: Milestone) {
        *self.milestone.lock().unwrap_or_else(PoisonError::into_inner) = milestone;
    }

    pub fn remind(&self, reminder: Option<String>) {
        *self.reminder.lock().unwrap_or_else(PoisonError::into_inner) = reminder;
    }

    /// Everything is made, and nothing is left to be made again.
    pub fn whole(&self) {
        self.set(Milestone::Whole);
        self.remind(None);
    }

    /// Whether this run made the database and may have failed before anything was made in it.
    pub fn has_made_for_nothing(&self) -> bool {
        let milestone = self.milestone.lock().unwrap_or_else(PoisonError::into_inner);
        let is_before_rows = matches!(
            &*milestone,
            Milestone::Making { database: Some(_) }
                | Milestone::Defining { .. }
                | Milestone::Running {
                    end: TransactionEnd::RolledBack
                }
        );
        self.made.load(Ordering::Relaxed) && is_before_rows
    }

    pub fn made(&self) {
        self.made.store(true, Ordering::Relaxed);
    }

    pub fn roles(&self, made: &[String]) {
        *self.roles.lock().unwrap_or_else(PoisonError::into_inner) = made.to_vec();
    }

    pub fn lacks(&self, extensions: Vec<String>) {
        *self.lacking.lock().unwrap_or_else(PoisonError::into_inner) = extensions;
    }

    /// The error, with the state that it left the target in.
    pub fn tell(self, error: &Error) -> Error {
        let milestone = self.milestone.into_inner().unwrap_or_else(PoisonError::into_inner);
        let made = self.made.into_inner();
        let reminder = self.reminder.into_inner().unwrap_or_else(PoisonError::into_inner);
        let roles = self.roles.into_inner().unwrap_or_else(PoisonError::into_inner);
        let lacking = self.lacking.into_inner().unwrap_or_else(PoisonError::into_inner);
        let whole = milestone == Milestone::Whole;
        let reminds = match milestone {
            Milestone::CommittingRemoval => "; if it is committed: ",
            _ => "; ",
        };
        let (state, again) = message::of(milestone, made, !roles.is_empty());
        let again = again.map(|text| match made {
            true => text.replace("again with --clean", "again with --create --clean"),
            false => text.to_owned(),
        });
        let hint = message::hint(error, again, whole);
        // An archive does not record which extension the operator class of an index or a constraint belongs to.
        let hint = match lacking.is_empty() || whole || error.code() != Code::RestoreErr {
            true => hint,
            false => format!(
                "{hint}; if the tables need an extension that the backup has and the target lacks ({}), make it there \
                 first with CREATE EXTENSION",
                some_of(&lacking, lacking.len() as u64)
            ),
        };
        let state = match roles.is_empty() || whole {
            true => state,
            false => format!(
                "{state}; the roles that were made stay: {}",
                some_of(&roles, roles.len() as u64)
            ),
        };
        let reminder = reminder.map_or(String::new(), |reminder| format!("{reminds}{reminder}"));
        Error::new(error.code(), format!("{}; {state}{reminder}", error.message())).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_that_were_made_are_told_of_whatever_fails_after_them() {
        let state = State::default();
        state.roles(&["a".to_owned(), "b".to_owned()]);
        let told = state.tell(&Error::new(Code::Permission, "no"));
        let expected = "no; the database is as it was; the roles that were made stay: a, b";
        assert_eq!(told.message(), expected);
        let state = State::default();
        state.roles(&["a".to_owned()]);
        state.made();
        state.set(Milestone::Defining {
            atomic: true,
            cleaned: 0,
        });
        let told = state.tell(&Error::new(Code::RestoreErr, "no"));
        let expected = "the new database is empty; the roles that were made stay: a";
        assert!(told.message().ends_with(expected), "{}", told.message());
    }

    #[test]
    fn a_database_that_is_being_replaced_is_told_with_the_name_of_the_new_one() {
        let exchange = |is_template| Exchange {
            database: "app".to_owned(),
            beside: "app_pgstow_00000001".to_owned(),
            is_template,
        };
        let told = |milestone| {
            let state = State::default();
            state.set(milestone);
            state.tell(&Error::new(Code::ConnErr, "no answer")).message()
        };
        let renaming = "run ALTER DATABASE \"app_pgstow_00000001\" RENAME TO \"app\"";
        let template = "run ALTER DATABASE \"app\" WITH IS_TEMPLATE true";
        for is_template in [false, true] {
            let before = told(Milestone::Placing(exchange(is_template)));
            assert!(before.contains("the database app is as it was"), "{before}");
            let removing = |removed| Milestone::Removing {
                exchange: exchange(is_template),
                removed,
            };
            let during = told(removing(false));
            assert!(during.contains("if app does not exist"), "{during}");
            let after = told(removing(true));
            assert!(after.contains("the database app is removed"), "{after}");
            assert!(
                during.contains(renaming) && after.contains(renaming),
                "{during} {after}"
            );
            for text in [&before, &during] {
                assert!(text.contains("app_pgstow_00000001"), "{text}");
                assert_eq!(text.contains(template), is_template, "{text}");
            }
            assert!(!after.contains(template), "{after}");
        }
    }

    #[test]
    fn a_removal_whose_commit_has_no_answer_may_have_removed_everything() {
        let state = State::default();
        state.set(Milestone::CommittingRemoval);
        state.remind(Some("run: ALTER TABLE a".to_owned()));
        let told = state.tell(&Error::new(
            Code::Interrupted(crate::error::Signal::Terminate),
            "stopped",
        ));
        let message = told.message();
        for words in [
            "does not say whether it is",
            "are gone, with their rows",
            "; if it is committed: run: ALTER TABLE a",
        ] {
            assert!(message.contains(words), "{words}: {message}");
        }
        assert!(!message.contains("rolled back"), "{message}");
        assert!(told.hint_text().contains("--clean"), "{}", told.hint_text());
    }

    #[test]
    fn a_refused_right_is_told_as_one_of_a_restore() {
        for milestone in [Milestone::Cleaning, Milestone::Finishing] {
            let state = State::default();
            state.set(milestone);
            let told = state.tell(&Error::new(Code::Permission, "no"));
            let hint = told.hint_text();
            assert!(
                hint.contains("restore as a role") && !hint.contains("pg_read"),
                "{hint}"
            );
        }
        let state = State::default();
        let told = state.tell(&Error::new(Code::Permission, "no").hint("ask"));
        assert_eq!(told.hint_text(), "ask");
    }

    #[test]
    fn what_fails_when_all_is_made_leaves_it_there() {
        for code in [Code::ConnErr, Code::Stalled, Code::RestoreErr] {
            let state = State::default();
            state.whole();
            let told = state.tell(&Error::new(code, "the server is gone"));
            assert!(told.message().contains("were made before that"), "{}", told.message());
            let hint = told.hint_text();
            assert!(hint.starts_with("the target is complete"), "{hint}");
        }
        let state = State::default();
        state.whole();
        let told = state.tell(&Error::new(Code::RestoreErr, "rows differ").hint("look at them"));
        assert_eq!(told.hint_text(), "look at them");
    }
}
