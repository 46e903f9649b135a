//! What is no attack, and out of the ordinary all the same: a drill proves it, whole.

use super::assert_proved;
use crate::support::database::{Database, unique_word};
use crate::support::program::{pgstow, succeed};
use crate::support::wreck::Site;

fn assert_is_proved(database: &Database) {
    let site = Site::new();
    succeed(&mut site.backup(&database.url()));
    assert_proved(&succeed(&mut site.drill(pgstow())).json());
    site.assert_nothing_runs();
}

fn what_only_a_superuser_can_restore_is_restored_all_the_same(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    let word = unique_word();
    database.sql(&format!(
        "CREATE TABLE t (a int); CREATE PUBLICATION everything FOR ALL TABLES;
         CREATE FUNCTION sure(a int) RETURNS int LANGUAGE sql IMMUTABLE LEAKPROOF AS 'SELECT a';
         CREATE FUNCTION quiet(a int) RETURNS int LANGUAGE sql SET session_replication_role = replica AS 'SELECT a';
         CREATE EXTENSION postgres_fdw; CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'x');
         CREATE USER MAPPING FOR PUBLIC SERVER elsewhere OPTIONS (user 'u', password 'p');
         CREATE FOREIGN TABLE far (a int) SERVER elsewhere;
         CREATE OPERATOR CLASS odd FOR TYPE int4 USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =,
           OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int4, int4);
         CREATE TABLE indexed (a int); CREATE INDEX ON indexed (a odd); INSERT INTO indexed VALUES (1), (2);
         CREATE SUBSCRIPTION s_{word} CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE);
         CREATE FUNCTION nothing() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER on_nothing ON ddl_command_end EXECUTE FUNCTION nothing();
         CREATE ROLE owner_{word}; CREATE TABLE of_one_without_rights (a int PRIMARY KEY);
         REVOKE ALL ON SCHEMA public FROM PUBLIC; ALTER TABLE of_one_without_rights OWNER TO owner_{word}"
    ));
    succeed(&mut site.backup(&database.url()));
    database.sql(&format!("DROP SUBSCRIPTION s_{word}"));
    let report = succeed(&mut site.drill(pgstow())).json();
    assert_proved(&report);
    site.assert_nothing_runs();
}

on_majors! { what_only_a_superuser_can_restore_is_restored_all_the_same: 15 18 }

fn a_view_that_its_owner_reads_by_a_grant_is_refreshed(major: u32) {
    let database = Database::fresh(major);
    let (reader, owner) = (format!("reader_{}", unique_word()), format!("owner_{}", unique_word()));
    database.sql(&format!(
        "CREATE ROLE {reader}; CREATE ROLE {owner}; CREATE SCHEMA app; CREATE SCHEMA seen;
         ALTER SCHEMA app OWNER TO {owner}; ALTER SCHEMA seen OWNER TO {reader};
         CREATE TABLE app.t (a int); ALTER TABLE app.t OWNER TO {owner}; INSERT INTO app.t VALUES (1), (2);
         GRANT USAGE ON SCHEMA app TO {reader}; GRANT SELECT ON app.t TO {reader};
         CREATE MATERIALIZED VIEW seen.m AS SELECT a FROM app.t; ALTER MATERIALIZED VIEW seen.m OWNER TO {reader};
         CREATE UNIQUE INDEX ON seen.m (a);
         CREATE MATERIALIZED VIEW seen.of_it AS SELECT count(*) AS n FROM seen.m;
         ALTER MATERIALIZED VIEW seen.of_it OWNER TO {reader}; ANALYZE"
    ));
    assert_is_proved(&database);
}

on_majors! { a_view_that_its_owner_reads_by_a_grant_is_refreshed: 15 18 }

fn types_of_ones_own_are_made_from_their_shells(major: u32) {
    let database = Database::fresh(major);
    let owner = format!("owner_{}", unique_word());
    database.sql(&format!(
        "CREATE ROLE {owner}; CREATE SCHEMA app; ALTER SCHEMA app OWNER TO {owner};
         CREATE TYPE app.number;
         CREATE FUNCTION app.number_in(cstring) RETURNS app.number LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
         CREATE FUNCTION app.number_out(app.number) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
         CREATE TYPE app.number (INPUT = app.number_in, OUTPUT = app.number_out, INTERNALLENGTH = 4, PASSEDBYVALUE,
           ALIGNMENT = int4, DEFAULT = '7');
         ALTER TYPE app.number OWNER TO {owner};
         CREATE TYPE app.span;
         CREATE FUNCTION app.span_canonical(app.span) RETURNS app.span LANGUAGE internal IMMUTABLE STRICT
           AS 'int4range_canonical';
         CREATE TYPE app.span AS RANGE (SUBTYPE = integer, CANONICAL = app.span_canonical);
         ALTER TYPE app.span OWNER TO {owner};
         CREATE FUNCTION app.equal(app.number, app.number) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4eq';
         CREATE OPERATOR app.= (FUNCTION = app.equal, LEFTARG = app.number, RIGHTARG = app.number, RESTRICT = eqsel);
         CREATE CAST (app.number AS integer) WITHOUT FUNCTION;
         CREATE TYPE app.never;
         CREATE TABLE app.t (a app.number, b app.span); ALTER TABLE app.t OWNER TO {owner};
         INSERT INTO app.t VALUES ('1', '[1,2]'), ('2', '(3,9)')"
    ));
    assert_is_proved(&database);
}

