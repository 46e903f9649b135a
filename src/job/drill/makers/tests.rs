use super::*;

fn known() -> Known {
    Known {
        languages: ["sql", "plpgsql"].map(str::to_owned).into(),
        inert_languages: ["c", "internal", "sql", "plpgsql"].map(str::to_owned).into(),
        keeps_files: true,
        guarded_settings: ["session_replication_role".to_owned()].into(),
        native_functions: [("public".to_owned(), "native_validator".to_owned())].into(),
    }
}

fn item(id: i64, desc: &str, tag: &str, definition: &str, dependencies: &[i64]) -> Item {
    Item::sample(id, desc, tag).defined(definition).needing(dependencies)
}

fn made_by(items: &[Item], id: i64) -> Maker {
    Makers::of(items, &known()).0[&id]
}

#[test]
fn functions_that_need_a_superuser_are_told_by_their_head_alone() {
    let maker = |definition: &str| function(definition, &known());
    for needs in [
        "CREATE FUNCTION s.f(a integer) RETURNS integer\n    LANGUAGE c\n    AS '$libdir/x', 'f';",
        "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql LEAKPROOF\n    AS $$ SELECT 1 $$;",
        "CREATE PROCEDURE s.f()\n    LANGUAGE plpgsql\n    SET session_replication_role TO 'replica'\n    AS $$ $$;",
        "CREATE FUNCTION s.f(a integer DEFAULT 1, b text DEFAULT 'x'::text) RETURNS s.t\n    LANGUAGE c\n    AS 'x';",
    ] {
        assert_eq!(maker(needs), Maker::Superuser, "{needs}");
    }
    for needs_none in [
        "CREATE FUNCTION s.f(a text DEFAULT 'LANGUAGE c LEAKPROOF'::text) RETURNS language\n    LANGUAGE plpgsql\n    \
         SET search_path TO 'SUPPORT'\n    AS $_$ LANGUAGE c LEAKPROOF SET session_replication_role $_$;",
        "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql\n    BEGIN ATOMIC\n SELECT 1 AS \"LEAKPROOF\";\nEND;",
    ] {
        assert_eq!(maker(needs_none), Maker::Loader, "{needs_none}");
    }
}

