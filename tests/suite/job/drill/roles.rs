//! What `globals.sql` says of roles, looked for in the throwaway server.

use super::drill;
use crate::support::program::{run, succeed};
use crate::support::server::OwnServer;
use crate::support::wreck::Site;

fn roles_are_as_the_backup_says_and_what_a_drill_withholds_is_told(major: u32) {
    let server = OwnServer::start(major);
    let (site, database) = (Site::new(), server.database("roles"));
    database.sql(
        "CREATE TABLE t (a int);
         CREATE ROLE \"it's \"\"one\"\"\" LOGIN CREATEROLE NOINHERIT CONNECTION LIMIT 3 VALID UNTIL '2040-01-01 12:00+05' PASSWORD 'x';
         CREATE ROLE team BYPASSRLS REPLICATION; COMMENT ON ROLE team IS 'said';
         CREATE ROLE chief SUPERUSER; CREATE ROLE clerk; GRANT pg_monitor TO clerk;
         GRANT team TO \"it's \"\"one\"\"\" WITH ADMIN OPTION; GRANT chief TO clerk;
         ALTER ROLE team SET search_path = \"a b\", public; ALTER ROLE team SET statement_timeout = 5000;
         ALTER ROLE team SET log_min_duration_statement = 0; ALTER TABLE t OWNER TO team",
    );
    succeed(&mut site.backup(&database.url()));
    let report = succeed(&mut drill(&site)).json();
    let proved = &report["drill"];
    // The source's superuser among them.
    assert_eq!(
        (&proved["status"], &proved["roles"]),
        (&"ok".into(), &5.into()),
        "{report:#}"
    );
    let lefts = proved["not_proved"].as_array().unwrap();
    assert_eq!(lefts.len(), 1, "{report:#}");
    assert!(
        lefts[0]["what"]
            .as_str()
            .unwrap()
            .contains("log_min_duration_statement"),
        "{report:#}"
    );
    // No other drill could do more.
    assert_eq!(proved["partly"], false, "{report:#}");

    database.sql("DROP TABLE t");
    let empty = Site::new();
    succeed(&mut empty.backup(&database.url()));
    let run = run(&mut drill(&empty));
    assert_eq!(run.status.code(), Some(0), "{}", run.stderr);
}

on_majors! { roles_are_as_the_backup_says_and_what_a_drill_withholds_is_told: 15 18 }
