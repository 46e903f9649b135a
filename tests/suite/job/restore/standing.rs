//! What stands in the target when rows alone are put back: looked at before, and again when it is locked.

use std::thread;
use std::time::Duration;

use crate::job::restore::place::{Backed, untouched};
use crate::support::database::{Database, psql, quoted};
use crate::support::lock::Lock;
use crate::support::services::postgres_url;

const SHOP: &str = "CREATE TABLE z_known (id int PRIMARY KEY, f int); INSERT INTO z_known SELECT n, n * 10 FROM generate_series(1, 5) n;
    CREATE FUNCTION look(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE
      AS 'BEGIN RETURN (SELECT f FROM public.z_known WHERE id = a); END';
    CREATE TABLE a_computed (id int, f int GENERATED ALWAYS AS (look(id)) STORED);
    INSERT INTO a_computed SELECT generate_series(1, 5);
    CREATE TABLE a_plain (id int); INSERT INTO a_plain SELECT generate_series(1, 5);
    CREATE SEQUENCE ids; CREATE TABLE numbered (id int DEFAULT nextval('ids') PRIMARY KEY, x xml);
    INSERT INTO numbered (x) SELECT 'a<b/>' FROM generate_series(1, 10);
    CREATE TABLE root (id int) PARTITION BY RANGE (id);
    CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (100); INSERT INTO root SELECT generate_series(1, 20);
    CREATE VIEW seen AS SELECT * FROM z_known; CREATE MATERIALIZED VIEW kept AS SELECT * FROM z_known;";

fn what_stands_in_the_target_decides_how_rows_are_put_back(major: u32) {
    let source = Database::fresh(major);
    source.sql(SHOP);
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    let put_back = |tables: &[&str], more: &[&str]| {
        let options: Vec<&str> = tables.iter().flat_map(|table| ["--table", *table]).collect();
        backed.restored(&target, &[&options[..], &["--data-only", "--clean"], more].concat())
    };
    let refused = |table: &str, words: &str, hint: &str| {
        untouched(&target, || {
            let options = ["--table", table, "--data-only", "--clean"];
            let failure = backed.refused(&target.url(), &options, "RESTORE_ERR", 41);
            assert!(failure.message.contains(words), "{}", failure.message);
            assert!(failure.hint.contains(hint), "{}", failure.hint);
        });
    };

    // Columns that a function computes from another table, and a check since that the archive does not know.
    target.sql("UPDATE z_known SET f = 0");
    put_back(&["public.a_computed", "public.z_known"], &[]);
    assert_eq!(target.sql("SELECT sum(f) FROM a_computed"), "150");
    target.sql(
        "CREATE FUNCTION known(a int) RETURNS boolean LANGUAGE plpgsql
           AS 'BEGIN RETURN EXISTS (SELECT FROM public.z_known WHERE id = a); END';
         ALTER TABLE a_plain ADD CHECK (known(id)); DELETE FROM a_plain WHERE id > 2",
    );
    for more in [&[][..], &["--keep-going"]] {
        let report = put_back(&["public.a_plain", "public.z_known"], more);
        assert_eq!(report["compared"], 2, "{report:#}");
        assert_eq!(target.sql("SELECT count(*) FROM a_plain"), "5");
    }

    // A sequence that belongs to no table, and text that is no XML document.
    let document = format!("ALTER DATABASE {} SET xmloption = document", quoted(&target.name));
    psql(major, &postgres_url(major), &document);
    target.sql("TRUNCATE numbered; ALTER SEQUENCE ids RESTART");
    backed.restored(&target, &["--table", "public.numbered", "--data-only"]);
    assert_eq!(target.sql("INSERT INTO numbered DEFAULT VALUES RETURNING id"), "11");
    target.sql("ALTER SEQUENCE ids RENAME TO numbers");
    refused(
        "public.numbered",
        "lacks the sequence public.ids",
        "--exclude SEQUENCE-SET:public.ids",
    );
    put_back(&["public.numbered"], &["--exclude", "SEQUENCE-SET:public.ids"]);
    assert_eq!(target.sql("SELECT count(*) FROM numbered"), "10");

    // What has no rows of its own, here or there.
    refused(
        "public.seen",
        "the view public.seen has none of its own",
        "leave it out",
    );
    refused(
        "public.kept",
        "the materialized view public.kept has none",
        "REFRESH MATERIALIZED VIEW",
    );
    target.sql("ALTER TABLE a_plain RENAME TO a_old; CREATE VIEW a_plain AS SELECT * FROM a_old");
    refused("public.a_plain", "public.a_plain is a view in the target", "rename it");
    // A partition that is none any more.
    target.sql("ALTER TABLE root DETACH PARTITION leaf");
    refused(
        "public.root",
        "public.leaf is a partition of public.root in the backup",
        "attach it again",
    );
    put_back(&["public.leaf"], &[]);

    // A trigger that came while its table was waited for.
    let lock = Lock::hold(&target, "z_known");
    thread::scope(|scope| {
        let restore = scope.spawn(|| {
            let options = ["--table", "public.z_known", "--data-only", "--clean"];
            backed.refused(&target.url(), &options, "RESTORE_ERR", 41)
        });
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = (SELECT oid FROM pg_class WHERE relname = 'z_known')";
        while target.sql(waits) == "0" && !restore.is_finished() {
            thread::sleep(Duration::from_millis(50));
        }
        lock.release_after(
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER since BEFORE INSERT ON z_known FOR EACH ROW EXECUTE FUNCTION note()",
        );
        let failure = restore.join().unwrap();
        assert!(failure.message.contains("the trigger since on"), "{}", failure.message);
    });
    assert_eq!(target.sql("SELECT count(*) FROM z_known"), "5");
}

on_majors! { what_stands_in_the_target_decides_how_rows_are_put_back: 15 18 }
