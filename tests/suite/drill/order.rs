//! One backup has one verdict, however often and by how many at once it is drilled; and what the drill's own sessions
//! would do by the database's settings, they do not.

use super::{drill, results};
use crate::support::database::{Database, unique_word};
use crate::support::program::succeed;
use crate::support::wreck::Site;

fn a_database_that_minds_every_order_has_one_verdict(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    let role = format!("owner_{}", unique_word());
    database.sql(&format!(
        "CREATE ROLE {role}; ALTER ROLE {role} SET search_path = nowhere; ALTER ROLE {role} SET statement_timeout = '1ms';
         CREATE TABLE z (id int PRIMARY KEY); INSERT INTO z SELECT generate_series(1, 2000);
         CREATE FUNCTION in_z(a int) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.z WHERE id = a)';
         CREATE TABLE c (id int CHECK (in_z(id))); INSERT INTO c SELECT generate_series(1, 500);
         CREATE FUNCTION in_c(a int) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.c WHERE id = a)';
         CREATE TABLE b (id int CHECK (in_c(id))); INSERT INTO b SELECT generate_series(1, 50);
         CREATE DOMAIN known AS int CHECK (in_z(VALUE));
         CREATE TABLE a (id known); INSERT INTO a SELECT generate_series(1, 50);
         CREATE SEQUENCE counted; SELECT nextval('counted');
         CREATE MATERIALIZED VIEW numbers AS SELECT id, nextval('counted') AS n FROM c;
         CREATE MATERIALIZED VIEW of_numbers AS SELECT count(*) FROM numbers;
         CREATE FUNCTION ticks(a int) RETURNS boolean LANGUAGE sql AS 'SELECT nextval(''public.counted'') > 0';
         CREATE TABLE ticking (id int CHECK (ticks(id))); INSERT INTO ticking SELECT generate_series(1, 50);
         ALTER TABLE b OWNER TO {role};
         DO $$ DECLARE setting text; BEGIN
           FOREACH setting IN ARRAY ARRAY['default_transaction_read_only = on', 'search_path = nowhere',
             'statement_timeout = ''1s'''] LOOP
             EXECUTE format('ALTER DATABASE %I SET %s', current_database(), setting);
           END LOOP; END $$"
    ));
    succeed(&mut site.backup(&database.url()));
    for jobs in ["1", "8", "1", "8", "3", "8"] {
        let report = succeed(drill(&site).env("BACKUP_JOBS", jobs)).json();
        assert_eq!(report["drill"]["status"], "ok", "{jobs}: {report:#}");
        assert!(report["drill"].get("not_proved").is_none(), "{jobs}: {report:#}");
        let results = results(&report);
        assert_eq!(results.len(), 5);
        assert!(
            results.iter().all(|(_, result)| result == "equal"),
            "{jobs}: {results:?}"
        );
    }
    site.assert_nothing_runs();
}

on_majors! { a_database_that_minds_every_order_has_one_verdict: 15 18 }
