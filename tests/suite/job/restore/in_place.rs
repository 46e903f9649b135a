//! Rows and tables put back where others need them, and where they are used.

use crate::job::restore::place::{Backed, untouched};
use crate::support::contents::Contents;
use crate::support::database::Database;
use crate::support::lock::Lock;
use crate::support::program::succeed;

/// Tables that refer to each other in every direction, with triggers in every state.
fn shop(major: u32) -> Database {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE departments (id int PRIMARY KEY, name text NOT NULL, head int);
         CREATE TABLE people (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text,
           department int REFERENCES departments, boss int REFERENCES people);
         ALTER TABLE departments ADD CONSTRAINT heads FOREIGN KEY (head) REFERENCES people DEFERRABLE INITIALLY DEFERRED;
         COMMENT ON CONSTRAINT heads ON departments IS 'it''s who leads';
         INSERT INTO departments SELECT n, 'department ' || n FROM generate_series(1, 10) n;
         INSERT INTO people (name, department, boss) SELECT md5(n::text), 1 + n % 10, 1 + n / 7 FROM generate_series(1, 500) n;
         UPDATE departments SET head = id * 3;
         CREATE TABLE parts (id int, kind text, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
         CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
         CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b');
         CREATE TABLE uses (part int, kind text, person int REFERENCES people,
           FOREIGN KEY (part, kind) REFERENCES parts);
         INSERT INTO parts SELECT n, CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END FROM generate_series(1, 400) n;
         INSERT INTO uses SELECT id, kind, 1 + id % 500 FROM parts;
         ALTER TABLE uses ADD CONSTRAINT unsure FOREIGN KEY (person) REFERENCES people NOT VALID;
         CREATE TABLE log (what text);
         CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN INSERT INTO public.log VALUES (TG_NAME); NEW.name := 'meddled'; RETURN NEW; END $$;
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN INSERT INTO public.log VALUES (TG_NAME); RETURN NULL; END $$;
         CREATE TRIGGER ordinary BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION meddle();
         CREATE TRIGGER always BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION meddle();
         ALTER TABLE people ENABLE ALWAYS TRIGGER always;
         CREATE TRIGGER replica BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION meddle();
         ALTER TABLE people ENABLE REPLICA TRIGGER replica;
         CREATE TRIGGER off BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION meddle();
         ALTER TABLE people DISABLE TRIGGER off;
         CREATE TRIGGER emptied AFTER TRUNCATE ON departments FOR EACH STATEMENT EXECUTE FUNCTION note();
         CREATE TRIGGER rows AFTER INSERT ON parts FOR EACH ROW EXECUTE FUNCTION note();",
    );
    source
}

/// How the tables are bound and guarded, without OIDs.
fn bounds(database: &Database) -> String {
    database.sql(
        "SELECT c.conrelid::regclass::text AS t, c.conname, pg_get_constraintdef(c.oid), c.convalidated,
                obj_description(c.oid, 'pg_constraint')
           FROM pg_constraint c WHERE c.contype IN ('f', 'p') AND c.connamespace = 'public'::regnamespace ORDER BY 1, 2;
         SELECT tgrelid::regclass::text AS t, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
    )
}

