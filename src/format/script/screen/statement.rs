//! One statement of a script: its tokens so far.

use super::Screened;

/// Statements that begin, end or divide a transaction, or reset how texts are read. pg_dump writes none of them, except
/// `BEGIN` and `COMMIT` around large objects.
const CONTROL: [&str; 11] = [
    "ABORT",
    "BEGIN",
    "COMMIT",
    "DISCARD",
    "END",
    "PREPARE",
    "RELEASE",
    "RESET",
    "ROLLBACK",
    "SAVEPOINT",
    "START",
];
macro_rules! encodings {
    ($($name:literal)*) => {
        /// The encodings that a database can have, each with the statement that sets it. In the other encodings of a
        /// client, a backslash may be the second half of a character.
        const ENCODINGS: &[(&str, &str)] = &[$(($name, concat!("SET client_encoding = '", $name, "';\n"))),*];
    };
}

encodings! {
    "EUC_CN" "EUC_JIS_2004" "EUC_JP" "EUC_KR" "EUC_TW" "ISO_8859_5" "ISO_8859_6" "ISO_8859_7"
    "ISO_8859_8" "KOI8R" "KOI8U" "LATIN1" "LATIN10" "LATIN2" "LATIN3" "LATIN4" "LATIN5" "LATIN6"
    "LATIN7" "LATIN8" "LATIN9" "MULE_INTERNAL" "SQL_ASCII" "UTF8" "WIN1250" "WIN1251" "WIN1252"
    "WIN1253" "WIN1254" "WIN1255" "WIN1256" "WIN1257" "WIN1258" "WIN866" "WIN874"
}

/// How many words at the start of a statement are kept.
const LEADING: usize = 4;

#[derive(Debug)]
pub(super) struct Statement {
    pub start: u64,
    pub depth: u32,
    /// Whether the last token was a text in single quotes.
    pub behind_text: bool,
    tokens: u64,
    /// How many of them were words without quotes.
    words: u64,
    /// The fourth token, if it was a word without quotes.
    called: String,
    /// The words without quotes at the start of the statement, in capitals.
    lead: Vec<String>,
    /// The last two tokens; empty if they were no words without quotes.
    last: [String; 2],
    literal: Vec<u8>,
    /// Whether the next token begins a statement: this one, or one within it.
    fresh: bool,
    /// Whether this is within the body of `BEGIN ATOMIC … END`.
    atomic: bool,
    /// Where psql expects such a body: it counts words.
    psql: Counted,
}

#[derive(Debug, Default)]
struct Counted {
    words: usize,
    first: [u8; 4],
    blocks: u32,
}

/// What the end of a statement changes for the lines after it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Plain,
    /// Rows follow.
    Rows,
    StandardStrings(bool),
    /// With the statement that sets the encoding again.
    Encoding(&'static str),
    Begin,
    Commit,
    /// A limit that pgstow's own sessions switch off, and that no server before 17 knows.
    TransactionTimeout,
}

impl Default for Statement {
    fn default() -> Self {
        Self {
            start: 0,
            depth: 0,
            behind_text: false,
            tokens: 0,
            words: 0,
            called: String::new(),
            lead: Vec::new(),
            last: Default::default(),
            literal: Vec::new(),
            fresh: true,
            atomic: false,
            psql: Counted::default(),
        }
    }
}

impl Statement {
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    pub fn begins(&mut self, offset: u64) {
        self.start = offset;
    }

    /// A token begins that is no word without quotes.
    pub fn sign(&mut self) -> Screened {
        self.token(String::new())
    }

    /// A text in single quotes has ended.
    pub fn literal(&mut self, text: &[u8]) {
        self.behind_text = true;
        self.literal = text.to_vec();
    }

    /// A word without quotes, in capitals.
    pub fn word(&mut self, word: &str) -> Screened {
        let begins = self.tokens == 0;
        if self.fresh {
            if self.atomic && word == "END" {
                self.atomic = false;
            } else if CONTROL.contains(&word) && !(begins && matches!(word, "BEGIN" | "COMMIT")) {
                return Err(format!("has {word}, which no dump holds and which is not run"));
            } else if word == "COPY" && !begins {
                return Err("has COPY within a statement".into());
            }
        }
        if self.tokens == self.lead.len() as u64 && self.lead.len() < LEADING {
            self.lead.push(word.to_owned());
        }
        self.words += 1;
        if self.tokens == 3 {
            self.called = word.to_owned();
        }
        self.psql.word(word, self.depth);
        let atomic = self.is_routine() && self.depth == 0 && self.last[1] == "BEGIN" && word == "ATOMIC";
        self.token(word.to_owned())?;
        if atomic {
            (self.atomic, self.fresh) = (true, true);
        }
        Ok(())
    }

