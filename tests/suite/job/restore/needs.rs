//! What single tables need, and what belongs to that; partitions by themselves.

use crate::job::restore::place::{Backed, untouched};
use crate::job::restore::roles::MASTER;
use crate::support::contents::Contents;
use crate::support::database::{Database, psql, quoted};
use crate::support::program::succeed;
use crate::support::role::Role;
use crate::support::server::OwnServer;

/// Hashes of an enum's values are others in every database: pg_dump loads these partitions through their root.
const PARTITIONS: &str = "CREATE TYPE mood AS ENUM ('a', 'b', 'c', 'd', 'e', 'f');
    CREATE TABLE root (id serial, m mood NOT NULL, n int DEFAULT nextval('shared.ids'), PRIMARY KEY (id, m)) PARTITION BY HASH (m);
    CREATE TABLE leaf_0 PARTITION OF root FOR VALUES WITH (MODULUS 3, REMAINDER 0);
    CREATE TABLE leaf_1 PARTITION OF root FOR VALUES WITH (MODULUS 3, REMAINDER 1);
    CREATE TABLE leaf_2 PARTITION OF root FOR VALUES WITH (MODULUS 3, REMAINDER 2);
    INSERT INTO root (m) SELECT (enum_range(NULL::mood))[1 + n % 6] FROM generate_series(1, 3000) n;";

fn what_a_table_needs_comes_with_what_belongs_to_it(major: u32) {
    let source = Database::fresh(major);
    let reader = Role::fresh(&source, "its secret", "");
    let name = quoted(&reader.name);
    source.sql(&format!(
        "CREATE SCHEMA shared; COMMENT ON SCHEMA shared IS 'for all'; GRANT USAGE ON SCHEMA shared TO {name};
         CREATE SEQUENCE shared.ids; COMMENT ON SEQUENCE shared.ids IS 'of all'; GRANT USAGE ON SEQUENCE shared.ids TO {name};
         CREATE FUNCTION shared.guarded() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
         REVOKE ALL ON FUNCTION shared.guarded() FROM PUBLIC;
         CREATE TYPE shared.kind AS ENUM ('x', 'y'); COMMENT ON TYPE shared.kind IS 'of what kind';
         REVOKE USAGE ON TYPE shared.kind FROM PUBLIC; GRANT USAGE ON TYPE shared.kind TO {name};
         CREATE DOMAIN shared.few AS int CONSTRAINT most CHECK (VALUE < 10); COMMENT ON CONSTRAINT most ON DOMAIN shared.few IS 'not many';
         CREATE FUNCTION shared.near(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT abs($1 - $2) < 3';
         CREATE OPERATOR shared.<~> (LEFTARG = int, RIGHTARG = int, FUNCTION = shared.near);
         CREATE TABLE t (id int DEFAULT nextval('shared.ids'), k shared.kind DEFAULT 'y', g int DEFAULT shared.guarded(),
           f shared.few, o int CHECK (o OPERATOR(shared.<~>) 4));
         INSERT INTO t (f, o) SELECT 3, 5 FROM generate_series(1, 100);
         {PARTITIONS}"
    ));
    let backed = Backed::up(source, &[]);
    let about = "SELECT obj_description('shared'::regnamespace), obj_description('shared.ids'::regclass),
        obj_description('shared.kind'::regtype), (SELECT nspacl FROM pg_namespace WHERE nspname = 'shared'),
        (SELECT relacl FROM pg_class WHERE relname = 'ids'), (SELECT proacl FROM pg_proc WHERE proname = 'guarded'),
        (SELECT typacl FROM pg_type WHERE typname = 'kind'),
        (SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conname = 'most'),
        (SELECT last_value FROM shared.ids)";
    let target = Database::fresh(major);
    let report = backed.restored(&target, &["--table", "public.t"]);
    assert!(report["already_there"].is_null(), "{report:#}");
    assert_eq!(target.sql(about), backed.source.sql(about));
    assert_eq!(target.sql("INSERT INTO t (o) VALUES (4) RETURNING id"), "3101");

    // Existing objects stay, and the report names them.
    target.sql("GRANT EXECUTE ON FUNCTION shared.guarded() TO PUBLIC; SELECT setval('shared.ids', 7000)");
    let changed = target.sql(about);
    let report = backed.restored(&target, &["--table", "public.t", "--clean"]);
    assert_eq!(target.sql(about), changed);
    let there = report["already_there"].to_string();
    for what in [
        "SEQUENCE shared.ids",
        "FUNCTION shared.guarded()",
        "TYPE shared.kind",
        "DOMAIN shared.few",
    ] {
        assert!(there.contains(what), "{what}: {there}");
    }

    // An operator of that name for other types is another one.
    let target = Database::fresh(major);
    target.sql(
        "CREATE SCHEMA shared; CREATE FUNCTION shared.alike(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR shared.<~> (LEFTARG = text, RIGHTARG = text, FUNCTION = shared.alike)",
    );
    backed.restored(&target, &["--table", "public.t"]);
    assert_eq!(
        target.sql("SELECT count(*) FROM pg_operator WHERE oprname = '<~>'"),
        "2"
    );

    // A partition as a table of its own, with the sequence of its root.
    let target = Database::fresh(major);
    let report = backed.restored(
        &target,
        &[
            "--table",
            "public.leaf_0",
            "--table",
            "public.leaf_1",
            "--table",
            "public.leaf_2",
        ],
    );
    let count = "SELECT count(*), bool_or(relispartition) FROM pg_class, LATERAL (SELECT FROM leaf_0 UNION ALL SELECT FROM leaf_1
        UNION ALL SELECT FROM leaf_2) AS rows WHERE relname = 'leaf_0'";
    assert_eq!(target.sql(count), "3000|f");
    assert_eq!(target.sql("INSERT INTO leaf_0 (m) VALUES ('a') RETURNING id"), "3001");
    assert_eq!(report["left_out"].as_array().unwrap().len(), 6, "{report:#}");
    assert_eq!(
        target.sql("SELECT string_agg(conname, ',' ORDER BY conname) FROM pg_constraint WHERE contype = 'p' AND connamespace = 'public'::regnamespace"),
        "leaf_0_pkey,leaf_1_pkey,leaf_2_pkey"
    );
}

