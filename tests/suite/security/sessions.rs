//! A database whose owner has put things of theirs before PostgreSQL's own, and waits for a superuser.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::dataflow::parallel::same::ways;
use crate::support::database::{Database, psql, quoted, try_psql};
use crate::support::program::{pgstow, succeed};
use crate::support::role::Role;
use crate::support::server::OwnServer;
use crate::support::services::postgres_url;
use crate::support::wreck::{Site, report};

pub const PASSWORD: &str = "the owner's";

/// What the owner leaves behind for a superuser to step on. A sequence's step is not undone by a
/// ROLLBACK. In a throwaway server, which listens on a socket alone, it makes the drill fail.
fn trap(owner: &str) -> String {
    format!(
        "CREATE SCHEMA evil; CREATE SEQUENCE evil.calls;
         CREATE FUNCTION evil.trap() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
         BEGIN
           IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
             IF inet_server_addr() IS NULL THEN RAISE EXCEPTION 'trapped'; END IF;
             PERFORM nextval('evil.calls');
             EXECUTE 'ALTER ROLE {owner} SUPERUSER';
           END IF;
         END $f$;
         CREATE FUNCTION evil.caught() RETURNS bool LANGUAGE plpgsql AS $f$ BEGIN PERFORM evil.trap(); RETURN true; END $f$;
         CREATE FUNCTION evil.constant(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
           $f$ BEGIN PERFORM evil.trap(); RETURN 1; END $f$;"
    )
}

/// Functions, operators, aggregates, types, relations and casts by the names of PostgreSQL's own.
fn shadows() -> String {
    let words: Vec<String> = used_names().iter().map(|word| format!("'{word}'")).collect();
    let words = words.join(", ");
    format!(
        "DO $do$
         DECLARE one record; number int := 0;
         BEGIN
           FOR one IN SELECT proname, pg_get_function_identity_arguments(oid) AS args, pg_get_function_result(oid) AS result
                      FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f'
                        AND proallargtypes IS NULL AND NOT proretset AND proname IN ({words}) LOOP
             BEGIN
               EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS '
                 '$f$ BEGIN PERFORM evil.trap(); RETURN NULL; END $f$', one.proname, one.args, one.result);
               number := number + 1;
             EXCEPTION WHEN OTHERS THEN NULL;
             END;
           END LOOP;
           ASSERT number > 60, number;
           number := 0;
           FOR one IN SELECT oprname, oprleft::regtype AS l, oprright::regtype AS r, oprresult::regtype AS result
                      FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b'
                        AND oprname IN ('=', '<>', '<', '>', '<=', '>=', '||', '~~', '!~~', '~', '!~', '->>', '+', '*') LOOP
             BEGIN
               EXECUTE format('CREATE FUNCTION evil.operator_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS '
                 '$f$ BEGIN PERFORM evil.trap(); RETURN $1 OPERATOR(pg_catalog.%s) $2; END $f$',
                 number, one.l, one.r, one.result, one.oprname);
               EXECUTE format('CREATE OPERATOR evil.%s (FUNCTION = evil.operator_%s, LEFTARG = %s, RIGHTARG = %s)',
                 one.oprname, number, one.l, one.r);
               number := number + 1;
             EXCEPTION WHEN OTHERS THEN NULL;
             END;
           END LOOP;
           ASSERT number > 300, number;
         END $do$;
         CREATE FUNCTION evil.step(int8) RETURNS int8 LANGUAGE plpgsql AS $f$ BEGIN PERFORM evil.trap(); RETURN 7; END $f$;
         CREATE FUNCTION evil.step(int8, int8) RETURNS int8 LANGUAGE plpgsql AS
           $f$ BEGIN PERFORM evil.trap(); RETURN 7; END $f$;
         CREATE AGGREGATE evil.count(*) (SFUNC = evil.step, STYPE = int8, INITCOND = '0');
         CREATE AGGREGATE evil.sum(int8) (SFUNC = evil.step, STYPE = int8, INITCOND = '0');
         CREATE TYPE evil.mood AS ENUM ('calm');
         CREATE FUNCTION evil.turn(evil.mood) RETURNS pg_catalog.text LANGUAGE plpgsql AS
           $f$ BEGIN PERFORM evil.trap(); RETURN ''; END $f$;
         CREATE FUNCTION evil.turn(pg_catalog.text) RETURNS evil.mood LANGUAGE plpgsql AS
           $f$ BEGIN PERFORM evil.trap(); RETURN 'calm'; END $f$;
         CREATE CAST (evil.mood AS pg_catalog.text) WITH FUNCTION evil.turn(evil.mood) AS IMPLICIT;
         CREATE CAST (pg_catalog.text AS evil.mood) WITH FUNCTION evil.turn(pg_catalog.text) AS IMPLICIT;
         DO $do$
         DECLARE word text;
         BEGIN
           FOREACH word IN ARRAY ARRAY['text', 'name', 'oid', 'int4', 'int8', 'float8', 'bool', 'regclass'] LOOP
             EXECUTE format('CREATE DOMAIN evil.%I AS pg_catalog.%I CHECK (evil.caught())', word, word);
           END LOOP;
           FOREACH word IN ARRAY ARRAY['pg_class', 'pg_namespace', 'pg_settings', 'pg_database', 'pg_roles', 'pg_extension',
                                       'pg_depend', 'pg_stat_activity', 'pg_largeobject_metadata', 'pg_event_trigger'] LOOP
             EXECUTE format('CREATE VIEW evil.%I AS SELECT true AS mine WHERE evil.caught()', word);
           END LOOP;
         END $do$;"
    )
}

