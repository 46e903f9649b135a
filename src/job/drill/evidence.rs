//! Decides whether a failure is about the backup, or only about this machine. A full disk, a killed process or a lost
//! connection says nothing about a backup, and leaves no result. pgstow judges by the SQLSTATE in the throwaway
//! server's log; if the server logged no error, the failure is not the backup's.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::unproved::NOTHING_PROVED;
use crate::error::{Code, Error};
use crate::format::archive::Item;
use crate::postgres::{ROOM, ScratchServer, Told, lacks_room};

/// How long to wait for the server's log entry after a client's error.
const WORDS: Duration = Duration::from_secs(2);
/// How long to wait for the server's end after a client lost it.
const END: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
/// With less than this free, a disk counts as full: a failed step has already released its space.
const FULL: u64 = 8 << 20;

/// Kinds that need files or code of the machine.
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

/// The system's own error texts.
const SYSTEM: [&str; 6] = [
    "Cannot allocate memory",
    "Too many open files",
    "Input/output error",
    "Read-only file system",
    "Resource temporarily unavailable",
    "out of memory",
];

pub(super) const HINT: &str = "this says nothing about the backup, and nothing was recorded: correct what the message \
                               names, and drill again, on another machine if necessary";

/// What a step's failure says about the backup, if anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Says {
    /// One session may have blocked another.
    Contended,
    /// It cannot be made here, with the reason.
    Lacking(String),
    Wrong(Fault),
}

/// A fault, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub what: String,
    pub advice: &'static str,
    /// The source itself breaks its rule: the backup is the same as the source.
    pub of_source: bool,
}

/// Why a refusal may be no fault of the backup, by the kind of refusal.
#[derive(Debug, Clone, Default)]
pub(super) struct Excuses {
    /// For any refusal.
    pub any: Option<String>,
    /// If an object is missing, or exists already.
    pub names: Option<String>,
    /// If rows break a rule.
    pub rows: Option<String>,
    /// If a row is outside of its partition's bounds, and other libraries sort the text here.
    pub sorting: Option<String>,
    /// Unless a reference finds no row, which depends on no setting.
    pub settings: Option<String>,
    /// If the server cannot read an amount of money.
    pub money: Option<String>,
}

/// Objects that are missing, that exist already, and ambiguous functions.
const OF_NAMES: [&str; 11] = [
    "3F000", "42P01", "42P06", "42P07", "42701", "42703", "42704", "42710", "42723", "42725", "42883",
];

/// A NULL, a lost reference, a duplicate value: no setting causes these.
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

    /// Another possible reason, to add to the message: the rule may hold in the source but not here.
    fn perhaps(&self, told: &Told) -> String {
        let sorted = ["23514", "23505", "23P01"].contains(&told.state.as_str());
        let why = self.sorting.as_ref().filter(|_| sorted);
        why.map_or_else(String::new, |why| format!(" (or the reason is this machine: {why})"))
    }
}

/// Whether the error is about partition bounds: a row outside of them, or bounds that overlap. For text, that depends
/// on the sort order.
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
const REFUSED: &str = "the bytes were right: the source's own definitions refuse its rows, or cannot be made from pg_dump's \
                       output. Correct that there (a function, a check, a setting that it relies on), then make a new \
                       backup: an older one most likely has the same fault";

/// The advice for a script whose checks call functions.
pub(super) const LOOKING: &str = "the bytes were right: this check calls a function, which may look for rows that the script \
                       inserts later, so that the script does not restore in its own order; or the source itself holds \
                       rows that break it. In the source, state the rule as a foreign key or a trigger, which come after \
                       all rows, then make a new backup; to restore this one, remove the check from the script, and \
                       add it when all rows are loaded";

pub(super) const OF_AN_EXTENSION: &str = "it belongs to an extension that has another version here, or is missing";

pub(super) struct Witness<'a> {
    pub server: &'a ScratchServer,
    /// The source's major and the server's, if they differ.
    pub other_major: Option<(u32, u32)>,
}

impl Witness<'_> {
    pub fn mark(&self) -> u64 {
        self.server.mark()
    }

    /// `None` if the failure says nothing about the backup. `since`: the mark when the step began; `item`: the entry
    /// that it was about.
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
                        "the source is PostgreSQL {source}, but {here} reads it differently: {words}"
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

    /// The server's log entry for the error that a client quotes.
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
                // In another encoding the same text has other bytes.
                return told
                    .into_iter()
                    .rfind(|told| !told.fatal && !matches!(told.class(), "08" | "57"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The error of a drill without a result. If this machine lacked something, the message says so first.
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
        // The hints for pg_restore are about a target of the user's.
        let hint = if knows { error.hint_text() } else { HINT };
        let told = not_carried_out(&Error::new(Code::RestoreErr, words).hint(hint));
        match full {
            true => told.hint(ROOM),
            false => told,
        }
    }
}

/// The same without a server to ask. An error with a useful hint keeps it.
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

/// Codes that mean the source elsewhere, but here the throwaway server and its clients.
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
        // If a library must be loaded at server start and is loaded later, it ends the session.
        _ if told.fatal && item.is_some_and(|item| item.entry.desc == "EXTENSION") => Weight::Lacking,
        _ if told.fatal => Weight::OfThePlace,
        ("57", _) => Weight::OfThePlace,
        ("40", _) | (_, "55P03" | "55006") => Weight::Contended,
        // Also if a function caught the error and reports it, or if it has no SQLSTATE of its own.
        _ if lacks_room(&told.message) || says(&SYSTEM) => Weight::OfThePlace,
        (_, "XX000") if says(&["concurrently", "deadlock"]) => Weight::Contended,
        _ if of_the_machine => Weight::Lacking,
        (_, "58P01") if says(&["could not access file", "could not load library"]) => Weight::Lacking,
        ("58", _) => Weight::OfThePlace,
        // Collations of the system or of ICU. A database's own collations are in other schemas.
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
        // It needs another server, which a drill forbids, or a feature that this server was built without.
        ("08" | "HV" | "0A" | "F0", _) => Weight::Lacking,
        (_, "42501") => Weight::Refused,
        // If a function of the backup says so, that counts; a name does not.
        (_, "P0001") if is_refusal(&told.message) => Weight::Refused,
        _ => Weight::Wrong,
    }
}

/// Whether the server refused a right that a superuser has. The server and pg_restore report that only as text, which a
/// function of the backup can imitate. So this decides only whether an object counts as missing or as not tried.
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
    format!("the server refused it for lack of rights, and a drill is no superuser: {words}")
}
