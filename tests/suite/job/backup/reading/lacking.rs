//! What pg_dump leaves out, with a warning of its own or without one: it is named in the report, in the
//! manifest, in the log, and beforehand by doctor.

use std::fs;

use serde_json::Value;

use crate::support::database::{Database, unique_word};
use crate::support::impostor::impostor;
use crate::support::program::{pgstow, run};
use crate::support::role::Role;
use crate::support::wreck::{Site, fail, report};

const THINGS: &str = "
    CREATE EXTENSION postgres_fdw;
    CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'h');
    CREATE USER MAPPING FOR postgres SERVER remote OPTIONS (user 'u', password 'hidden');
    CREATE FOREIGN TABLE far (a int) SERVER remote;
    CREATE TABLE jobs AS SELECT 1 AS a; ALTER EXTENSION postgres_fdw ADD TABLE jobs;
    CREATE TABLE settings AS SELECT 1 AS a; ALTER EXTENSION postgres_fdw ADD TABLE settings;
    UPDATE pg_extension SET extconfig = ARRAY['settings'::regclass::oid], extcondition = ARRAY['']
      WHERE extname = 'postgres_fdw';
    CREATE TABLE of_our_own AS SELECT 1 AS a; CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS a;
    CREATE SEQUENCE counter;
    CREATE FUNCTION pg_catalog.misplaced() RETURNS int LANGUAGE sql RETURN 1;
    CREATE DOMAIN pg_catalog.placed AS int; CREATE COLLATION information_schema.mine (locale = 'C');
    CREATE OPERATOR pg_catalog.@#@ (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int);
    CREATE CAST (money AS jsonb) WITH INOUT;
    CREATE TEXT SEARCH DICTIONARY plainly (TEMPLATE = simple);
    ALTER TEXT SEARCH CONFIGURATION french ALTER MAPPING FOR word WITH plainly, french_stem;
    CREATE FUNCTION less(int, numeric) RETURNS bool LANGUAGE sql IMMUTABLE RETURN $1::numeric < $2;
    CREATE FUNCTION compared(int, numeric) RETURNS int LANGUAGE sql IMMUTABLE RETURN sign($1::numeric - $2)::int;
    CREATE OPERATOR <@< (FUNCTION = less, LEFTARG = int, RIGHTARG = numeric);
    ALTER OPERATOR FAMILY integer_ops USING btree ADD OPERATOR 1 <@< (int, numeric), FUNCTION 1 (int, numeric) compared(int, numeric);
    CREATE INDEX failed ON of_our_own (a); CREATE INDEX fine ON of_our_own (a);
    UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'failed'::regclass;";

const ADDITIONS: &str = "
    CREATE INDEX added ON jobs (a); CREATE STATISTICS added_up ON a, (a + 1) FROM settings;
    CREATE POLICY added ON settings USING (a > 0);
    CREATE RULE added AS ON DELETE TO jobs DO ALSO NOTHING; ALTER TABLE jobs ALTER a SET DEFAULT 7;
    ALTER TABLE settings ADD CONSTRAINT added CHECK (a > 0); ALTER TABLE settings ADD mine text;
    GRANT SELECT (a) ON settings TO pg_monitor;
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER added BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION nothing();";