/// Every name of PostgreSQL's that our sources speak of.
fn used_names() -> BTreeSet<String> {
    fn read(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, names);
                continue;
            }
            for after in fs::read_to_string(&path).unwrap().split("pg_catalog.").skip(1) {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                names.insert(after[..end.unwrap_or(after.len())].to_owned());
            }
        }
    }
    let mut names = BTreeSet::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
    names.retain(|name| !name.is_empty());
    names
}

/// A database that belongs to an ordinary role.
pub struct Hostile {
    // Dropped before its owner.
    pub database: Database,
    pub owner: Role,
}

impl Hostile {
    pub fn of(major: u32) -> Self {
        let database = Database::fresh(major);
        let owner = Role::fresh(&database, PASSWORD, "");
        let name = quoted(&database.name);
        database.sql(&format!("ALTER DATABASE {name} OWNER TO {}", quoted(&owner.name)));
        let hostile = Self { database, owner };
        hostile.as_owner(&trap(&hostile.owner.name));
        hostile
    }

    /// With all shadows, on the path that the owner has set.
    fn shadowed(major: u32) -> Self {
        let hostile = Self::of(major);
        hostile.as_owner(&shadows());
        hostile.as_owner("CREATE TABLE evil.orders AS SELECT i, md5(i::text) AS a FROM generate_series(1, 500) i");
        let name = quoted(&hostile.database.name);
        hostile.as_owner(&format!(
            "ALTER DATABASE {name} SET search_path = evil, pg_catalog, public"
        ));
        hostile
    }

    pub fn as_owner(&self, script: &str) {
        let url = self.database.url_as(Some((&self.owner.name, PASSWORD)));
        psql(self.database.major, &url, script);
    }

    /// Whether a trap was sprung, or the owner is more than before.
    pub fn assert_untouched(&self, what: &str) {
        self.assert_untouched_in(&self.database.url(), what);
    }

    fn assert_untouched_in(&self, url: &str, what: &str) {
        let major = self.database.major;
        let called = psql(major, url, "SET search_path = ''; SELECT is_called FROM evil.calls");
        assert_eq!(called, "f", "{what}: code of the database's owner ran as superuser");
        let asked = format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{}'", self.owner.name);
        assert_eq!(
            psql(major, &postgres_url(major), &asked),
            "f",
            "{what}: the owner is superuser now"
        );
    }
}

fn doctor(url: &str, site: &Site) -> Command {
    let mut command = pgstow();
    command
        .args(["doctor", "--json", "--store"])
        .arg(site.store())
        .env("DATABASE_URL", url)
        .current_dir(site.path());
    command
}

fn restore(site: &Site, store: &Path, target: &str, options: &[&str]) -> Command {
    let mut command = pgstow();
    command
        .args(["restore", "latest", "--json", "--store"])
        .arg(store)
        .args(options)
        .env("BACKUP_TARGET_URL", target)
        .env("TMPDIR", site.path().join("tmp"))
        .current_dir(site.path());
    command
}

fn backup(site: &Site, url: &str, jobs: usize) -> Value {
    let mut command = site.backup(url);
    report(command.args(["--jobs", &jobs.to_string()]))
}