fn rows_are_put_back_in_place(major: u32) {
    let backed = Backed::up(shop(major), &[]);
    let target = backed.source.copy();
    let (whole, bound) = (Contents::of(&target), bounds(&target));
    let put_back = |tables: &[&str], injury: &str| {
        target.sql(injury);
        let options: Vec<&str> = tables.iter().flat_map(|table| ["--table", *table]).collect();
        let options = [&options[..], &["--data-only", "--clean"]].concat();
        let report = backed.restored(&target, &options);
        assert_eq!(bounds(&target), bound);
        whole.assert_equals(&Contents::of(&target));
        assert_eq!(target.sql("SELECT count(*) FROM log"), "0");
        report
    };
    // A parent whose children refer to nothing any more, by a dropped check.
    let report = put_back(
        &["public.departments"],
        "SET session_replication_role = replica; DELETE FROM departments WHERE id > 5; UPDATE departments SET name = 'x'",
    );
    assert_eq!(report["compared"], 1, "{report}");
    // Of ten.
    assert_eq!(report["rows_replaced"], 5, "{report}");
    // A cycle, and a table that refers to itself.
    put_back(
        &["public.people", "public.departments"],
        "SET session_replication_role = replica; DELETE FROM people WHERE id > 100; TRUNCATE log;
         DELETE FROM departments WHERE id < 3",
    );
    // A root with its partitions, which another table refers to; and one of the partitions.
    let injury = "SET session_replication_role = replica; DELETE FROM parts WHERE id < 100";
    put_back(&["public.parts"], injury);
    put_back(
        &["public.parts_a"],
        "SET session_replication_role = replica; DELETE FROM parts_a WHERE id < 100",
    );

    // What was there comes back if anything fails: a person who was hired since, and is needed.
    target.sql(
        "INSERT INTO people OVERRIDING SYSTEM VALUE VALUES (1000, 'new', 1, 1); DELETE FROM log;
         INSERT INTO uses VALUES (1, 'b', 1000); ALTER TABLE uses VALIDATE CONSTRAINT unsure",
    );
    untouched(&target, || {
        let options = ["--table", "public.people", "--data-only", "--clean"];
        let failure = backed.refused(&target.url(), &options, "RESTORE_ERR", 41);
        assert!(failure.message.contains("nothing was changed"), "{}", failure.message);
        assert!(
            failure.message.contains("of \"public\".\"uses\"") || failure.message.contains("public.uses"),
            "{}",
            failure.message
        );
        assert!(
            failure.hint.contains("must be from the same backup") && failure.hint.contains("--into"),
            "{}",
            failure.hint
        );
        // Named together, they are of one moment.
        let mut both = options.to_vec();
        both.extend(["--table", "public.uses", "--dry-run"]);
        let planned = succeed(&mut backed.restore(&target.url(), &both)).json();
        let steps = planned["steps"].to_string();
        assert!(
            steps.contains("drop the foreign key heads") && steps.contains("compare"),
            "{steps}"
        );
    });
    let both = [
        "--table",
        "public.people",
        "--table",
        "public.uses",
        "--data-only",
        "--clean",
    ];
    backed.restored(&target, &both);
    // The key was valid when it was dropped.
    assert!(
        bounds(&target).contains("unsure|FOREIGN KEY (person) REFERENCES people(id)|t"),
        "{}",
        bounds(&target)
    );

    // Values of a column that the backup does not have would be lost.
    target.sql("ALTER TABLE people ADD email text");
    untouched(&target, || {
        let options = ["--table", "public.people", "--data-only", "--clean"];
        let failure = backed.refused(&target.url(), &options, "RESTORE_ERR", 41);
        assert!(
            failure.message.contains("would lose their values: email"),
            "{}",
            failure.message
        );
    });
    target.sql("ALTER TABLE people DROP email");

    // Rows whose columns are not there, and keys that would be enforced from now on, before anything is changed.
    for (change, why, hint, back) in [
        (
            "ALTER TABLE people RENAME name TO called",
            "lacks columns that the backup has, or computes them: name",
            "--into",
            "ALTER TABLE people RENAME called TO name",
        ),
        (
            "ALTER TABLE uses DISABLE TRIGGER ALL",
            "triggers are disabled",
            "ENABLE TRIGGER ALL",
            "ALTER TABLE uses ENABLE TRIGGER ALL",
        ),
    ] {
        target.sql(change);
        let options = ["--table", "public.people", "--data-only", "--clean", "--dry-run"];
        let failure = backed.refused(&target.url(), &options, "RESTORE_ERR", 41);
        assert!(failure.message.contains(why), "{}", failure.message);
        assert!(failure.hint.contains(hint), "{}", failure.hint);
        target.sql(back);
    }

    // Rows that the target would store otherwise are refused, and all is as it was.
    target.sql("ALTER TABLE people ALTER name TYPE varchar(5) USING 'short'");
    untouched(&target, || {
        let options = ["--table", "public.people", "--data-only", "--clean"];
        backed.refused(&target.url(), &options, "RESTORE_ERR", 41);
    });
    target.sql("ALTER TABLE people ALTER name TYPE char(40)");
    untouched(&target, || {
        let options = ["--table", "public.people", "--data-only", "--clean"];
        let failure = backed.refused(&target.url(), &options, "RESTORE_ERR", 41);
        assert!(
            failure.message.contains("would not hold the rows"),
            "{}",
            failure.message
        );
    });
    backed.restored(
        &target,
        &["--table", "public.people", "--data-only", "--clean", "--no-check"],
    );

    // A damaged byte: found on the way, and nothing is changed.
    backed.damage("people");
    untouched(&target, || {
        let options = ["--table", "public.people", "--data-only", "--clean"];
        backed.refused(&target.url(), &options, "INTEGRITY", 40);
    });
}