/// Kind and name of each.
fn named(document: &Value) -> Vec<String> {
    let left_out = document["left_out"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    left_out
        .map(|one| format!("{} {}", text(&one["kind"]), text(&one["name"])))
        .collect()
}

/// The archive as stock pg_restore prints it.
fn run_stock(major: u32, archive: &std::path::Path) -> String {
    let mut restore = crate::support::program::stock(major, "pg_restore");
    run(restore.args(["-f", "-"]).arg(archive)).text()
}

fn everything_that_pg_dump_leaves_out_is_named(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    database.sql(THINGS);
    // Grants on an extension's tables are saved; and what belongs to the extension itself is made with it.
    database.sql(ADDITIONS);
    database.sql(
        "CREATE EXTENSION IF NOT EXISTS pg_stat_statements; GRANT SELECT ON jobs, pg_stat_statements TO pg_monitor",
    );
    let subscription = format!("sub_{}", unique_word());
    database.sql(&format!(
        "CREATE SUBSCRIPTION {subscription} CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)"
    ));
    let role = Role::reader(&database, "a word of ours");
    let url = database.url_as(Some((&role.name, &role.password)));
    let for_all = [
        "extension_table public.jobs of postgres_fdw".to_owned(),
        "extension_addition default value for public.jobs.a of postgres_fdw".to_owned(),
        "extension_addition index public.added of postgres_fdw".to_owned(),
        "extension_addition policy added on public.settings of postgres_fdw".to_owned(),
        "extension_addition rule added on public.jobs of postgres_fdw".to_owned(),
        "extension_addition statistics object public.added_up of postgres_fdw".to_owned(),
        "extension_addition table column public.settings.mine of postgres_fdw".to_owned(),
        "extension_addition table constraint added on public.settings of postgres_fdw".to_owned(),
        "extension_addition trigger added on public.jobs of postgres_fdw".to_owned(),
        "system_schema collation information_schema.mine".to_owned(),
        "system_schema function public.compared(integer,numeric) of operator family pg_catalog.integer_ops".to_owned(),
        "system_schema mapping of text search configuration pg_catalog.french to public.plainly".to_owned(),
        "system_schema operator pg_catalog.@#@(integer,integer)".to_owned(),
        "system_schema operator public.<@<(integer,numeric) of operator family pg_catalog.integer_ops".to_owned(),
        "system_schema pg_catalog.misplaced()".to_owned(),
        "system_schema type pg_catalog.placed".to_owned(),
        "invalid_index public.failed".to_owned(),
        "foreign_table public.far".to_owned(),
    ];
    let for_the_role = [
        format!("subscription {subscription}"),
        "user_mapping postgres on server remote".to_owned(),
    ];
    for jobs in ["1", "2"] {
        let run = run(site.backup(&url).args(["--jobs", jobs]));
        assert!(run.status.success(), "{}", run.stderr);
        let told = run.json();
        assert_eq!(named(&told), [&for_the_role[..], &for_all[..]].concat());
        let warnings = told["warnings"].to_string();
        for word in [&subscription, "user mapping", "public.jobs", "information_schema.mine"] {
            assert!(
                warnings.contains(word) && run.stderr.contains(word),
                "{word}: {warnings}\n{}",
                run.stderr
            );
        }
        let said = "pg_dump: warning: subscriptions not dumped because current user is not a superuser";
        assert!(
            warnings.contains(said) && run.stderr.contains(said),
            "{jobs}: {warnings}"
        );
        assert!(!warnings.contains("public.far"), "that is no surprise: {warnings}");
        let manifest = site.store().join(told["id"].as_str().unwrap()).join("manifest.json");
        let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
        assert_eq!(
            (named(&manifest), &manifest["warnings"]),
            (named(&told), &told["warnings"])
        );
        assert!(!manifest.to_string().contains("hidden'"));
        let archive = site.store().join(told["id"].as_str().unwrap());
        let archive = archive.join(format!("{}.dump", database.name));
        let script = run_stock(major, &archive);
        for word in [
            "added",
            "failed",
            "misplaced",
            "placed AS",
            "@#@",
            ".mine",
            "integer_ops",
            "french_stem",
        ] {
            assert!(!script.contains(word), "{word} is saved after all: {script}");
        }
        assert!(script.contains("CREATE CAST (money AS jsonb)"), "{script}");
        assert!(
            script.contains("GRANT SELECT ON TABLE public.jobs TO pg_monitor"),
            "{script}"
        );
    }
    let of_superuser = report(&mut site.backup(&database.url()));
    assert_eq!(named(&of_superuser), for_all);

    let mut doctor = pgstow();
    doctor.args(["doctor", "--json", "--store"]).arg(site.store());
    let checked = run(doctor.env("DATABASE_URL", &url).current_dir(site.path())).json();
    let checks = checked["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "left_out").unwrap();
    assert_eq!(check["state"], "warning", "{check}");
    let objects = check["objects"].to_string();
    for name in [&subscription, "postgres on server remote", "public.jobs", "public.far"] {
        assert!(objects.contains(name), "{name}: {objects}");
    }
}

on_majors! { everything_that_pg_dump_leaves_out_is_named: 15 17 18 }

/// By the extension's own scripts, the first and an update.
#[test]
fn what_an_extension_itself_has_made_is_not_named() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("extension");
    fs::create_dir(&folder).unwrap();
    for path in [place.path(), &folder] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write(
        "keeper.control",
        "default_version = '1'\nrelocatable = false\nschema = keeper\n",
    );
    write(
        "keeper--1.sql",
        "CREATE TABLE kept (id serial PRIMARY KEY, a int CHECK (a > 0) DEFAULT 3); CREATE INDEX by_a ON kept (a);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER t BEFORE UPDATE ON kept FOR EACH ROW EXECUTE FUNCTION f();
         CREATE STATISTICS s ON id, a FROM kept; CREATE VIEW seen AS SELECT * FROM kept;",
    );
    write("keeper--1--2.sql", "CREATE INDEX later ON kept (a, id);");
    let (site, database) = (Site::new(), Database::fresh(18));
    let path = format!("SET extension_control_path = '{}:$system'", place.path().display());
    database.sql(&format!(
        "{path}; CREATE EXTENSION keeper; GRANT SELECT ON keeper.kept TO pg_monitor"
    ));
    assert!(report(&mut site.backup(&database.url()))["left_out"].is_null());
    database.sql(&format!("{path}; ALTER EXTENSION keeper UPDATE TO '2'"));
    assert!(report(&mut site.backup(&database.url()))["left_out"].is_null());
    database.sql("CREATE INDEX added ON keeper.kept (id, a)");
    let named = named(&report(&mut site.backup(&database.url())));
    assert_eq!(named, ["extension_addition index keeper.added of keeper"]);
}

#[test]
fn a_plain_dump_names_what_only_an_archive_says_of_the_database() {
    let (site, database) = (Site::new(), Database::fresh(17));
    let name = crate::support::database::quoted(&database.name);
    database.sql(&format!(
        "CREATE TABLE t (a int); ALTER DATABASE {name} SET work_mem = '5MB'; COMMENT ON DATABASE {name} IS 'ours';
         ALTER ROLE postgres IN DATABASE {name} SET statement_timeout = '1h'; GRANT CREATE ON DATABASE {name} TO pg_monitor"
    ));
    let told = report(&mut site.backup(&database.url()));
    assert!(told["left_out"].is_null(), "{told}");
    let told = report(site.backup(&database.url()).args(["--format", "plain"]));
    let names: Vec<&str> = told["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "comment",
            "privileges",
            "setting statement_timeout of role postgres",
            "setting work_mem"
        ]
    );
    assert!(told["warnings"].to_string().contains("setting work_mem"), "{told}");
}

