//! The database itself: how the archive says it was made and set up, written for a database of another name.

use std::collections::BTreeSet;
use std::fmt;

use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::postgres::quoting::{identifier, literal, unquoted};

/// The statement that makes the database, with the encoding and locale that it had. It is written anew from the
/// archive's values. The archive's own statement is not run: it is a text in the store that can be changed, and a
/// role that creates databases may do more than that.
pub(crate) fn creation(items: &[Item], name: &str) -> Result<String> {
    let Some(database) = items.iter().find(|item| item.entry.desc == "DATABASE") else {
        return Ok(format!(
            "CREATE DATABASE {} WITH TEMPLATE = template0",
            identifier(name)
        ));
    };
    rewritten(&database.details.definition, name).ok_or_else(|| {
        Error::new(
            Code::Integrity,
            "the archive's statement that makes the database is not one that pg_dump writes, so it was not run",
        )
        .hint(
            "the archive may have been changed: compare it with another copy, and sign backups (BACKUP_SIGN_KEY); or \
             restore into an existing database, without --create",
        )
    })
}

/// What the statement may say of a database, besides its name.
const TEXTS: [&str; 8] = [
    "ENCODING",
    "LOCALE",
    "LC_COLLATE",
    "LC_CTYPE",
    "ICU_LOCALE",
    "ICU_RULES",
    "BUILTIN_LOCALE",
    "COLLATION_VERSION",
];

fn rewritten(definition: &str, name: &str) -> Option<String> {
    let rest = definition.trim_end().strip_suffix(';')?;
    let rest = rest.strip_prefix("CREATE DATABASE ")?;
    let mut rest = rest[identifier_length(rest)?..].strip_prefix(" WITH TEMPLATE = template0")?;
    let mut statement = format!("CREATE DATABASE {} WITH TEMPLATE = template0", identifier(name));
    while !rest.is_empty() {
        let (option, value) = rest.strip_prefix(' ')?.split_once(" = ")?;
        let length = match option {
            "LOCALE_PROVIDER" => word_length(value),
            "TABLESPACE" => identifier_length(value)?,
            _ if TEXTS.contains(&option) => text_length(value)?,
            _ => return None,
        };
        let (value, further) = value.split_at(length);
        if value.is_empty() {
            return None;
        }
        statement.push_str(&format!(" {option} = {}", anew(value)));
        rest = further;
    }
    statement.push(';');
    Some(statement)
}

/// A text, a name or a word, in our own quotes.
fn anew(value: &str) -> String {
    let within = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    match (within('\''), within('"')) {
        (Some(text), _) => literal(&text.replace("''", "'")),
        (_, Some(name)) => identifier(&name.replace("\"\"", "\"")),
        _ => value.to_owned(),
    }
}

fn word_length(text: &str) -> usize {
    let in_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.find(|c| !in_word(c)).unwrap_or(text.len())
}

fn identifier_length(text: &str) -> Option<usize> {
    if text.starts_with('"') {
        return quoted_length(text, '"');
    }
    Some(word_length(text)).filter(|length| *length > 0)
}

fn text_length(text: &str) -> Option<usize> {
    text.starts_with('\'').then(|| quoted_length(text, '\''))?
}

/// The length with both quotes; `None` if the text is not closed.
fn quoted_length(text: &str, quote: char) -> Option<usize> {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return Some(at + 1);
        }
    }
    None
}

/// A temporary name, until the database can have its own.
pub(super) fn beside(name: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos() as u32;
    format!("{}{now:08x}", beginning(name))
}

/// The beginning of all such names of a database; eight hex digits follow.
pub(super) fn beginning(name: &str) -> String {
    // PostgreSQL takes 63 bytes.
    let mut end = name.len().min(40);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_pgstow_", &name[..end])
}

/// Whether the archive's database had this encoding, which pgstow's sessions have too.
pub(super) fn is_utf8(items: &[Item]) -> bool {
    let mut database = items.iter().filter(|item| item.entry.desc == "DATABASE");
    database.any(|item| item.details.definition.contains(" ENCODING = 'UTF8'"))
}

/// The same for a server that has only its own tablespaces.
pub(crate) fn without_tablespace(creation: &str) -> String {
    match creation.rfind(" TABLESPACE = ") {
        Some(at) => creation[..at].to_owned(),
        None => creation.to_owned(),
    }
}

/// Its owner, if the archive names one.
pub(super) fn owner(items: &[Item]) -> Option<&str> {
    let database = items.iter().find(|item| item.entry.desc == "DATABASE")?;
    Some(database.details.owner.as_str()).filter(|owner| !owner.is_empty())
}

