//! Databases in which a provider owns a part: its schemas, extensions, publications and event triggers stay, or are in
//! the way and found before anything is changed.

use serde_json::Value;

use crate::job::restore::place::{Backed, untouched};
use crate::support::database::{Database, psql, quoted, unique_word};
use crate::support::lock::Lock;
use crate::support::program::{run, succeed};
use crate::support::role::Role;
use crate::support::server::OwnServer;
use crate::support::services::postgres_url;

/// A customer's database on a server of a provider.
struct Hosted {
    backed: Backed,
    target: Database,
    /// The customer, who owns the database.
    customer: Role,
    provider: Role,
}

impl Hosted {
    fn of(major: u32, script: impl Fn(&str, &str) -> String) -> Self {
        let source = Database::fresh(major);
        let customer = Role::fresh(&source, "its secret", "");
        let provider = Role::fresh(&source, "another secret", "");
        source.sql(&format!(
            "ALTER DATABASE {} OWNER TO {customer}; ALTER SCHEMA public OWNER TO {customer};
             CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10); ALTER TABLE t OWNER TO {customer};",
            quoted(&source.name),
            customer = customer.name
        ));
        source.sql(&script(&customer.name, &provider.name));
        let backed = Backed::up(source, &[]);
        let target = backed.source.copy();
        target.sql(&format!(
            "ALTER DATABASE {} OWNER TO {}",
            quoted(&target.name),
            customer.name
        ));
        Self {
            backed,
            target,
            customer,
            provider,
        }
    }

    fn url(&self) -> String {
        self.target.url_as(Some((&self.customer.name, &self.customer.password)))
    }

    fn restored(&self, options: &[&str]) -> Value {
        succeed(&mut self.backed.restore(&self.url(), options)).json()
    }

    /// Refused before anything is changed, with these words and this hint.
    fn refused(&self, options: &[&str], words: &str, hint: &str) {
        untouched(&self.target, || {
            let refused = self.backed.refused(&self.url(), options, "PERMISSION", 13);
            assert!(refused.message.contains(words), "{}", refused.message);
            assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
            assert!(refused.hint.contains(hint), "{}", refused.hint);
        });
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        for database in [&self.backed.source, &self.target] {
            database.sql(&format!("ALTER DATABASE {} OWNER TO postgres", quoted(&database.name)));
            // One after the other: of both at once, the server would drop default privileges twice.
            for role in [&self.customer.name, &self.provider.name] {
                database.sql(&format!("DROP OWNED BY {role} CASCADE"));
            }
        }
    }
}

fn reasons<'a>(report: &'a Value, what: &str) -> Vec<&'a str> {
    let left = report["left_out"].as_array().map_or(&[][..], Vec::as_slice);
    let alike = left.iter().filter(|one| one["what"] == what);
    alike.map(|one| one["why"].as_str().unwrap()).collect()
}

fn what_belongs_to_the_provider_is_found_before_it_is_replaced(major: u32) {
    let hosted = Hosted::of(major, |_, provider| {
        format!("CREATE PUBLICATION watched FOR TABLE t; ALTER PUBLICATION watched OWNER TO {provider}")
    });
    let provider = &hosted.provider.name;
    let words = format!("PUBLICATION watched of {provider}");
    hosted.refused(&["--clean", "--no-owner"], &words, "--exclude 'PUBLICATION:watched'");
    let options = ["--clean", "--no-owner", "--exclude", "PUBLICATION:watched"];
    // The table leaves the provider's publication, which is told before and after with the way back.
    let member = "membership of public.t in the publication watched";
    let back = "ALTER PUBLICATION watched ADD TABLE ONLY public.t";
    for more in [&["--dry-run"][..], &[]] {
        let report = hosted.restored(&[&options[..], more].concat());
        let why = reasons(&report, member).concat();
        assert!(
            why.contains(&format!("only {provider} or a superuser")) && why.ends_with(back),
            "{report:#}"
        );
        let warnings = report["warnings"].to_string();
        assert!(
            warnings.contains("only other roles can put back") && warnings.contains(member),
            "{warnings}"
        );
    }
    hosted.target.sql(back);

    // A table of the provider's hangs on one that is replaced.
    hosted.target.sql(&format!(
        "CREATE TABLE heir () INHERITS (t); INSERT INTO heir VALUES (11); ALTER TABLE heir OWNER TO {provider}"
    ));
    let words = format!("public.heir of {provider}");
    hosted.refused(&options, &words, "--data-only --clean");
    hosted.refused(&["--clean", "--table", "public.t"], &words, "--data-only --clean");
    hosted.restored(&["--clean", "--table", "public.t", "--data-only"]);
    assert_eq!(
        hosted
            .target
            .sql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM heir)"),
        "11|1"
    );
}

