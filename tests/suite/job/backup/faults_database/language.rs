//! A server that speaks another language is understood as well.

use super::reaching::Role;
use crate::support::database::{Database, quoted};
use crate::support::lock::Lock;
use crate::support::server::OwnServer;
use crate::support::wreck::{Failure, Site, fail, report};

/// In these words the server says it; so it does not speak English.
fn in_german(failure: &Failure, words: &str) {
    assert!(failure.message.contains(words), "{}", failure.message);
}

#[test]
fn what_a_server_refuses_in_german_has_the_code_and_the_hint_that_it_has_in_english() {
    let server = OwnServer::start_in_german();
    let (site, database) = (Site::new(), server.database("deutsch"));
    database.sql("CREATE TABLE offen AS SELECT 1 AS a; CREATE TABLE geheim AS SELECT 2 AS a");
    let role = Role::new(&database, "");
    database.sql(&format!("GRANT SELECT ON offen TO {}", role.name));

    let failure = fail(
        &mut site.backup(&database.url_as(Some((&role.name, "falsch")))),
        "AUTH",
        11,
    );
    in_german(&failure, "fehlgeschlagen");
    let nowhere = format!("{}x", database.url());
    let failure = fail(&mut site.backup(&nowhere), "CONN_ERR", 10);
    in_german(&failure, "existiert nicht");
    assert!(failure.hint.contains("database's name"), "{}", failure.hint);
    database.sql(&format!(
        "REVOKE CONNECT ON DATABASE {} FROM public",
        quoted(&database.name)
    ));
    let failure = fail(&mut site.backup(&role.url()), "PERMISSION", 13);
    in_german(&failure, "keine Berechtigung");
    database.sql(&format!(
        "GRANT CONNECT ON DATABASE {} TO public",
        quoted(&database.name)
    ));

    let failure = fail(&mut site.backup(&role.url()), "PERMISSION", 13);
    assert!(
        failure.hint.contains("GRANT SELECT ON public.geheim TO"),
        "{}",
        failure.hint
    );
    database.sql(&format!(
        "GRANT pg_read_all_data TO {}; ALTER TABLE geheim ENABLE ROW LEVEL SECURITY",
        role.name
    ));
    for jobs in ["1", "2"] {
        let failure = fail(site.backup(&role.url()).args(["--jobs", jobs]), "PERMISSION", 13);
        assert!(failure.hint.contains("BYPASSRLS"), "{}", failure.hint);
    }
    database.sql("ALTER TABLE geheim DISABLE ROW LEVEL SECURITY");

    database.sql(&format!("ALTER ROLE {} CONNECTION LIMIT 1", role.name));
    let failure = fail(&mut site.backup(&role.url()), "CONN_ERR", 10);
    in_german(&failure, "zu viele Verbindungen");
    assert!(failure.hint.contains("CONNECTION LIMIT 5"), "{}", failure.hint);
    database.sql(&format!("ALTER ROLE {} CONNECTION LIMIT -1", role.name));

    held_by_somebody(&site, &database, &role);
    report(&mut site.backup(&role.url()));
    site.assert_nothing_runs();
}

/// The lock that cannot be had is named with who has it.
fn held_by_somebody(site: &Site, database: &Database, role: &Role<'_>) {
    let _held = Lock::hold(database, "offen");
    let mut command = site.backup(&role.url());
    command.env("BACKUP_LOCK_WAIT_SECONDS", "1");
    let failure = fail(&mut command, "PG_DUMP_ERR", 20);
    assert!(
        failure.message.contains("public.offen (session "),
        "{}",
        failure.message
    );
    assert!(failure.hint.contains("BACKUP_LOCK_WAIT_SECONDS"), "{}", failure.hint);
}
