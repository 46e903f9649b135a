//! Definitions that a server prints otherwise when they have been restored once.

use super::{assert_proved, drill, drill_with_injuries, problems};
use crate::support::database::{Database, psql, quoted};
use crate::support::program::succeed;
use crate::support::services::{postgres_bin, postgres_url};
use crate::support::wreck::Site;

fn many_a_definition_that_prints_otherwise_once_restored_is_the_same(major: u32) {
    let (site, database) = (Site::new(), Database::loaded(major, "odd.sql"));
    succeed(&mut site.backup(&database.url()));
    let report = succeed(&mut drill(&site)).json();
    assert_proved(&report);
    assert!(report["drill"]["definitions"].as_u64().unwrap() > 90, "{report:#}");
    let sequences = report["drill"]["sequences"].as_u64().unwrap();
    assert_eq!(sequences, 3, "{report:#}");
    site.assert_nothing_runs();
}

on_majors! { many_a_definition_that_prints_otherwise_once_restored_is_the_same: 15 16 17 18 }

/// Each of these prints otherwise by itself.
const INJURED: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, status varchar(20) CHECK (status IN ('new', 'paid')), price numeric,
        kind varchar(9) DEFAULT (CASE WHEN current_user::varchar IN ('a', 'b') THEN 'x' ELSE 'y' END),
        CONSTRAINT bound CHECK (status IN ('new', 'paid') AND price BETWEEN 1 AND 10));
    ALTER TABLE orders ADD CONSTRAINT dropped CHECK (status IN ('new', 'x')) NOT VALID;
    CREATE TABLE owned (a varchar(9) CHECK (a IN ('x', 'y')));
    CREATE TABLE granted (a varchar(9) CHECK (a IN ('x', 'y')));
    GRANT SELECT ON granted TO pg_monitor, pg_read_all_stats; GRANT UPDATE (a) ON granted TO pg_monitor;
    CREATE TABLE guarded (a varchar(9) CHECK (a IN ('x', 'y')));
    ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    CREATE POLICY mine ON guarded USING (a IN ('x', 'y'));
    CREATE VIEW seen AS SELECT id FROM orders WHERE price BETWEEN 1 AND 10 AND status IN ('new', 'paid');
    CREATE FUNCTION computed(a varchar) RETURNS boolean LANGUAGE sql RETURN a IN ('new', 'paid');
    CREATE FUNCTION worded(a varchar DEFAULT (CASE WHEN current_user::varchar IN ('a', 'b') THEN 'x' END)) RETURNS text
        LANGUAGE sql AS $$ SELECT a $$;
    CREATE INDEX partial ON orders (price) WHERE status IN ('new', 'paid');
    CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    CREATE TRIGGER noted BEFORE UPDATE ON orders FOR EACH ROW WHEN (NEW.status IN ('new', 'paid')) EXECUTE FUNCTION fire();
    CREATE RULE twice AS ON DELETE TO orders WHERE OLD.status IN ('new', 'paid') DO ALSO DELETE FROM owned;
    CREATE TABLE widened (a varchar(9) CHECK (a IN ('x', 'y')), b int);
    CREATE SEQUENCE counted INCREMENT 3; CREATE SEQUENCE stands; SELECT setval('stands', 7);
    CREATE DOMAIN state AS varchar(9) CHECK (VALUE IN ('x', 'y'));
    CREATE PUBLICATION lost FOR TABLE orders WHERE (id BETWEEN 1 AND 5 AND id IN (2, 3));
    CREATE STATISTICS told ON (status IN ('new', 'paid')), price FROM orders;
    COMMENT ON TABLE owned IS 'said';
    SELECT lo_create(4711)";

const INJURIES: &str = "
    ALTER TABLE public.orders DROP CONSTRAINT dropped;
    ALTER TABLE public.orders DROP CONSTRAINT bound;
    ALTER TABLE public.orders ADD CONSTRAINT bound CHECK (status IN ('new', 'paid') AND price BETWEEN 1 AND 11);
    ALTER TABLE public.owned OWNER TO pg_monitor;
    REVOKE SELECT ON public.granted FROM pg_monitor;
    DROP POLICY mine ON public.guarded; CREATE POLICY mine ON public.guarded USING (a IN ('x', 'z'));
    CREATE OR REPLACE VIEW public.seen AS SELECT id FROM public.orders WHERE price BETWEEN 1 AND 11 AND status IN ('new', 'paid');
    CREATE OR REPLACE FUNCTION public.computed(a varchar) RETURNS boolean LANGUAGE sql RETURN a IN ('new', 'unpaid');
    CREATE OR REPLACE FUNCTION public.worded(a varchar DEFAULT (CASE WHEN current_user::varchar IN ('a', 'b') THEN 'x' END))
        RETURNS text LANGUAGE sql AS $$ SELECT a || a $$;
    DROP INDEX public.partial; CREATE INDEX partial ON public.orders (kind) WHERE status IN ('new', 'paid');
    ALTER TABLE public.orders DISABLE TRIGGER noted;
    DROP RULE twice ON public.orders;
    ALTER TABLE public.widened ALTER b SET DEFAULT 7;
    CREATE TABLE public.extra (a varchar(9) CHECK (a IN ('x', 'y')));
    ALTER SEQUENCE public.counted INCREMENT 4; SELECT setval('public.stands', 8);
    ALTER DOMAIN public.state DROP CONSTRAINT state_check; ALTER DOMAIN public.state ADD CHECK (VALUE IN ('x', 'z'));
    DROP PUBLICATION lost;
    DROP STATISTICS public.told; CREATE STATISTICS public.told ON (status IN ('new', 'paid')), id FROM public.orders;
    COMMENT ON TABLE public.owned IS NULL;
    ALTER LARGE OBJECT 4711 OWNER TO pg_monitor;";

