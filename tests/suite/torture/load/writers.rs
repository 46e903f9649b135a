//! Sessions that change rows in every way that an application knows.

use std::thread::sleep;
use std::time::Duration;

use super::busy::{Busy, COMMIT};
use super::session::{Refused, Session};
use super::tables::{EVOLVING, PARTITIONS};
use crate::torture::campaign::Dice;

/// Between two transactions of one session.
const PAUSE: Duration = Duration::from_millis(30);

/// Writes until the load is over.
pub fn write(busy: &Busy, mut dice: Dice, number: usize) {
    let mut prepared = Vec::new();
    let mut count = 0;
    while !busy.is_over() {
        let Some(session) = Session::open(&busy.url) else {
            sleep(Duration::from_millis(100));
            continue;
        };
        // A commit that the server does not wait for may be lost in a crash: then it never was.
        if number == 0 {
            drop(session.does("SET synchronous_commit = off"));
        }
        while !busy.is_over() {
            count += 1;
            let name = format!("w{number}_{count}");
            let done = transaction(busy, &session, &mut dice, (&mut prepared, &name));
            if busy.counts(done) {
                break;
            }
            sleep(dice.moment(PAUSE));
        }
    }
    let session = Session::open(&busy.url).unwrap();
    prepared.iter().for_each(|name| drop(finish(&session, name, true)));
}

fn transaction(
    busy: &Busy,
    session: &Session,
    dice: &mut Dice,
    (prepared, name): (&mut Vec<String>, &str),
) -> Result<(), Refused> {
    if prepared.len() > dice.below(4) {
        let first = prepared.remove(0);
        finish(session, &first, dice.below(4) > 0)?;
    }
    let some = |dice: &mut Dice| (0..=dice.below(3)).map(|_| change(dice)).collect::<String>();
    let script = match dice.below(100) {
        0..55 => format!("BEGIN; {} {COMMIT}", some(dice)),
        55..68 => format!(
            "BEGIN; {} SAVEPOINT a; {} SAVEPOINT b; {} ROLLBACK TO {}; {} {COMMIT}",
            some(dice),
            some(dice),
            some(dice),
            dice.pick(&["a", "b"]),
            some(dice)
        ),
        68..72 => format!("BEGIN; {} ROLLBACK", some(dice)),
        72..82 => {
            session.does(&format!("BEGIN; {} PREPARE TRANSACTION '{name}'", some(dice)))?;
            prepared.push(name.to_owned());
            return Ok(());
        }
        82..85 => format!(
            "BEGIN; {} SELECT pg_sleep({}); {} {COMMIT}",
            some(dice),
            dice.below(1800) as f64 / 1000.0,
            some(dice)
        ),
        85..87 => format!("BEGIN; {} {COMMIT}", large(dice)),
        87..90 => format!("BEGIN; {} {COMMIT}", subtransactions(dice)),
        90..94 => format!("BEGIN; {} {} {COMMIT}", emptied(busy, dice), some(dice)),
        _ => format!(
            "SELECT pg_logical_emit_message({}, 'other', repeat('m', {})); BEGIN; {} {COMMIT}",
            dice.pick(&["true", "false"]),
            dice.below(9000),
            some(dice)
        ),
    };
    session.does(&script)
}

fn finish(session: &Session, name: &str, commit: bool) -> Result<(), Refused> {
    let word = if commit { "COMMIT" } else { "ROLLBACK" };
    session.does("SELECT pg_advisory_lock_shared(1)")?;
    let finished = session.does(&format!("{word} PREPARED '{name}'"));
    session.does("SELECT pg_advisory_unlock_shared(1)")?;
    finished
}

