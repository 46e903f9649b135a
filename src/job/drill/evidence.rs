//! What a failure says: something of the backup, or only of the place where it was tried. A full disk, a killed
//! process or a lost connection says nothing of a backup, and leaves no result. It goes by the SQLSTATE of what the
//! throwaway server itself told; a failure of which it told nothing is none of the backup's.

use std::time::Duration;

use super::unproved::NOTHING_PROVED;
use crate::error::{Code, Error};
use crate::format::archive::Item;
use crate::postgres::{ROOM, ScratchServer, Told, lacks_room};

/// How long the server's own words may take to come, after a client's.
const WORDS: Duration = Duration::from_secs(2);
/// And its end, when a client has lost it.
const END: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
/// With less than this free, a disk is full: what failed has given back what it had taken.
const FULL: u64 = 8 << 20;

/// What is made of files or code that a machine has or lacks.
const OF_THE_MACHINE: [&str; 8] = [
    "ACCESS METHOD",
    "COLLATION",
    "EXTENSION",
    "FOREIGN DATA WRAPPER",
    "PROCEDURAL LANGUAGE",
    "TEXT SEARCH DICTIONARY",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
];

/// As the system says that it cannot.
const SYSTEM: [&str; 6] = [
    "Cannot allocate memory",
    "Too many open files",
    "Input/output error",
    "Read-only file system",
    "Resource temporarily unavailable",
    "out of memory",
];

pub(super) const HINT: &str = "this says nothing of the backup, and nothing was recorded: see the message, and drill \
                               again, on another machine if need be";

/// What a step's failure says, where it says anything of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Says {
    /// One session may have stood in another's way.
    Contended,
    /// It cannot be made here: with the reason.
    Lacking(String),
    Wrong(Fault),
}

/// What is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub what: String,
    pub advice: &'static str,
    /// The source itself does not keep to its rule: the backup is what the source is.
    pub of_source: bool,
}

/// Why a refusal may be none of the backup's.
#[derive(Debug, Clone, Default)]
pub(super) struct Excuses {
    /// Whatever it says.
    pub any: Option<String>,
    /// If it says that something is not there, or is there already.
    pub names: Option<String>,
    /// If it says that rows break a rule.
    pub rows: Option<String>,
    /// If it says that something is not within its bounds, where text is sorted by other libraries.
    pub sorting: Option<String>,
    /// Unless it says that a reference finds nothing, which goes by no setting.
    pub settings: Option<String>,
    /// If it says that an amount of money is none.
    pub money: Option<String>,
}

/// Things that are not there, that are there already, and functions of which there are more than one.
const OF_NAMES: [&str; 11] = [
    "3F000", "42P01", "42P06", "42P07", "42701", "42703", "42704", "42710", "42723", "42725", "42883",
];

/// A NULL, a lost reference, a value that is there twice: no setting makes these.
const OF_NO_SETTING: [&str; 3] = ["23502", "23503", "23505"];

impl Excuses {
    fn of(&self, told: &Told) -> Option<&str> {
        let names = self.names.as_ref().filter(|_| OF_NAMES.contains(&told.state.as_str()));
        let rows = self.rows.as_ref().filter(|_| told.class() == "23");
        let sorting = self.sorting.as_ref().filter(|_| is_of_partitions(told));
        let settings = self
            .settings
            .as_ref()
            .filter(|_| !OF_NO_SETTING.contains(&told.state.as_str()));
        let money = self
            .money
            .as_ref()
            .filter(|_| ["22P02", "22003"].contains(&told.state.as_str()) && told.message.contains("type money"));
        let place = self.any.as_ref().or(names).or(rows).or(sorting);
        let why = place.or(settings).or(money);
        why.map(String::as_str)
    }

    /// What else may be the reason: it may hold there and not here.
    fn perhaps(&self, told: &Told) -> String {
        let sorted = ["23514", "23505", "23P01"].contains(&told.state.as_str());
        let why = self.sorting.as_ref().filter(|_| sorted);
        why.map_or_else(String::new, |why| format!(" (or it is this machine's: {why})"))
    }
}

/// A row that is in none of a table's partitions, or not in its own, and bounds that meet: by text, what lies between two
/// goes by its order.
fn is_of_partitions(told: &Told) -> bool {
    const WORDS: [&str; 5] = [
        "no partition of relation",
        "violates partition constraint",
        "partition constraint of",
        "would overlap partition",
        "empty range bound specified",
    ];
    ["23514", "42P17"].contains(&told.state.as_str()) && WORDS.iter().any(|words| told.message.contains(words))
}

