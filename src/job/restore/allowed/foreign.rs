//! Foreign servers, their user mappings and their foreign tables: each takes a right that a role may lack. The server
//! is asked for all of them, in the order in which the restore needs them.

use std::collections::{BTreeMap, BTreeSet};

use super::schema_of_extension;
use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::job::restore::ready::Target;
use crate::postgres::quoting::{identifier, unquoted};
use crate::postgres::{ForeignOption, ForeignServer, MappedUser, ServedTable, ServerRefusal};

pub(super) async fn check(target: &Target, planned: &[&Item], request: &RestoreRequest) -> Result<()> {
    let of_kind = |kind: &'static str| planned.iter().copied().filter(move |item| item.entry.desc == kind);
    let mappings: Vec<Mapping> = of_kind("USER MAPPING").filter_map(Mapping::of).collect();
    let tables = Tables::of(of_kind("FOREIGN TABLE"));
    let made: Vec<Made> = of_kind("SERVER").filter_map(Made::of).collect();
    let extensions = missing_extensions(target, planned, request);
    for server in &made {
        let owner = server.owner.filter(|_| !request.no_owner);
        let asked = ForeignServer {
            existing: None,
            wrapper: &server.wrapper,
            extensions: extensions.clone(),
            owner: owner.filter(|owner| *owner != target.session.server().user),
            users: users(&mappings, server.name),
            tables: tables.of_server(server.name),
        };
        refuse(target, server.name, &asked).await?;
    }
    // In a database that does not exist yet, there are no other servers.
    if request.create {
        return Ok(());
    }
    let others: BTreeSet<&str> = mappings
        .iter()
        .map(|one| one.server.as_str())
        .chain(tables.0.keys().map(String::as_str))
        .collect();
    for server in others
        .into_iter()
        .filter(|name| made.iter().all(|one| one.name != *name))
    {
        let asked = ForeignServer {
            existing: Some(server),
            users: users(&mappings, server),
            tables: tables.of_server(server),
            ..ForeignServer::default()
        };
        refuse(target, server, &asked).await?;
    }
    Ok(())
}

/// A server that the restore makes.
struct Made<'a> {
    name: &'a str,
    wrapper: String,
    owner: Option<&'a str>,
}

impl<'a> Made<'a> {
    fn of(item: &'a Item) -> Option<Self> {
        let (_, rest) = item.details.definition.split_once(" FOREIGN DATA WRAPPER ")?;
        Some(Self {
            name: &item.entry.tag,
            wrapper: first_name(rest),
            owner: Some(item.details.owner.as_str()).filter(|owner| !owner.is_empty()),
        })
    }
}

/// A user mapping that the restore makes.
struct Mapping {
    /// `None`: it is for everybody.
    role: Option<String>,
    server: String,
    options: Vec<ForeignOption>,
}

impl Mapping {
    fn of(item: &Item) -> Option<Self> {
        let definition = &item.details.definition;
        let rest = definition.strip_prefix("CREATE USER MAPPING FOR ")?;
        let (role, rest) = rest.split_at(end_of_name(rest));
        let role = unquoted(role);
        let rest = rest.strip_prefix(" SERVER ")?;
        Some(Self {
            role: Some(role).filter(|role| role != "public"),
            server: first_name(rest),
            options: options(&rest[end_of_name(rest)..]),
        })
    }
}

/// Foreign tables that the restore makes, by their servers. Of tables with the same options, one stands for all:
/// which role may set an option does not depend on the value.
struct Tables(BTreeMap<String, BTreeMap<Vec<String>, Table>>);

struct Table {
    name: String,
    options: Vec<ForeignOption>,
}

impl Tables {
    fn of<'a>(items: impl Iterator<Item = &'a Item>) -> Self {
        let mut servers: BTreeMap<String, BTreeMap<Vec<String>, Table>> = BTreeMap::new();
        for item in items {
            let Some((server, options)) = server_of_table(item) else {
                continue;
            };
            let names = options.iter().map(|(name, _)| name.clone()).collect();
            let of_server = servers.entry(server).or_default();
            of_server.entry(names).or_insert_with(|| Table {
                name: item.entry.name(),
                options,
            });
        }
        Self(servers)
    }

    fn of_server(&self, name: &str) -> Vec<ServedTable<'_>> {
        let tables = self.0.get(name).into_iter().flat_map(BTreeMap::values);
        let tables = tables.map(|table| ServedTable {
            name: &table.name,
            options: &table.options,
        });
        tables.collect()
    }
}