fn whatever_was_done_behind_its_back_is_named_and_nothing_else(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    database.sql(INJURED);
    succeed(&mut site.backup(&database.url()));
    let run = drill_with_injuries(&site, major, INJURIES);
    assert_eq!(run.status.code(), Some(40), "{}", run.stderr);
    let report = run.json();
    let mut problems = problems(&report);
    problems.sort();
    let (otherwise, missing, more, anothers) = (
        "is defined otherwise",
        "is not there",
        "is there and not in the backup",
        "belongs to another role",
    );
    let mut expected = [
        // It has its rows and a definition.
        ("public.extra", more),
        ("TABLE public.extra", more),
        ("CHECK CONSTRAINT public.orders dropped", missing),
        ("TABLE public.orders", otherwise),
        ("TABLE public.owned", anothers),
        ("COMMENT public.TABLE owned", missing),
        ("ACL public.TABLE granted", otherwise),
        ("POLICY public.guarded mine", otherwise),
        ("VIEW public.seen", otherwise),
        ("FUNCTION public.computed(character varying)", otherwise),
        ("FUNCTION public.worded(character varying)", otherwise),
        ("INDEX public.partial", otherwise),
        ("TRIGGER public.orders noted", otherwise),
        ("RULE public.orders twice", missing),
        ("TABLE public.widened", otherwise),
        ("SEQUENCE public.counted", otherwise),
        ("SEQUENCE SET public.stands", otherwise),
        ("DOMAIN public.state", otherwise),
        ("PUBLICATION lost", missing),
        ("PUBLICATION TABLE public.lost orders", missing),
        ("STATISTICS public.told", otherwise),
        ("LARGE OBJECT 4711", anothers),
    ]
    .map(|(name, what)| (name.to_owned(), what.to_owned()));
    expected.sort();
    assert_eq!(problems, expected, "{report:#}");
    assert!(report["drill"].get("not_proved").is_none(), "{report:#}");
    site.assert_nothing_runs();
}

on_majors! { whatever_was_done_behind_its_back_is_named_and_nothing_else: 15 16 17 18 }

#[test]
fn another_majors_server_is_held_to_what_it_prints_itself() {
    let (site, database) = (Site::new(), Database::loaded(15, "odd.sql"));
    succeed(&mut site.backup(&database.url()));
    let report = succeed(drill(&site).env("BACKUP_PG_BIN", postgres_bin(17))).json();
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");
    assert!(report["drill"]["definitions"].as_u64().unwrap() > 90, "{report:#}");
    let run = drill_with_injuries(&site, 17, "ALTER TABLE odd.orders DROP CONSTRAINT kinds;");
    assert_eq!(run.status.code(), Some(40), "{}", run.stderr);
    let named = problems(&run.json());
    let expected = [
        ("COMMENT odd.CONSTRAINT kinds ON orders", "is not there"),
        ("TABLE odd.orders", "is defined otherwise"),
    ];
    assert_eq!(named, expected.map(|(name, what)| (name.into(), what.into())));
}

/// In a database that is not in UTF-8, two names may look alike to a reader that expects UTF-8.
#[test]
fn definitions_in_another_encoding_are_told_apart_byte_by_byte() {
    let site = Site::new();
    let database = Database::fresh(16);
    let name = quoted(&database.name);
    let anew = format!("DROP DATABASE {name}; CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    psql(16, &postgres_url(16), &anew);
    database.sql(
        "SET client_encoding = 'UTF8';
         CREATE TABLE tä (a varchar(9) CHECK (a IN ('ä', 'ö'))); CREATE TABLE tö (a varchar(9) CHECK (a IN ('ä', 'ö')), ü int);
         INSERT INTO tä VALUES ('ä'); INSERT INTO tö VALUES ('ö', 1), ('ä', 2);
         COMMENT ON TABLE tä IS 'ä'; GRANT SELECT ON tä TO pg_monitor",
    );
    succeed(&mut site.backup(&database.url()));
    let report = succeed(&mut drill(&site)).json();
    assert_proved(&report);
    let injuries = "SET client_encoding = 'UTF8'; COMMENT ON TABLE public.tä IS 'ö';
        ALTER TABLE public.tö DROP CONSTRAINT tö_a_check; ALTER TABLE public.tö ADD CHECK (a IN ('ä', 'ö', 'ü'));";
    let run = drill_with_injuries(&site, 16, injuries);
    let named: Vec<String> = problems(&run.json()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(named, ["COMMENT public.TABLE \"t\u{fffd}\"", "TABLE public.t\u{fffd}"]);
}
