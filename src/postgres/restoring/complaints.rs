//! Parses pg_restore's stderr line by line while it runs.
//!
//! ```text
//! pg_restore: while PROCESSING TOC:
//! pg_restore: from TOC entry 215; 1259 16385 TABLE t postgres
//! pg_restore: error: could not execute query: ERROR:  relation "t" already exists
//! DETAIL:  …
//! Command was: CREATE TABLE …
//! ```

use std::collections::HashSet;

use super::super::Redactor;
use super::super::child::{Hearing, quoted};
use super::super::redaction::without_values;

/// If pg_restore continues after errors, each error is kept; if they only become warnings, the first ones are enough.
const KEPT: usize = 100;
const KEPT_OF_ALL: usize = 20_000;
/// The line after the error about the setting that an old server does not have. The error itself is in the server's
/// own language.
const SETS_TIMEOUT: &str = "Command was: SET transaction_timeout = 0;";
const ENTRY: &str = "from TOC entry ";
const LAST_LINE: &str = "warning: errors ignored on restore";

/// Something that pg_restore could not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The dump id of the entry that it was restoring.
    pub entry: Option<i64>,
    /// pg_restore's own name for that entry.
    at: Option<String>,
    pub words: String,
    /// It made the entry, but could not change its owner.
    pub is_of_owner: bool,
}

#[derive(Debug)]
pub(super) struct Complaints {
    redactor: Redactor,
    tolerates_transaction_timeout: bool,
    stops_at_first: bool,
    /// Entries whose errors do not stop it.
    except: HashSet<i64>,
    /// An error of which the next line shows whether to tolerate it.
    doubtful: Option<String>,
    /// The entry that it is restoring.
    entry: Option<String>,
    keeps: usize,
    kept: Vec<Complaint>,
    /// Which is the first that is not about such an entry.
    first_at: Option<usize>,
    /// All of them, and those that are not about such an entry.
    heard: usize,
    count: usize,
    listening: Listening,
    came_to_the_end: bool,
}

/// What the next line without the program's name belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listening {
    Complaint,
    Nothing,
}

impl Complaints {
    pub fn new(redactor: Redactor, tolerates_transaction_timeout: bool, stops_at_first: bool, all: bool) -> Self {
        Self {
            redactor,
            tolerates_transaction_timeout,
            stops_at_first,
            except: HashSet::new(),
            doubtful: None,
            entry: None,
            keeps: if all { KEPT_OF_ALL } else { KEPT },
            kept: Vec::new(),
            first_at: None,
            heard: 0,
            count: 0,
            listening: Listening::Nothing,
            came_to_the_end: false,
        }
    }

    /// With entries whose errors do not stop it, by dump ids.
    pub fn except(self, except: HashSet<i64>) -> Self {
        Self { except, ..self }
    }

    pub fn hear(&mut self, line: &str) -> Hearing {
        if line.trim().is_empty() {
            return Hearing::GoOn;
        }
        // A quoted command may contain any line; no line follows the real last line.
        self.came_to_the_end = false;
        let verdict = match self.doubtful.take() {
            Some(_) if line.trim_end() == SETS_TIMEOUT => return Hearing::GoOn,
            Some(error) => self.complain(&error),
            None => Hearing::GoOn,
        };
        match self.understand(line) {
            Hearing::GoOn => verdict,
            Hearing::Stop => Hearing::Stop,
        }
    }

    fn understand(&mut self, line: &str) -> Hearing {
        let Some(said) = line.strip_prefix("pg_restore: ") else {
            self.explain(line);
            return Hearing::GoOn;
        };
        if said.starts_with("while ") {
            self.entry = None;
        } else if let Some(entry) = said.strip_prefix(ENTRY) {
            self.entry = Some(entry.to_owned());
        } else if let Some(error) = said.strip_prefix("error: ") {
            self.listening = Listening::Nothing;
            if self.tolerates_transaction_timeout && error.contains("transaction_timeout") {
                self.doubtful = Some(error.to_owned());
                return Hearing::GoOn;
            }
            return self.complain(error);
        } else if said.starts_with("detail: ") || said.starts_with("hint: ") {
            self.explain(said);
            return Hearing::GoOn;
        } else if said.starts_with(LAST_LINE) {
            self.came_to_the_end = true;
        }
        self.listening = Listening::Nothing;
        Hearing::GoOn
    }