fn server_of_table(item: &Item) -> Option<(String, Vec<ForeignOption>)> {
    let (_, rest) = item.details.definition.rsplit_once("\nSERVER ")?;
    let (name, rest) = rest.split_at(end_of_name(rest));
    Some((unquoted(name), options(rest)))
}

/// The options as pg_dump writes them after a name. If the text has another form, what was read before it.
fn options(text: &str) -> Vec<ForeignOption> {
    let mut options = Vec::new();
    let Some(mut rest) = text.trim_start().strip_prefix("OPTIONS (") else {
        return options;
    };
    loop {
        rest = rest.trim_start();
        let (name, value) = rest.split_at(end_of_name(rest));
        let Some((value, next)) = first_literal(value.trim_start()) else {
            return options;
        };
        options.push((unquoted(name), value));
        match next.strip_prefix(',') {
            Some(next) => rest = next,
            None => return options,
        }
    }
}

/// The value of the literal (`'…'`, or `E'…'` with doubled backslashes) at the beginning of the text, and the rest.
fn first_literal(text: &str) -> Option<(String, &str)> {
    let escapes = text.starts_with('E');
    let inner = text.strip_prefix('E').unwrap_or(text).strip_prefix('\'')?;
    let mut value = String::new();
    let mut chars = inner.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let is_doubled = chars.peek().is_some_and(|(_, next)| *next == c);
        match c {
            '\'' if !is_doubled => return Some((value, &inner[at + 1..])),
            '\\' if escapes && !is_doubled => return None,
            '\'' => drop(chars.next()),
            '\\' if escapes => drop(chars.next()),
            _ => {}
        }
        value.push(c);
    }
    None
}

/// The name at the beginning of the text, as the server knows it.
fn first_name(text: &str) -> String {
    unquoted(&text[..end_of_name(text)])
}

fn end_of_name(text: &str) -> usize {
    let mut quoted = false;
    let ends = |c: char| {
        quoted ^= c == '"';
        !quoted && (c.is_whitespace() || c == ';')
    };
    text.find(ends).unwrap_or(text.len())
}

fn users<'a>(mappings: &'a [Mapping], server: &str) -> Vec<MappedUser<'a>> {
    let of_server = mappings.iter().filter(|one| one.server == server);
    let users = of_server.map(|one| MappedUser {
        role: one.role.as_deref(),
        options: &one.options,
    });
    users.collect()
}

/// Extensions that the restore makes before the servers.
fn missing_extensions<'a>(target: &Target, planned: &[&'a Item], request: &RestoreRequest) -> Vec<(&'a str, String)> {
    let is_there = |name: &str| {
        let found = &target.found.extensions;
        !request.create && found.get(name).copied().unwrap_or_default()
    };
    let extensions = planned.iter().filter(|item| item.entry.desc == "EXTENSION");
    let missing = extensions.filter(|item| !is_there(&item.entry.tag));
    missing
        .map(|item| (item.entry.tag.as_str(), schema_of_extension(item)))
        .collect()
}

/// The option of user mappings that lets sessions connect without a password.
const WAIVED: &str = "password_required";

async fn refuse(target: &Target, server: &str, asked: &ForeignServer<'_>) -> Result<()> {
    let Some(refusal) = target.session.refuses_server(asked).await? else {
        return Ok(());
    };
    let user = &target.session.server().user;
    let (quoted, wrapper) = (identifier(server), identifier(asked.wrapper));
    let usage = |role: &str| format!("GRANT USAGE ON FOREIGN DATA WRAPPER {wrapper} TO {}", identifier(role));
    let without = format!("leave it out, with what needs it: {}", excluding("SERVER", server));
    let (what, hint) = match refusal {
        ServerRefusal::Making => (
            format!("the role {user} may not make the foreign server {quoted}"),
            format!("{}; or {without}", usage(user)),
        ),
        ServerRefusal::Giving => {
            let owner = asked.owner.unwrap_or(user);
            (
                format!("the foreign server {quoted} cannot be given to {owner}, who owned it"),
                format!("{}; or restore with --no-owner; or {without}", usage(owner)),
            )
        }
        ServerRefusal::MappingOption(role, option) => (
            match option {
                WAIVED => format!(
                    "the role {user} may not make a user mapping without a password for the foreign server {quoted}"
                ),
                _ => format!(
                    "the role {user} may not make a user mapping with the option {} for the foreign server {quoted}",
                    identifier(option)
                ),
            },
            format!(
                "leave it out with {}, or all with --exclude USER-MAPPING, and make it by hand; or restore as a superuser",
                excluding("USER-MAPPING", &format!("{} SERVER {server}", role.unwrap_or("public")))
            ),
        ),
        ServerRefusal::Mapping(role) => (
            format!(
                "the role {user} may not make the user mapping of {} for the foreign server {quoted}",
                role.unwrap_or("PUBLIC")
            ),
            format!(
                "{}; or leave user mappings out: --exclude USER-MAPPING",
                as_owner(asked, user)
            ),
        ),
        ServerRefusal::Using => (
            format!("the role {user} may not make tables of the foreign server {quoted}"),
            format!("{}; or {without}", as_owner(asked, user)),
        ),
        ServerRefusal::TableOptions(table) => (
            format!("the role {user} may not give the foreign table {table} its options"),
            format!(
                "for tables of files or programs of the server: GRANT pg_read_server_files, pg_execute_server_program TO \
                 {}; or leave it out: {}",
                identifier(user),
                excluding("FOREIGN-TABLE", table)
            ),
        ),
    };
    Err(Error::new(Code::Permission, what).hint(hint))
}