on_majors! { rows_are_put_back_in_place: 15 18 }

#[test]
fn a_lock_is_waited_for_as_long_as_was_said_and_its_holder_is_named() {
    let backed = Backed::up(shop(17), &[]);
    let target = backed.source.copy();
    let lock = Lock::hold(&target, "uses");
    for options in [
        &["--table", "public.people", "--data-only", "--clean"][..],
        &["--table", "public.people", "--clean"],
        &["--clean"],
    ] {
        let mut restore = backed.restore(&target.url(), options);
        restore.env("BACKUP_LOCK_WAIT_SECONDS", "1");
        let failure = crate::support::wreck::fail(&mut restore, "RESTORE_ERR", 41);
        for word in ["within 1 s", "session ", "psql", "idle in transaction"] {
            assert!(failure.message.contains(word), "{word}: {}", failure.message);
        }
    }
    drop(lock);
    target.sql("BEGIN; LOCK TABLE uses; PREPARE TRANSACTION 'forgotten'");
    for options in [
        &["--table", "public.people", "--data-only", "--clean"][..],
        &["--clean"],
    ] {
        let mut restore = backed.restore(&target.url(), options);
        restore.env("BACKUP_LOCK_WAIT_SECONDS", "1");
        let failure = crate::support::wreck::fail(&mut restore, "RESTORE_ERR", 41);
        assert!(failure.message.contains("'forgotten'"), "{}", failure.message);
    }
    target.sql("ROLLBACK PREPARED 'forgotten'");
}

#[test]
fn who_holds_what_a_replaced_table_refers_to_or_a_function_is_named() {
    let backed = Backed::up(shop(18), &[]);
    let target = backed.source.copy();
    for (held, options) in [
        (
            "LOCK TABLE parts IN ACCESS SHARE MODE",
            &[
                &["--table", "public.uses", "--clean"][..],
                &["--table", "public.uses", "--data-only", "--clean"],
            ][..],
        ),
        ("ALTER FUNCTION meddle() COST 7", &[&["--clean"][..]][..]),
    ] {
        target.sql(&format!("BEGIN; {held}; PREPARE TRANSACTION 'far away'"));
        for options in options {
            let mut restore = backed.restore(&target.url(), options);
            restore.env("BACKUP_LOCK_WAIT_SECONDS", "1");
            let failure = crate::support::wreck::fail(&mut restore, "RESTORE_ERR", 41);
            for word in ["within 1 s", "'far away'"] {
                assert!(failure.message.contains(word), "{word}: {}", failure.message);
            }
        }
        target.sql("ROLLBACK PREPARED 'far away'");
    }
}