#[test]
fn what_needs_a_superuser_and_would_be_computed_is_not_made() {
    for computed in [
        "CREATE FUNCTION s.f(a s.d[] DEFAULT '{1}'::s.d[]) RETURNS int\n    LANGUAGE sql LEAKPROOF\n    AS $$ SELECT 1 $$;",
        "CREATE FUNCTION s.f(a integer DEFAULT s.g()) RETURNS int\n    LANGUAGE c\n    AS 'x', 'f';",
        "CREATE FUNCTION s.f(a \"d\"[] = '{1}') RETURNS int\n    LANGUAGE c\n    AS 'x', 'f';",
        "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql LEAKPROOF\n    RETURN ('{1}'::s.d[])[1];",
        "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql SUPPORT s.help\n    BEGIN ATOMIC SELECT 1; END;",
        // An unknown language, and one whose name cannot be read here.
        "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE \"Odd\"\n    AS '';",
    ] {
        assert_eq!(function(computed, &known()), Maker::None(EXPRESSION), "{computed}");
    }
    assert_eq!(
        aggregate("CREATE AGGREGATE s.a(integer) (SFUNC = s.f, STYPE = s.d, INITCOND = '1', MSTYPE = internal);"),
        Maker::None(EXPRESSION)
    );
    let items = [
        item(
            1,
            "FUNCTION",
            "v(text[], oid)",
            "CREATE FUNCTION s.v() RETURNS void LANGUAGE sql AS '';",
            &[],
        ),
        item(
            2,
            "FOREIGN DATA WRAPPER",
            "w",
            "CREATE FOREIGN DATA WRAPPER w VALIDATOR s.v;",
            &[1],
        ),
        item(
            3,
            "SERVER",
            "x",
            "CREATE SERVER x FOREIGN DATA WRAPPER w OPTIONS (a 'b');",
            &[2],
        ),
        item(
            4,
            "USER MAPPING",
            "",
            "CREATE USER MAPPING FOR PUBLIC SERVER x OPTIONS (a 'b');",
            &[3],
        ),
    ];
    assert_eq!(made_by(&items, 2), Maker::None(EXPRESSION));
    assert_eq!((made_by(&items, 3), made_by(&items, 4)), (Maker::Loader, Maker::Loader));
    // The dependencies in the archive do not matter.
    for (definition, maker) in [
        ("CREATE FOREIGN DATA WRAPPER w VALIDATOR s.v;", Maker::None(EXPRESSION)),
        ("CREATE FOREIGN DATA WRAPPER w VALIDATOR v;", Maker::None(EXPRESSION)),
        (
            "CREATE FOREIGN DATA WRAPPER w; ALTER FOREIGN DATA WRAPPER w VALIDATOR s.v OPTIONS (a 'b');",
            Maker::None(EXPRESSION),
        ),
        (
            "CREATE FOREIGN DATA WRAPPER w VALIDATOR public.native_validator;",
            Maker::Superuser,
        ),
        ("CREATE FOREIGN DATA WRAPPER w NO VALIDATOR;", Maker::None(EXPRESSION)),
        ("CREATE FOREIGN DATA WRAPPER w;", Maker::Superuser),
    ] {
        let items = [item(1, "FOREIGN DATA WRAPPER", "w", definition, &[])];
        assert_eq!(made_by(&items, 1), maker, "{definition}");
    }
    let server = "CREATE SERVER x FOREIGN DATA WRAPPER";
    let items = [
        item(1, "SERVER", "x", &format!("{server} one;"), &[]),
        item(2, "SERVER", "x", &format!("{server} w;"), &[]),
        item(3, "USER MAPPING", "", "CREATE USER MAPPING FOR PUBLIC SERVER x;", &[]),
    ];
    assert_eq!(made_by(&items, 3), Maker::Loader);
    let items = [
        item(
            1,
            "SERVER",
            "files",
            "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;",
            &[],
        ),
        item(
            2,
            "FOREIGN TABLE",
            "f",
            "CREATE FOREIGN TABLE s.f (a int) SERVER files OPTIONS (filename 'x');",
            &[],
        ),
        item(
            3,
            "FOREIGN TABLE",
            "g",
            "CREATE FOREIGN TABLE s.g (a int, b s.d[] DEFAULT '{1}'::s.d[]) SERVER files;",
            &[],
        ),
        item(
            4,
            "FOREIGN TABLE",
            "h",
            "CREATE FOREIGN TABLE s.h (a int) SERVER other;",
            &[],
        ),
    ];
    assert_eq!(made_by(&items, 1), Maker::Superuser);
    assert_eq!(made_by(&items, 2), Maker::Superuser);
    assert_eq!(made_by(&items, 3), Maker::None(EXPRESSION));
    assert_eq!(made_by(&items, 4), Maker::Loader);
}