fn nobody_steps_on_what_the_owner_has_put_before_postgresqls_own(major: u32) {
    let (site, hostile) = (Site::new(), Hostile::shadowed(major));
    let url = hostile.database.url();
    // The trap is one: psql falls into it, as any session does that trusts its path.
    psql(major, &url, "BEGIN; SELECT 'a'::pg_catalog.text = 'b'; ROLLBACK");
    let called = "SET search_path = ''; SELECT is_called FROM evil.calls; ALTER SEQUENCE evil.calls RESTART";
    assert_eq!(psql(major, &url, called), "t");
    hostile.assert_untouched("before");

    for by_role in [false, true] {
        if by_role {
            let name = quoted(&hostile.database.name);
            let path = format!("ALTER ROLE postgres IN DATABASE {name} SET search_path = evil, pg_catalog, public");
            psql(major, &postgres_url(major), &path);
        }
        for jobs in [1, 3] {
            backup(&site, &url, jobs);
            hostile.assert_untouched(&format!("backup --jobs {jobs}"));
        }
        succeed(&mut doctor(&url, &site));
        hostile.assert_untouched("doctor");
    }

    let mut drill = pgstow();
    drill
        .args(["verify", "latest", "--drill", "--json", "--store"])
        .arg(site.store())
        .env("TMPDIR", site.path().join("tmp"));
    succeed(drill.current_dir(site.path()));

    // What the backup holds, with its path, in a database of its own.
    let created = Database::fresh(major);
    psql(
        major,
        &postgres_url(major),
        &format!("DROP DATABASE {}", quoted(&created.name)),
    );
    succeed(&mut restore(&site, &site.store(), &created.url(), &["--create"]));
    let path = "SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase AND setrole = 0";
    let set = psql(
        major,
        &postgres_url(major),
        &format!("{path} WHERE datname = '{}'", created.name),
    );
    assert!(set.contains("evil"), "{set}");
    hostile.assert_untouched_in(&created.url(), "restore --create");
}

on_majors! { nobody_steps_on_what_the_owner_has_put_before_postgresqls_own: 15 17 18 }

fn a_restore_into_such_a_database_steps_on_nothing_either(major: u32) {
    let (site, source) = (Site::new(), Database::fresh(major));
    source.sql("CREATE TABLE orders AS SELECT i, md5(i::text) AS a FROM generate_series(1, 500) i");
    backup(&site, &source.url(), 1);
    let target = Hostile::shadowed(major);
    let url = target.database.url();
    let store = site.store();
    for options in [
        ["--table", "public.orders"].as_slice(),
        &["--clean"],
        &["--table", "public.orders", "--clean"],
        &["--clean", "--jobs", "3"],
    ] {
        succeed(&mut restore(&site, &store, &url, options));
        target.assert_untouched(&format!("restore {options:?}"));
        assert_eq!(
            psql(major, &url, "SET search_path = ''; SELECT max(i) FROM public.orders"),
            "500"
        );
    }
    psql(major, &url, "SET search_path = ''; TRUNCATE public.orders");
    succeed(&mut restore(
        &site,
        &store,
        &url,
        &["--table", "public.orders", "--data-only"],
    ));
    target.assert_untouched("restore --data-only");
}

on_majors! { a_restore_into_such_a_database_steps_on_nothing_either: 15 18 }

/// COPY of a table plans nothing. A query for some of its pages would: and a planner computes what is
/// constant in an index's expression, by the function of the table's owner.
fn no_query_is_planned_over_an_owners_expressions(major: u32) {
    const LARGE: &str =
        "CREATE TABLE large AS SELECT i, repeat(md5(i::text), 4) AS a FROM generate_series(1, 150000) i;
        CREATE INDEX ON large (lower(a)); CREATE INDEX ON large (i) WHERE i % 2 = 0;";
    let site = Site::new();
    let hostile = Hostile::of(major);
    hostile.database.sql("GRANT CREATE ON SCHEMA public TO PUBLIC");
    hostile.as_owner(LARGE);
    let read = |url: &str| -> BTreeMap<String, String> {
        let told = backup(&site, url, 3);
        let manifest = site.store().join(told["id"].as_str().unwrap()).join("manifest.json");
        ways(&serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap())
    };
    let reader = Role::reader(&hostile.database, PASSWORD);
    let readers = hostile.database.url_as(Some((&reader.name, PASSWORD)));
    // PostgreSQL's own functions are no reason; an owner who could change that meanwhile is.
    assert_eq!(read(&readers)["large"], "ranges");
    assert_eq!(read(&hostile.database.url())["large"], "copy");

    let name = quoted(&hostile.database.name);
    hostile.as_owner(&format!(
        "CREATE INDEX ON large ((i + evil.constant(1))); CREATE INDEX ON large (i) WHERE evil.constant(2) = 1;
         CREATE STATISTICS traps ON (i + evil.constant(3)), a FROM large;
         ALTER TABLE large ADD CHECK (evil.constant(4) = 1) NOT VALID;
         ALTER DATABASE {name} SET constraint_exclusion = on"
    ));
    // The trap is one.
    drop(try_psql(
        major,
        &hostile.database.url(),
        "BEGIN; SELECT i FROM large WHERE i < 3; ROLLBACK",
    ));
    let called = "SELECT is_called FROM evil.calls; ALTER SEQUENCE evil.calls RESTART";
    assert_eq!(psql(major, &hostile.database.url(), called), "t");
    assert_eq!(read(&hostile.database.url())["large"], "copy");
    assert_eq!(read(&readers)["large"], "copy");
    hostile.assert_untouched("backup --jobs 3");
    // A superuser's own table may have them: no other role made them.
    hostile
        .database
        .sql(&format!("CREATE SCHEMA trusted; SET search_path = trusted; {LARGE}"));
    let database = Database::fresh(major);
    database.sql(LARGE);
    assert_eq!(read(&database.url())["large"], "ranges");
}

