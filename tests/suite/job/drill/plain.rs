//! The drill of a plain backup compares every table and every definition.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::database::{Database, quoted, unique_word};
use crate::support::impostor::write_script;
use crate::support::plain::{Kept, hostile, problems};
use crate::support::program::{run, succeed};
use crate::support::services::postgres_bin;

fn results(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |table: &Value| (text(&table["name"]), text(&table["result"]));
    report["drill"]["tables"].as_array().unwrap().iter().map(of).collect()
}

fn a_hostile_database_is_proved_table_by_table(major: u32) {
    let kept = Kept::plain(&hostile(major), "zstd");
    let run = run(&mut kept.drill());
    let report = run.json();
    assert_eq!(report["status"], "ok", "{major}: {report:#} {}", run.stderr);
    let results = results(&report);
    assert_eq!(results.len() as u64, kept.report["tables"].as_u64().unwrap());
    assert!(
        results.iter().all(|(_, result)| result.starts_with("equal")),
        "{results:#?}"
    );
    let drill = &report["drill"];
    assert_eq!(drill["large_objects"], 3);
    assert_eq!(drill["sequences"], 1);
    assert_eq!(
        drill["definitions"],
        kept.manifest()["script"]["definitions"],
        "{drill:#}"
    );
    assert_eq!(drill["not_proved"].as_array().unwrap().len(), 1, "{drill:#}");
    kept.site.assert_nothing_runs();
}

on_majors! { a_hostile_database_is_proved_table_by_table: 15 16 17 18 }

#[test]
fn owners_grants_and_extensions_are_compared() {
    let database = Database::fresh(18);
    let owner = format!("owner_{}", unique_word());
    database.sql(&format!(
        "CREATE ROLE {owner}; CREATE EXTENSION hstore; CREATE SCHEMA app AUTHORIZATION {owner};
         GRANT USAGE ON SCHEMA app TO PUBLIC; REVOKE EXECUTE ON FUNCTION hstore(text, text) FROM PUBLIC;
         CREATE TABLE app.t (a hstore); ALTER TABLE app.t OWNER TO {owner}; INSERT INTO app.t VALUES ('a=>1');
         GRANT SELECT ON app.t TO PUBLIC; COMMENT ON EXTENSION hstore IS 'pairs';
         ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT ON TABLES TO PUBLIC;
         ALTER TABLE app.t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON app.t USING (a ? 'a');
         REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE PUBLICATION pub FOR TABLE app.t;
         GRANT CREATE ON SCHEMA public TO {owner}; COMMENT ON SCHEMA public IS 'everybody''s'"
    ));
    let kept = Kept::plain(&database, "zstd");
    let run = run(&mut kept.drill());
    let report = run.json();
    assert_eq!(report["status"], "ok", "{report:#} {}", run.stderr);
    let lefts = report["drill"]["not_proved"].as_array().unwrap();
    let lefts: Vec<&str> = lefts.iter().map(|left| left["what"].as_str().unwrap()).collect();
    // A role that is no superuser takes no right to what an extension has made.
    assert_eq!(
        lefts,
        [
            "the database's own settings, comment and grants",
            "ACL public.FUNCTION hstore(text, text)"
        ]
    );
}

#[test]
fn tablespaces_of_the_source_do_not_stand_in_the_way() {
    let (database, name) = (Database::fresh(17), format!("space \"{}", unique_word()));
    let quoted = quoted(&name);
    database.sql(&format!(
        "SET allow_in_place_tablespaces = on; CREATE TABLESPACE {quoted} LOCATION ''"
    ));
    database.sql(&format!(
        "CREATE TABLE t (a int PRIMARY KEY USING INDEX TABLESPACE {quoted}) TABLESPACE {quoted}; INSERT INTO t VALUES (1)"
    ));
    let kept = Kept::plain(&database, "zstd");
    database.sql("DROP TABLE t");
    database.sql(&format!("DROP TABLESPACE {quoted}"));
    let run = run(&mut kept.drill());
    let report = run.json();
    assert_eq!(report["status"], "ok", "{report:#} {}", run.stderr);
    assert_eq!(results(&report), [("t".to_owned(), "equal".to_owned())]);
    assert_eq!(report["drill"]["definitions"], 2);
}

#[test]
fn an_empty_database_is_proved_to_be_empty() {
    for major in [15, 18] {
        let kept = Kept::plain(&Database::fresh(major), "none");
        let report = succeed(&mut kept.drill()).json();
        assert_eq!(report["status"], "ok", "{report:#}");
        assert_eq!(report["drill"]["tables"], Value::Array(Vec::new()));
    }
}

/// A folder with a major's programs whose psql does something more when it has ended.
fn meddling(kept: &Kept, major: u32, more: &str) -> PathBuf {
    let folder = kept.site.path().join(format!("meddling_{}", unique_word()));
    fs::create_dir(&folder).unwrap();
    let real = postgres_bin(major);
    for program in ["pg_dump", "pg_dumpall", "pg_restore"] {
        std::os::unix::fs::symlink(real.join(program), folder.join(program)).unwrap();
    }
    let script = format!(
        r#"$REAL "$@" || exit
        case "$*" in *--dbname=*)
            for argument in "$@"; do case "$argument" in --dbname=*) target="${{argument#--dbname=}}"; esac; done
            $REAL -X -q -o /dev/null -v ON_ERROR_STOP=1 -d "$target" <<'SQL' || exit
{more}
SQL
        esac"#
    );
    write_script(&folder.join("psql"), &real.join("psql"), kept.site.path(), &script);
    folder
}

