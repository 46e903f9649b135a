//! A throwaway server's error log, each error with its SQLSTATE. Its clients pass on only words, and a function of
//! the backup may choose those. (It may also choose an SQLSTATE: then a drill that would have failed reports that it
//! could not be carried out. No choice turns a failure into a success.)

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::printable;

/// Comes before each message. All lines of a message after its first begin with a tab, so that no text in a message
/// looks like the start of another message.
pub(super) const PREFIX: &str = "log_line_prefix=@%e ";
/// Log errors and the server's own messages; no rows and no statements.
pub(super) const SETTINGS: [&str; 3] = [
    "log_min_messages=error",
    "log_min_error_statement=panic",
    "log_error_verbosity=terse",
];

const KEPT: usize = 1000;
/// The length of a message that is compared.
const COMPARED: usize = 160;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub state: String,
    /// It ended a session, or the server.
    pub fatal: bool,
    /// Its first line.
    pub message: String,
}

#[derive(Debug, Default)]
struct Heard {
    /// The number of all errors so far.
    count: u64,
    newest: VecDeque<Told>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<Mutex<Heard>>);

impl Log {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn hear(&self, line: &str) {
        let Some(told) = parse(line) else { return };
        let mut heard = self.heard();
        heard.count += 1;
        heard.newest.push_back(told);
        if heard.newest.len() > KEPT {
            heard.newest.pop_front();
        }
    }

    /// The number of errors so far.
    pub fn mark(&self) -> u64 {
        self.heard().count
    }

    /// The errors since then, the oldest first.
    pub fn since(&self, mark: u64) -> Vec<Told> {
        let heard = self.heard();
        let new = usize::try_from(heard.count.saturating_sub(mark)).unwrap_or(usize::MAX);
        let skipped = heard.newest.len().saturating_sub(new);
        heard.newest.iter().skip(skipped).cloned().collect()
    }
}

fn parse(line: &str) -> Option<Told> {
    let (state, rest) = line.strip_prefix('@')?.split_once(' ')?;
    let (severity, message) = rest.split_once(":  ")?;
    let fatal = match severity {
        "ERROR" => false,
        "FATAL" | "PANIC" => true,
        _ => return None,
    };
    Some(Told {
        state: state.to_owned(),
        fatal,
        message: message.to_owned(),
    })
}

impl Told {
    /// Whether a client's words quote this message. Encodings may differ, so only ASCII letters are compared.
    pub fn is_quoted_in(&self, words: &str) -> bool {
        // The server appends the position in the statement.
        let message = match self.message.rsplit_once(" at character ") {
            Some((before, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => before,
            _ => &self.message,
        };
        let letters = |text: &str| -> String { text.chars().filter(char::is_ascii_graphic).collect() };
        let message: String = letters(&printable::line(message)).chars().take(COMPARED).collect();
        !message.is_empty() && letters(words).contains(&message)
    }

    pub fn class(&self) -> &str {
        self.state.get(..2).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_begins_itself_is_heard_and_what_a_client_quotes_is_found() {
        let log = Log::default();
        log.hear("@23505 ERROR:  duplicate key value violates \"a\" at character 15");
        let mark = log.mark();
        log.hear("\t@53100 ERROR:  no");
        log.hear("@00000 LOG:  shutting down");
        log.hear("@53100 ERROR:  could not extend file \"base/1/2\": No space left on device");
        log.hear("@57P01 FATAL:  terminating connection due to administrator command");
        assert_eq!(log.since(0).len(), 3);
        let new = log.since(mark);
        assert_eq!((new[0].class(), new[0].fatal), ("53", false));
        assert_eq!((new[1].state.as_str(), new[1].fatal), ("57P01", true));
        let words = "pg_restore failed: from TOC entry 3; x: ERROR:  duplicate key value violates \"a\" | DETAIL:  …";
        let quoted: Vec<bool> = log.since(0).iter().map(|told| told.is_quoted_in(words)).collect();
        assert_eq!(quoted, [true, false, false]);
    }

    #[test]
    fn thousands_are_counted_and_the_newest_kept() {
        let log = Log::default();
        for number in 0..3000 {
            log.hear(&format!("@P0001 ERROR:  {number}"));
        }
        assert_eq!(log.since(2999)[0].message, "2999");
        assert_eq!((log.since(0).len(), log.mark()), (KEPT, 3000));
    }
}