/// Settings that could make the load of data fail or change what is loaded. They are set after the data.
const OBSTACLES: [&str; 18] = [
    "array_nulls",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "exit_on_error",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "local_preload_libraries",
    "lock_timeout",
    "restrict_nonsystem_relation_kind",
    "role",
    "session_authorization",
    "session_preload_libraries",
    "session_replication_role",
    "statement_timeout",
    "temp_file_limit",
    "transaction_timeout",
    "transform_null_equals",
];

/// What belongs to the database itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    /// Settings under which its data was written and its views are read. They are set before the data.
    pub settings: Vec<String>,
    /// Set after all data: the settings that could disturb it, limits, comment and grants.
    pub others: Vec<String>,
}

pub(crate) fn properties(items: &[Item], name: &str, grants: bool) -> Properties {
    let statements = items
        .iter()
        .filter(|item| item.is_of_database() && item.entry.desc != "DATABASE")
        .filter(|item| grants || !item.is_grant())
        .flat_map(|item| statements(&item.details.definition))
        .filter_map(|statement| renamed(statement, name));
    let (settings, others) = statements.partition(|statement| {
        setting(statement).is_some_and(|setting| !OBSTACLES.contains(&setting.to_lowercase().as_str()))
    });
    Properties { settings, others }
}

/// Only its grants: an owner of publications and schemas needs the right to create them if no superuser gives them to
/// it.
pub(super) fn grants(items: &[Item], name: &str) -> Vec<String> {
    let grants = items.iter().filter(|item| item.is_of_database() && item.is_grant());
    let statements = grants.flat_map(|item| statements(&item.details.definition));
    statements.filter_map(|statement| renamed(statement, name)).collect()
}

/// A setting of a database, for all or for one role.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Setting {
    role: String,
    name: String,
    /// Without quotes and blanks.
    value: String,
}

impl Setting {
    /// Its name and role, not its value.
    pub fn what(&self) -> String {
        match &*self.role {
            "" => format!("ALTER DATABASE … SET {}", self.name),
            role => format!("ALTER ROLE {} IN DATABASE … SET {}", identifier(role), self.name),
        }
    }
}

/// The form in which the target is asked for them.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}={}", self.role, self.name, self.value)
    }
}

/// The settings that the archive's database had.
pub(super) fn settings(items: &[Item]) -> BTreeSet<Setting> {
    items
        .iter()
        .filter(|item| item.entry.desc == "DATABASE PROPERTIES")
        .flat_map(|item| statements(&item.details.definition))
        .filter_map(|statement| {
            let role = match statement.strip_prefix("ALTER ROLE ") {
                Some(rest) => unquoted(&rest[..identifier_length(rest)?]),
                None if statement.starts_with("ALTER DATABASE ") => String::new(),
                None => return None,
            };
            let name = setting(statement)?;
            let value = statement
                .split_once(" TO '")
                .map_or("", |(_, value)| value.trim_end_matches(';'));
            let value = value.replace(['\'', '"', ' '], "");
            Some(Setting { role, name, value })
        })
        .collect()
}

/// The name of the setting that a statement sets: `ALTER DATABASE a SET b TO 'c';`
pub(crate) fn setting(statement: &str) -> Option<String> {
    const WORD: &str = " SET ";
    let mut quote = None;
    let at = statement.char_indices().find_map(|(at, c)| {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        (quote.is_none() && statement[at..].starts_with(WORD)).then_some(at + WORD.len())
    })?;
    let rest = &statement[at..];
    let name = match rest.strip_prefix('"') {
        Some(quoted) => &quoted[..quoted.find('"')?],
        None => &rest[..rest.find([' ', '='])?],
    };
    (name != "TABLESPACE").then(|| name.to_owned())
}