fn tables_are_replaced_where_others_need_them(major: u32) {
    let backed = Backed::up(shop(major), &[]);
    let target = backed.source.copy();
    let (whole, bound) = (Contents::of(&target), bounds(&target));
    for tables in [
        &["public.departments"][..],
        &["public.people", "public.departments"],
        &["public.parts"],
        &["public.parts_b"],
        &["public.uses", "public.people"],
        &[],
    ] {
        let options: Vec<&str> = tables.iter().flat_map(|table| ["--table", *table]).collect();
        let report = backed.restored(&target, &[&options[..], &["--clean"]].concat());
        assert!(report.get("left_out").is_none(), "{report:#}");
        assert_eq!(bounds(&target), bound, "{tables:?}");
        whole.assert_equals(&Contents::of(&target));
    }

    // A policy that only the target has reads another table that is replaced.
    target.sql(
        "CREATE POLICY seen ON departments USING (EXISTS (SELECT FROM people p WHERE p.department = departments.id))",
    );
    let report = backed.restored(&target, &["--clean"]);
    assert!(
        report["left_out"].to_string().contains("the policy seen on"),
        "{report:#}"
    );
    whole.assert_equals(&Contents::of(&target));

    // What the target has beside: it is put back, or named.
    target.sql(
        "CREATE TABLE parts_c PARTITION OF parts FOR VALUES IN ('c'); INSERT INTO parts VALUES (1, 'c');
         CREATE SEQUENCE numbers OWNED BY parts.id;
         CREATE TABLE since (part int, kind text, FOREIGN KEY (part, kind) REFERENCES parts); INSERT INTO since VALUES (1, 'c');
         ALTER TABLE parts ADD person int, ADD CONSTRAINT newer FOREIGN KEY (person) REFERENCES people;
         CREATE PUBLICATION all_of_it FOR TABLE parts, since;",
    );
    let report = backed.restored(&target, &["--table", "public.parts", "--clean"]);
    let left = report["left_out"].to_string();
    assert!(
        left.contains("newer") && left.contains("backup does not have it"),
        "{report:#}"
    );
    assert!(
        left.contains("parts_c") && left.contains("could not be made again"),
        "{report:#}"
    );
    // It has a column more than the backup's table, so it stays by itself, with its row; and what refers to it
    // cannot hold.
    assert_eq!(target.sql("SELECT id, kind FROM parts_c"), "1|c");
    assert_eq!(
        target.sql("SELECT tablename FROM pg_publication_tables WHERE pubname = 'all_of_it' ORDER BY 1"),
        "parts_a\nparts_b\nsince"
    );
    assert_eq!(
        target.sql("SELECT pg_get_serial_sequence('parts', 'id')"),
        "public.numbers"
    );

    target.sql(
        "DROP TABLE parts_c; CREATE TABLE parts_c PARTITION OF parts FOR VALUES IN ('c');
         INSERT INTO parts VALUES (2, 'c'); CREATE VIEW few AS SELECT * FROM parts WHERE id < 3;
         TRUNCATE since; INSERT INTO since VALUES (2, 'c');
         ALTER TABLE since ADD CONSTRAINT kept FOREIGN KEY (part, kind) REFERENCES parts",
    );
    untouched(&target, || {
        let failure = backed.refused(
            &target.url(),
            &["--table", "public.parts", "--clean"],
            "RESTORE_ERR",
            41,
        );
        assert!(
            failure.message.contains("view public.few") || failure.message.contains("view few"),
            "{}",
            failure.message
        );
    });
    target.sql("DROP VIEW few");
    let report = backed.restored(&target, &["--table", "public.parts", "--clean"]);
    assert!(report.get("left_out").is_none(), "{report:#}");
    assert_eq!(target.sql("SELECT id FROM parts WHERE kind = 'c'"), "2");
    assert!(bounds(&target).contains("since|kept|"), "{}", bounds(&target));
    // A partition of the backup that has come into the root only since: a table of its own there.
    target.sql("CREATE TABLE all_uses (LIKE uses) PARTITION BY LIST (kind); ALTER TABLE all_uses ATTACH PARTITION uses DEFAULT");
    let report = backed.restored(&target, &["--table", "public.uses", "--clean"]);
    assert!(report.get("left_out").is_none(), "{report:#}");
    assert_eq!(target.sql("SELECT count(*) FROM all_uses"), "400");
    target.sql("DROP TABLE all_uses CASCADE; CREATE TABLE uses (a int)");

    // Damage is found before anything is removed.
    backed.damage("people");
    for options in [&["--table", "public.people", "--clean"][..], &["--clean"]] {
        untouched(&target, || {
            let failure = backed.refused(&target.url(), options, "INTEGRITY", 40);
            assert!(failure.message.contains("nothing was changed"), "{}", failure.message);
        });
    }
}

on_majors! { tables_are_replaced_where_others_need_them: 15 18 }

#[test]
fn a_database_that_is_used_is_replaced_by_force_alone() {
    let backed = Backed::up(crate::job::restore::place::three(17), &[]);
    let target = backed.source.copy();
    let lock = Lock::hold(&target, "a");
    let databases = || {
        target.sql(&format!(
            "SELECT count(*) FROM pg_database WHERE starts_with(datname, '{}')",
            target.name
        ))
    };
    let options = ["--create", "--clean"];
    let failure = backed.refused(&target.url(), &options, "RESTORE_ERR", 41);
    assert!(
        failure.message.contains("(psql)") && failure.message.contains("nothing was changed"),
        "{}",
        failure.message
    );
    assert!(failure.hint.contains("--force"), "{}", failure.hint);
    backed.restored(&target, &["--create", "--clean", "--force"]);
    drop(lock);
    // Nothing is left of the name that the new one had first.
    assert_eq!(databases(), "1");
    target.sql(&format!(
        "ALTER DATABASE {} IS_TEMPLATE true",
        crate::support::database::quoted(&target.name)
    ));
    backed.damage("b");
    untouched(&target, || {
        backed.refused(&target.url(), &options, "INTEGRITY", 40);
    });
    let unread = ["--create", "--clean", "--no-verify"];
    let failure = backed.refused(&target.url(), &unread, "INTEGRITY", 40);
    assert!(
        failure.message.contains("the target holds all definitions"),
        "{}",
        failure.message
    );
}