    fn complain(&mut self, error: &str) -> Hearing {
        let entry = self.entry.as_deref().and_then(number);
        let may_fail = entry.is_some_and(|entry| self.except.contains(&entry));
        self.heard += 1;
        if self.kept.len() < self.keeps {
            self.kept.push(Complaint {
                entry,
                at: self.entry.as_deref().map(|entry| self.redactor.clean(entry)),
                words: quoted(&self.redactor.clean(error)),
                is_of_owner: false,
            });
            self.listening = Listening::Complaint;
        }
        if may_fail {
            return Hearing::GoOn;
        }
        self.count += 1;
        self.first_at.get_or_insert(self.heard - 1);
        match self.stops_at_first {
            true => Hearing::Stop,
            false => Hearing::GoOn,
        }
    }

    /// Adds details to the last complaint, but not the command that failed.
    fn explain(&mut self, line: &str) {
        if let Some(command) = line.strip_prefix("Command was: ") {
            if self.listening == Listening::Complaint
                && let Some(last) = self.kept.last_mut()
            {
                last.is_of_owner = gives_away(command);
            }
            self.listening = Listening::Nothing;
        }
        let telling = ["DETAIL: ", "HINT: ", "CONTEXT: ", "detail: ", "hint: "];
        if self.listening == Listening::Complaint
            && telling.iter().any(|start| line.starts_with(start))
            && let Some(last) = self.kept.last_mut()
        {
            let line = self.redactor.clean(&without_values(line));
            last.words = quoted(&format!("{} | {line}", last.words));
        }
    }

    /// Whether it processed the whole archive and reported that, with errors in between.
    pub fn came_to_the_end(&self) -> bool {
        self.came_to_the_end
    }

    /// The number of errors, without those of entries that may fail.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The first of these errors; otherwise the first of all.
    pub fn first(&self) -> Option<String> {
        let first = self.first_at.and_then(|at| self.kept.get(at));
        first.or(self.kept.first()).map(Complaint::text)
    }

    pub fn all(&self) -> Vec<Complaint> {
        let mut all = self.kept.clone();
        if self.heard > self.keeps {
            all.push(Complaint {
                entry: None,
                at: None,
                words: format!("and {} more", self.heard - self.keeps),
                is_of_owner: false,
            });
        }
        all
    }
}

impl Complaint {
    pub fn text(&self) -> String {
        match &self.at {
            Some(entry) => quoted(&format!("{ENTRY}{entry}: {}", self.words)),
            None => self.words.clone(),
        }
    }
}

/// `ALTER TABLE public.t OWNER TO app;`: the same words may also be part of a name.
fn gives_away(command: &str) -> bool {
    let owner = command.trim_end().strip_suffix(';');
    let owner = owner.filter(|command| command.starts_with("ALTER "));
    owner
        .and_then(|command| command.rsplit_once(" OWNER TO "))
        .is_some_and(|(_, owner)| {
            let inner = owner.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            match inner {
                Some(inner) => !inner.replace("\"\"", "").contains('"'),
                None => !owner.contains(['"', ' ', '\'']),
            }
        })
}