const ROWS: &str = "the bytes were right: the source itself holds rows that break this rule (it was switched off, not \
                    validated, or has changed since). Correct them there, then make a new backup: an older one most \
                    likely holds the same";
const INDEX: &str = "the bytes were right: the source itself holds rows twice that should be unique. Find them without \
                     the index (SET enable_indexscan = off), since it may be corrupt, as after a change of the system's \
                     collations; correct them, REINDEX, then make a new backup: an older one most likely holds the same";
const REFUSED: &str = "the bytes were right: the source's own definitions refuse what it holds, or cannot be made from \
                       what pg_dump writes. Correct that there (a function, a check, a setting that it relies on), then \
                       make a new backup: an older one most likely has the same fault";

/// Of a script whose checks call functions.
pub(super) const LOOKING: &str = "the bytes were right: this check calls a function, which may look for rows that the script \
                       puts in later, so that the script does not restore in its own order; or the source itself holds \
                       rows that break it. In the source, state the rule as a foreign key or a trigger, which come after \
                       all rows, then make a new backup; to restore this one, take the check out of the script, and add \
                       it when all rows are there";

pub(super) const OF_AN_EXTENSION: &str = "it belongs to an extension, which is another one here, or none";

pub(super) struct Witness<'a> {
    pub server: &'a ScratchServer,
    /// The source's major and the server's, where they differ.
    pub other_major: Option<(u32, u32)>,
}