on_majors! { what_a_table_needs_comes_with_what_belongs_to_it: 15 18 }

#[test]
fn rows_of_a_partition_alone_go_where_they_belong_or_nowhere() {
    let source = Database::fresh(17);
    source.sql(&format!(
        "CREATE SCHEMA shared; CREATE SEQUENCE shared.ids; {PARTITIONS}"
    ));
    let backed = Backed::up(source, &[]);
    let count = "SELECT count(*), count(DISTINCT id) FROM root";
    let leaves = ["public.leaf_0", "public.leaf_1", "public.leaf_2"];
    // In place, and in a copy that the server made.
    for leaf in leaves {
        backed.restored(&backed.source, &["--table", leaf, "--data-only", "--clean"]);
        assert_eq!(backed.source.sql(count), "3000|3000", "{leaf}");
    }
    // Elsewhere the hashes are others.
    let target = Database::fresh(17);
    backed.restored(&target, &[]);
    untouched(&target, || {
        for leaf in leaves {
            let refused = backed.refused(
                &target.url(),
                &["--table", leaf, "--data-only", "--clean"],
                "RESTORE_ERR",
                41,
            );
            assert!(
                refused.message.contains("other partitions of public.root"),
                "{}",
                refused.message
            );
            assert!(refused.hint.contains("--table public.root"), "{}", refused.hint);
        }
    });
    // The root is emptied whole, also of what lies in a partition that the backup does not know.
    target.sql(
        "CREATE TABLE more PARTITION OF root FOR VALUES WITH (MODULUS 6, REMAINDER 5)"
            .replace(
                "CREATE",
                "ALTER TABLE root DETACH PARTITION leaf_2; TRUNCATE leaf_2; CREATE",
            )
            .as_str(),
    );
    target.sql(
        "ALTER TABLE root ATTACH PARTITION leaf_2 FOR VALUES WITH (MODULUS 6, REMAINDER 2);
         DELETE FROM root WHERE id % 3 = 0",
    );
    backed.restored(&target, &["--table", "public.root", "--data-only", "--clean"]);
    assert_eq!(target.sql(count), "3000|3000");
}

