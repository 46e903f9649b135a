//! Tables of a backup beside the living ones.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::job::restore::place::{Backed, ended, untouched};
use crate::support::contents::Contents;
use crate::support::database::{Database, psql, quoted};
use crate::support::program::succeed;
use crate::support::role::Role;
use crate::support::services::postgres_url;

/// An application's database, with all that a table can have; a reader may read what it should.
fn shop(major: u32, reader: &str) -> Database {
    let source = Database::fresh(major);
    let reader = quoted(reader);
    source.sql(&format!(
        "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO {reader};
         CREATE TYPE app.state AS ENUM ('new', 'paid');
         CREATE FUNCTION app.is_right(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 >= 0';
         CREATE TABLE app.customers (id int PRIMARY KEY, name text);
         INSERT INTO app.customers SELECT n, md5(n::text) FROM generate_series(1, 50) n;
         CREATE TABLE app.orders (
           id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number serial UNIQUE, customer int REFERENCES app.customers,
           state app.state DEFAULT 'new', price numeric(8, 2) NOT NULL CHECK (app.is_right(price::int)),
           gross numeric GENERATED ALWAYS AS (price * 1.2) STORED, note text COLLATE \"C\" DEFAULT 'it''s; )',
           placed timestamptz DEFAULT '2026-01-31 04:05:00+02');
         ALTER TABLE app.orders ALTER note SET STORAGE EXTERNAL;
         INSERT INTO app.orders (customer, state, price, note)
           SELECT 1 + n % 50, (enum_range(NULL::app.state))[1 + n % 2], n, CASE WHEN n % 7 > 0 THEN md5(n::text) END
             FROM generate_series(1, 600) n;
         CREATE INDEX by_price ON app.orders (price DESC, lower(note)) INCLUDE (state) WHERE state = 'paid';
         CREATE FUNCTION app.meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := 'meddled'; RETURN NEW; END $$;
         CREATE TRIGGER meddle BEFORE INSERT ON app.orders FOR EACH ROW EXECUTE FUNCTION app.meddle();
         CREATE RULE quiet AS ON DELETE TO app.orders WHERE OLD.id < 0 DO INSTEAD NOTHING;
         COMMENT ON TABLE app.orders IS 'what people want'; COMMENT ON COLUMN app.orders.price IS 'in euros';
         GRANT SELECT ON app.orders TO {reader};
         ALTER TABLE app.orders ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON app.orders FOR SELECT TO {reader} USING (customer = 7);
         CREATE TABLE app.\"It's a \"\"table\"\"\" (\"a,b\" int, \"Ünï\" text, \"sel;ect\" int UNIQUE);
         INSERT INTO app.\"It's a \"\"table\"\"\" SELECT n, E'\\t\\\\' || n, n FROM generate_series(1, 40) n;
         CREATE UNLOGGED TABLE app.empty (a int);
         CREATE TABLE app.nothing ();
         CREATE TABLE app.parts (id int, state app.state, kind text, up text GENERATED ALWAYS AS (upper(kind)) STORED,
           PRIMARY KEY (id, state)) PARTITION BY HASH (state);
         CREATE TABLE app.parts_0 PARTITION OF app.parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE app.parts_1 (state app.state NOT NULL, kind text, id int NOT NULL,
           up text GENERATED ALWAYS AS (upper(kind)) STORED) PARTITION BY LIST (state);
         CREATE TABLE app.parts_1a PARTITION OF app.parts_1 DEFAULT;
         ALTER TABLE app.parts ATTACH PARTITION app.parts_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         CREATE INDEX by_kind ON app.parts (kind);
         INSERT INTO app.parts SELECT n, (enum_range(NULL::app.state))[1 + n % 2], 'k' || n FROM generate_series(1, 300) n;
         CREATE VIEW app.few AS SELECT * FROM app.orders WHERE id < 3;
         CREATE TABLE app.parent (a int); CREATE TABLE app.heir (b int) INHERITS (app.parent);
         CREATE TYPE app.pair AS (a int, b int); CREATE TABLE app.typed OF app.pair;
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC, {reader};"
    ));
    source
}

fn rows(database: &Database, table: &str) -> String {
    database.sql(&format!(
        "SET TimeZone = 'UTC'; SELECT count(*), md5(coalesce(string_agg(t::text, ',' ORDER BY t::text COLLATE \"C\"), '')) FROM {table} t"
    ))
}

/// Keys, indexes and checks of a relation.
fn bounds(database: &Database, table: &str) -> String {
    let table = table.replace('\'', "''");
    database.sql(&format!(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype <> 'n' ORDER BY 1;
         SELECT regexp_replace(pg_get_indexdef(indexrelid), ' ON (ONLY )?.* USING', ' USING') FROM pg_index
          WHERE indrelid = '{table}'::regclass ORDER BY 1"
    ))
}

/// Who can read a table beside its owner and superusers, and who sees its rows.
fn rights(database: &Database, table: &str, role: &str) -> String {
    let table = table.replace('\'', "''");
    database.sql(&format!(
        "SELECT has_table_privilege('{role}', '{table}', 'SELECT'), relrowsecurity, relkind, relowner::regrole = current_user::regrole,
                (SELECT count(*) FROM aclexplode(relacl) a WHERE a.grantee <> relowner),
                (SELECT count(*) FROM pg_trigger WHERE tgrelid = pg_class.oid), (SELECT count(*) FROM pg_inherits WHERE inhrelid = pg_class.oid)
           FROM pg_class WHERE oid = '{table}'::regclass"
    ))
}

fn left(report: &Value) -> String {
    report["left_out"].to_string()
}

fn copies_stand_beside_the_living(major: u32) {
    let place = Database::fresh(major);
    let reader = Role::fresh(&place, "its secret", "IN ROLE pg_read_all_data");
    let backed = Backed::up(shop(major, &reader.name), &[]);
    let live = &backed.source;
    let odd = "app.\"It's a \"\"table\"\"\"";
    let tables = [
        "app.orders",
        odd,
        "app.empty",
        "app.nothing",
        "app.parts",
        "app.parts_1",
        "app.parts_0",
    ];
    let before: Vec<String> = tables.iter().map(|table| rows(live, table)).collect();
    live.sql("DELETE FROM app.orders WHERE id % 3 = 0; UPDATE app.parts SET kind = 'x' WHERE id < 9; DROP TRIGGER meddle ON app.orders");
    let damaged = Contents::of(live);

    let mut options: Vec<&str> = tables.iter().flat_map(|table| ["--table", *table]).collect();
    options.extend(["--into", "Yes\"terday"]);
    let refused = backed.refused(&live.url(), &options, "CONFIG", 2);
    assert!(refused.message.contains("quote"), "{}", refused.message);
    *options.last_mut().unwrap() = "\"Yester.day\"";
    let planned = succeed(&mut backed.restore(&live.url(), &[&options[..], &["--dry-run"]].concat())).json();
    let steps = planned["steps"].to_string();
    for step in [
        "make the schema Yester.day",
        "load 600 rows into Yester.day.orders",
        "by_price",
        "commit",
    ] {
        assert!(steps.contains(step), "{step}: {steps}");
    }
    assert!(left(&planned).contains("POLICY app.orders own"), "{planned:#}");
    damaged.assert_equals(&Contents::of(live));

    let report = backed.restored(live, &options);
    assert_eq!(report["compared"], tables.len(), "{report:#}");
    assert_eq!(report["tables"], tables.len(), "{report:#}");
    assert_eq!(left(&report), left(&planned));
    let copied = |table: &str| table.replacen("app.", "\"Yester.day\".", 1);
    for (table, before) in tables.iter().zip(&before) {
        assert_eq!(&rows(live, &copied(table)), before, "{table}");
        let guarded = if *table == "app.orders" { "t" } else { "f" };
        // It is a member of a role that reads everything: but not past row-level security.
        assert_eq!(
            rights(live, &copied(table), &reader.name),
            format!("t|{guarded}|r|t|0|0|0"),
            "{table}"
        );
        let mine = bounds(live, &copied(table)).replace("\"Yester.day\".", "app.");
        let wanted: String = bounds(live, table)
            .lines()
            .filter(|line| !line.contains("FOREIGN KEY"))
            .map(|line| format!("{line}\n"))
            .collect();
        if !table.contains("parts_") {
            assert_eq!(mine, wanted.trim_end(), "{table}");
        }
    }
    let seen = |table: &str| {
        live.sql(&format!(
            "SET ROLE {}; SELECT count(*) FROM {table}",
            quoted(&reader.name)
        ))
    };
    assert_eq!(
        (seen("app.orders").as_str(), seen("\"Yester.day\".orders").as_str()),
        ("8", "0")
    );
    for what in [
        "FK CONSTRAINT app.orders orders_customer_fkey",
        "TRIGGER app.orders meddle",
        "RULE app.orders quiet",
        "POLICY app.orders own",
        "ACL app.TABLE orders",
        "DEFAULT app.orders number",
        "SEQUENCE app.orders_id_seq",
        "comments on app.orders and what belongs to it (2)",
        "the partitions of app.parts",
        "the rights to rows of app.orders",
        "how columns of app.orders are stored",
    ] {
        assert!(left(&report).contains(what), "{what}: {:#}", report["left_out"]);
    }
    assert!(
        live.sql("SELECT obj_description('\"Yester.day\".orders'::regclass)")
            .contains(backed.id())
    );

    // The repair: the missing rows come from the copy.
    let repaired = live.sql(
        "INSERT INTO app.orders (id, number, customer, state, price, note, placed) OVERRIDING SYSTEM VALUE
           SELECT id, number, customer, state, price, note, placed FROM \"Yester.day\".orders y
            WHERE NOT EXISTS (SELECT FROM app.orders o WHERE o.id = y.id) RETURNING 1",
    );
    assert_eq!(repaired.lines().count(), 200);
    assert_eq!(rows(live, "app.orders"), before[0]);

    // Beside the table in its own schema: names that are taken get a number.
    let own = ["--table", "app.orders", "--into", "app.orders_old"];
    backed.restored(live, &own);
    assert_eq!(rows(live, "app.orders_old"), before[0]);
    assert_eq!(
        live.sql("SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY indexrelid::regclass::text COLLATE \"C\") FROM pg_index WHERE indrelid = 'app.orders_old'::regclass"),
        "app.by_price_1 app.orders_number_key_1 app.orders_pkey_1"
    );
    // An existing table stays, unless --clean lets it go.
    let again = backed.refused(&live.url(), &own, "RESTORE_ERR", 41);
    assert!(
        again.message.contains("has the table app.orders_old already"),
        "{}",
        again.message
    );
    assert!(again.hint.contains("--clean"), "{}", again.hint);
    live.sql("TRUNCATE app.orders_old; CREATE VIEW app.upon AS SELECT id FROM app.orders_old");
    let clean = [&own[..], &["--clean"]].concat();
    let needed = backed.refused(&live.url(), &clean, "RESTORE_ERR", 41);
    assert!(
        needed.message.contains("nothing was changed") && needed.hint.contains("remove the objects that need it"),
        "{needed:?}"
    );
    live.sql("DROP VIEW app.upon");
    backed.restored(live, &clean);
    assert_eq!(rows(live, "app.orders_old"), before[0]);
    assert!(bounds(live, "app.orders_old").contains("orders_pkey_1"));
    let at = |place: &str, options: &[&str], code: &str, exit: i32, why: &str| {
        let options = [&["--table", "app.orders", "--into", place], options].concat();
        let refused = backed.refused(&live.url(), &options, code, exit);
        assert!(refused.message.contains(why), "{place}: {}", refused.message);
        assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
    };
    let whole = Contents::of(live);
    at(
        "app.few",
        &["--clean"],
        "RESTORE_ERR",
        41,
        "the view app.few already: --clean replaces only tables",
    );
    at(
        "app.customers",
        &["--clean"],
        "RESTORE_ERR",
        41,
        "a table of the backup and not a copy",
    );
    at("app.parts_0", &["--clean"], "RESTORE_ERR", 41, "a partition");
    at(
        "app.orders_pkey",
        &[],
        "RESTORE_ERR",
        41,
        "the index app.orders_pkey already",
    );
    at("app.state", &[], "RESTORE_ERR", 41, "a type app.state");
    at("app.orders", &["--clean"], "CONFIG", 2, "is the table itself");
    at("app", &["--clean"], "CONFIG", 2, "is the table itself");
    at("x.y", &["--table", "app.parts"], "CONFIG", 2, "--into names one table");
    at("x", &["--data-only"], "CONFIG", 2, "--data-only");
    at("x", &["--create"], "CONFIG", 2, "");
    at("pg_catalog", &[], "CONFIG", 2, "PostgreSQL's own");
    at("x", &["--table", "app.few"], "RESTORE_ERR", 41, "copies only of tables");
    at("x", &["--table", "app.heir"], "RESTORE_ERR", 41, "inherits");
    at("x", &["--table", "app.typed"], "RESTORE_ERR", 41, "those of a type");
    at("x", &["--table", "app.gone"], "NOT_FOUND", 42, "app.gone");
    whole.assert_equals(&Contents::of(live));

    // What every table is published by would break its subscribers.
    live.sql("CREATE PUBLICATION everything FOR ALL TABLES");
    let published = succeed(&mut backed.restore(&live.url(), &["--table", "app.customers", "--into", "apart"])).json();
    assert!(
        published["warnings"].to_string().contains("the publication everything"),
        "{published:#}"
    );
    assert_eq!(
        live.sql("SELECT relpersistence FROM pg_class WHERE oid = 'apart.customers'::regclass"),
        "u"
    );
    live.sql("DROP PUBLICATION everything; DROP SCHEMA apart CASCADE; DROP SCHEMA \"Yester.day\" CASCADE; DROP TABLE app.orders_old");
    live.sql("DELETE FROM app.orders WHERE id % 3 = 0");
    damaged.assert_equals(&Contents::of(live));
    live.sql(&format!("DROP OWNED BY {}", quoted(&reader.name)));
}

on_majors! { copies_stand_beside_the_living: 15 18 }

#[test]
fn copies_need_what_the_table_needs_and_rights_to_their_place_alone() {
    let place = Database::fresh(17);
    let role = Role::fresh(&place, "its secret", "");
    let backed = Backed::up(shop(17, &role.name), &[]);
    let name = quoted(&role.name);
    let empty = Database::fresh(17);
    let orders = ["--table", "app.orders", "--into", "apart"];
    untouched(&empty, || {
        let lacking = backed.refused(&empty.url(), &orders, "RESTORE_ERR", 41);
        assert!(
            lacking.message.contains("TYPE app.state") && lacking.message.contains("FUNCTION app.is_right"),
            "{}",
            lacking.message
        );
        assert!(lacking.hint.contains("without --into"), "{}", lacking.hint);
    });

    // Into a database that is not the source's: what the table needs is there, the table is not.
    empty.sql(
        "CREATE SCHEMA app; CREATE TYPE app.state AS ENUM ('new', 'paid');
         CREATE FUNCTION app.is_right(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 >= 0'",
    );
    let report = backed.restored(
        &empty,
        &["--table", "app.orders", "--table", "app.parts", "--into", "apart"],
    );
    assert_eq!(rows(&empty, "apart.orders"), rows(&backed.source, "app.orders"));
    assert_eq!(rows(&empty, "apart.parts"), rows(&backed.source, "app.parts"));
    assert!(left(&report).contains("the partitions of app.parts"), "{report:#}");

    // A role with just a place of its own.
    let url = empty.url_as(Some((&role.name, &role.password)));
    empty.sql(&format!("GRANT USAGE ON SCHEMA app TO {name}; CREATE SCHEMA closed; GRANT USAGE ON SCHEMA closed TO {name}; CREATE SCHEMA open; GRANT USAGE, CREATE ON SCHEMA open TO {name}; CREATE TABLE open.others (a int)"));
    untouched(&empty, || {
        for (place, word, hint) in [
            ("nowhere", "make the schema nowhere", "CREATE SCHEMA \"nowhere\""),
            (
                "closed",
                "make tables in the schema closed",
                "GRANT USAGE, CREATE ON SCHEMA \"closed\"",
            ),
        ] {
            let refused = backed.refused(&url, &["--table", "app.orders", "--into", place], "PERMISSION", 13);
            assert!(
                refused.message.contains(word) && refused.hint.contains(hint),
                "{refused:?}"
            );
        }
        let options = ["--table", "app.orders", "--into", "open.others", "--clean"];
        let refused = backed.refused(&url, &options, "PERMISSION", 13);
        assert!(refused.message.contains("may not replace open.others"), "{refused:?}");
    });
    let report = succeed(&mut backed.restore(
        &url,
        &["--table", "app.orders", "--into", "open", "--no-check", "--jobs", "3"],
    ))
    .json();
    assert!(report.get("compared").is_none(), "{report:#}");
    assert_eq!(rows(&empty, "open.orders"), rows(&backed.source, "app.orders"));
    assert_eq!(
        empty
            .sql("SELECT relowner::regrole FROM pg_class WHERE oid = 'open.orders'::regclass")
            .trim_matches('"'),
        role.name
    );
    empty.sql("DROP TABLE open.orders");

    // What the target adds to each new table is no fault of the backup. (For a superuser event triggers do not run.)
    empty.sql(
        "CREATE FUNCTION app.audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE FUNCTION app.audits() RETURNS event_trigger LANGUAGE plpgsql AS $$
         DECLARE made record;
         BEGIN
           FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' LOOP
             EXECUTE format('CREATE TRIGGER audited AFTER DELETE ON %s EXECUTE FUNCTION app.audit()', made.object_identity);
           END LOOP;
         END $$;
         CREATE EVENT TRIGGER audits ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION app.audits()",
    );
    let orders = ["--table", "app.orders", "--into", "open"];
    let refused = backed.refused(&url, &orders, "RESTORE_ERR", 41);
    assert!(
        refused.message.contains("the trigger audited") && refused.message.contains("nothing was changed"),
        "{}",
        refused.message
    );
    empty.sql("DROP EVENT TRIGGER audits; DROP FUNCTION app.audits(); DROP FUNCTION app.audit()");

    // Damage leaves nothing; nor do rows that no longer fit.
    let before = Contents::of(&empty);
    empty.sql(
        "CREATE OR REPLACE FUNCTION app.is_right(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 < 500'",
    );
    let refused = backed.refused(
        &empty.url(),
        &["--table", "app.orders", "--into", "fresh"],
        "RESTORE_ERR",
        41,
    );
    assert!(
        refused.message.contains("nothing was changed") && !refused.message.contains("500"),
        "{}",
        refused.message
    );
    empty
        .sql("CREATE OR REPLACE FUNCTION app.is_right(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 >= 0'");
    backed.damage("orders");
    backed.refused(
        &empty.url(),
        &["--table", "app.orders", "--into", "fresh"],
        "INTEGRITY",
        40,
    );
    before.assert_equals(&Contents::of(&empty));
    backed.source.sql(&format!("DROP OWNED BY {name}"));
    empty.sql(&format!("DROP OWNED BY {name}"));

    // A plain script has no tables of their own.
    let plain = Backed::up(crate::job::restore::place::three(17), &["--format", "plain"]);
    let refused = plain.refused(&empty.url(), &["--table", "public.a", "--into", "fresh"], "CONFIG", 2);
    assert!(
        refused.message.contains("plain SQL script") && refused.hint.contains("--create"),
        "{refused:?}"
    );
}

/// In a database of another encoding, every name is what it is.
#[test]
fn names_of_another_encoding_are_what_they_are() {
    let source = Database::fresh(16);
    let name = quoted(&source.name);
    let anew = format!("DROP DATABASE {name}; CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    psql(16, &postgres_url(16), &anew);
    source.sql(
        "SET client_encoding = 'UTF8'; CREATE TABLE \"kürzel\" (\"größe\" text PRIMARY KEY DEFAULT 'ä', b int);
         INSERT INTO \"kürzel\" VALUES ('süß', 1), (DEFAULT, 2); CREATE INDEX \"über\" ON \"kürzel\" (b)",
    );
    let backed = Backed::up(source, &[]);
    let live = &backed.source;
    backed.restored(live, &["--table", "public.kürzel", "--into", "früher"]);
    let utf8 = |sql: &str| live.sql(&format!("SET client_encoding = 'UTF8'; {sql}"));
    assert_eq!(
        utf8("SELECT \"größe\", b FROM \"früher\".\"kürzel\" ORDER BY b"),
        "süß|1\nä|2"
    );
    backed.restored(live, &["--table", "public.kürzel", "--into", "public.\"é\"\"\\\""]);
    assert_eq!(utf8("SELECT count(*) FROM public.\"é\"\"\\\""), "2");
}

/// Slow rows: their check waits.
const PATIENT: &str = "CREATE OR REPLACE FUNCTION wait(int) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_catalog.pg_sleep(0.02); RETURN true; END $$";

#[test]
fn a_copy_that_is_stopped_or_killed_midway_leaves_nothing() {
    let source = Database::fresh(18);
    source.sql(
        "CREATE FUNCTION wait(int) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE TABLE t (n int PRIMARY KEY CHECK (wait(n))); INSERT INTO t SELECT generate_series(1, 3000)",
    );
    let backed = Backed::up(source, &[]);
    let live = &backed.source;
    live.sql(PATIENT);
    let before = Contents::of(live);
    for signal in [Signal::TERM, Signal::KILL] {
        let mut restore = backed.restore(&live.url(), &["--table", "public.t", "--into", "apart"]);
        let mut running = backed.site.start(&mut restore);
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'";
        running.until("rows are on their way", || live.sql(busy) == "1");
        running.signal(signal);
        let run = running.end(Duration::from_secs(10));
        if signal == Signal::TERM {
            let told = ended(&run, "INTERRUPTED", 143);
            assert!(told.message.contains("nothing was changed"), "{}", told.message);
        }
        let patience = Instant::now() + Duration::from_secs(5);
        let sessions =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND backend_type = 'client backend'";
        while live.sql(sessions) != "0" && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(50));
        }
        before.assert_equals(&Contents::of(live));
    }
}
