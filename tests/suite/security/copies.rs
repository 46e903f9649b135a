//! A copy of a table (`--into`) is made of what the archive says of it, under another name. What a definition tries
//! that was changed by somebody who can write to the store.

use super::forging::{content, forge_whole};
use crate::job::restore::place::Backed;
use crate::support::contents::Contents;
use crate::support::database::Database;

/// The same number of bytes, so that nothing else of the table of contents moves.
fn forge(backed: &Backed, from: &str, to: &str) {
    let toc = content(backed, "toc");
    let at = memchr::memmem::find(&toc, from.as_bytes()).unwrap_or_else(|| panic!("no {from:?}"));
    let mut forged = toc.clone();
    assert!(to.len() <= from.len(), "{to}");
    forged[at..at + from.len()].fill(b' ');
    forged[at..at + to.len()].copy_from_slice(to.as_bytes());
    forge_whole(backed, "toc", &forged);
}

#[test]
fn a_hostile_definition_makes_nothing_but_the_copy() {
    let source = Database::fresh(17);
    let room = "x".repeat(150);
    source.sql(&format!(
        "CREATE TABLE live (n int PRIMARY KEY); INSERT INTO live VALUES (1);
         CREATE TABLE t (n int NOT NULL, room text DEFAULT '{room}'); INSERT INTO t VALUES (1), (2);
         ALTER TABLE t ADD CONSTRAINT t_key UNIQUE (n) WITH (fillfactor = 71);
         CREATE INDEX t_index ON t (n) WHERE room <> '{room}'"
    ));
    let backed = Backed::up(source, &[]);
    let live = &backed.source;
    let body = format!("    room text DEFAULT '{room}'::text\n);");
    let honest = content(&backed, "toc");
    let options = ["--table", "public.t", "--into", "apart"];
    let before = Contents::of(live);
    for (from, to) in [
        // A table of another's rows, a partition, an heir, one that refers to another or is like it in all.
        (
            body.as_str(),
            "    room text\n) AS SELECT 1, pg_catalog.pg_reload_conf()::text;",
        ),
        (&body, "    room text\n) PARTITION OF public.live DEFAULT;"),
        (&body, "    room text\n) INHERITS (public.live);"),
        (&body, "    room int REFERENCES public.live (n)\n);"),
        (&body, "    room text DEFAULT $$;$$); DROP TABLE public.live; --"),
        (&body, "    room text /* '); DROP TABLE public.live; -- */\n);"),
        // Another's name, or no table.
        ("CREATE TABLE public.t (", "CREATE TABLE public.u ("),
        ("CREATE TABLE public.t (", "ALTER  TABLE public.t ("),
        (
            "COPY public.t (n, room) FROM stdin;",
            "COPY t(n)TO PROGRAM 'id' --d FROM;",
        ),
    ] {
        forge(&backed, from, to);
        let failed = crate::support::wreck::fail(
            &mut backed.restore(&live.url(), &options),
            if to.contains("INHERITS") {
                "RESTORE_ERR"
            } else {
                "INTEGRITY"
            },
            if to.contains("INHERITS") { 41 } else { 40 },
        );
        assert!(
            failed.message.contains("nothing was changed"),
            "{to}: {}",
            failed.message
        );
        before.assert_equals(&Contents::of(live));
        forge_whole(&backed, "toc", &honest);
    }
    // What follows a statement is not run, nor is a key that would do more, or an index of another table.
    let index = format!("USING btree (n) WHERE (room <> '{room}'::text);");
    for (from, to, left_out) in [
        (
            body.as_str(),
            "    room text); DROP TABLE public.live; --",
            "how columns of public.t are stored",
        ),
        (&index, "USING btree (n); DROP TABLE public.live;", ""),
        (
            "UNIQUE (n) WITH (fillfactor='71');",
            "UNIQUE (n),INHERIT public.live;",
            "CONSTRAINT public.t t_key",
        ),
        (
            "INDEX t_index ON public.t USING",
            "INDEX t_index ON live USING",
            "INDEX public.t_index",
        ),
    ] {
        forge(&backed, from, to);
        let report = backed.restored(live, &options);
        assert!(report["left_out"].to_string().contains(left_out), "{report:#}");
        assert_eq!(live.sql("SELECT count(*) FROM apart.t"), "2");
        live.sql("DROP SCHEMA apart CASCADE");
        before.assert_equals(&Contents::of(live));
        forge_whole(&backed, "toc", &honest);
    }
}