impl Witness<'_> {
    pub fn mark(&self) -> u64 {
        self.server.mark()
    }

    /// `None` where the failure says nothing of the backup. `since`: the mark when the step began; `item`: what it
    /// was about.
    pub async fn judge(&self, since: u64, error: &Error, item: Option<&Item>, excuses: &Excuses) -> Option<Says> {
        let words = error.message();
        let killed = words.contains("was ended by SIG") || words.contains("was ended by signal");
        if error.code() != Code::RestoreErr || killed {
            return None;
        }
        let told = self.told(since, &words).await?;
        if self.server.has_ended(Duration::ZERO).await.is_some() {
            return None;
        }
        Some(match (weigh(&told, item), excuses.of(&told)) {
            (Weight::Wrong, Some(why)) => Says::Lacking(format!("{why}: {words}")),
            (weight, _) => match weight {
                Weight::OfThePlace => return None,
                Weight::Contended => Says::Contended,
                Weight::Lacking => Says::Lacking(words),
                Weight::Refused => Says::Lacking(refused(&words)),
                Weight::Wrong => match self.other_major {
                    Some((source, here)) => Says::Lacking(format!(
                        "the source is PostgreSQL {source}, and {here} takes it otherwise: {words}"
                    )),
                    None => Says::Wrong(Fault {
                        of_source: told.class() == "23",
                        advice: match told.state.as_str() {
                            "23505" => INDEX,
                            _ if told.class() == "23" => ROWS,
                            _ => REFUSED,
                        },
                        what: format!("it does not restore: {words}{}", excuses.perhaps(&told)),
                    }),
                },
            },
        })
    }

    /// What the server told of that which a client quotes.
    async fn told(&self, since: u64, words: &str) -> Option<Told> {
        if !["ERROR: ", "FATAL: ", "PANIC: "]
            .iter()
            .any(|severity| words.contains(severity))
        {
            return None;
        }
        let until = tokio::time::Instant::now() + WORDS;
        loop {
            let told = self.server.told_since(since);
            if let Some(quoted) = told.iter().find(|told| told.is_quoted_in(words)) {
                return Some(quoted.clone());
            }
            if tokio::time::Instant::now() > until {
                // Other letters stand for the same in another encoding.
                return told
                    .into_iter()
                    .rfind(|told| !told.fatal && !matches!(told.class(), "08" | "57"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The error of a drill that gives no result: what the place lacked, before all else.
    pub async fn not_carried_out(&self, error: Error) -> Error {
        if !is_of_the_place(error.code()) {
            return error;
        }
        let words = error.message();
        let told = self.server.told_since(0);
        let full = told
            .iter()
            .any(|told| told.state == "53100" || lacks_room(&told.message))
            || lacks_room(&words)
            || self.server.free_bytes().is_some_and(|free| free < FULL);
        let lost = [
            "closed the connection",
            "onnection to server",
            "connection closed",
            "no connection",
        ];
        let lost = error.code() == Code::ConnErr || lost.iter().any(|lost| words.contains(lost));
        let patience = if lost { END } else { Duration::ZERO };
        let words = match self.server.has_ended(patience).await {
            Some(ended) if !words.contains(&ended) => format!("{words}; {ended}"),
            _ => words,
        };
        let knows = words.starts_with(NOTHING_PROVED);
        // What pg_restore's hints say is about a target of the user's.
        let hint = if knows { error.hint_text() } else { HINT };
        let told = not_carried_out(&Error::new(Code::RestoreErr, words).hint(hint));
        match full {
            true => told.hint(ROOM),
            false => told,
        }
    }
}

/// The same where there is no server to ask. What knows what to do about it keeps its hint.
pub(super) fn not_carried_out(error: &Error) -> Error {
    const BEGINNING: &str = "the drill ";
    let words = error.message();
    let text = match words.starts_with(BEGINNING) {
        true => words,
        false => format!("{BEGINNING}could not be carried out: {words}"),
    };
    let code = match error.code() {
        code if is_of_the_place(code) => Code::NotProved,
        code => code,
    };
    let told = Error::new(code, text);
    if error.has_own_hint() {
        told.hint(error.hint_text())
    } else if error.code() == Code::Enospc {
        told.hint(ROOM)
    } else if code == Code::NotProved {
        told.hint(HINT)
    } else {
        told
    }
}

/// Codes that speak of the source elsewhere, and here of the throwaway server and what works on it.
fn is_of_the_place(code: Code) -> bool {
    matches!(
        code,
        Code::RestoreErr
            | Code::ConnErr
            | Code::Auth
            | Code::Permission
            | Code::PgDumpErr
            | Code::Stalled
            | Code::Changed
            | Code::Version
            | Code::Enospc
            | Code::Eacces
            | Code::Enoent
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    OfThePlace,
    Contended,
    Lacking,
    Refused,
    Wrong,
}

fn weigh(told: &Told, item: Option<&Item>) -> Weight {
    let of_the_machine = item.is_some_and(|item| OF_THE_MACHINE.contains(&item.entry.desc.as_str()));
    let says = |words: &[&str]| words.iter().any(|words| told.message.contains(words));
    let state = told.state.as_str();
    match (told.class(), state) {
        ("53", _) | (_, "54001" | "XX001" | "XX002") => Weight::OfThePlace,
        // A library that must be loaded when the server starts ends the session, if it comes too late.
        _ if told.fatal && item.is_some_and(|item| item.entry.desc == "EXTENSION") => Weight::Lacking,
        _ if told.fatal => Weight::OfThePlace,
        ("57", _) => Weight::OfThePlace,
        ("40", _) | (_, "55P03" | "55006") => Weight::Contended,
        // However it is told on the way: by a function that caught it, or without a state of its own.
        _ if lacks_room(&told.message) || says(&SYSTEM) => Weight::OfThePlace,
        (_, "XX000") if says(&["concurrently", "deadlock"]) => Weight::Contended,
        _ if of_the_machine => Weight::Lacking,
        (_, "58P01") if says(&["could not access file", "could not load library"]) => Weight::Lacking,
        ("58", _) => Weight::OfThePlace,
        // Collations of the system's or of ICU's: what a database makes itself is elsewhere.
        (_, "42704") if says(&["collation \"pg_catalog."]) => Weight::Lacking,
        (_, "22023")
            if says(&[
                "could not create locale",
                "could not open collator",
                "invalid collation locale",
            ]) =>
        {
            Weight::Lacking
        }
        _ if says(&["shared_preload_libraries"]) => Weight::Lacking,
        // It reaches for another server, which no drill lets it; or it is more than this server was built for.
        ("08" | "HV" | "0A" | "F0", _) => Weight::Lacking,
        (_, "42501") => Weight::Refused,
        // A function of the backup's that says so is taken at its word; a name is not.
        (_, "P0001") if is_refusal(&told.message) => Weight::Refused,
        _ => Weight::Wrong,
    }
}

/// Whether a role was refused what a superuser may. The server and pg_restore say so in words alone, and so
/// may a function of the backup's: it decides no more than whether something is missing or was not tried.
fn is_refusal(words: &str) -> bool {
    const WORDS: [&str; 8] = [
        "permission denied",
        "superuser",
        "must be owner of",
        "must be member of",
        "must be able to SET ROLE",
        "must have privileges of",
        "must have the ",
        "Only roles with",
    ];
    WORDS.iter().any(|word| words.contains(word))
}

fn refused(words: &str) -> String {
    format!("it was refused for lack of rights, and a drill is no superuser: {words}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::archive::{Details, Entry, Section};

    fn weighed(state: &str, message: &str, desc: &str) -> Weight {
        let told = Told {
            state: state.into(),
            fatal: message.starts_with("FATAL"),
            message: message.into(),
        };
        let item = Item {
            entry: Entry {
                desc: desc.into(),
                ..Entry::default()
            },
            section: Section::PreData,
            details: Details::default(),
        };
        weigh(&told, Some(&item))
    }

    #[test]
    fn the_places_faults_are_told_from_the_backups_by_the_servers_own_state() {
        for (state, message, desc, weight) in [
            (
                "53100",
                "could not extend file: No space left on device",
                "TABLE DATA",
                Weight::OfThePlace,
            ),
            (
                "XX000",
                "could not extend file: File too large",
                "TABLE DATA",
                Weight::OfThePlace,
            ),
            (
                "P0001",
                "not stored: No space left on device",
                "TABLE DATA",
                Weight::OfThePlace,
            ),
            ("53200", "out of memory", "INDEX", Weight::OfThePlace),
            (
                "53300",
                "FATAL: sorry, too many clients already",
                "INDEX",
                Weight::OfThePlace,
            ),
            (
                "57014",
                "canceling statement due to user request",
                "INDEX",
                Weight::OfThePlace,
            ),
            ("57P01", "FATAL: terminating connection", "INDEX", Weight::OfThePlace),
            (
                "58030",
                "could not read block 3: Input/output error",
                "INDEX",
                Weight::OfThePlace,
            ),
            ("54001", "stack depth limit exceeded", "VIEW", Weight::OfThePlace),
            (
                "53100",
                "could not write: No space left on device",
                "EXTENSION",
                Weight::OfThePlace,
            ),
            ("40P01", "deadlock detected", "FK CONSTRAINT", Weight::Contended),
            ("XX000", "tuple concurrently updated", "ACL", Weight::Contended),
            (
                "55000",
                "pgaudit must be loaded via shared_preload_libraries",
                "EXTENSION",
                Weight::Lacking,
            ),
            (
                "XX000",
                "FATAL: timescaledb must be preloaded",
                "EXTENSION",
                Weight::Lacking,
            ),
            (
                "P0001",
                "can only create extension in database postgres",
                "EXTENSION",
                Weight::Lacking,
            ),
            (
                "08001",
                "could not connect to server",
                "MATERIALIZED VIEW DATA",
                Weight::Lacking,
            ),
            (
                "58P01",
                "could not access file \"$libdir/x\"",
                "FUNCTION",
                Weight::Lacking,
            ),
            (
                "23503",
                "insert or update on table \"superusers\" violates foreign key constraint \"superusers_fkey\"",
                "FK CONSTRAINT",
                Weight::Wrong,
            ),
            ("P0001", "must be superuser", "TABLE DATA", Weight::Refused),
            (
                "54000",
                "index row size 2712 exceeds btree version 4 maximum 2704",
                "INDEX",
                Weight::Wrong,
            ),
            ("42501", "permission denied for table t", "TABLE DATA", Weight::Refused),
            ("P0001", "must be superuser", "TABLE DATA", Weight::Refused),
            (
                "23503",
                "violates foreign key constraint",
                "FK CONSTRAINT",
                Weight::Wrong,
            ),
            ("23514", "violates check constraint", "TABLE DATA", Weight::Wrong),
            ("42883", "function f(integer) does not exist", "VIEW", Weight::Wrong),
            (
                "XX000",
                "invalid memory alloc request size 1073741824",
                "TABLE DATA",
                Weight::Wrong,
            ),
        ] {
            assert_eq!(weighed(state, message, desc), weight, "{state} {message}");
        }
    }

    #[test]
    fn what_could_not_be_carried_out_says_so_once_and_blames_no_backup() {
        let told = not_carried_out(&Error::new(Code::PgDumpErr, "pg_dump was ended by SIGKILL"));
        assert_eq!(told.code(), Code::NotProved);
        assert_eq!(
            told.message(),
            "the drill could not be carried out: pg_dump was ended by SIGKILL"
        );
        assert_eq!(told.hint_text(), HINT);
        let again = not_carried_out(&told);
        assert_eq!(
            again.message(),
            "the drill could not be carried out: pg_dump was ended by SIGKILL"
        );
        let store = not_carried_out(&Error::new(Code::Store, "no answer").hint("ask it"));
        assert_eq!((store.code(), store.hint_text()), (Code::Store, "ask it"));
    }
}