/// `215; 1259 16385 TABLE t postgres`
fn number(entry: &str) -> Option<i64> {
    entry.split(';').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &str, tolerates: bool) -> (Complaints, Vec<Hearing>) {
        let mut complaints = Complaints::new(Redactor::default(), tolerates, true, false);
        let hearings = lines.lines().map(|line| complaints.hear(line)).collect();
        (complaints, hearings)
    }

    #[test]
    fn the_entry_the_error_and_its_details_are_kept_but_no_row_and_no_command() {
        let (complaints, hearings) = heard(
            "pg_restore: while PROCESSING TOC:\npg_restore: from TOC entry 3; 0 1 TABLE DATA t ada\n\
             pg_restore: error: COPY failed for table \"t\": ERROR:  duplicate key\n\
             DETAIL:  Key (name)=(Grace (Hopper)) already exists.\nCONTEXT:  COPY t, line 3: \"Grace\"\n\
             Command was: INSERT Grace\nDETAIL:  Grace\n",
            false,
        );
        let text = complaints.first().unwrap();
        assert_eq!(
            text,
            "from TOC entry 3; 0 1 TABLE DATA t ada: COPY failed for table \"t\": ERROR:  duplicate key | \
             DETAIL:  Key (name)=(…) already exists. | CONTEXT:  COPY t, line 3"
        );
        assert_eq!(hearings[2], Hearing::Stop);
        let all = complaints.all();
        assert_eq!(all[0].entry, Some(3));
        assert!(all[0].words.starts_with("COPY failed for table"), "{all:?}");
    }

    #[test]
    fn errors_of_entries_that_may_fail_do_not_stop_it_and_are_not_the_first() {
        let complaints = Complaints::new(Redactor::default(), false, true, true);
        let mut complaints = complaints.except(HashSet::from([3]));
        let lines = "pg_restore: from TOC entry 3; 0 1 TABLE DATA t ada\npg_restore: error: COPY failed: no\n\
                     pg_restore: from TOC entry 4; 0 1 TABLE DATA u ada\npg_restore: error: COPY failed: never\n";
        let hearings: Vec<Hearing> = lines.lines().map(|line| complaints.hear(line)).collect();
        assert_eq!(hearings[1..], [Hearing::GoOn, Hearing::GoOn, Hearing::Stop]);
        assert_eq!(complaints.count(), 1);
        assert!(complaints.first().unwrap().contains("TOC entry 4"));
        assert_eq!(complaints.all().len(), 2);
    }

    #[test]
    fn the_unknown_setting_is_tolerated_in_every_language_but_a_table_of_that_name_is_not() {
        for error in [
            "ERROR:  unrecognized configuration parameter \"transaction_timeout\"",
            "FEHLER:  nicht erkannter Konfigurationsparameter »transaction_timeout«",
        ] {
            let error = format!("pg_restore: error: could not execute query: {error}\n");
            let lines = format!("{error}Command was: SET transaction_timeout = 0;\n");
            let (complaints, hearings) = heard(&lines, true);
            assert_eq!(complaints.count(), 0);
            assert_eq!(hearings, [Hearing::GoOn, Hearing::GoOn]);
            assert_eq!(heard(&lines, false).0.count(), 1);
            let (complaints, hearings) = heard(
                &format!("{error}Command was: CREATE TABLE transaction_timeout ();"),
                true,
            );
            assert_eq!((complaints.count(), hearings[1]), (1, Hearing::Stop));
        }
    }

    #[test]
    fn an_owner_that_is_not_set_is_told_from_a_table_that_is_not_made() {
        for (command, is_of_owner) in [
            ("ALTER TABLE public.t OWNER TO app;", true),
            ("ALTER FUNCTION public.\"a OWNER TO b\"() OWNER TO \"a \"\" b\";", true),
            ("CREATE TABLE public.t (", false),
            ("ALTER TABLE public.\"a OWNER TO b\" ENABLE ROW LEVEL SECURITY;", false),
            ("ALTER TABLE ONLY public.\"a OWNER TO b\"", false),
        ] {
            let error = "pg_restore: error: could not execute query: ERROR:  no\n";
            let (complaints, _) = heard(&format!("{error}DETAIL:  x\nCommand was: {command}\n"), false);
            assert_eq!(complaints.all()[0].is_of_owner, is_of_owner, "{command}");
        }
    }

    #[test]
    fn the_end_is_believed_only_as_the_last_line() {
        let last = "pg_restore: warning: errors ignored on restore: 1\n";
        assert!(heard(last, false).0.came_to_the_end());
        assert!(
            !heard(&format!("{last}pg_restore: error: x\n"), false)
                .0
                .came_to_the_end()
        );
    }

    #[test]
    fn thousands_of_errors_are_counted_and_a_hundred_kept() {
        let (complaints, _) = heard(&"pg_restore: error: x\n".repeat(1000), false);
        assert_eq!(complaints.all().len(), KEPT + 1);
        assert_eq!(complaints.all()[KEPT].words, "and 900 more");
    }
}