#[test]
fn a_middle_level_is_loaded_through_itself_where_hashes_are_others() {
    let source = Database::fresh(17);
    source.sql(
        "CREATE TYPE mood AS ENUM ('a', 'b', 'c', 'd', 'e', 'f');
         CREATE TABLE top (d int, m mood) PARTITION BY RANGE (d);
         CREATE TABLE mid PARTITION OF top FOR VALUES FROM (0) TO (100) PARTITION BY HASH (m);
         CREATE TABLE l0 PARTITION OF mid FOR VALUES WITH (MODULUS 3, REMAINDER 0);
         CREATE TABLE l1 PARTITION OF mid FOR VALUES WITH (MODULUS 3, REMAINDER 1);
         CREATE TABLE l2 PARTITION OF mid FOR VALUES WITH (MODULUS 3, REMAINDER 2);
         INSERT INTO top SELECT n % 100, (enum_range(NULL::mood))[1 + n % 6] FROM generate_series(1, 600) n",
    );
    let backed = Backed::up(source, &[]);
    let alone = Database::fresh(17);
    backed.restored(&alone, &["--table", "public.mid"]);
    assert_eq!(alone.sql("SELECT count(*) FROM mid"), "600");
    let target = Database::fresh(17);
    // So that its values have other hashes than an enum that is made in the same order.
    target.sql("CREATE TYPE mood AS ENUM ('f', 'e', 'd', 'c', 'b', 'a')");
    let report = backed.restored(&target, &["--table", "public.top"]);
    assert_eq!(report["compared"], 3, "{report:#}");
    untouched(&target, || {
        let options = ["--table", "public.l0", "--clean"];
        let refused = backed.refused(&target.url(), &options, "RESTORE_ERR", 41);
        assert!(refused.message.contains("other partitions"), "{}", refused.message);
    });
    for options in [&["--clean"][..], &["--clean", "--data-only"]] {
        target.sql("DELETE FROM top WHERE d < 50");
        backed.restored(&target, &[&["--table", "public.mid"], options].concat());
        assert_eq!(target.sql("SELECT count(*) FROM top"), "600", "{options:?}");
    }
}

