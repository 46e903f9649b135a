use super::*;

fn weighed(state: &str, message: &str, desc: &str) -> Weight {
    let told = Told {
        state: state.into(),
        fatal: message.starts_with("FATAL"),
        message: message.into(),
    };
    let item = Item::sample(0, desc, "");
    weigh(&told, Some(&item))
}

#[test]
fn the_places_faults_are_told_from_the_backups_by_the_servers_own_state() {
    for (state, message, desc, weight) in [
        (
            "53100",
            "could not extend file: No space left on device",
            "TABLE DATA",
            Weight::OfThePlace,
        ),
        (
            "XX000",
            "could not extend file: File too large",
            "TABLE DATA",
            Weight::OfThePlace,
        ),
        (
            "P0001",
            "not stored: No space left on device",
            "TABLE DATA",
            Weight::OfThePlace,
        ),
        ("53200", "out of memory", "INDEX", Weight::OfThePlace),
        (
            "53300",
            "FATAL: sorry, too many clients already",
            "INDEX",
            Weight::OfThePlace,
        ),
        (
            "57014",
            "canceling statement due to user request",
            "INDEX",
            Weight::OfThePlace,
        ),
        ("57P01", "FATAL: terminating connection", "INDEX", Weight::OfThePlace),
        (
            "58030",
            "could not read block 3: Input/output error",
            "INDEX",
            Weight::OfThePlace,
        ),
        ("54001", "stack depth limit exceeded", "VIEW", Weight::OfThePlace),
        (
            "53100",
            "could not write: No space left on device",
            "EXTENSION",
            Weight::OfThePlace,
        ),
        ("40P01", "deadlock detected", "FK CONSTRAINT", Weight::Contended),
        ("XX000", "tuple concurrently updated", "ACL", Weight::Contended),
        (
            "55000",
            "pgaudit must be loaded via shared_preload_libraries",
            "EXTENSION",
            Weight::Lacking,
        ),
        (
            "XX000",
            "FATAL: timescaledb must be preloaded",
            "EXTENSION",
            Weight::Lacking,
        ),
        (
            "P0001",
            "can only create extension in database postgres",
            "EXTENSION",
            Weight::Lacking,
        ),
        (
            "08001",
            "could not connect to server",
            "MATERIALIZED VIEW DATA",
            Weight::Lacking,
        ),
        (
            "58P01",
            "could not access file \"$libdir/x\"",
            "FUNCTION",
            Weight::Lacking,
        ),
        (
            "23503",
            "insert or update on table \"superusers\" violates foreign key constraint \"superusers_fkey\"",
            "FK CONSTRAINT",
            Weight::Wrong,
        ),
        ("P0001", "must be superuser", "TABLE DATA", Weight::Refused),
        (
            "54000",
            "index row size 2712 exceeds btree version 4 maximum 2704",
            "INDEX",
            Weight::Wrong,
        ),
        ("42501", "permission denied for table t", "TABLE DATA", Weight::Refused),
        ("P0001", "must be superuser", "TABLE DATA", Weight::Refused),
        (
            "23503",
            "violates foreign key constraint",
            "FK CONSTRAINT",
            Weight::Wrong,
        ),
        ("23514", "violates check constraint", "TABLE DATA", Weight::Wrong),
        ("42883", "function f(integer) does not exist", "VIEW", Weight::Wrong),
        (
            "XX000",
            "invalid memory alloc request size 1073741824",
            "TABLE DATA",
            Weight::Wrong,
        ),
    ] {
        assert_eq!(weighed(state, message, desc), weight, "{state} {message}");
    }
}

#[test]
fn what_could_not_be_carried_out_says_so_once_and_blames_no_backup() {
    let told = not_carried_out(&Error::new(Code::PgDumpErr, "pg_dump was ended by SIGKILL"));
    assert_eq!(told.code(), Code::NotProved);
    assert_eq!(
        told.message(),
        "the drill could not be carried out: pg_dump was ended by SIGKILL"
    );
    assert_eq!(told.hint_text(), HINT);
    let again = not_carried_out(&told);
    assert_eq!(
        again.message(),
        "the drill could not be carried out: pg_dump was ended by SIGKILL"
    );
    let store = not_carried_out(&Error::new(Code::Store, "no answer").hint("ask it"));
    assert_eq!((store.code(), store.hint_text()), (Code::Store, "ask it"));
}