#[test]
fn a_superuser_says_no_more_than_that_kind_of_thing_does() {
    for (desc, definition, maker) in [
        ("SCHEMA", "CREATE SCHEMA s;\n\n", Maker::Superuser),
        ("SCHEMA", "CREATE SCHEMA s; DO $$ BEGIN END $$;", Maker::None(FOREIGN)),
        (
            "SCHEMA",
            "CREATE SCHEMA s /* ' */; DO $$ $$; /* ' */",
            Maker::None(FOREIGN),
        ),
        (
            "ACL",
            "REVOKE ALL ON TABLE s.t FROM x; GRANT SELECT ON TABLE s.t TO PUBLIC;",
            Maker::Superuser,
        ),
        (
            "ACL",
            "SET SESSION AUTHORIZATION x; GRANT SELECT ON TABLE s.t TO y; RESET SESSION AUTHORIZATION;",
            Maker::Superuser,
        ),
        ("ACL", "SELECT s.f();", Maker::None(FOREIGN)),
        ("ACL", "GRANT pg_read_server_files TO x;", Maker::None(FOREIGN)),
        (
            "ACL",
            "GRANT SELECT ON TABLE s.t TO x; GRANT x, \"ON\" TO y;",
            Maker::None(FOREIGN),
        ),
        (
            "ACL",
            "GRANT SET ON PARAMETER log_statement TO x;",
            Maker::None(FOREIGN),
        ),
        ("SCHEMA", "CREATE SCHEMA s AUTHORIZATION x;", Maker::Superuser),
        (
            "SCHEMA",
            "CREATE SCHEMA s CREATE TABLE t (a int);",
            Maker::None(FOREIGN),
        ),
        (
            "SUBSCRIPTION",
            "CREATE SUBSCRIPTION x CONNECTION 'host=x' PUBLICATION p WITH (connect = false, slot_name = 'x');",
            Maker::Superuser,
        ),
        (
            "SUBSCRIPTION",
            "CREATE SUBSCRIPTION x CONNECTION 'host=x' PUBLICATION p WITH (slot_name = 'connect = false');",
            Maker::None(FOREIGN),
        ),
        (
            "SUBSCRIPTION",
            "CREATE SUBSCRIPTION x CONNECTION '' PUBLICATION p WITH (connect = false); ALTER SUBSCRIPTION x ENABLE;",
            Maker::None(FOREIGN),
        ),
        (
            "EXTENSION",
            "CREATE EXTENSION IF NOT EXISTS x WITH SCHEMA s;",
            Maker::Superuser,
        ),
        ("EXTENSION", "COPY s.t FROM PROGRAM 'id';", Maker::None(FOREIGN)),
        (
            "ACCESS METHOD",
            "CREATE ACCESS METHOD z TYPE INDEX HANDLER h;--\rDO $$ BEGIN END $$;",
            Maker::None(FOREIGN),
        ),
        (
            "DEFAULT ACL",
            "ALTER DEFAULT PRIVILEGES FOR ROLE x IN SCHEMA s GRANT SELECT ON TABLES TO y;",
            Maker::Superuser,
        ),
        ("DEFAULT ACL", "GRANT pg_read_server_files TO x;", Maker::None(FOREIGN)),
        (
            "DEFAULT ACL",
            "GRANT SET ON PARAMETER log_statement TO x;",
            Maker::None(FOREIGN),
        ),
        (
            "PROCEDURAL LANGUAGE",
            "CREATE OR REPLACE PROCEDURAL LANGUAGE l;",
            Maker::Superuser,
        ),
    ] {
        assert_eq!(
            made_by(&[item(1, desc, "x", definition, &[])], 1),
            maker,
            "{definition}"
        );
    }
}

#[test]
fn rights_to_postgresqls_own_functions_are_given_last() {
    for (definition, late) in [
        ("GRANT ALL ON FUNCTION pg_catalog.pg_read_file(text) TO x;", true),
        ("GRANT ALL ON FUNCTION pg_read_file(text) TO x;", true),
        ("GRANT ALL ON ALL FUNCTIONS IN SCHEMA pg_catalog TO x;", true),
        ("GRANT ALL ON FUNCTION s.f(text) TO x;", false),
        ("GRANT SELECT(a) ON TABLE pg_catalog.pg_authid TO x;", false),
    ] {
        assert_eq!(
            gives_the_systems(&item(1, "ACL", "x", definition, &[])),
            late,
            "{definition}"
        );
    }
}

#[test]
fn code_of_the_machines_own_is_made_behind_walls_alone() {
    let open = Known {
        keeps_files: false,
        ..known()
    };
    let definition = "CREATE FUNCTION s.f(a integer) RETURNS integer\n    LANGUAGE c\n    AS '$libdir/x', 'f';";
    assert_eq!(function(definition, &open), Maker::None(NATIVE));
    let definition = "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql LEAKPROOF\n    AS $$ SELECT 1 $$;";
    assert_eq!(function(definition, &open), Maker::Superuser);
}

