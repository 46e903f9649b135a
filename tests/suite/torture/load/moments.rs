//! Moments of the source, of which everything is known: the position, the time, and what every table held.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use pgstow::format::Lsn;

use super::busy::Busy;
use super::session::{Refused, Session};
use crate::support::database::Database;
use crate::support::program::{run, stock};

/// Every transaction that the snapshot sees was committed before the position and the time, and all others after
/// them.
pub struct Moment {
    pub lsn: Lsn,
    pub time: String,
    pub tables: BTreeMap<u32, Rows>,
    /// The last value of a sequence that only goes up.
    pub tally: i64,
    /// As statements, sorted. `None`: other sessions interfered.
    pub definitions: Option<Vec<String>>,
}

/// What a table held.
pub struct Rows {
    /// With its schema.
    pub name: String,
    pub count: u64,
    pub digest: String,
    /// Sorted, for a report of what differs.
    pub texts: Vec<String>,
}

/// Of tables that have rows of their own.
const LISTED: &str = "SELECT c.oid, format('%s.%s', n.nspname, c.relname), format('%I.%I', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname IN ('public', 'other', 'recovered') ORDER BY c.oid";

/// Tries until it succeeds, or the load has been over for long.
pub fn take(busy: &Busy, database: &Database) -> Moment {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let taken = Session::open(&busy.url).map(|session| attempt(&session, database));
        match taken {
            Some(Ok(moment)) => return moment,
            Some(Err(refused)) => assert!(Instant::now() < patience, "no moment can be had: {refused:?}"),
            None => assert!(Instant::now() < patience, "no moment can be had: the server is down"),
        }
        sleep(Duration::from_millis(30));
    }
}

fn attempt(session: &Session, database: &Database) -> Result<Moment, Refused> {
    session.does("SET lock_timeout = '700ms'; SELECT pg_advisory_lock(1)")?;
    // The end of this transaction flushes the log, also what others did not wait for. Without a record of its own it
    // would not.
    session.does("SELECT pg_logical_emit_message(true, 'moment', '')")?;
    session.does("BEGIN ISOLATION LEVEL REPEATABLE READ")?;
    let mut row = session
        .ask(
            r#"SELECT pg_current_wal_flush_lsn(), pg_export_snapshot(), last_value,
                to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM tally"#,
        )?
        .remove(0);
    let tables = session.ask(LISTED)?;
    let names: Vec<&str> = tables.iter().map(|table| table[2].as_str()).collect();
    // Held by a transaction that changes a definition: its commit would wait for this session.
    session.ask(&format!(
        "SET LOCAL lock_timeout = '150ms'; LOCK TABLE ONLY {} IN ACCESS SHARE MODE",
        names.join(", ONLY ")
    ))?;
    let rows = rows(session)?;
    // Definitions stay as the snapshot sees them, or pg_dump says that they do not.
    session.ask("SELECT pg_advisory_unlock(1)")?;
    let definitions = definitions(database, Some(&row[1]));
    session.does("COMMIT")?;
    Ok(Moment {
        lsn: row[0].parse().unwrap(),
        tally: row[2].parse().unwrap(),
        time: row.remove(3),
        tables: rows,
        definitions,
    })
}

/// By OID.
pub fn rows(session: &Session) -> Result<BTreeMap<u32, Rows>, Refused> {
    let mut all = BTreeMap::new();
    for table in session.ask(LISTED)? {
        let [oid, name, quoted] = &table[..] else {
            panic!("{table:?}")
        };
        let texts = session.ask(&format!(
            "SELECT left(t::text, 300) || ' #' || md5(t::text) FROM ONLY {quoted} t"
        ))?;
        let mut texts: Vec<String> = texts.into_iter().map(|mut row| row.remove(0)).collect();
        texts.sort_unstable();
        let digest = format!("{:x}", together(&texts));
        let rows = Rows {
            name: name.clone(),
            count: texts.len() as u64,
            digest,
            texts: if texts.len() > MANY { Vec::new() } else { texts },
        };
        all.insert(oid.parse().unwrap(), rows);
    }
    Ok(all)
}

/// Of more rows only the digest is kept.
const MANY: usize = 3000;

fn together(texts: &[String]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    texts.hash(&mut hasher);
    hasher.finish()
}

/// All statements of the database's definitions but those of publications.
pub fn definitions(database: &Database, snapshot: Option<&str>) -> Option<Vec<String>> {
    let mut dump = stock(database.major, "pg_dump");
    dump.args([
        "-s",
        "--no-publications",
        "--lock-wait-timeout=300",
        "-d",
        &database.url(),
    ]);
    if let Some(snapshot) = snapshot {
        dump.arg(format!("--snapshot={snapshot}"));
    }
    let dumped = run(&mut dump);
    dumped.status.success().then(|| {
        let text = dumped.text();
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("--") && !line.starts_with('\\'));
        let kept: Vec<&str> = lines.collect();
        let mut statements: Vec<String> = kept.join("\n").split("\n\n").map(|one| one.trim().to_owned()).collect();
        statements.retain(|one| !one.is_empty());
        statements.sort();
        statements
    })
}