/// One or a few statements on one of the tables.
fn change(dice: &mut Dice) -> String {
    let (n, small) = (dice.below(1_000_000), 1 + dice.below(40));
    match dice.below(24) {
        0..=3 => {
            let (aid, delta) = (1 + dice.below(400), dice.below(90) as i64 - 45);
            format!(
                "UPDATE accounts SET balance = balance + {delta} WHERE aid = {aid};
                 UPDATE branches SET balance = balance + {delta} WHERE bid = 1 + {aid} % 5;
                 INSERT INTO history VALUES ({aid}, {delta});"
            )
        }
        4 => documents(dice),
        5 => duplicates(dice),
        6 => dice.pick(&[
            format!("UPDATE bykey SET code = code || 'q', v = NULL WHERE id = {small} AND length(code) < 20;"),
            format!("UPDATE bykey SET code = 'c' || {small} WHERE id = {small}; UPDATE bykey SET id = id WHERE id = {small};"),
            format!("DELETE FROM bykey WHERE id = {small}; INSERT INTO bykey VALUES ({small}, 'c{small}', '{n}');"),
        ]),
        7 => dice.pick(&[
            format!(r#"UPDATE "Num Keys" SET k1 = k1 + 1000 WHERE k1 = {small};"#),
            format!(r#"UPDATE "Num Keys" SET k1 = k1 - 1000, val = val || 'x' WHERE k1 = 1000 + {small};"#),
            format!(r#"UPDATE "Num Keys" SET k1 = (k1 || CASE scale(k1) WHEN 0 THEN '.0' ELSE '0' END)::numeric WHERE k1 = {small} AND scale(k1) < 5;"#),
        ]),
        8 => dice.pick(&[
            format!("UPDATE longkey SET v = {n} WHERE v % 30 = {small} % 30;"),
            format!("UPDATE longkey SET k = rpad('{n}', 2500, k) WHERE k = (SELECT min(k) FROM longkey);"),
            "DELETE FROM longkey WHERE k = (SELECT max(k) FROM longkey);".to_owned(),
            format!("INSERT INTO longkey VALUES (rpad('{n}', 2500, md5('{n}')), {n}) ON CONFLICT DO NOTHING;"),
        ]),
        9 => dice.pick(&[
            format!("INSERT INTO minion (boss) SELECT min(id) FROM boss WHERE id >= {small} HAVING min(id) > 0;"),
            format!("DELETE FROM boss WHERE id = {small} % 20;"),
            format!("INSERT INTO boss VALUES ({small} % 20, '{n}') ON CONFLICT (id) DO UPDATE SET v = excluded.v;"),
        ]),
        10 => dice.pick(&[
            format!("INSERT INTO made (v) VALUES ('{n}'), (NULL);"),
            format!("UPDATE made SET v = '{n}' WHERE id = {small};"),
            format!("DELETE FROM made WHERE id = (SELECT min(id) FROM made WHERE id > {small});"),
        ]),
        11 => dice.pick(&[
            format!("UPDATE odd SET c = ({n}, E'\\\\,\"', NULL), cs = cs[1:2] || ({n}, '', 0.10)::point3 WHERE id = {small};"),
            format!("UPDATE odd SET d = {n} + 1, f = {n} / 7.0, ts = clock_timestamp(), tags = tags[1:3] || E'\\n'::text WHERE id = {small};"),
            format!("DELETE FROM odd WHERE id = {small}; INSERT INTO odd (id, d, b) VALUES ({small}, 1, '\\x{n:08}');"),
        ]),
        12 => dice.pick(&[
            format!("UPDATE feel SET m = (enum_range(NULL::mood))[1 + {n} % 3] WHERE id = {small};"),
            format!("UPDATE feel SET ms = enum_range(NULL::mood) WHERE id = {small};"),
        ]),
        13 => dice.pick(&[
            format!("INSERT INTO sloppy VALUES ({small}, '{n}');"),
            format!("UPDATE sloppy SET v = '{n}' WHERE a = {small};"),
            format!("DELETE FROM sloppy WHERE a = {small};"),
        ]),
        14 => format!("SELECT nextval('tally'), nextval('tally'); UPDATE bulk SET v = '{n}' WHERE id = {small};"),
        15..=17 => partitioned(dice),
        _ => evolving(dice),
    }
}

/// Wide rows, whose large value stays as it is.
fn documents(dice: &mut Dice) -> String {
    let (id, n) = (1 + dice.below(40), dice.below(1_000_000));
    dice.pick(&[
        format!("UPDATE doc SET title = '{n}' WHERE id = {id};"),
        format!("UPDATE doc SET body = repeat(md5('{n}'), 120) WHERE id = {id};"),
        format!("UPDATE doc SET id = id + 1000 WHERE id = {id};"),
        format!("UPDATE doc SET id = id - 1000 WHERE id = 1000 + {id};"),
        format!("UPDATE doc SET id = id + 1000 WHERE id = {id}; UPDATE doc SET title = '{n}', id = id - 1000 WHERE id = 1000 + {id};"),
        format!("WITH gone AS (DELETE FROM doc WHERE id = {id} RETURNING *) INSERT INTO doc SELECT id, '{n}', body FROM gone WHERE false;
                 INSERT INTO doc VALUES ({id}, '{n}', repeat('{n}', 700)) ON CONFLICT (id) DO UPDATE SET title = excluded.title;"),
    ])
}

/// Rows of which several are the same.
fn duplicates(dice: &mut Dice) -> String {
    let a = dice.below(7);
    let one = format!("(SELECT min(ctid) FROM whole WHERE a = {a})");
    dice.pick(&[
        format!("INSERT INTO whole SELECT {a}, 'f', repeat(md5('{a}'), 120) FROM generate_series(1, 3);"),
        format!("UPDATE whole SET b = b || 'u' WHERE ctid = {one} AND length(b) < 9;"),
        format!("UPDATE whole SET b = 'f' WHERE a = {a};"),
        format!("DELETE FROM whole WHERE ctid = {one};"),
    ])
}

fn partitioned(dice: &mut Dice) -> String {
    let (id, day) = (1 + dice.below(300), dice.below(PARTITIONS * 100));
    dice.pick(&[
        format!("INSERT INTO ev VALUES ({id}, {day}, 'i') ON CONFLICT DO NOTHING;"),
        format!(
            "INSERT INTO ev SELECT {id} + g, 1000 + {day}, 'l' FROM generate_series(1, 5) g ON CONFLICT DO NOTHING;"
        ),
        format!(
            "UPDATE ev SET day = {day} WHERE id = {id} AND NOT EXISTS (SELECT FROM ev WHERE (id, day) = ({id}, {day}));"
        ),
        format!("UPDATE ev SET v = v || 'u' WHERE id % 50 = {id} % 50 AND length(v) < 12;"),
        format!("UPDATE ev SET id = id + 1 WHERE id = {id} AND day >= 1000;"),
        format!("DELETE FROM ev WHERE id = {id};"),
    ])
}

/// Tables that may have other columns, another name or no key meanwhile, or may not be there.
fn evolving(dice: &mut Dice) -> String {
    let (table, id, n) = (
        format!("evo_{}", dice.below(EVOLVING)),
        1 + dice.below(90),
        dice.below(1_000_000),
    );
    dice.pick(&[
        format!("INSERT INTO {table} (id, v, n) SELECT {id}, 'i', {n} WHERE NOT EXISTS (SELECT FROM {table} WHERE id = {id});"),
        format!("UPDATE {table} SET n = {n} % 1000 WHERE id = {id};"),
        format!("UPDATE {table} SET v = 'v{n}' WHERE id % 9 = {id} % 9;"),
        format!("DELETE FROM {table} WHERE id = {id};"),
    ])
}

fn large(dice: &mut Dice) -> String {
    let rows = 2000 + dice.below(8000);
    dice.pick(&[
        format!("INSERT INTO bulk SELECT g, md5(g::text) FROM generate_series(3000, 3000 + {rows}) g ON CONFLICT DO NOTHING;"),
        format!("UPDATE bulk SET v = md5(v) WHERE id < {rows};"),
        format!("DELETE FROM bulk WHERE id BETWEEN 3000 AND 3000 + {rows};"),
    ])
}

/// More than a session's own list of them holds.
fn subtransactions(dice: &mut Dice) -> String {
    let (from, n) = (dice.below(1500), dice.below(1_000_000));
    format!(
        "DO $$ BEGIN FOR g IN {from}..{from} + 90 LOOP BEGIN
             UPDATE bulk SET v = '{n}' WHERE id = g; INSERT INTO bulk VALUES (100000 + g, 'x') ON CONFLICT DO NOTHING;
             IF g % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF; DELETE FROM bulk WHERE id = 100000 + g - 5;
         EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$;"
    )
}

fn emptied(busy: &Busy, dice: &mut Dice) -> String {
    if busy.is_plain {
        return "TRUNCATE boss CASCADE; INSERT INTO boss SELECT g, 'again' FROM generate_series(1, 10) g;".to_owned();
    }
    let (table, n) = (format!("evo_{}", dice.below(EVOLVING)), dice.below(1000));
    let refill = format!("INSERT INTO {table} (id, v, n) SELECT g, 'again', {n} FROM generate_series(1, 20) g;");
    dice.pick(&[
        format!("TRUNCATE {table}; {refill}"),
        format!("TRUNCATE {table}; {refill} UPDATE {table} SET n = 0 WHERE id = 6; DELETE FROM {table} WHERE id = 7;"),
        "TRUNCATE boss CASCADE; INSERT INTO boss SELECT g, 'again' FROM generate_series(1, 10) g;".to_owned(),
        format!("SAVEPOINT t; TRUNCATE {table}; ROLLBACK TO t;"),
        "TRUNCATE ev; INSERT INTO ev SELECT g, 1000 + g, 'again' FROM generate_series(1, 40) g;".to_owned(),
        "TRUNCATE made RESTART IDENTITY; INSERT INTO made (v) VALUES ('first');".to_owned(),
    ])
}