#[test]
fn nothing_is_said_where_nothing_is_left_out() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql("CREATE TABLE t AS SELECT 1 AS a; CREATE UNLOGGED TABLE u AS SELECT 1 AS a");
    let told = report(&mut site.backup(&database.url()));
    assert!(told["left_out"].is_null() && told["warnings"].is_null(), "{told}");
}

/// A large object or sequence that the role may not read is no matter of a warning.
fn what_cannot_be_read_ends_the_backup(major: u32) {
    for (thing, name) in [
        ("SELECT lo_create(4711)", "4711"),
        ("CREATE SEQUENCE counter", "public.counter"),
    ] {
        let (site, database) = (Site::new(), Database::fresh(major));
        database.sql(thing);
        let role = Role::fresh(&database, "a word of ours", "");
        let url = database.url_as(Some((&role.name, &role.password)));
        let failure = fail(&mut site.backup(&url), "PERMISSION", 13);
        assert!(
            failure.message.contains(name) && failure.hint.contains("GRANT SELECT"),
            "{failure:?}"
        );
    }
}

on_majors! { what_cannot_be_read_ends_the_backup: 15 17 18 }

#[test]
fn what_pg_dump_says_is_told_once_each_and_without_secrets() {
    let (site, database) = (Site::new(), Database::fresh(17));
    let script = "IFS=: read -r _ _ _ _ password <$PGPASSFILE
        for i in 1 2 3; do echo \"pg_dump: warning: odd $password\" >&2; echo 'pg_dump: detail: thing' >&2; done
        printf 'pg_dump: warning: \\033[2Jother\\n' >&2; exec $REAL \"$@\"";
    for jobs in ["1", "2"] {
        let mut command = site.backup(&database.url());
        command
            .env("BACKUP_PG_BIN", impostor(site.path(), 17, script))
            .args(["--jobs", jobs]);
        let told = report(&mut command);
        let warnings: Vec<&str> = told["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(warnings[0], "pg_dump: warning: odd *** | detail: thing");
        assert!(warnings.len() == 2 && !warnings[1].contains('\u{1b}'), "{warnings:?}");
        fs::remove_dir_all(site.path().join("impostor")).unwrap();
    }
}
