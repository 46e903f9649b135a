//! The script for the owner of the tables, where pgstow's role does not own them.

use crate::error::Result;
use crate::postgres::quoting::{identifier, literal};
use crate::postgres::{PublicationKind, Session, SlotName, add_table, create_publication};

/// Makes both publications with their tables, and gives them to pgstow's role if the owner may do that. It can be run
/// again: what is there already stays.
pub(super) async fn of_owner(session: &Session, name: &SlotName) -> Result<String> {
    let catalog = session.table_catalog().await?;
    let found = session.publications(name).await?;
    let publishing = catalog.publishing();
    let server = session.server();
    let mut lines = vec![
        format!("-- Lets pgstow read the changes of the database {}.", server.database.replace(['\n', '\r'], " ")),
        "-- Run it as the owner of the tables (or as a superuser), in this database.".to_owned(),
    ];
    let tables_of = |kind| {
        let catalog = &catalog;
        let publishing = &publishing;
        catalog.tables.iter().filter(move |table| publishing.get(&table.oid).is_some_and(|one| one.listed == Some(kind)))
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
    let mut to_role = vec![format!("GRANT CREATE ON DATABASE {} TO {role}", identifier(&server.database))];
    for kind in [PublicationKind::All, PublicationKind::Inserts] {
        let publication = identifier(&name.publication(kind));
        to_role.push(format!("ALTER PUBLICATION {publication} OWNER TO {role}"));
    }
    let attempts: Vec<String> = to_role.iter().map(|statement| format!("  EXECUTE {};", literal(statement))).collect();
    let note = literal(&format!(
        "{role} does not own the publications, because you may not give it that: if a listed table loses its key, its \
         updates fail until you run ALTER PUBLICATION … DROP TABLE …"
    ));
    lines.extend([
        "-- pgstow then takes a table out by itself if the table loses its key, before the updates of applications fail."
            .to_owned(),
        "DO LANGUAGE plpgsql $pgstow$ BEGIN".to_owned(),
        attempts.join("\n"),
        "EXCEPTION WHEN insufficient_privilege THEN".to_owned(),
        format!("  RAISE WARNING '%', {note};"),
        "END $pgstow$;".to_owned(),
    ]);
    Ok(lines.join("\n"))
}
