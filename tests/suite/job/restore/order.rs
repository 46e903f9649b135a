//! The order in which rows, settings and event triggers come.

use crate::job::restore::place::Backed;
use crate::support::database::{Database, psql, quoted};
use crate::support::program::succeed;
use crate::support::services::postgres_url;

/// Tables that belong to an extension and refer to each other: the first to the second, and so on.
const CHAIN: &str = "DO $$ DECLARE tables oid[]; BEGIN
    FOR n IN REVERSE 260..1 LOOP
      EXECUTE format('CREATE TABLE link_%s (id int PRIMARY KEY, filler text)', to_char(n, 'FM000'));
      IF n < 260 THEN
        EXECUTE format('ALTER TABLE link_%s ADD FOREIGN KEY (id) REFERENCES link_%s', to_char(n, 'FM000'), to_char(n + 1, 'FM000'));
      END IF;
      EXECUTE format('ALTER EXTENSION plpgsql ADD TABLE link_%s', to_char(n, 'FM000'));
      tables := tables || format('link_%s', to_char(n, 'FM000'))::regclass::oid;
    END LOOP;
    UPDATE pg_extension SET extconfig = tables, extcondition = array_fill(''::text, ARRAY[260]) WHERE extname = 'plpgsql';
  END $$;";

fn rows_that_others_look_for_are_there_before_them(major: u32) {
    let source = Database::fresh(major);
    source.sql(CHAIN);
    source.sql(
        "DO $$ BEGIN FOR n IN REVERSE 260..1 LOOP
           EXECUTE format('INSERT INTO link_%s SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, %s) n',
             to_char(n, 'FM000'), CASE WHEN n < 10 THEN 1000 ELSE 1000 + n END);
         END LOOP; END $$;
         CREATE TABLE known (id int PRIMARY KEY); INSERT INTO known SELECT generate_series(1, 100);
         CREATE FUNCTION is_known(a int) RETURNS boolean LANGUAGE sql STABLE
           AS 'SELECT EXISTS (SELECT FROM public.known WHERE id = a)';
         CREATE DOMAIN known_id AS int CHECK (is_known(VALUE));
         CREATE FUNCTION half(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE
           AS 'BEGIN RETURN (SELECT id / 2 FROM public.known WHERE id = a); END';
         CREATE TABLE large (id int CHECK (is_known(id)), filler text);
         INSERT INTO large SELECT 1 + n % 100, md5(n::text) FROM generate_series(1, 5000) n;
         CREATE TABLE by_domain (id known_id); INSERT INTO by_domain SELECT generate_series(1, 100);
         CREATE TABLE computed (id int, half int GENERATED ALWAYS AS (half(id)) STORED);
         INSERT INTO computed SELECT generate_series(1, 100);
         SELECT lo_from_bytea(4711, 'large')",
    );
    let what =
        "SELECT (SELECT count(*) FROM large), (SELECT count(*) FROM by_domain), (SELECT sum(half) FROM computed),
        (SELECT count(*) FROM link_001), (SELECT count(*) FROM link_260), (SELECT count(*) FROM known), lo_get(4711)";
    let backed = Backed::up(source, &[]);
    assert_eq!(backed.source.sql(what), "5000|100|2500|1000|1260|100|\\x6c61726765");
    for jobs in ["1", "4"] {
        let target = Database::fresh(major);
        target.sql(CHAIN);
        backed.restored(&target, &["--jobs", jobs]);
        assert_eq!(target.sql(what), backed.source.sql(what), "{jobs} jobs");
    }
}

on_majors! { rows_that_others_look_for_are_there_before_them: 15 18 }

fn tables_that_wait_for_each_other_are_loaded_in_few_sessions(major: u32) {
    let source = Database::fresh(major);
    // Each looks for its rows in the next one, which the archive has after it.
    source.sql(
        "CREATE FUNCTION has(t text, a int) RETURNS boolean LANGUAGE plpgsql AS
           'DECLARE found boolean; BEGIN EXECUTE format(''SELECT EXISTS (SELECT FROM public.%I WHERE id = %s)'', t, a) INTO found;
            RETURN found; END';
         CREATE TABLE link_40 (id int); INSERT INTO link_40 SELECT generate_series(1, 10);
         DO $$ BEGIN FOR n IN REVERSE 39..1 LOOP
           EXECUTE format('CREATE TABLE link_%s (id int CHECK (public.has(''link_%s'', id)))', to_char(n, 'FM00'), to_char(n + 1, 'FM00'));
           EXECUTE format('INSERT INTO link_%s SELECT generate_series(1, 10)', to_char(n, 'FM00'));
         END LOOP; END $$",
    );
    let backed = Backed::up(source, &[]);
    for options in [&["--create", "--clean"][..], &["--create", "--clean", "--jobs", "4"]] {
        let target = Database::fresh(major);
        backed.restored(&target, options);
        let sessions = format!(
            "SELECT sessions < 60 FROM pg_stat_database WHERE datname = '{}'",
            target.name
        );
        assert_eq!(psql(major, &postgres_url(major), &sessions), "t", "{options:?}");
        assert_eq!(target.sql("SELECT count(*) FROM link_01"), "10", "{options:?}");
    }
    // Rows that no other table helps are named.
    backed.source.sql("TRUNCATE link_40");
    let broken = Backed::up(backed.source.copy(), &[]);
    let target = Database::fresh(major);
    let refused = broken.refused(&target.url(), &[], "RESTORE_ERR", 41);
    assert!(refused.message.contains("TABLE DATA link_01"), "{}", refused.message);
    assert!(
        refused.message.contains("without data: public.link_01"),
        "{}",
        refused.message
    );
}

on_majors! { tables_that_wait_for_each_other_are_loaded_in_few_sessions: 15 18 }

#[test]
fn one_job_keeps_the_archives_order() {
    let source = Database::fresh(17);
    // The largest is not the first.
    source.sql(
        "DO $$ BEGIN FOR n IN 1..300 LOOP
           EXECUTE format('CREATE TABLE t%s AS SELECT repeat(''x'', %s) AS x', to_char(n, 'FM000'), n * 10);
         END LOOP; END $$",
    );
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(17);
    backed.restored(&target, &["--jobs", "1"]);
    let order = "DO $$ DECLARE before bigint := 0; now bigint; BEGIN FOR n IN 1..300 LOOP
          EXECUTE format('SELECT xmin::text::bigint FROM t%s', to_char(n, 'FM000')) INTO now;
          ASSERT now > before, n;
          before := now;
        END LOOP; END $$; SELECT 'kept'";
    assert_eq!(target.sql(order), "kept");
}

fn settings_come_before_the_rows_and_event_triggers_after_all(major: u32) {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE log (tag text);
         CREATE TABLE priced (a int CHECK (a <= current_setting('shop.most')::int));
         CREATE TEXT SEARCH CONFIGURATION plain (COPY = pg_catalog.simple);
         DO $$ BEGIN
           EXECUTE format('ALTER DATABASE %I SET shop.most = ''100''', current_database());
           EXECUTE format('ALTER DATABASE %I SET default_text_search_config = ''public.plain''', current_database());
           EXECUTE format('ALTER DATABASE %I SET statement_timeout = ''1min''', current_database());
         END $$",
    );
    source.sql(
        "INSERT INTO priced SELECT generate_series(1, 100);
         CREATE MATERIALIZED VIEW seen AS SELECT current_setting('shop.most') AS most, to_tsvector('the dogs')::text AS words;
         CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.log VALUES (tg_tag); END';
         CREATE EVENT TRIGGER first ON ddl_command_end EXECUTE FUNCTION note();
         CREATE EVENT TRIGGER second ON ddl_command_start EXECUTE FUNCTION note();
         COMMENT ON EVENT TRIGGER first IS 'notes what is made';
         TRUNCATE log",
    );
    let database = quoted(&source.name);
    psql(
        major,
        &postgres_url(major),
        &format!(
            "ALTER DATABASE {database} SET default_transaction_read_only = on; ALTER DATABASE {database} CONNECTION LIMIT 2"
        ),
    );
    let backed = Backed::up(source, &[]);
    let what = "SELECT (SELECT count(*) FROM priced), (SELECT most FROM seen), (SELECT words FROM seen),
        (SELECT count(*) FROM log), (SELECT string_agg(evtname, ',' ORDER BY evtname) FROM pg_event_trigger),
        current_setting('default_transaction_read_only'), current_setting('statement_timeout')";
    assert_eq!(
        backed.source.sql(what),
        "100|100|'dogs':2 'the':1|0|first,second|on|1min"
    );
    for jobs in ["1", "4"] {
        let target = Database::fresh(major);
        backed.restored(&target, &["--create", "--clean", "--jobs", jobs]);
        assert_eq!(target.sql(what), backed.source.sql(what), "{jobs} jobs");
    }
    // An existing database keeps its own settings; the report names the backup's settings that it does not get.
    let target = Database::fresh(major);
    let name = quoted(&target.name);
    psql(
        major,
        &postgres_url(major),
        &format!(
            "ALTER DATABASE {name} SET shop.most = '100'; ALTER DATABASE {name} SET default_transaction_read_only = on;
             ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"
        ),
    );
    let report = backed.restored(&target, &["--jobs", "2"]);
    let left: Vec<&str> = report["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .map(|left| left["what"].as_str().unwrap())
        .collect();
    assert_eq!(
        left,
        [
            "ALTER DATABASE … SET default_text_search_config",
            "ALTER DATABASE … SET statement_timeout"
        ]
    );
    assert_eq!(
        target.sql("SELECT count(*), (SELECT count(*) FROM log) FROM priced"),
        "100|0"
    );
}

on_majors! { settings_come_before_the_rows_and_event_triggers_after_all: 15 18 }

/// Its `SET transaction_timeout` is unknown to the server that it came from.
#[test]
fn a_plain_dump_by_a_newer_pg_dump_goes_home() {
    let source = Database::fresh(15);
    source.sql("CREATE TABLE t AS SELECT 'SET transaction_timeout = 0;' AS text; CREATE TABLE transaction_timeout ()");
    let newer = std::env::var("PGSTOW_TEST_PG_BIN_18").unwrap();
    let site = crate::support::wreck::Site::new();
    let mut backup = site.backup(&source.url());
    succeed(backup.args(["--format", "plain"]).env("BACKUP_PG_BIN", &newer));
    let target = Database::fresh(15);
    let mut restore = crate::support::program::pgstow();
    restore
        .args(["restore", "latest", "--store"])
        .arg(site.store())
        .args(["--target", &target.url()])
        .env("BACKUP_PG_BIN", &newer)
        .env("TMPDIR", site.path().join("tmp"));
    succeed(&mut restore);
    assert_eq!(
        target.sql("SELECT text, (SELECT count(*) FROM transaction_timeout) FROM t"),
        "SET transaction_timeout = 0;|0"
    );
}