/// Three levels and four, by ranges, lists and hashes; keys whose names differ; a constraint below a plain index; an
/// index that is older than the keys on its columns; two keys on the same columns.
const LEVELS: &str = "CREATE TABLE known (id int PRIMARY KEY); INSERT INTO known SELECT generate_series(1, 9);
    CREATE TABLE top (id int, d int, PRIMARY KEY (id, d), FOREIGN KEY (id) REFERENCES known) PARTITION BY RANGE (d);
    CREATE TABLE mid PARTITION OF top FOR VALUES FROM (0) TO (10) PARTITION BY LIST (id);
    CREATE TABLE low PARTITION OF mid DEFAULT PARTITION BY HASH (id);
    CREATE TABLE leaf PARTITION OF low FOR VALUES WITH (MODULUS 1, REMAINDER 0);
    CREATE INDEX by_id ON top (id); INSERT INTO top SELECT n, n FROM generate_series(1, 9) n;
    CREATE TABLE refs (id int, d int, FOREIGN KEY (id, d) REFERENCES top); INSERT INTO refs VALUES (3, 3);
    CREATE TABLE \"Top\" (id int, d int, CONSTRAINT ak UNIQUE (id, d)) PARTITION BY RANGE (d);
    CREATE TABLE \"Mid\" (id int, d int, CONSTRAINT zk UNIQUE (id, d)) PARTITION BY LIST (id);
    CREATE TABLE \"Leaf\" (id int, d int, CONSTRAINT \"k z\" UNIQUE (id, d));
    ALTER TABLE \"Mid\" ATTACH PARTITION \"Leaf\" DEFAULT; ALTER TABLE \"Top\" ATTACH PARTITION \"Mid\" DEFAULT;
    INSERT INTO \"Top\" SELECT n, n FROM generate_series(1, 9) n;
    CREATE TABLE r (id int) PARTITION BY RANGE (id); CREATE TABLE m PARTITION OF r DEFAULT PARTITION BY RANGE (id);
    CREATE TABLE l (id int UNIQUE); ALTER TABLE m ATTACH PARTITION l DEFAULT; CREATE UNIQUE INDEX u ON r (id);
    CREATE TABLE twice (id int, d int) PARTITION BY RANGE (d); CREATE TABLE part PARTITION OF twice DEFAULT;
    CREATE UNIQUE INDEX older ON twice (id, d); ALTER TABLE twice ADD PRIMARY KEY (id, d);
    CREATE TABLE other (id int, d int) PARTITION BY RANGE (d); CREATE TABLE piece PARTITION OF other DEFAULT;
    CREATE UNIQUE INDEX elder ON other (d, id); ALTER TABLE other ADD UNIQUE (d, id); INSERT INTO other VALUES (1, 2);
    CREATE TABLE pair (id int, d int) PARTITION BY RANGE (d); CREATE TABLE half PARTITION OF pair DEFAULT;
    ALTER TABLE pair ADD CONSTRAINT a PRIMARY KEY (id, d); ALTER TABLE pair ADD CONSTRAINT z UNIQUE (id, d);
    CREATE TABLE same (id int, d int) PARTITION BY RANGE (d); CREATE TABLE quarter PARTITION OF same DEFAULT;
    ALTER TABLE same ADD CONSTRAINT b UNIQUE (id, d); ALTER TABLE same ADD CONSTRAINT y PRIMARY KEY (id, d);
    INSERT INTO pair VALUES (1, 2); INSERT INTO same VALUES (1, 2);";

fn a_level_in_between_comes_back_with_its_keys(major: u32) {
    let source = Database::fresh(major);
    source.sql(LEVELS);
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    let whole = Contents::of(&target);
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    // In place: their indexes are valid before they are attached, so that the server takes them and makes no others.
    target.sql("DELETE FROM leaf WHERE id > 5; DELETE FROM \"Leaf\"");
    let several = ["--table", "public.mid", "--table", "public.Mid", "--table", "public.m"];
    let further = [
        "--table",
        "public.low",
        "--table",
        "public.part",
        "--table",
        "public.piece",
        "--table",
        "public.half",
        "--table",
        "public.quarter",
    ];
    let exchanged = "SELECT count(*) FROM pg_constraint c JOIN pg_constraint p ON p.oid = c.conparentid
        WHERE c.contype <> p.contype";
    for tables in [&several[..], &further] {
        let report = backed.restored(&target, &[tables, &["--clean"]].concat());
        assert!(report["left_out"].is_null(), "{report:#}");
        whole.assert_equals(&Contents::of(&target));
        assert_eq!(target.sql(invalid), "0", "{tables:?}");
        assert_eq!(target.sql(exchanged), "0", "{tables:?}");
    }
    // Where it is lacking.
    target.sql("DROP TABLE \"Mid\", part");
    backed.restored(&target, &["--table", "public.Mid", "--table", "public.part"]);
    whole.assert_equals(&Contents::of(&target));

    // Without the levels above.
    let alone = Database::fresh(major);
    let report = backed.restored(&alone, &["--table", "public.mid"]);
    let left = report["left_out"].as_array().unwrap();
    let mut left: Vec<&str> = left.iter().map(|one| one["what"].as_str().unwrap()).collect();
    left.sort_unstable();
    assert_eq!(
        left,
        [
            "INDEX ATTACH public.mid_id_idx",
            "INDEX ATTACH public.mid_pkey",
            "TABLE ATTACH public.mid"
        ]
    );
    assert_eq!(alone.sql("SELECT count(*) FROM mid"), "9");
    assert_eq!(alone.sql(invalid), "0");
    // And as a copy, whose indexes are the level's own.
    let report = backed.restored(&alone, &["--table", "public.mid", "--into", "copies"]);
    let left = report["left_out"].to_string();
    assert!(!left.contains("INDEX public.l"), "{left}");
}