on_majors! { what_belongs_to_the_provider_is_found_before_it_is_replaced: 15 18 }

fn a_schema_in_the_providers_publication_is_told_before(major: u32) {
    let hosted = Hosted::of(major, |customer, _| {
        format!(
            "CREATE SCHEMA s AUTHORIZATION {customer}; CREATE TABLE s.u (id int); ALTER TABLE s.u OWNER TO {customer}"
        )
    });
    let target = &hosted.target;
    target.sql("CREATE PUBLICATION whole FOR TABLES IN SCHEMA s");
    let back = "ALTER PUBLICATION whole ADD TABLES IN SCHEMA s";
    let published = "SELECT count(*) FROM pg_publication_tables WHERE tablename = 'u'";
    let report = hosted.restored(&["--clean"]);
    let why = reasons(&report, "the schema s in the publication whole").concat();
    assert!(why.ends_with(back), "{report:#}");
    assert!(report["warnings"].to_string().contains("the schema s"), "{report:#}");
    assert_eq!(target.sql(published), "0");
    target.sql(back);
    assert_eq!(target.sql(published), "1");
    // A superuser puts it back itself.
    let report = succeed(&mut hosted.backed.restore(&target.url(), &["--clean"])).json();
    assert_eq!(report["left_out"], Value::Null, "{report:#}");
    assert_eq!(target.sql(published), "1");
}

on_majors! { a_schema_in_the_providers_publication_is_told_before: 15 18 }

#[test]
fn tables_of_others_are_refused_together_with_a_hint_that_helps() {
    let hosted = Hosted::of(18, |_, provider| {
        format!(
            "CREATE TABLE u (id int); INSERT INTO u VALUES (1); CREATE TABLE v (id int); INSERT INTO v VALUES (2);
             ALTER TABLE u OWNER TO {provider}; ALTER TABLE v OWNER TO {provider}"
        )
    });
    let (customer, provider) = (&hosted.customer.name, &hosted.provider.name);
    let options = ["--table", "public.u", "--table", "public.v", "--data-only", "--clean"];
    let words =
        format!("permission denied for table u (schema public, of {provider}), table v (schema public, of {provider})");
    let right = format!("GRANT SELECT, INSERT, TRUNCATE ON \"public\".\"u\" TO \"{customer}\"");
    hosted.refused(&options, &words, &right);
    hosted.target.sql(&right);
    let words = format!("permission denied for table v (schema public, of {provider})");
    let member = format!("GRANT \"{provider}\" TO \"{customer}\"");
    hosted.refused(&options, &words, &member);
    psql(18, &postgres_url(18), &member);
    hosted.restored(&options);
}

