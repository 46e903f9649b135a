//! The script for the owner of the tables, where pgstow's role does not own them.

use crate::error::Result;
use crate::postgres::quoting::{identifier, literal};
use crate::postgres::{PublicationKind, Session, SlotName, add_table, create_publication};

/// The lines of statements that make both publications with their tables, and give them to pgstow's role if the owner
/// may do that. What is there already is not in it.
pub(super) async fn of_owner(session: &Session, name: &SlotName) -> Result<Vec<String>> {
    let catalog = session.table_catalog().await?;
    let found = session.publications(name).await?;
    let publishing = catalog.publishing();
    let server = session.server();
    let mut lines = vec![
        format!(
            "-- Lets pgstow read the changes of the database {}.",
            server.database.replace(['\n', '\r'], " ")
        ),
        "-- Run it as the owner of the tables (or as a superuser), in this database.".to_owned(),
    ];
    let tables_of = |kind| {
        let catalog = &catalog;
        let publishing = &publishing;
        catalog
            .tables
            .iter()
            .filter(move |table| publishing.get(&table.oid).is_some_and(|one| one.listed == Some(kind)))
    };
    for kind in [PublicationKind::All, PublicationKind::Inserts] {
        if !found.existing.contains_key(&kind) {
            lines.push(create_publication(name, kind) + ";");
        }
        for table in tables_of(kind).filter(|table| !found.listing.lists(kind, table.oid)) {
            lines.push(add_table(name, kind, table) + ";");
        }
    }
    let role = identifier(&server.user);
    let mut to_role = vec![format!(
        "GRANT CREATE ON DATABASE {} TO {role}",
        identifier(&server.database)
    )];
    for kind in [PublicationKind::All, PublicationKind::Inserts] {
        let publication = identifier(&name.publication(kind));
        to_role.push(format!("ALTER PUBLICATION {publication} OWNER TO {role}"));
    }
    let attempts = to_role
        .iter()
        .map(|statement| format!("  EXECUTE {};", literal(statement)));
    let note = literal(&format!(
        "{role} does not own the publications, because you may not give it that: if a listed table loses its key, its \
         updates fail until you run ALTER PUBLICATION … DROP TABLE …"
    ));
    let mut body: Vec<String> = attempts.collect();
    body.push("EXCEPTION WHEN insufficient_privilege THEN".to_owned());
    body.push(format!("  RAISE WARNING '%', {note};"));
    let quote = dollar_quote(&body);
    lines.push(
        "-- pgstow then takes a table out by itself if the table loses its key, before the updates of applications fail."
            .to_owned(),
    );
    lines.push(format!("DO LANGUAGE plpgsql {quote} BEGIN"));
    lines.extend(body);
    lines.push(format!("END {quote};"));
    Ok(lines)
}

/// A quote that none of the lines holds: the names of databases and roles are anybody's, and the one who runs the script
/// may be a superuser.
fn dollar_quote(lines: &[String]) -> String {
    let mut quote = "$pgstow$".to_owned();
    while lines.iter().any(|line| line.contains(&quote)) {
        quote.insert(quote.len() - 1, '_');
    }
    quote
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_end_the_quote_around_it() {
        let named = |name: &str| dollar_quote(&["EXECUTE".to_owned(), name.to_owned()]);
        assert_eq!(named("shop"), "$pgstow$");
        assert_eq!(named("a$pgstow$; DROP b; $pgstow_$"), "$pgstow__$");
    }
}