on_majors! { types_of_ones_own_are_made_from_their_shells: 15 18 }

fn a_database_with_something_of_everything_is_proved(major: u32) {
    let database = Database::fresh(major);
    let (owner, tenant) = (format!("owner_{}", unique_word()), format!("tenant_{}", unique_word()));
    let word = unique_word();
    database.sql(&format!(
        "CREATE ROLE {owner}; CREATE ROLE {tenant}; CREATE SCHEMA app; ALTER SCHEMA app OWNER TO {owner};
         CREATE EXTENSION pg_trgm SCHEMA app; CREATE EXTENSION hstore SCHEMA app; CREATE EXTENSION pg_stat_statements;
         CREATE EXTENSION postgres_fdw; CREATE EXTENSION file_fdw; CREATE EXTENSION pgcrypto;
         CREATE SERVER elsewhere_{word} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', dbname 'x');
         ALTER SERVER elsewhere_{word} OWNER TO {owner};
         CREATE USER MAPPING FOR PUBLIC SERVER elsewhere_{word} OPTIONS (user 'u', password 'p');
         CREATE USER MAPPING FOR {owner} SERVER elsewhere_{word} OPTIONS (user 'v', password_required 'false');
         CREATE FOREIGN TABLE app.far (a int, b int DEFAULT 1 + 1, CHECK (a > 0)) SERVER elsewhere_{word};
         ALTER FOREIGN TABLE app.far OWNER TO {owner};
         CREATE FOREIGN DATA WRAPPER again_{word} HANDLER postgres_fdw_handler VALIDATOR postgres_fdw_validator;
         CREATE SERVER again_{word} FOREIGN DATA WRAPPER again_{word} OPTIONS (host 'x');
         CREATE SERVER files_{word} FOREIGN DATA WRAPPER file_fdw;
         CREATE FOREIGN TABLE app.lines (line text NOT NULL) SERVER files_{word} OPTIONS (filename '/etc/hostname');
         CREATE TABLE app.documents (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant text, body text,
           labels app.hstore DEFAULT 'a=>1');
         ALTER TABLE app.documents OWNER TO {owner};
         INSERT INTO app.documents (tenant, body) SELECT 't', 'body ' || g FROM generate_series(1, 100) g;
         CREATE INDEX ON app.documents USING gin (body app.gin_trgm_ops);
         ALTER TABLE app.documents ENABLE ROW LEVEL SECURITY; ALTER TABLE app.documents FORCE ROW LEVEL SECURITY;
         CREATE POLICY own ON app.documents FOR SELECT TO {tenant} USING (tenant = current_user);
         GRANT USAGE ON SCHEMA app TO {tenant}; GRANT SELECT (id, body) ON app.documents TO {tenant};
         ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA app GRANT SELECT ON TABLES TO {tenant};
         CREATE MATERIALIZED VIEW app.counted AS SELECT tenant, count(*) FROM app.documents GROUP BY tenant;
         CREATE PUBLICATION all_{word} FOR ALL TABLES;
         CREATE PUBLICATION some_{word} FOR TABLE app.documents (id, body) WHERE (id > 5);
         CREATE PUBLICATION of_schema_{word} FOR TABLES IN SCHEMA app;
         CREATE FUNCTION app.told() RETURNS event_trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'nobody changes anything here'; END $$;
         CREATE FUNCTION app.native(integer, integer DEFAULT 2) RETURNS integer LANGUAGE internal IMMUTABLE AS 'int4pl';
         CREATE VIEW app.seen WITH (security_barrier) AS SELECT id FROM app.documents WHERE id > 3;
         ALTER VIEW app.seen OWNER TO {owner};
         SELECT lo_from_bytea(4711, 'large'); ALTER LARGE OBJECT 4711 OWNER TO {owner};
         GRANT SELECT ON LARGE OBJECT 4711 TO {tenant};
         CREATE EVENT TRIGGER told_{word} ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION app.told()"
    ));
    assert_is_proved(&database);
}

on_majors! { a_database_with_something_of_everything_is_proved: 15 16 17 18 }

/// Where the server has such a language, of which this machine's builds have the module without its interpreter.
#[test]
fn functions_in_an_untrusted_language_are_proved_where_the_language_is() {
    let database = Database::fresh(18);
    let made = crate::support::database::try_psql(18, &database.url(), "CREATE EXTENSION plpython3u");
    if !made.status.success() {
        eprintln!("no plpython3u here: {}", made.stderr);
        return;
    }
    let owner = format!("owner_{}", unique_word());
    database.sql(&format!(
        "CREATE ROLE {owner}; CREATE FUNCTION twice(a int) RETURNS int IMMUTABLE LANGUAGE plpython3u AS 'return 2 * a';
         ALTER FUNCTION twice(int) OWNER TO {owner};
         CREATE TABLE t (a int CHECK (twice(a) < 100)); INSERT INTO t VALUES (1), (2)"
    ));
    assert_is_proved(&database);
}
