//! A superuser puts rows back into tables whose owner has set traps.

use crate::job::restore::place::Backed;
use crate::security::sessions::{Hostile, PASSWORD};
use crate::support::database::{Database, psql};
use crate::support::program::succeed;

/// The same tables in the backup, and in a target that belongs to another role.
const TABLES: &str = "CREATE TABLE orders (i int PRIMARY KEY, a text); CREATE TABLE lines (i int REFERENCES orders);
    CREATE TYPE mood AS ENUM ('a', 'b', 'c'); CREATE TABLE root (i int, m mood) PARTITION BY HASH (m);
    CREATE TABLE leaf_0 PARTITION OF root FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE leaf_1 PARTITION OF root FOR VALUES WITH (MODULUS 2, REMAINDER 1);";

fn no_look_and_no_load_runs_code_of_the_targets_owner(major: u32) {
    let source = Database::fresh(major);
    source.sql(&format!(
        "{TABLES} INSERT INTO orders SELECT n, md5(n::text) FROM generate_series(1, 500) n; INSERT INTO lines VALUES (1), (2);
         INSERT INTO root SELECT n, (enum_range(NULL::mood))[1 + n % 3] FROM generate_series(1, 300) n"
    ));
    let backed = Backed::up(source, &[]);
    let hostile = Hostile::of(major);
    let owners = hostile.database.url_as(Some((&hostile.owner.name, PASSWORD)));
    hostile.as_owner(TABLES);
    // Pages without a row: an empty table of no size needs no look.
    hostile.as_owner(
        "INSERT INTO orders VALUES (0, 'gone'); DELETE FROM orders; INSERT INTO root VALUES (0, 'a'); DELETE FROM root;
         CREATE INDEX ON orders ((i + evil.constant(1))); CREATE INDEX ON root ((i + evil.constant(2)));
         CREATE INDEX ON lines ((i + evil.constant(3))); ALTER TABLE orders ADD CHECK (evil.constant(4) = 1);
         ALTER TABLE lines ADD CHECK (evil.constant(5) = 1); ALTER TABLE root ADD CHECK (evil.constant(6) = 1)",
    );
    // The trap is one.
    let url = hostile.database.url();
    psql(major, &url, "BEGIN; SELECT EXISTS (SELECT FROM ONLY orders); ROLLBACK");
    let called = "SELECT is_called FROM evil.calls; ALTER SEQUENCE evil.calls RESTART";
    assert_eq!(psql(major, &url, called), "t");

    let tables = [
        "--table",
        "public.orders",
        "--table",
        "public.lines",
        "--table",
        "public.root",
        "--data-only",
    ];
    let counts = "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM lines), (SELECT count(*) FROM root)";
    for more in [
        &["--dry-run"][..],
        &[],
        &["--clean", "--dry-run"],
        &["--clean"],
        &["--clean", "--keep-going"],
    ] {
        let options = [&tables[..], more].concat();
        let report = succeed(&mut backed.restore(&url, &options)).json();
        hostile.assert_untouched(&format!("restore {options:?}"));
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains(&hostile.owner.name), "{warnings}");
        if more.is_empty() {
            assert_eq!(psql(major, &owners, counts), "500|2|300");
            // What is there is seen, and by nothing that the owner has written.
            let refused = backed.refused(&url, &tables, "RESTORE_ERR", 41);
            assert!(refused.message.contains("has rows in"), "{}", refused.message);
            hostile.assert_untouched("a refused restore");
            psql(
                major,
                &owners,
                "DELETE FROM orders WHERE i > 2; DELETE FROM root WHERE i > 10",
            );
        }
    }
    assert_eq!(psql(major, &owners, counts), "500|2|300");
}

on_majors! { no_look_and_no_load_runs_code_of_the_targets_owner: 15 18 }

/// A check runs as the owner, in the session in which a superuser goes on: whatever it leaves there, the superuser's own
/// questions have PostgreSQL's operators.
fn a_path_that_an_owners_check_sets_is_no_path_of_the_superusers(major: u32) {
    let source = Database::fresh(major);
    let table = "CREATE TABLE orders (i serial, a text)";
    source.sql(&format!(
        "{table}; INSERT INTO orders (a) SELECT md5(n::text) FROM generate_series(1, 500) n"
    ));
    let backed = Backed::up(source, &[]);
    let hostile = Hostile::of(major);
    hostile.as_owner(table);
    hostile.as_owner(
        "CREATE FUNCTION evil.path() RETURNS bool LANGUAGE plpgsql AS
           $f$ BEGIN PERFORM set_config('search_path', 'evil, pg_catalog', false); RETURN true; END $f$;
         DO $do$
         DECLARE one record; number int := 0;
         BEGIN
           FOR one IN SELECT * FROM (VALUES ('=', 'oid', 'oid'), ('=', 'int8', 'int4'), ('<', 'int8', 'int4'),
                                            ('>', 'int8', 'int4')) AS wanted (sign, l, r) LOOP
             EXECUTE format('CREATE FUNCTION evil.sign_%s(%s, %s) RETURNS bool LANGUAGE plpgsql AS '
               '$f$ BEGIN PERFORM evil.trap(); RETURN $1 OPERATOR(pg_catalog.%s) $2; END $f$',
               number, one.l, one.r, one.sign);
             EXECUTE format('CREATE OPERATOR evil.%s (FUNCTION = evil.sign_%s, LEFTARG = %s, RIGHTARG = %s)',
               one.sign, number, one.l, one.r);
             number := number + 1;
           END LOOP;
         END $do$;
         ALTER TABLE orders ADD CHECK (evil.path())",
    );
    let url = hostile.database.url();
    succeed(&mut backed.restore(&url, &["--table", "public.orders", "--data-only"]));
    hostile.assert_untouched("a restore into a table whose check sets the path");
    assert_eq!(psql(major, &url, "SELECT count(*) FROM public.orders"), "500");
}

on_majors! { a_path_that_an_owners_check_sets_is_no_path_of_the_superusers: 15 18 }
