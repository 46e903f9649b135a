//! Foreign servers, their user mappings and their foreign tables: each takes a right that a role may lack. The server
//! is asked for all of them, in the order in which the restore needs them.

use std::collections::BTreeSet;

use super::schema_of_extension;
use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::job::restore::ready::Target;
use crate::postgres::quoting::{identifier, unquoted};
use crate::postgres::{ForeignServer, MappedUser, ServerRefusal};

pub(super) async fn check(target: &Target, planned: &[&Item], request: &RestoreRequest) -> Result<()> {
    let of_kind = |kind: &'static str| planned.iter().copied().filter(move |item| item.entry.desc == kind);
    let mappings: Vec<Mapping> = of_kind("USER MAPPING").filter_map(Mapping::of).collect();
    let used: BTreeSet<String> = of_kind("FOREIGN TABLE").filter_map(server_of_table).collect();
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
            has_tables: used.contains(server.name),
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
        .chain(used.iter().map(String::as_str))
        .collect();
    for server in others
        .into_iter()
        .filter(|name| made.iter().all(|one| one.name != *name))
    {
        let asked = ForeignServer {
            existing: Some(server),
            users: users(&mappings, server),
            has_tables: used.contains(server),
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
    is_without_password: bool,
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
            is_without_password: definition.contains("\n    password_required 'false'"),
        })
    }
}

fn server_of_table(item: &Item) -> Option<String> {
    let (_, rest) = item.details.definition.rsplit_once("\nSERVER ")?;
    Some(first_name(rest))
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
        is_without_password: one.is_without_password,
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

async fn refuse(target: &Target, server: &str, asked: &ForeignServer<'_>) -> Result<()> {
    let Some(refusal) = target.session.refuses_server(asked).await? else {
        return Ok(());
    };
    let user = &target.session.server().user;
    let (quoted, wrapper) = (identifier(server), identifier(asked.wrapper));
    let usage = |role: &str| format!("GRANT USAGE ON FOREIGN DATA WRAPPER {wrapper} TO {}", identifier(role));
    let without = format!("leave it out, with what needs it: --exclude SERVER:{server}");
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
        ServerRefusal::WithoutPassword => (
            format!("the role {user} may not make a user mapping without a password for the foreign server {quoted}"),
            "leave it out with --exclude USER-MAPPING:NAME, or all with --exclude USER-MAPPING, and make it by hand; or \
             restore as a superuser"
                .to_owned(),
        ),
        ServerRefusal::Mapping(role) => (
            format!(
                "the role {user} may not make the user mapping of {} for the foreign server {quoted}",
                role.unwrap_or("PUBLIC")
            ),
            format!("{}; or leave user mappings out: --exclude USER-MAPPING", as_owner(asked, user)),
        ),
        ServerRefusal::Using => (
            format!("the role {user} may not make tables of the foreign server {quoted}"),
            format!("{}; or {without}", as_owner(asked, user)),
        ),
    };
    Err(Error::new(Code::Permission, what).hint(hint))
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
            (mapping.role, mapping.server, mapping.is_without_password)
        };
        assert_eq!(
            mapping("CREATE USER MAPPING FOR public SERVER s;\n"),
            (None, "s".into(), false)
        );
        assert_eq!(
            mapping("CREATE USER MAPPING FOR \"a SERVER b\" SERVER s OPTIONS (\n    password_required 'false'\n);\n").0,
            Some("a SERVER b".into())
        );
        let table = "CREATE FOREIGN TABLE public.f (\n    a integer\n)\nSERVER \"S x\"\nOPTIONS (\n    t 'y'\n);\n";
        assert_eq!(server_of_table(&item(table)).as_deref(), Some("S x"));
    }
}