/// The statements of a definition: each ends with a semicolon outside of quotes.
pub(crate) fn statements(definition: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut start = 0;
    let mut quote = None;
    for (at, c) in definition.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, ';') => {
                statements.push(definition[start..=at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    statements.retain(|statement| !statement.is_empty());
    statements
}

/// The same statement about a database of this name: what follows its first word `DATABASE`.
fn renamed(statement: &str, name: &str) -> Option<String> {
    const WORD: &str = "DATABASE ";
    // Only keywords and names of roles come before it.
    let mut quote = false;
    let at = statement.char_indices().find_map(|(at, c)| {
        if c == '"' {
            quote = !quote;
        }
        (!quote && statement[at..].starts_with(WORD)).then_some(at + WORD.len())
    })?;
    let (before, rest) = statement.split_at(at);
    let end = match rest.strip_prefix('"') {
        Some(inner) => {
            let mut chars = inner.char_indices().peekable();
            loop {
                match chars.next()? {
                    (_, '"') if chars.peek().is_some_and(|(_, next)| *next == '"') => {
                        chars.next();
                    }
                    (at, '"') => break at + 2,
                    _ => {}
                }
            }
        }
        None => rest.find([' ', ';', '\n']).unwrap_or(rest.len()),
    };
    Some(format!("{before}{}{}", identifier(name), &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_before_the_data_unless_they_stand_in_its_way() {
        let item = Item::sample(0, "DATABASE PROPERTIES", "").defined(
            "ALTER DATABASE shop CONNECTION LIMIT = 7;\n\
                    ALTER DATABASE shop SET \"app.tenant\" TO ' SET x TO ';\n\
                    ALTER DATABASE shop SET default_transaction_read_only TO 'on';\n\
                    ALTER ROLE \"a SET b\" IN DATABASE shop SET search_path TO 'x', 'y';\n\
                    ALTER DATABASE shop SET TABLESPACE fast;\n",
        );
        let items = [item];
        let Properties {
            settings: early,
            others,
        } = properties(&items, "n", true);
        assert_eq!(
            early,
            [
                "ALTER DATABASE \"n\" SET \"app.tenant\" TO ' SET x TO ';",
                "ALTER ROLE \"a SET b\" IN DATABASE \"n\" SET search_path TO 'x', 'y';"
            ]
        );
        assert_eq!(others.len(), 3);
        let found: Vec<String> = settings(&items).iter().map(Setting::to_string).collect();
        assert_eq!(
            found,
            [
                " app.tenant=SETxTO",
                " default_transaction_read_only=on",
                "a SET b search_path=x,y"
            ]
        );
    }

    #[test]
    fn a_database_is_made_by_a_statement_of_our_own() {
        let made = |definition: &str| rewritten(definition, "new");
        for (definition, rest) in [
            ("shop WITH TEMPLATE = template0;\n", ""),
            (
                "\"sh\"\"op WITH\" WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = icu LC_COLLATE = 'C' \
                 LC_CTYPE = 'it''s' ICU_LOCALE = 'de' ICU_RULES = '&a < b; ''';\n",
                " ENCODING = 'UTF8' LOCALE_PROVIDER = icu LC_COLLATE = 'C' LC_CTYPE = 'it''s' ICU_LOCALE = 'de' \
                 ICU_RULES = '&a < b; '''",
            ),
            (
                "shop WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE = 'C' TABLESPACE = \"Fast \"\" one\";\n",
                " ENCODING = 'UTF8' LOCALE = 'C' TABLESPACE = \"Fast \"\" one\"",
            ),
        ] {
            let expected = format!("CREATE DATABASE \"new\" WITH TEMPLATE = template0{rest};");
            assert_eq!(made(&format!("CREATE DATABASE {definition}")), Some(expected));
        }
        for other in [
            "DO $$ BEGIN END $$;--DATABASE x",
            "UPDATE pg_authid SET rolsuper=true;COMMIT;SELECT 1/0 --DATABASE x",
            "CREATE DATABASE shop WITH TEMPLATE = template1;",
            "CREATE DATABASE shop WITH TEMPLATE = template0 OWNER = x;",
            "CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8'; DROP ROLE x;",
            "CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8;",
            "CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8'",
            "CREATE DATABASE shop WITH TEMPLATE = template0 LOCALE_PROVIDER = ;",
            "CREATE DATABASE shop WITH TEMPLATE = template0 -- x\n;",
            "CREATE DATABASE \"shop WITH TEMPLATE = template0;",
            "",
        ] {
            assert_eq!(made(other), None, "{other}");
        }
    }

    #[test]
    fn statements_speak_of_the_new_database() {
        for (statement, expected) in [
            (
                "ALTER ROLE \"DATABASE x\" IN DATABASE shop SET work_mem TO '1MB';",
                "ALTER ROLE \"DATABASE x\" IN DATABASE \"new\" SET work_mem TO '1MB';",
            ),
            (
                "GRANT CONNECT ON DATABASE shop TO reader;",
                "GRANT CONNECT ON DATABASE \"new\" TO reader;",
            ),
        ] {
            assert_eq!(renamed(statement, "new").as_deref(), Some(expected));
        }
        assert_eq!(
            statements("COMMENT ON DATABASE shop IS 'a;b';\n\nALTER DATABASE shop SET x TO 'it''s;';\n"),
            [
                "COMMENT ON DATABASE shop IS 'a;b';",
                "ALTER DATABASE shop SET x TO 'it''s;';"
            ]
        );
    }
}