fn a_tablespace_of_another_role_is_found_before(major: u32) {
    let place = format!("place_{}", unique_word());
    psql(
        major,
        &postgres_url(major),
        &format!("SET allow_in_place_tablespaces = on;\nCREATE TABLESPACE {place} LOCATION ''"),
    );
    let hosted = Hosted::of(major, |customer, _| {
        format!("CREATE TABLE placed (id int) TABLESPACE {place}; ALTER TABLE placed OWNER TO {customer}")
    });
    let right = format!("CREATE ON TABLESPACE \"{place}\" TO \"{}\"", hosted.customer.name);
    for options in [&["--clean"][..], &["--clean", "--table", "public.placed"]] {
        hosted.refused(
            options,
            &format!("may not create anything in tablespaces of the backup: {place}"),
            &right,
        );
    }
    hosted.restored(&["--clean", "--no-tablespaces"]);
    hosted.target.sql(&format!("GRANT {right}"));
    hosted.restored(&["--clean"]);
    let placed =
        "SELECT spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE relname = 'placed'";
    assert_eq!(hosted.target.sql(placed), place);
    drop(hosted);
    psql(major, &postgres_url(major), &format!("DROP TABLESPACE {place}"));
}

on_majors! { a_tablespace_of_another_role_is_found_before: 15 18 }

#[test]
fn a_database_that_the_role_cannot_drop_is_found_before() {
    let hosted = Hosted::of(18, |_, _| String::new());
    let database = quoted(&hosted.target.name);
    psql(
        18,
        &postgres_url(18),
        &format!("ALTER ROLE {} CREATEDB", hosted.customer.name),
    );
    let options = ["--create", "--clean", "--force"];
    // A superuser's session.
    let lock = Lock::hold(&hosted.target, "t");
    let failure = hosted.backed.refused(&hosted.url(), &options, "RESTORE_ERR", 41);
    assert!(failure.message.contains("nothing was changed"), "{}", failure.message);
    assert!(failure.hint.contains("may not end them"), "{}", failure.hint);
    drop(lock);
    let own = format!("ALTER DATABASE {database} OWNER TO {}", hosted.provider.name);
    psql(18, &postgres_url(18), &own);
    let failure = hosted.backed.refused(&hosted.url(), &options, "PERMISSION", 13);
    let words = format!("belongs to {}", hosted.provider.name);
    assert!(failure.message.contains(&words), "{}", failure.message);
    let own = format!("ALTER DATABASE {database} OWNER TO {}", hosted.customer.name);
    psql(18, &postgres_url(18), &own);
    hosted.restored(&options);
    // What new databases are made from.
    let server = postgres_url(18);
    let (server, _) = server.rsplit_once('/').unwrap();
    for template in ["template0", "template1"] {
        let url = format!("{server}/{template}");
        let failure = hosted
            .backed
            .refused(&url, &["--create", "--clean", "--dry-run"], "CONFIG", 2);
        assert!(
            failure.message.contains("new databases are copies of"),
            "{}",
            failure.message
        );
    }
}

fn what_stays_needs_no_rights(major: u32) {
    // The extension stays, since it belongs to another role; its schema stays with it, and needs no owner.
    let hosted = Hosted::of(major, |customer, provider| {
        format!(
            "CREATE SCHEMA extensions; CREATE EXTENSION pg_stat_statements SCHEMA extensions; GRANT USAGE ON SCHEMA extensions TO {customer};
             ALTER DEFAULT PRIVILEGES FOR ROLE {provider} GRANT SELECT ON TABLES TO {customer};
             ALTER DEFAULT PRIVILEGES FOR ROLE {customer} GRANT SELECT ON TABLES TO {provider}"
        )
    });
    let (customer, provider) = (&hosted.customer.name, &hosted.provider.name);
    let option = format!("DEFAULT-ACL:{provider}");
    hosted.refused(
        &["--clean"],
        "may not set default privileges of other roles",
        &format!("--exclude '{option}'"),
    );
    let defaults = "SELECT defaclrole::regrole FROM pg_default_acl ORDER BY 1";
    hosted.target.sql(&format!(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {customer} REVOKE SELECT ON TABLES FROM {provider}"
    ));
    let report = hosted.restored(&["--clean", "--exclude", &option]);
    assert_eq!(reasons(&report, "SCHEMA extensions").len(), 1, "{report:#}");
    assert_eq!(hosted.target.sql(defaults), hosted.backed.source.sql(defaults));
}