/// The option of a command line that leaves this object out. A shell may read the name.
fn excluding(kind: &str, name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    match is_plain {
        true => format!("--exclude {kind}:{name}"),
        false => format!("--exclude '{kind}:{}'", name.replace('\'', "'\\''")),
    }
}

/// Only a server's owner, or who has the owner's rights, may do everything with it.
fn as_owner(asked: &ForeignServer<'_>, user: &str) -> String {
    match asked.owner {
        Some(owner) => format!(
            "let it have the rights of the server's owner: GRANT {} TO {} (since PostgreSQL 16: WITH INHERIT TRUE)",
            identifier(owner),
            identifier(user)
        ),
        None => "restore as the owner of this server".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(definition: &str) -> Item {
        Item::sample(0, "", "s").defined(definition)
    }

    #[test]
    fn definitions_say_which_wrapper_server_and_role_they_are_about() {
        let server = |definition: &str| Made::of(&item(definition)).map(|made| made.wrapper);
        let found = server("CREATE SERVER s TYPE 'x' FOREIGN DATA WRAPPER \"My \"\" w\" OPTIONS (\n    host 'h'\n);\n");
        assert_eq!(found.as_deref(), Some("My \" w"));
        assert_eq!(
            server("CREATE SERVER s FOREIGN DATA WRAPPER w;\n").as_deref(),
            Some("w")
        );
        assert_eq!(server("CREATE SERVER s"), None);
        let mapping = |definition: &str| {
            let mapping = Mapping::of(&item(definition)).unwrap();
            (mapping.role, mapping.server, mapping.options)
        };
        assert_eq!(
            mapping("CREATE USER MAPPING FOR public SERVER s;\n"),
            (None, "s".into(), Vec::new())
        );
        assert_eq!(
            mapping("CREATE USER MAPPING FOR \"a SERVER b\" SERVER s OPTIONS (\n    password_required 'false'\n);\n").0,
            Some("a SERVER b".into())
        );
        let table = "CREATE FOREIGN TABLE public.f (\n    a integer\n)\nSERVER \"S x\"\nOPTIONS (\n    t 'y'\n);\n";
        assert_eq!(
            server_of_table(&item(table)),
            Some(("S x".into(), vec![("t".into(), "y".into())]))
        );
    }

    #[test]
    fn a_hint_can_be_given_to_a_shell_whatever_the_name_is() {
        assert_eq!(excluding("SERVER", "far_1"), "--exclude SERVER:far_1");
        assert_eq!(excluding("SERVER", "it's $(x)"), r"--exclude 'SERVER:it'\''s $(x)'");
    }

    #[test]
    fn options_are_read_as_pg_dump_writes_them() {
        let read = |text: &str| {
            let options = options(text).into_iter().map(|(name, value)| format!("{name}={value}"));
            options.collect::<Vec<_>>()
        };
        let text =
            " OPTIONS (\n    \"A \"\"b\" 'it''s, (x)',\n    c E'\\\\d\\\\''',\n    password_required 'off'\n);\n";
        assert_eq!(read(text), ["A \"b=it's, (x)", "c=\\d\\'", "password_required=off"]);
        for (text, expected) in [
            (";\n", &[][..]),
            ("", &[]),
            (" OPTIONS (", &[]),
            (" OPTIONS (\n    a 'x", &[]),
            (" OPTIONS (\n    a E'\\n'\n);", &[]),
            (" OPTIONS (\n    a 'x',", &["a=x"]),
            (" OPTIONS (\n    a 'x'); DROP TABLE t; --'", &["a=x"]),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }
}