    fn token(&mut self, word: String) -> Screened {
        if self.tokens == 1 && matches!(self.leads()[0], "BEGIN" | "COMMIT") {
            return Err(format!("has {}, which is not run", self.lead[0]));
        }
        self.tokens += 1;
        self.fresh = false;
        self.behind_text = false;
        self.last.swap(0, 1);
        self.last[1] = word;
        Ok(())
    }

    fn leads(&self) -> [&str; LEADING] {
        std::array::from_fn(|at| self.lead.get(at).map_or("", String::as_str))
    }

    fn is_routine(&self) -> bool {
        matches!(
            self.leads(),
            ["CREATE", "FUNCTION" | "PROCEDURE", ..] | ["CREATE", "OR", "REPLACE", "FUNCTION" | "PROCEDURE"]
        )
    }

    /// Whether this is one of the three calls with which pg_dump fills a large object. They run only PostgreSQL's own
    /// code, so they change no setting. A script may have millions of them.
    pub fn is_of_large_objects(&self) -> bool {
        let of_catalog = matches!(self.leads(), ["SELECT", "PG_CATALOG", "", ""]) && self.words == 3;
        of_catalog
            && matches!(
                (self.called.as_str(), self.tokens),
                ("LO_OPEN" | "LOWRITE", 9) | ("LO_CLOSE", 7)
            )
    }

    /// A semicolon has come. Returns which statement it ends, if it ends one.
    pub fn semicolon(&mut self, begun: bool) -> Screened<Option<Ended>> {
        self.behind_text = false;
        if self.depth > 0 || self.atomic {
            if self.depth == 0 && self.psql.blocks == 0 {
                return Err("has a function's body that psql would divide".into());
            }
            self.sign()?;
            self.fresh = true;
            return Ok(None);
        }
        if self.psql.blocks > 0 {
            return Err("has a function whose end psql would not see".into());
        }
        let ended = match self.leads() {
            ["BEGIN", ..] if begun => return Err("has BEGIN within a transaction".into()),
            ["BEGIN", ..] => Ended::Begin,
            ["COMMIT", ..] if !begun => {
                return Err("has COMMIT, which would end the transaction in which the script runs".into());
            }
            ["COMMIT", ..] => Ended::Commit,
            ["COPY", ..] if self.last == ["FROM", "STDIN"] => Ended::Rows,
            ["COPY", ..] => return Err("has a COPY that does not read the script's own lines".into()),
            ["SET", "STANDARD_CONFORMING_STRINGS", "", ""] => match (self.tokens, self.last[1].as_str()) {
                (4, "ON") => Ended::StandardStrings(true),
                (4, "OFF") => Ended::StandardStrings(false),
                _ => return Err(UNUSUAL.into()),
            },
            ["SET", "TRANSACTION_TIMEOUT", "", ""] if self.tokens == 4 => Ended::TransactionTimeout,
            ["SET", "CLIENT_ENCODING", "", ""] => {
                let name = String::from_utf8_lossy(&self.literal);
                let known = ENCODINGS.iter().find(|(known, _)| *known == name);
                match known {
                    Some((_, sql)) if self.tokens == 4 => Ended::Encoding(sql),
                    _ => return Err(UNUSUAL.into()),
                }
            }
            ["SET", "NAMES" | "STANDARD_CONFORMING_STRINGS" | "CLIENT_ENCODING", ..]
            | [
                "SET",
                "LOCAL" | "SESSION",
                "NAMES" | "STANDARD_CONFORMING_STRINGS" | "CLIENT_ENCODING",
                ..,
            ] => {
                return Err(UNUSUAL.into());
            }
            _ => Ended::Plain,
        };
        Ok(Some(ended))
    }
}

const UNUSUAL: &str = "changes how texts are read, in another way than pg_dump";

impl Counted {
    /// psql's rule for `CREATE FUNCTION … BEGIN … END`: semicolons in it do not end the statement.
    fn word(&mut self, word: &str, depth: u32) {
        let counts = matches!(word, "CREATE" | "FUNCTION" | "PROCEDURE" | "OR" | "REPLACE");
        if counts && self.words < self.first.len() {
            self.first[self.words] = word.as_bytes()[0];
        }
        self.words += 1;
        let is_routine = matches!(self.first, [b'C', b'F' | b'P', ..] | [b'C', b'O', b'R', b'F' | b'P']);
        if !is_routine || depth > 0 {
            return;
        }
        match word {
            "BEGIN" => self.blocks += 1,
            "CASE" if self.blocks > 0 => self.blocks += 1,
            "END" => self.blocks = self.blocks.saturating_sub(1),
            _ => {}
        }
    }
}