on_majors! { what_stays_needs_no_rights: 15 18 }

#[test]
fn what_the_target_lacks_is_not_said_to_stay() {
    let hosted = Hosted::of(18, |_, _| {
        "CREATE SCHEMA auth; CREATE TABLE auth.users (id int);
         CREATE FUNCTION welcome() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER welcome AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION welcome();
         CREATE POLICY mine ON auth.users USING (true); CREATE INDEX by_id ON auth.users (id)"
            .to_owned()
    });
    let target = &hosted.target;
    target.sql("DROP TRIGGER welcome ON auth.users; DROP POLICY mine ON auth.users");
    let options = ["--clean", "--exclude", "SCHEMA:auth"];
    let report = succeed(&mut hosted.backed.restore(&target.url(), &options)).json();
    for (what, lacks) in [
        ("TRIGGER auth.users welcome", true),
        ("POLICY auth.users mine", true),
        ("INDEX auth.by_id", false),
        ("TABLE auth.users", false),
    ] {
        let told = reasons(&report, what);
        assert_eq!(told.len(), 1, "{what}: {report:#}");
        assert_eq!(
            told[0].contains("the target does not have it"),
            lacks,
            "{what}: {told:?}"
        );
    }
    for (what, statement) in [
        (
            "TRIGGER auth.users welcome",
            "CREATE TRIGGER welcome AFTER INSERT ON auth.users",
        ),
        ("POLICY auth.users mine", "CREATE POLICY mine ON auth.users"),
    ] {
        assert!(reasons(&report, what)[0].contains(statement), "{report:#}");
    }
}

/// A superuser restores what a provider's superuser owned, on a server where that role is none.
fn what_only_a_superuser_can_own_is_found_before(major: u32) {
    let source = Database::fresh(major);
    let boss = format!("boss_{}", unique_word());
    source.sql(&format!(
        "CREATE ROLE {boss} SUPERUSER; CREATE TABLE t (id int); INSERT INTO t VALUES (1);
         CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; SET ROLE {boss};
         CREATE EVENT TRIGGER watch ON sql_drop EXECUTE FUNCTION watch(); CREATE PUBLICATION everything FOR ALL TABLES"
    ));
    let backed = Backed::up(source, &[]);
    let role = |power: &str| psql(major, &postgres_url(major), &format!("ALTER ROLE {boss} {power}"));
    role("NOSUPERUSER");
    let target = Database::fresh(major);
    untouched(&target, || {
        let refused = backed.refused(&target.url(), &[], "PERMISSION", 13);
        for words in [
            format!("EVENT TRIGGER watch of {boss}"),
            format!("PUBLICATION everything of {boss}"),
            "nothing was changed".to_owned(),
        ] {
            assert!(refused.message.contains(&words), "{}", refused.message);
        }
        assert!(refused.hint.contains("ALTER ROLE … SUPERUSER"), "{}", refused.hint);
    });
    let partial = run(&mut backed.restore(&target.url(), &["--keep-going"]));
    assert_eq!(partial.status.code(), Some(4), "{}", partial.stderr);
    let without = Database::fresh(major);
    succeed(&mut backed.restore(
        &without.url(),
        &[
            "--exclude",
            "EVENT-TRIGGER:watch",
            "--exclude",
            "PUBLICATION:everything",
        ],
    ));
    role("SUPERUSER");
    let whole = Database::fresh(major);
    backed.restored(&whole, &[]);
    let owner = "SELECT evtowner::regrole FROM pg_event_trigger";
    assert_eq!(whole.sql(owner), boss);
    for database in [&backed.source, &target, &without, &whole] {
        database.sql(&format!("DROP OWNED BY {boss} CASCADE"));
    }
    psql(major, &postgres_url(major), &format!("DROP ROLE {boss}"));
}