on_majors! { a_level_in_between_comes_back_with_its_keys: 15 18 }

/// pg_dump says of none of these constraints what it needs; of the last table's index and statistics it does.
const UNRECORDED: &str = "CREATE SCHEMA ext; CREATE SCHEMA \"Own s\";
    CREATE EXTENSION btree_gist SCHEMA ext; CREATE EXTENSION intarray SCHEMA ext; CREATE EXTENSION pg_trgm SCHEMA ext;
    CREATE EXTENSION citext SCHEMA ext; CREATE EXTENSION pgcrypto SCHEMA ext;
    CREATE OPERATOR CLASS \"Own s\".other FOR TYPE int USING btree AS
      OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int);
    CREATE FUNCTION \"Own s\".compared(box, box) RETURNS int LANGUAGE sql IMMUTABLE
      AS 'SELECT CASE WHEN $1 < $2 THEN -1 WHEN $1 > $2 THEN 1 ELSE 0 END';
    CREATE OPERATOR CLASS \"Own s\".by_area DEFAULT FOR TYPE box USING btree AS
      OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 \"Own s\".compared(box, box);
    CREATE FUNCTION \"Own s\".span(int, int) RETURNS int4range LANGUAGE sql IMMUTABLE AS 'SELECT int4range($1, $2)';
    CREATE TABLE others (a int, EXCLUDE USING btree (a \"Own s\".other WITH =)); INSERT INTO others VALUES (1), (2);
    CREATE TABLE areas (b box PRIMARY KEY); INSERT INTO areas VALUES ('(1,1),(0,0)'), ('(2,2),(0,0)');
    CREATE TABLE spans (a int, b int, EXCLUDE USING gist (\"Own s\".span(a, b) WITH &&)); INSERT INTO spans VALUES (1, 3), (4, 5);
    CREATE TABLE words (w text, EXCLUDE USING gist (w ext.gist_trgm_ops WITH OPERATOR(ext.%)));
    CREATE TABLE arrays (a int[], EXCLUDE USING gist (a ext.gist__int_ops WITH OPERATOR(ext.&&)));
    CREATE TABLE equals (a int[], EXCLUDE USING gist (a ext.gist__int_ops WITH =));
    CREATE TABLE likes (v text, c ext.citext); CREATE INDEX ON likes USING gin (v ext.gin_trgm_ops);
    CREATE STATISTICS counted ON c, (ext.digest(v, 'md5')) FROM likes;";
const TEMPORAL: &str = "CREATE TABLE hotel (room int, during daterange, PRIMARY KEY (room, during WITHOUT OVERLAPS));
    INSERT INTO hotel VALUES (1, '[2026-01-01,2026-02-01)'), (1, '[2026-02-01,2026-03-01)');
    CREATE TABLE rooms (room int, during daterange, UNIQUE (room, during WITHOUT OVERLAPS));";

fn what_pg_dump_does_not_record_of_a_constraint_comes_along(major: u32) {
    let source = Database::fresh(major);
    source.sql(UNRECORDED);
    if major >= 18 {
        source.sql(TEMPORAL);
    }
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(major);
    let extensions = "SELECT string_agg(extname, ',' ORDER BY extname) FROM pg_extension WHERE extname <> 'plpgsql'";
    let steps: [(&[&str], &str); 6] = [
        (&["others", "areas"], ""),
        (&["hotel", "rooms"], "btree_gist"),
        (&["spans"], "btree_gist"),
        (&["words"], "btree_gist,pg_trgm"),
        (&["arrays", "equals"], "btree_gist,intarray,pg_trgm"),
        (&["likes"], "btree_gist,citext,intarray,pg_trgm,pgcrypto"),
    ];
    for (tables, expected) in steps {
        if tables.contains(&"hotel") && major < 18 {
            continue;
        }
        let named: Vec<String> = tables.iter().map(|table| format!("public.{table}")).collect();
        let options: Vec<&str> = named.iter().flat_map(|name| ["--table", name.as_str()]).collect();
        let report = backed.restored(&target, &options);
        assert!(report["left_out"].is_null(), "{report:#}");
        assert_eq!(target.sql(extensions), expected, "{tables:?}");
    }
    let indexes =
        "SELECT string_agg(pg_get_indexdef(indexrelid), ';' ORDER BY indexrelid::regclass::text COLLATE \"C\")
        FROM pg_index WHERE indrelid::regclass::text !~ '^pg_'";
    assert_eq!(target.sql(indexes), backed.source.sql(indexes));
    // Existing objects stay.
    let own = Database::fresh(major);
    own.sql("CREATE SCHEMA ext; CREATE EXTENSION btree_gist SCHEMA ext");
    let report = backed.restored(&own, &["--table", "public.spans"]);
    let there = report["already_there"].to_string();
    assert!(there.contains("EXTENSION btree_gist"), "{report:#}");
}

on_majors! { what_pg_dump_does_not_record_of_a_constraint_comes_along: 15 18 }
fn an_extension_is_left_out_with_what_hangs_on_its_members(major: u32) {
    let source = Database::fresh(major);
    source.sql(
        "CREATE EXTENSION citext; GRANT EXECUTE ON FUNCTION citext_eq(citext, citext) TO pg_monitor;
         CREATE EXTENSION pg_stat_statements; GRANT EXECUTE ON FUNCTION pg_stat_statements_reset TO pg_monitor;
         CREATE EXTENSION pgstow_test; INSERT INTO pgstow_test_settings VALUES ('ours', 'x');
         GRANT SELECT ON pgstow_test_settings TO pg_monitor; GRANT UPDATE (value) ON pgstow_test_settings TO pg_monitor;
         SELECT setval('pgstow_test_numbers', 50);
         CREATE TABLE t AS SELECT 1 AS n; GRANT SELECT ON t TO pg_monitor",
    );
    let backed = Backed::up(source, &[]);
    let granted = "SELECT count(*) FROM pg_proc WHERE proname IN ('citext_eq', 'pg_stat_statements_reset')
        AND proacl::text LIKE '%pg_monitor=X%'";
    let settings = "SELECT (SELECT count(*) FROM pgstow_test_settings), (SELECT last_value FROM pgstow_test_numbers),
        has_table_privilege('pg_monitor', 'pgstow_test_settings', 'SELECT')";
    let table = "SELECT n, has_table_privilege('pg_monitor', 't', 'SELECT') FROM t";
    let left = |target: &Database, option: &str| {
        let report = backed.restored(target, &["--exclude", option]);
        assert_eq!(target.sql(table), "1|t", "{report:#}");
        report["left_out"].to_string()
    };

    let target = Database::fresh(major);
    let told = left(&target, "extension:pgstow_test");
    for what in [
        "TABLE DATA public.pgstow_test_settings",
        "SEQUENCE SET",
        "TABLE pgstow_test_settings",
        "COLUMN",
    ] {
        assert!(told.contains(what), "{what}: {told}");
    }
    assert!(!told.contains("citext") && !told.contains("statements"), "{told}");
    assert_eq!(target.sql(granted), "2");

    let target = Database::fresh(major);
    let told = left(&target, "extension:citext");
    assert!(told.contains("citext_eq") && !told.contains("pgstow_test"), "{told}");
    assert_eq!(target.sql(settings), "3|50|t");
    assert_eq!(target.sql(granted), "1");

    let target = Database::fresh(major);
    left(&target, "extension");
    assert_eq!(target.sql("SELECT count(*) FROM pg_extension"), "1");
    // A target that has it gets all of it.
    let target = Database::fresh(major);
    target.sql("CREATE EXTENSION pgstow_test; CREATE EXTENSION citext; CREATE EXTENSION pg_stat_statements");
    backed.restored(&target, &["--exclude", "extension"]);
    assert_eq!(target.sql(settings), "3|50|t");
    assert_eq!(target.sql(granted), "2");
    // What it has stays under --clean.
    target.sql(
        "DELETE FROM pgstow_test_settings; SELECT setval('pgstow_test_numbers', 7);
         REVOKE SELECT ON pgstow_test_settings FROM pg_monitor;
         REVOKE EXECUTE ON FUNCTION citext_eq(citext, citext) FROM pg_monitor; DELETE FROM t",
    );
    backed.restored(&target, &["--clean", "--exclude", "extension"]);
    assert_eq!(target.sql(settings), "0|7|f");
    assert_eq!(target.sql(granted), "1");
    assert_eq!(target.sql(table), "1|t");
}

on_majors! { an_extension_is_left_out_with_what_hangs_on_its_members: 15 18 }

/// A role without CREATE on the database in which it asks cannot see there what an extension's members are.
fn grants_on_members_of_an_extension_that_is_left_out_are_left_out_with_it(major: u32) {
    let source = Database::fresh(major);
    let reader = Role::fresh(&source, "its secret", "");
    let name = quoted(&reader.name);
    source.sql(&format!(
        "CREATE SCHEMA apart; CREATE EXTENSION citext WITH SCHEMA apart; CREATE EXTENSION dblink; CREATE EXTENSION pgcrypto;
         REVOKE ALL ON FUNCTION dblink_connect(text) FROM PUBLIC; GRANT EXECUTE ON FUNCTION dblink_connect(text) TO {name};
         GRANT EXECUTE ON FUNCTION digest(text, text) TO {name};
         GRANT EXECUTE ON FUNCTION apart.citext_hash(apart.citext) TO {name};
         CREATE TABLE t (a apart.citext); INSERT INTO t VALUES ('x'); GRANT SELECT ON t TO {name}"
    ));
    let backed = Backed::up(source, &[]);
    let server = OwnServer::start(major);
    psql(major, &server.url(), &format!("{MASTER}; CREATE ROLE {name}"));
    let target = server.database("made");
    let new = quoted(&target.name);
    psql(major, &server.url(), &format!("DROP DATABASE {new}"));
    let url = target.url_as(Some(("master", "its secret")));
    let refused = backed.refused(&url, &["--create", "--no-owner"], "PERMISSION", 13);
    assert!(refused.message.contains("EXTENSION dblink"), "{}", refused.message);
    let without = [
        "--exclude",
        "extension:dblink",
        "--exclude",
        "extension:pgcrypto",
        "--no-owner",
    ];
    for create in [&["--create"][..], &["--create", "--clean"]] {
        let options = [&without[..], create].concat();
        let planned = succeed(&mut backed.restore(&url, &[&options[..], &["--dry-run"]].concat())).json();
        assert!(
            planned["warnings"].to_string().contains("grants on members"),
            "{planned:#}"
        );
        let report = succeed(&mut backed.restore(&url, &options)).json();
        let left = report["left_out"].to_string();
        for what in ["FUNCTION dblink_connect(text)", "FUNCTION digest(text, text)"] {
            assert!(left.contains(what), "{what}: {left}");
        }
        assert!(!left.contains("citext"), "{left}");
        assert_eq!(
            target.sql(&format!(
                "SELECT count(*), has_table_privilege('{}', 't', 'SELECT') FROM t",
                reader.name
            )),
            "1|t"
        );
    }
    // In a database that is there, it is known before.
    psql(
        major,
        &server.url(),
        &format!("DROP DATABASE {new}; CREATE DATABASE {new} OWNER master"),
    );
    let report = succeed(&mut backed.restore(&url, &without)).json();
    assert!(
        report["left_out"].to_string().contains("FUNCTION dblink_connect(text)"),
        "{report:#}"
    );
    assert!(!report["left_out"].to_string().contains("citext"), "{report:#}");
}

on_majors! { grants_on_members_of_an_extension_that_is_left_out_are_left_out_with_it: 15 18 }