#[test]
fn types_aggregates_and_operators_of_the_servers_own_structures_need_one() {
    assert!(base_type(
        "CREATE TYPE s.t (\n    INTERNALLENGTH = 16,\n    INPUT = s.t_in,\n    OUTPUT = s.t_out\n);"
    ));
    assert!(base_type("CREATE TYPE s.t;") && !base_type("CREATE TYPE s.t AS ENUM (\n    'a'\n);"));
    assert!(!base_type("CREATE TYPE s.t AS (\n\t\"INTERNALLENGTH\" integer\n);"));
    assert!(!base_type("CREATE TYPE s.t AS RANGE (\n    subtype = integer\n);"));
    let items = [
        item(1, "SHELL TYPE", "r", "CREATE TYPE s.r;", &[]),
        item(
            2,
            "TYPE",
            "r",
            "CREATE TYPE s.r AS RANGE (subtype = integer, canonical = s.c);",
            &[],
        ),
        item(3, "TYPE", "q", "CREATE TYPE s.q AS RANGE (subtype = integer);", &[]),
    ];
    assert_eq!(made_by(&items, 1), Maker::Superuser);
    assert_eq!(made_by(&items, 2), Maker::Superuser);
    assert_eq!(made_by(&items, 3), Maker::Loader);
    for (definition, maker) in [
        (
            "CREATE AGGREGATE s.a(integer) (\n    SFUNC = int4_avg_accum,\n    STYPE = internal\n);",
            Maker::Superuser,
        ),
        (
            "CREATE AGGREGATE s.a(\"STYPE\" integer) (\n    SFUNC = s.f,\n    STYPE = bigint,\n    INITCOND = '0'\n);",
            Maker::Loader,
        ),
        (
            "CREATE AGGREGATE s.a(integer) (SFUNC = f, STYPE = bigint, INITCOND = '0', MSTYPE = internal);",
            Maker::Superuser,
        ),
    ] {
        assert_eq!(aggregate(definition), maker, "{definition}");
    }
    assert!(estimates_itself(
        "CREATE OPERATOR s.= (FUNCTION = s.eq, LEFTARG = s.t, RESTRICT = s.sel, JOIN = eqjoinsel);"
    ));
    assert!(!estimates_itself(
        "CREATE OPERATOR s.= (FUNCTION = s.eq, LEFTARG = s.t, RESTRICT = eqsel, JOIN = eqjoinsel);"
    ));
}

#[test]
fn what_is_made_by_one_goes_in_one_run_and_the_order_stays() {
    let makers = Makers(HashMap::from([
        (1, Maker::Loader),
        (2, Maker::Superuser),
        (3, Maker::Superuser),
        (4, Maker::Loader),
    ]));
    assert_eq!(
        makers.runs(&[1, 2, 3, 4]),
        [
            (Maker::Loader, vec![1]),
            (Maker::Superuser, vec![2, 3]),
            (Maker::Loader, vec![4])
        ]
    );
}

#[test]
fn strings_are_standard_only_where_the_archive_says_so_as_pg_dump_does() {
    let said = |definitions: &[&str]| {
        let items: Vec<Item> = definitions
            .iter()
            .zip(1..)
            .map(|(definition, id)| item(id, "STDSTRINGS", "STDSTRINGS", definition, &[]))
            .collect();
        has_standard_strings(&items)
    };
    assert!(said(&["SET standard_conforming_strings = 'on';\n"]));
    for not in [
        &[][..],
        &["SET standard_conforming_strings = 'off';\n"],
        &["SET standard_conforming_strings = 'off'; -- 'on'"],
        &[
            "SET standard_conforming_strings = 'on';",
            "SET standard_conforming_strings = 'off';",
        ],
    ] {
        assert!(!said(not), "{not:?}");
    }
    let escaped = || item(1, "EXTENSION", "s", "CREATE EXTENSION s VERSION 'a\\';", &[]);
    assert_eq!(made_by(&[escaped()], 1), Maker::None(FOREIGN));
    let standard = item(
        2,
        "STDSTRINGS",
        "STDSTRINGS",
        "SET standard_conforming_strings = 'on';",
        &[],
    );
    assert_eq!(made_by(&[escaped(), standard], 1), Maker::Superuser);
}

#[test]
fn only_event_triggers_come_after_event_triggers() {
    assert!(is_of_events(&item(1, "EVENT TRIGGER", "e", "", &[])));
    assert!(is_of_events(&item(2, "COMMENT", "EVENT TRIGGER e", "", &[1])));
    assert!(!is_of_events(&item(3, "COMMENT", "TABLE t", "", &[1])));
    assert!(!is_of_events(&item(4, "TABLE", "t", "", &[1])));
}