on_majors! { what_only_a_superuser_can_own_is_found_before: 15 18 }

#[test]
fn an_extension_that_is_in_the_sessions_database_is_tried_elsewhere() {
    let source = Database::fresh(18);
    source.sql("CREATE EXTENSION pg_stat_statements");
    let backed = Backed::up(source, &[]);
    let server = OwnServer::start(18);
    let sql = |script: &str| psql(18, &server.url(), script);
    sql("CREATE EXTENSION pg_stat_statements; CREATE ROLE maker LOGIN CREATEDB PASSWORD 'its secret'");
    let target = server.database("new");
    sql(&format!("DROP DATABASE {}", quoted(&target.name)));
    let url = target.url_as(Some(("maker", "its secret")));
    let refused = backed.refused(&url, &["--create", "--no-owner"], "PERMISSION", 13);
    assert!(
        refused.message.contains("may not make an extension"),
        "{}",
        refused.message
    );
    let there = format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", target.name);
    assert_eq!(sql(&there), "0");
}

#[test]
fn rows_that_break_a_key_are_not_laid_on_event_triggers() {
    let hosted = Hosted::of(18, |_, _| {
        "CREATE TABLE u (id int REFERENCES t); INSERT INTO u SELECT generate_series(1, 10)".to_owned()
    });
    let target = &hosted.target;
    target.sql(
        "CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION watch(); DELETE FROM u; DELETE FROM t WHERE id = 7",
    );
    let failure = hosted
        .backed
        .refused(&target.url(), &["--table", "public.u", "--clean"], "RESTORE_ERR", 41);
    assert!(failure.hint.contains("with --table too"), "{}", failure.hint);
    assert!(!failure.hint.contains("event trigger"), "{}", failure.hint);
    hosted
        .backed
        .restored(target, &["--table", "public.u", "--table", "public.t", "--clean"]);
}

/// An extension's members and the constructors of a range type have no entries in the archive.
fn what_has_no_entry_gets_nothing_from_default_privileges(major: u32) {
    let source = Database::fresh(major);
    let reader = Role::fresh(&source, "its secret", "");
    source.sql(&format!(
        "CREATE EXTENSION citext; CREATE TYPE span AS RANGE (subtype = int8); CREATE TABLE t (name citext, s span);
         CREATE TYPE pair AS (a int, b text); CREATE TABLE typed OF pair (a DEFAULT 5);
         ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO {}",
        reader.name
    ));
    let given =
        "SELECT (SELECT count(*) FROM pg_proc WHERE proacl IS NOT NULL AND (proname ~ '^citext' OR proname ~ '^span')
                           AND NOT has_function_privilege('public', oid, 'EXECUTE')),
                        (SELECT count(*) FROM pg_proc p, aclexplode(p.proacl) x WHERE x.grantee = 'READER'::regrole),
                        (SELECT count(*) FROM pg_type WHERE typname = 'citext' AND typacl IS NOT NULL
                           AND NOT has_type_privilege('public', oid, 'USAGE'))"
            .replace("READER", &reader.name);
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    for options in [
        &["--clean"][..],
        &["--clean", "--jobs", "2"],
        &["--clean", "--keep-going"],
    ] {
        let report = backed.restored(&target, options);
        assert_eq!(report["left_out"], Value::Null, "{report:#}");
        assert_eq!(target.sql(&given), "0|0|0", "{options:?}");
    }
    // Brought along with a table.
    target.sql("DROP TABLE t; DROP TYPE span; DROP EXTENSION citext");
    backed.restored(&target, &["--table", "public.t"]);
    assert_eq!(target.sql(&given), "0|0|0");
    for database in [&target, &backed.source] {
        database.sql(&format!("DROP OWNED BY {} CASCADE", reader.name));
    }
}

on_majors! { what_has_no_entry_gets_nothing_from_default_privileges: 15 18 }
