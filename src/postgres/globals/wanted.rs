//! Parses a statement of `globals.sql`, with an allow-list of what pg_dumpall writes about roles. A parsed statement
//! is written anew before it runs, so the server never gets a byte of the file's own syntax.

mod tokens;

use crate::postgres::quoting::{identifier, literal};

use tokens::{Rest, tokens};

/// What a statement asks for; [`wanted`] returns `None` for any other statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Role(String),
    Attributes {
        role: String,
        attributes: Attributes,
    },
    Setting {
        role: String,
        database: Option<String>,
        name: String,
        values: Vec<String>,
    },
    Comment {
        role: String,
        text: Option<String>,
    },
    Membership(Membership),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Attributes that give power over the server: names as in SQL.
    pub privileged: Vec<&'static str>,
    /// The harmless attributes, as SQL, if they are not the default.
    pub plain: Vec<String>,
    /// As in the file.
    pub until: Option<String>,
    pub password: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Membership {
    pub granted: String,
    pub member: String,
    /// `ADMIN`, `INHERIT`, `SET`.
    pub options: Vec<(&'static str, bool)>,
    pub grantor: Option<String>,
}

pub(super) fn wanted(sql: &str) -> Option<Wanted> {
    let tokens = tokens(sql)?;
    let mut rest = Rest(&tokens);
    let wanted = match (rest.word()?, rest.peek()) {
        ("CREATE", "ROLE") => {
            rest.take("ROLE")?;
            Wanted::Role(rest.name()?)
        }
        ("ALTER", "ROLE") => {
            rest.take("ROLE")?;
            alteration(&mut rest)?
        }
        ("COMMENT", "ON") => {
            rest.take("ON")?;
            rest.take("ROLE")?;
            let role = rest.name()?;
            rest.take("IS")?;
            let text = match rest.take("NULL") {
                Some(()) => None,
                None => Some(rest.text()?),
            };
            Wanted::Comment { role, text }
        }
        ("GRANT", _) => Wanted::Membership(membership(&mut rest)?),
        _ => return None,
    };
    rest.0.is_empty().then_some(wanted)
}

fn alteration(rest: &mut Rest<'_>) -> Option<Wanted> {
    // `ALL` in quotes is a role like any other.
    if rest.peek() == "ALL" {
        return None;
    }
    let role = rest.name()?;
    if rest.take("WITH").is_some() {
        let attributes = attributes(rest)?;
        return Some(Wanted::Attributes { role, attributes });
    }
    let database = match rest.take("IN") {
        Some(()) => {
            rest.take("DATABASE")?;
            Some(rest.name()?)
        }
        None => None,
    };
    let (name, values) = assignment(rest)?;
    Some(Wanted::Setting {
        role,
        database,
        name,
        values,
    })
}

fn attributes(rest: &mut Rest<'_>) -> Option<Attributes> {
    let mut found = Attributes {
        privileged: Vec::new(),
        plain: Vec::new(),
        until: None,
        password: false,
    };
    while !rest.0.is_empty() {
        match rest.word()? {
            "SUPERUSER" => found.privileged.push("SUPERUSER"),
            "CREATEROLE" => found.privileged.push("CREATEROLE"),
            "REPLICATION" => found.privileged.push("REPLICATION"),
            "BYPASSRLS" => found.privileged.push("BYPASSRLS"),
            word @ ("LOGIN" | "CREATEDB" | "NOINHERIT") => found.plain.push(word.to_owned()),
            // The defaults of a new role.
            "NOSUPERUSER" | "NOCREATEROLE" | "NOREPLICATION" | "NOBYPASSRLS" | "NOLOGIN" | "NOCREATEDB" | "INHERIT" => {
            }
            "CONNECTION" => {
                rest.take("LIMIT")?;
                let number = rest.number()?;
                found.plain.push(format!("CONNECTION LIMIT {number}"));
            }
            "VALID" => {
                rest.take("UNTIL")?;
                let until = rest.text()?;
                found.plain.push(format!("VALID UNTIL {}", literal(&until)));
                found.until = Some(until);
            }
            "PASSWORD" => {
                rest.take("NULL").or_else(|| rest.text().map(drop))?;
                found.password = true;
            }
            _ => return None,
        }
    }
    Some(found)
}

fn membership(rest: &mut Rest<'_>) -> Option<Membership> {
    let granted = rest.name()?;
    rest.take("TO")?;
    let mut found = Membership {
        granted,
        member: rest.name()?,
        options: Vec::new(),
        grantor: None,
    };
    if rest.take("WITH").is_some() {
        loop {
            let option = match rest.word()? {
                "ADMIN" => "ADMIN",
                "INHERIT" => "INHERIT",
                "SET" => "SET",
                _ => return None,
            };
            let value = match rest.word()? {
                "OPTION" | "TRUE" => true,
                "FALSE" => false,
                _ => return None,
            };
            found.options.push((option, value));
            if rest.sign(',').is_none() {
                break;
            }
        }
    }
    if rest.take("GRANTED").is_some() {
        rest.take("BY")?;
        found.grantor = Some(rest.name()?);
    }
    Some(found)
}

impl Membership {
    /// The part of it that a server of this major version understands: before 16 only `ADMIN`. `None` if the
    /// membership would give more there than in the backup.
    pub fn for_major(&self, major: u32) -> Option<Self> {
        if major >= 16 {
            return Some(self.clone());
        }
        let mut known = self.clone();
        known.options.retain(|option| *option == ("ADMIN", true));
        (!self.options.contains(&("SET", false))).then_some(known)
    }

    /// PostgreSQL before 16 understands only `ADMIN`, with the word `OPTION`.
    pub fn sql(&self, with_grantor: bool) -> String {
        let mut sql = format!("GRANT {} TO {}", identifier(&self.granted), identifier(&self.member));
        for (number, (option, value)) in self.options.iter().enumerate() {
            let value = if *value { "OPTION" } else { "FALSE" };
            sql += &format!("{} {option} {value}", if number == 0 { " WITH" } else { "," });
        }
        if let (Some(grantor), true) = (&self.grantor, with_grantor) {
            sql += &format!(" GRANTED BY {}", identifier(grantor));
        }
        sql
    }
}

fn assignment(rest: &mut Rest<'_>) -> Option<(String, Vec<String>)> {
    rest.take("SET")?;
    let name = rest.setting()?;
    rest.take("TO").or_else(|| rest.sign('='))?;
    let mut values = vec![rest.text()?];
    while rest.sign(',').is_some() {
        values.push(rest.text()?);
    }
    Some((name, values))
}

/// A setting of a database as pg_dump writes it: its role, its name and its values.
pub(super) fn of_database(sql: &str) -> Option<(Option<String>, String, Vec<String>)> {
    if let Some(Wanted::Setting {
        role,
        database: Some(_),
        name,
        values,
    }) = wanted(sql)
    {
        return Some((Some(role), name, values));
    }
    let tokens = tokens(sql)?;
    let mut rest = Rest(&tokens);
    rest.take("ALTER")?;
    rest.take("DATABASE")?;
    rest.name()?;
    let (name, values) = assignment(&mut rest)?;
    rest.0.is_empty().then_some((None, name, values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pg_dumpall_writes_is_understood() {
        let plain = |plain: &[&str]| Attributes {
            privileged: vec![],
            plain: plain.iter().map(|&word| word.to_owned()).collect(),
            until: None,
            password: false,
        };
        assert_eq!(wanted("CREATE ROLE x"), Some(Wanted::Role("x".into())));
        assert_eq!(wanted("create\n role \"A \"\"b\""), Some(Wanted::Role("A \"b".into())));
        let sql = "ALTER ROLE x WITH NOSUPERUSER INHERIT NOCREATEROLE CREATEDB LOGIN NOREPLICATION NOBYPASSRLS \
                   CONNECTION LIMIT -1 VALID UNTIL '2030-01-01'";
        let role = || "x".to_owned();
        assert_eq!(
            wanted(sql),
            Some(Wanted::Attributes {
                role: role(),
                attributes: Attributes {
                    until: Some("2030-01-01".into()),
                    ..plain(&["CREATEDB", "LOGIN", "CONNECTION LIMIT -1", "VALID UNTIL '2030-01-01'"])
                }
            })
        );
        let sql = "ALTER ROLE x WITH SUPERUSER NOINHERIT CREATEROLE REPLICATION BYPASSRLS PASSWORD 'SCRAM'";
        assert_eq!(
            wanted(sql),
            Some(Wanted::Attributes {
                role: role(),
                attributes: Attributes {
                    privileged: vec!["SUPERUSER", "CREATEROLE", "REPLICATION", "BYPASSRLS"],
                    password: true,
                    ..plain(&["NOINHERIT"])
                }
            })
        );
        assert_eq!(
            wanted("ALTER ROLE x IN DATABASE \"d\" SET \"TimeZone\" TO 'UTC'"),
            Some(Wanted::Setting {
                role: role(),
                database: Some("d".into()),
                name: "timezone".into(),
                values: vec!["UTC".into()]
            })
        );
        assert_eq!(
            wanted("ALTER ROLE x SET search_path TO E'a\\\\''', 'b'"),
            Some(Wanted::Setting {
                role: role(),
                database: None,
                name: "search_path".into(),
                values: vec!["a\\'".into(), "b".into()]
            })
        );
        let Some(Wanted::Membership(membership)) =
            wanted("GRANT a TO \"B\" WITH ADMIN OPTION, INHERIT FALSE, SET TRUE GRANTED BY c")
        else {
            panic!("no membership")
        };
        assert_eq!(
            membership.sql(true),
            "GRANT \"a\" TO \"B\" WITH ADMIN OPTION, INHERIT FALSE, SET OPTION GRANTED BY \"c\""
        );
        assert_eq!(membership.sql(false).split(" GRANTED").count(), 1);
        let older = membership.for_major(15).unwrap();
        assert_eq!(older.sql(false), "GRANT \"a\" TO \"B\" WITH ADMIN OPTION");
        assert_eq!(membership.for_major(16).as_ref(), Some(&membership));
        for (more, told) in [
            ("WITH INHERIT TRUE", Some("GRANT \"a\" TO \"b\"")),
            ("WITH ADMIN FALSE, INHERIT FALSE", Some("GRANT \"a\" TO \"b\"")),
            ("WITH ADMIN OPTION, INHERIT FALSE, SET FALSE", None),
        ] {
            let Some(Wanted::Membership(membership)) = wanted(&format!("GRANT a TO b {more}")) else {
                panic!("no membership")
            };
            assert_eq!(
                membership.for_major(15).map(|older| older.sql(true)).as_deref(),
                told,
                "{more}"
            );
        }
        assert!(
            matches!(wanted("COMMENT ON ROLE x IS 'it''s'"), Some(Wanted::Comment { text: Some(text), .. }) if text == "it's")
        );
    }

    #[test]
    fn anything_else_is_not() {
        for sql in [
            "DO $$ BEGIN COPY (SELECT 1) TO PROGRAM 'id'; END $$",
            "CREATE ROLE x SUPERUSER",
            "CREATE ROLE x; DO $$ $$",
            "CREATE ROLE x -- \r; DO $$ $$",
            "CREATE ROLE /* x */ y",
            "CREATE ROLE x IN ROLE postgres",
            "CREATE ROLE U&\"x\"",
            "CREATE ROLE U& \"x\"",
            "CREATE ROLE \"x\"\"",
            "CREATE ROLE x\"y\"",
            "CREATE ROLE é",
            "CREATE ROLE \"\"",
            "CREATE USER x",
            "CREATE TABLESPACE t LOCATION '/t'",
            "ALTER ROLE ALL SET work_mem TO '1MB'",
            "ALTER ROLE x RENAME TO y",
            "ALTER ROLE x SET role = postgres",
            "ALTER ROLE x SET work_mem FROM CURRENT",
            "ALTER ROLE x SET search_path TO 'a' 'b'",
            "ALTER ROLE x SET search_path TO 'a\\'', b'",
            "ALTER ROLE x SET search_path TO E'a\\''",
            "ALTER ROLE x SET a TO 'open",
            "ALTER ROLE x WITH SYSID 1",
            "ALTER ROLE x WITH CONNECTION LIMIT 1e9",
            "ALTER DATABASE x SET work_mem TO '1MB'",
            "ALTER SYSTEM SET work_mem TO '1MB'",
            "GRANT ALL ON SCHEMA a TO b",
            "GRANT a, b TO c",
            "GRANT a TO b WITH ADMIN",
            "GRANT SET ON PARAMETER a TO b",
            "DROP ROLE x",
            "SECURITY LABEL ON ROLE x IS 'y'",
            "\\! id",
            "",
        ] {
            assert_eq!(wanted(sql), None, "{sql}");
        }
    }
}
