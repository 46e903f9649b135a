//! What asks for a superuser by its words, or could be made by one alone who would then run what others wrote:
//! it gets none, and the drill says that it was not proved.

use super::breakout::attack;
use super::{Listener, entries, not_proved, open_folder, result};
use crate::support::database::{Database, unique_word};
use crate::support::program::{pgstow, run, succeed};
use crate::support::wreck::{Site, tree};

/// A table whose check asks for a superuser, in the words of the server, and takes what it then gets.
fn asking(database: &Database, attack: &str) {
    let owner = format!("owner_{}", unique_word());
    database.sql(&format!(
        "CREATE ROLE {owner}; CREATE SCHEMA app; ALTER SCHEMA app OWNER TO {owner};
         CREATE EXTENSION dblink SCHEMA app;
         CREATE FUNCTION app.attack() RETURNS void LANGUAGE plpgsql AS $attack${attack}$attack$;
         CREATE FUNCTION app.ok(a int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN true; END $$;
         ALTER FUNCTION app.ok(int) OWNER TO {owner};
         CREATE TABLE app.t (a int PRIMARY KEY CHECK (app.ok(a))); ALTER TABLE app.t OWNER TO {owner};
         INSERT INTO app.t VALUES (1);
         CREATE TABLE app.child (a int REFERENCES app.t); ALTER TABLE app.child OWNER TO {owner};
         INSERT INTO app.child VALUES (1);
         CREATE OR REPLACE FUNCTION app.ok(a int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
           IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
             RAISE EXCEPTION 'must be superuser' USING ERRCODE = '42501';
           END IF;
           PERFORM app.attack(); RETURN true; END $$"
    ));
}

fn a_check_that_says_must_be_superuser_gets_none(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    let (marks, listener) = (open_folder("pgstow-marks-"), Listener::start());
    let word = unique_word();
    asking(&database, &attack(marks.path(), listener.port, &word));
    // The second try has another database: of the first there is a subscription.
    database.sql(&format!(
        "CREATE TABLE plain (a int); INSERT INTO plain VALUES (1);
         CREATE SUBSCRIPTION s_{word} CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)"
    ));
    succeed(&mut site.backup(&database.url()));
    database.sql(&format!("DROP SUBSCRIPTION s_{word}"));
    let report = succeed(&mut site.drill(pgstow())).json();
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");
    let left = not_proved(&report);
    let what: Vec<&str> = left.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(
        what,
        ["TABLE DATA app.t", "FK CONSTRAINT app.child child_a_fkey"],
        "{report:#}"
    );
    assert!(left[0].1.contains("must be superuser"), "{left:?}");
    assert_eq!(result(&report, "app", "t"), "not_proved");
    assert_eq!(result(&report, "app", "child"), "equal");
    assert_eq!(result(&report, "public", "plain"), "equal");
    assert!(entries(marks.path()).is_empty());
    assert_eq!(listener.calls(), 0);
    site.assert_nothing_runs();
}

on_majors! { a_check_that_says_must_be_superuser_gets_none: 15 18 }

#[test]
fn a_drill_in_which_nothing_could_be_proved_leaves_no_result_and_is_an_error() {
    let (site, database) = (Site::new(), Database::fresh(17));
    let (marks, listener) = (open_folder("pgstow-marks-"), Listener::start());
    asking(&database, &attack(marks.path(), listener.port, &unique_word()));
    // A script could not make the extension, and would not come to the check.
    database.sql("DROP TABLE app.child; DROP EXTENSION dblink");
    for format in ["custom", "plain"] {
        succeed(site.backup(&database.url()).args(["--format", format]));
        let told = run(&mut site.drill(pgstow()));
        assert_eq!(told.status.code(), Some(43), "{format}: {}", told.stderr);
        let report = told.json();
        let message = report["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("proved nothing") && message.contains("must be superuser"),
            "{format}: {message}"
        );
    }
    // The bytes were compared, whatever became of the drill.
    for file in tree(&site.store())
        .iter()
        .filter(|file| file.ends_with("verification.json"))
    {
        let written: serde_json::Value =
            serde_json::from_slice(&std::fs::read(site.store().join(file)).unwrap()).unwrap();
        assert_eq!(
            (&written["verify"]["status"], &written["drill"]),
            (&"ok".into(), &serde_json::Value::Null)
        );
    }
    assert!(entries(marks.path()).is_empty());
    site.assert_nothing_runs();
}

fn what_only_a_superuser_could_make_and_would_compute_is_not_made(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    let (marks, listener) = (open_folder("pgstow-marks-"), Listener::start());
    let word = unique_word();
    let owner = format!("owner_{word}");
    let attack = attack(marks.path(), listener.port, &word);
    database.sql(&format!(
        "CREATE ROLE {owner}; CREATE SCHEMA app; ALTER SCHEMA app OWNER TO {owner};
         CREATE EXTENSION dblink SCHEMA app; CREATE EXTENSION file_fdw SCHEMA app;
         CREATE FUNCTION app.attack() RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$;
         CREATE FUNCTION app.ok(a int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN PERFORM app.attack(); RETURN true; END $$;
         CREATE FUNCTION app.same(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN PERFORM app.attack(); RETURN a; END $$;
         CREATE FUNCTION app.valid(text[], oid) RETURNS void LANGUAGE plpgsql AS
           $$ BEGIN PERFORM app.attack(); END $$;
         ALTER FUNCTION app.attack() OWNER TO {owner}; ALTER FUNCTION app.ok(int) OWNER TO {owner};
         ALTER FUNCTION app.valid(text[], oid) OWNER TO {owner};
         CREATE DOMAIN app.checked AS int CHECK (app.ok(VALUE)); ALTER DOMAIN app.checked OWNER TO {owner};
         CREATE FUNCTION app.sure(a app.checked[] DEFAULT '{{1}}'::app.checked[]) RETURNS int LANGUAGE sql IMMUTABLE
           LEAKPROOF AS 'SELECT 1';
         CREATE FUNCTION app.surely() RETURNS int LANGUAGE sql IMMUTABLE LEAKPROOF RETURN ('{{1}}'::app.checked[])[1];
         CREATE FOREIGN DATA WRAPPER own_{word} VALIDATOR app.valid OPTIONS (a 'b');
         CREATE SERVER far_{word} FOREIGN DATA WRAPPER own_{word} OPTIONS (a 'b');
         CREATE USER MAPPING FOR {owner} SERVER far_{word} OPTIONS (a 'b');
         CREATE FUNCTION app.step(app.checked, bigint) RETURNS app.checked LANGUAGE sql AS 'SELECT $1';
         CREATE FUNCTION app.final(app.checked) RETURNS numeric LANGUAGE sql AS 'SELECT 1.0';
         CREATE AGGREGATE app.odd(bigint) (SFUNC = app.step, STYPE = app.checked, INITCOND = '1', FINALFUNC = app.final,
           MSFUNC = int8_avg_accum, MINVFUNC = int8_avg_accum_inv, MSTYPE = internal, MFINALFUNC = numeric_poly_avg);
         CREATE SERVER files_{word} FOREIGN DATA WRAPPER file_fdw;
         CREATE FOREIGN TABLE app.lines (a text, b int GENERATED ALWAYS AS (app.same(1)) STORED) SERVER files_{word}
           OPTIONS (filename '/etc/hostname');
         ALTER FUNCTION app.same(int) OWNER TO {owner};
         CREATE TABLE plain (a int); INSERT INTO plain VALUES (1);
         CREATE OR REPLACE FUNCTION app.attack() RETURNS void LANGUAGE plpgsql AS $attack${attack}$attack$"
    ));
    succeed(&mut site.backup(&database.url()));
    let report = succeed(&mut site.drill(pgstow())).json();
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");
    let left = not_proved(&report);
    let mut what: Vec<String> = left.into_iter().map(|(what, _)| what).collect();
    what.sort();
    what.retain(|what| !what.starts_with("ACL"));
    assert_eq!(
        what,
        [
            "AGGREGATE app.odd(bigint)".to_owned(),
            "FOREIGN TABLE app.lines".to_owned(),
            format!("FOREIGN DATA WRAPPER own_{word}"),
            "FUNCTION app.sure(app.checked[])".to_owned(),
            "FUNCTION app.surely()".to_owned(),
            format!("SERVER far_{word}"),
            format!("USER MAPPING USER MAPPING {owner} SERVER far_{word}"),
        ]
        .into_iter()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>(),
        "{report:#}"
    );
    assert_eq!(result(&report, "public", "plain"), "equal");
    assert!(entries(marks.path()).is_empty());
    assert_eq!(listener.calls(), 0);
    site.assert_nothing_runs();
}

on_majors! { what_only_a_superuser_could_make_and_would_compute_is_not_made: 15 18 }