on_majors! { no_query_is_planned_over_an_owners_expressions: 15 18 }

/// What every session said first, by the server's own log.
#[test]
fn the_first_statement_of_every_session_empties_the_path() {
    const FIRST: &str = "SELECT pg_catalog.set_config('search_path', '', false)";
    let server = OwnServer::start_with(17, &["log_statement=all", "log_line_prefix=%p|%a|"]);
    let (site, database) = (Site::new(), server.database("first"));
    database.sql("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 4) AS a FROM generate_series(1, 150000) i");
    backup(&site, &database.url(), 3);
    succeed(&mut doctor(&database.url(), &site));
    succeed(&mut restore(&site, &site.store(), &database.url(), &["--clean"]));
    let log = fs::read_to_string(server.data().with_file_name("log")).unwrap();
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    for line in log.lines() {
        let mut parts = line.splitn(3, '|');
        let (Some(process), Some("pgstow"), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        // With and without the extended protocol.
        if let Some(at) = text.find("statement: ").or_else(|| text.find("execute ")) {
            first.entry(process).or_insert(&text[at..]);
        }
    }
    assert!(first.len() > 10, "{first:?}");
    for (process, statement) in first {
        let said = statement.trim_start_matches("statement: ").trim_end_matches(';');
        assert_eq!(said, FIRST, "{process}");
    }
}

/// A trigger at the login runs before anything can be said.
fn triggers_at_the_login_do_not_run(major: u32) {
    let (site, hostile) = (Site::new(), Hostile::of(major));
    let (url, database) = (hostile.database.url(), &hostile.database);
    let role = format!("root_of_{}", hostile.owner.name);
    database.sql(
        "CREATE TABLE t AS SELECT i, md5(i::text) AS a FROM generate_series(1, 500) i;
         CREATE FUNCTION evil.on_login() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN PERFORM evil.trap(); END $f$;
         CREATE EVENT TRIGGER at_the_login ON login EXECUTE FUNCTION evil.on_login();
         CREATE EVENT TRIGGER at_a_change ON ddl_command_end EXECUTE FUNCTION evil.on_login();",
    );
    let untouched = |url: &str, what: &str, times: &str| {
        // By way of libpq, past the trigger that is looked at.
        let asked = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM evil.calls";
        let quiet = format!("{url}?options=-c%20event_triggers%3Doff");
        assert_eq!(psql(major, &quiet, asked), times, "{what}");
    };
    // The trap is one.
    psql(major, &url, "SELECT 1");
    let quiet = format!("{url}?options=-c%20event_triggers%3Doff");
    let reset = format!(
        "ALTER SEQUENCE evil.calls RESTART; ALTER ROLE {} NOSUPERUSER",
        hostile.owner.name
    );
    assert_eq!(psql(major, &quiet, "SELECT is_called FROM evil.calls"), "t");
    psql(major, &quiet, &reset);
    for jobs in [1, 3] {
        backup(&site, &url, jobs);
        untouched(&url, &format!("backup --jobs {jobs}"), "0");
    }
    succeed(&mut doctor(&url, &site));
    untouched(&url, "doctor", "0");
    succeed(&mut restore(
        &site,
        &site.store(),
        &url,
        &["--table", "public.t", "--clean"],
    ));
    untouched(&url, "restore --clean", "0");
    // Nor in those of a superuser by another name.
    psql(
        major,
        &quiet,
        &format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{role}'"),
    );
    backup(&site, &database.url_as(Some((&role, &role))), 3);
    untouched(&url, "backup as another superuser", "0");
    psql(major, &quiet, &format!("DROP ROLE {role}"));
    // A role that is none may not say so, and need not.
    let reader = Role::reader(database, PASSWORD);
    backup(&site, &database.url_as(Some((&reader.name, PASSWORD))), 3);
    untouched(&url, "backup as a reader", "0");
}

on_majors! { triggers_at_the_login_do_not_run: 17 18 }