#[test]
fn whatever_is_restored_otherwise_is_named_and_nothing_else() {
    let database = Database::fresh(17);
    let owner = format!("owner_{}", unique_word());
    database.sql(&format!(
        "CREATE ROLE {owner}; CREATE SEQUENCE behind; SELECT setval('behind', 7);
         CREATE FUNCTION takes() RETURNS bigint LANGUAGE sql AS 'SELECT nextval(''public.behind'')';
         CREATE TABLE kept (a int PRIMARY KEY, status varchar(9) CHECK (status IN ('new', 'paid')), b int DEFAULT 5,
           CONSTRAINT positive CHECK (b > 0)); INSERT INTO kept VALUES (1, 'new');
         CREATE TABLE other AS TABLE kept; CREATE INDEX other_index ON other (status) WHERE status IN ('new', 'paid');
         ALTER TABLE other OWNER TO {owner}; GRANT SELECT ON other TO PUBLIC;
         ALTER TABLE other ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON other USING (a > 1);
         CREATE VIEW seen AS SELECT a FROM kept WHERE status IN ('new', 'paid'); CREATE SEQUENCE counted;
         SELECT lo_from_bytea(4711, 'large'); COMMENT ON TABLE kept IS 'said';
         CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE TABLE many AS SELECT n, md5(n::text) AS text FROM generate_series(1, 5000) n"
    ));
    let kept = Kept::plain(&database, "zstd");
    let same = meddling(&kept, 17, "SELECT 1;");
    let drill = |bin: &PathBuf| {
        let mut drill = kept.drill();
        drill.env(
            "BACKUP_PG_BIN",
            format!("{}:{}", bin.display(), postgres_bin(17).display()),
        );
        run(&mut drill)
    };
    let report = drill(&same).json();
    assert_eq!(report["status"], "ok", "{report:#}");
    let turned = "CREATE TEMP TABLE t AS TABLE public.many; DELETE FROM public.many; \
                  INSERT INTO public.many SELECT * FROM t ORDER BY n DESC;";
    let report = drill(&meddling(&kept, 17, turned)).json();
    assert_eq!(report["status"], "ok", "{report:#}");
    let result = ("many".to_owned(), "equal_in_other_order".to_owned());
    assert!(results(&report).contains(&result), "{report:#}");
    for (injury, name, what) in [
        (
            "UPDATE kept SET b = 6",
            "public.kept",
            "has as many rows as the backup, and other ones",
        ),
        ("DELETE FROM other", "public.other", "has 0 rows, the backup 1"),
        (
            "ALTER TABLE kept ALTER b SET DEFAULT 6",
            "TABLE public.kept",
            "is defined otherwise",
        ),
        (
            "ALTER TABLE kept DROP CONSTRAINT positive",
            "TABLE public.kept",
            "is defined otherwise",
        ),
        (
            "ALTER TABLE kept DROP CONSTRAINT kept_pkey",
            "CONSTRAINT public.kept kept_pkey",
            "is not there",
        ),
        ("DROP INDEX other_index", "INDEX public.other_index", "is not there"),
        (
            "CREATE INDEX more ON other (b)",
            "INDEX public.more",
            "is there and not in the backup",
        ),
        (
            "DROP INDEX other_index; CREATE INDEX other_index ON other (status) WHERE status IN ('new')",
            "INDEX public.other_index",
            "is defined otherwise",
        ),
        (
            "REVOKE SELECT ON other FROM PUBLIC",
            "ACL public.TABLE other",
            "is not there",
        ),
        (
            "ALTER POLICY mine ON other USING (a > 2)",
            "POLICY public.other mine",
            "is defined otherwise",
        ),
        (
            "CREATE OR REPLACE VIEW seen AS SELECT a FROM kept WHERE status IN ('new')",
            "VIEW public.seen",
            "is defined otherwise",
        ),
        (
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
            "FUNCTION public.f()",
            "is defined otherwise",
        ),
        (
            "COMMENT ON TABLE kept IS 'unsaid'",
            "COMMENT public.TABLE kept",
            "is defined otherwise",
        ),
        (
            "SELECT setval('counted', 9)",
            "SEQUENCE SET public.counted",
            "is defined otherwise",
        ),
        (
            "SELECT setval('behind', 3)",
            "SEQUENCE SET public.behind",
            "is defined otherwise",
        ),
        (
            "SELECT lo_put(4711, 0, 'L')",
            "large objects",
            "1 are there, not the 1 of the backup",
        ),
        (
            "CREATE TABLE extra ()",
            "public.extra",
            "is there and not in the backup",
        ),
    ] {
        let bin = meddling(&kept, 17, &format!("SET search_path = public; {injury};"));
        let run = drill(&bin);
        assert_eq!(run.status.code(), Some(40), "{injury}: {}", run.stderr);
        let problems = problems(&run.json()["drill"]);
        assert!(
            problems.contains(&(name.to_owned(), what.to_owned())),
            "{injury}: {problems:#?}"
        );
        assert!(problems.len() <= 2, "{injury}: {problems:#?}");
    }
    let bin = meddling(&kept, 17, "ALTER TABLE public.other OWNER TO CURRENT_USER;");
    let problems = problems(&drill(&bin).json()["drill"]);
    assert!(
        problems.contains(&("TABLE public.other".to_owned(), "is not there".to_owned())),
        "{problems:#?}"
    );
}
