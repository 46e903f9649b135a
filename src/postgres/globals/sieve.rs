//! Filters `globals.sql` on its way into a backup, statement by statement: a setting of an absurd length then leaves
//! out only itself, and not all roles.

use super::split::{Statement, statements};
use crate::error::Result;
use crate::postgres::{Omission, Session};

/// The longest statement: no honest setting or comment of a role is longer.
const STATEMENT: usize = 1 << 20;
/// A statement is long if it is longer than a few lines.
const LONG: usize = 4 << 10;
/// The limit for all long statements together: half of the limit of `globals.sql`.
const ALL_LONG: usize = 32 << 20;
/// The most statements that are named as left out.
const NAMED: usize = 100;

/// What is kept, and what is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globals {
    pub sql: Vec<u8>,
    pub left_out: Vec<Omission>,
}

/// Takes pg_dumpall's output piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Sieve {
    state: State,
    /// The bytes since the last statement's end, up to [`STATEMENT`].
    current: Vec<u8>,
    /// The full length of the current statement.
    length: usize,
    long: usize,
    found: Globals,
    more: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// One dash, which may begin a comment.
    Dash,
    Comment,
    /// One of psql's own commands, which ends with its line.
    Command,
    Name,
    Text,
    /// After an `E`, so that a backslash escapes the next byte.
    Escaped,
    Backslash,
}

impl Sieve {
    pub fn pass(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let before = self.current.last().copied();
            self.length += 1;
            if self.length <= STATEMENT {
                self.current.push(byte);
            }
            let ground = match (self.state, byte) {
                (State::Ground | State::Dash, b'\'') if matches!(before, Some(b'E' | b'e')) => State::Escaped,
                (State::Ground | State::Dash, b'\'') => State::Text,
                (State::Ground | State::Dash, b'"') => State::Name,
                (State::Ground, b'\\') if self.is_at_start() => State::Command,
                (State::Ground, b'-') => State::Dash,
                (State::Dash, b'-') => State::Comment,
                (State::Escaped, b'\\') => State::Backslash,
                (State::Backslash, _) => State::Escaped,
                (State::Comment, b'\n') | (State::Name, b'"') | (State::Text | State::Escaped, b'\'') => State::Ground,
                (State::Dash, _) => State::Ground,
                (state, _) => state,
            };
            let ends = match self.state {
                State::Ground | State::Dash => byte == b';',
                State::Command => byte == b'\n',
                _ => false,
            };
            self.state = if ends { State::Ground } else { ground };
            if ends {
                self.statement();
            }
        }
    }

    /// At the start of a statement: only spaces may have come.
    fn is_at_start(&self) -> bool {
        let (_, before) = self.current.split_last().unwrap_or((&0, &[]));
        before.last().is_none_or(|byte| *byte == b'\n')
    }

    fn statement(&mut self) {
        let length = std::mem::take(&mut self.length);
        let text = std::mem::take(&mut self.current);
        if length > LONG {
            if length > STATEMENT || self.long + length > ALL_LONG {
                return self.leave_out(&text);
            }
            self.long += length;
        }
        self.found.sql.extend_from_slice(&text);
    }

    fn leave_out(&mut self, text: &[u8]) {
        if self.found.left_out.len() == NAMED {
            self.more += 1;
            return;
        }
        let start = &text[..text.len().min(LONG)];
        let name = statements(start).last().map(Statement::summary).unwrap_or_default();
        self.found.left_out.push(left_out(name));
    }

    /// The number of bytes that are kept so far.
    pub fn kept(&self) -> usize {
        self.found.sql.len()
    }

    pub fn end(mut self) -> Globals {
        if self.length > 0 {
            self.statement();
        }
        let more = (self.more > 0).then(|| left_out(format!("{} more", self.more)));
        self.found.left_out.extend(more);
        self.found
    }
}

impl Session {
    /// What would be left out of `globals.sql`, for a caller that asks before it is made.
    pub async fn left_out_of_roles(&self) -> Result<Vec<Omission>> {
        let question = format!(
            "SELECT pg_catalog.concat('ALTER ROLE ', pg_catalog.quote_ident(r.rolname),
               ' IN DATABASE ' || pg_catalog.quote_ident(d.datname), ' SET ', pg_catalog.split_part(x.setting, '=', 1))
             FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
             LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
             CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS x (setting)
             WHERE pg_catalog.octet_length(x.setting) >= {STATEMENT}
             UNION ALL SELECT pg_catalog.concat('COMMENT ON ROLE ', pg_catalog.quote_ident(r.rolname))
             FROM pg_catalog.pg_roles r JOIN pg_catalog.pg_shdescription c ON c.objoid = r.oid
               AND c.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass
             WHERE pg_catalog.octet_length(c.description) >= {STATEMENT}"
        );
        let failed = |error| self.error("cannot look for settings of roles that are too long", &error);
        let names = self.names(&question).await.map_err(failed)?;
        Ok(names.into_iter().take(NAMED).map(left_out).collect())
    }
}

fn left_out(name: String) -> Omission {
    Omission {
        kind: "role_setting".to_owned(),
        name,
        why: format!(
            "it is longer than {STATEMENT} bytes, or there are too many long ones: globals.sql does not contain it"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sieved(sql: &str, piece: usize) -> Globals {
        let mut sieve = Sieve::default();
        sql.as_bytes().chunks(piece).for_each(|piece| sieve.pass(piece));
        sieve.end()
    }

    #[test]
    fn what_is_of_an_honest_length_comes_as_it_is() {
        let sql = "--\n-- PostgreSQL's; \"cluster\"\n--\n\n\\restrict a'b\n\nSET x = on;\nCREATE ROLE \"a;'b\";\n\
                   ALTER ROLE a-b SET x TO E'it\\\\''s; \\';', ';''';\nCOMMENT ON ROLE a IS '-- ;\n\\';\n\n\\unrestrict a'b\n\n-- done\n";
        for piece in [1, 7, 1000] {
            let found = sieved(sql, piece);
            assert_eq!(String::from_utf8(found.sql).unwrap(), sql);
            assert_eq!(found.left_out, []);
        }
    }

    #[test]
    fn what_is_absurdly_long_is_named_and_takes_nothing_else_along() {
        let long = "x;'' \"".repeat(STATEMENT / 6 + 1);
        let sql = format!(
            "CREATE ROLE a;\n-- User Config \"a\"\nALTER ROLE a SET \"app.x\" TO '{long}';\nCREATE ROLE b;\n\
             ALTER ROLE b SET \"app.x\" TO E'{long}\\\\';\nGRANT a TO b;\n"
        );
        let found = sieved(&sql, 4096);
        assert_eq!(
            String::from_utf8(found.sql).unwrap(),
            "CREATE ROLE a;\nCREATE ROLE b;\nGRANT a TO b;\n"
        );
        let names: Vec<&str> = found.left_out.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(
            names,
            ["ALTER ROLE a SET \"app.x\" TO…", "ALTER ROLE b SET \"app.x\" TO E…"]
        );
    }

    #[test]
    fn many_long_ones_leave_room_for_the_short() {
        let long = "x".repeat(STATEMENT / 2);
        let many: String = (0..200)
            .map(|n| format!("CREATE ROLE r{n};\nALTER ROLE r{n} SET a TO '{long}';\n"))
            .collect();
        let found = sieved(&many, 1 << 20);
        assert!(found.sql.len() < ALL_LONG + (1 << 20));
        assert!(String::from_utf8(found.sql).unwrap().contains("CREATE ROLE r199;"));
        assert_eq!(found.left_out.last().unwrap().name, "37 more");
    }
}
