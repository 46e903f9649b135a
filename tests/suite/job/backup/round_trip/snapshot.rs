//! A backup is one moment of its database, even if other sessions change it meanwhile.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use crate::job::backup::round_trip::backup::Backup;
use crate::support::database::{Database, quoted, unique_word};
use crate::support::program::stock;

/// A psql that is left running.
struct Session {
    psql: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    fn open(database: &Database) -> Self {
        let mut psql = stock(database.major, "psql")
            .args(["-X", "-q", "-A", "-t", "-d", &database.url()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (psql.stdin.take().unwrap(), BufReader::new(psql.stdout.take().unwrap()));
        Self { psql, stdin, stdout }
    }

    fn send(&mut self, statements: &str) {
        writeln!(self.stdin, "{statements}").unwrap();
    }

    /// Returns when all that was sent is done.
    fn settle(&mut self) {
        self.send("\\echo settled");
        let mut line = String::new();
        while line.trim_end() != "settled" {
            line.clear();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "psql has ended");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.psql.kill());
        drop(self.psql.wait());
    }
}

/// Waits until the query answers true.
fn until(database: &Database, question: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    while database.sql(question) != "t" {
        assert!(Instant::now() < end, "never true: {question}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// pg_dump reads the tables in the order of their names: the bulk is between the others.
const BUSY: &str = "
CREATE TABLE a_written (n integer, xid xid8 DEFAULT pg_current_xact_id());
CREATE TABLE b_bulk AS SELECT n, md5(n::text) AS text FROM generate_series(1, 300000) n;
CREATE TABLE c_written (n integer, xid xid8 DEFAULT pg_current_xact_id());
CREATE TABLE d_accounts AS SELECT id, 1000 AS balance FROM generate_series(1, 50) id;
CREATE TABLE stopped ();
CREATE PROCEDURE write_on() LANGUAGE plpgsql AS $$
DECLARE
    n integer := 0;
BEGIN
    LOOP
        n := n + 1;
        INSERT INTO c_written (n) VALUES (n);
        UPDATE d_accounts SET balance = balance - n WHERE id = 1 + n % 50;
        INSERT INTO a_written (n) VALUES (n);
        UPDATE d_accounts SET balance = balance + n WHERE id = 1 + (n * 7) % 50;
        COMMIT;
        EXIT WHEN EXISTS (SELECT FROM stopped);
        PERFORM pg_sleep(0.001);
    END LOOP;
END
$$;";

fn a_busy_database_restores_to_one_moment(major: u32) {
    let source = Database::fresh(major);
    source.sql(BUSY);
    let mut writers = [Session::open(&source), Session::open(&source)];
    for writer in &mut writers {
        writer.send("CALL write_on();");
    }
    until(&source, "SELECT count(*) > 20 FROM a_written");
    let lsn_before = source.sql("SELECT pg_current_wal_lsn()");
    let xmax_before: u64 = source
        .sql("SELECT pg_snapshot_xmax(pg_current_snapshot())")
        .parse()
        .unwrap();
    let backup = Backup::of(&source, &[]);
    let lsn_after = source.sql("SELECT pg_current_wal_lsn()");
    let xmax_after: u64 = source
        .sql("SELECT pg_snapshot_xmax(pg_current_snapshot())")
        .parse()
        .unwrap();
    source.sql("INSERT INTO stopped DEFAULT VALUES");
    writers.iter_mut().for_each(Session::settle);

    let target = backup.restored(&backup.file("dump"));
    assert_eq!(target.sql("SELECT count(*), sum(balance) FROM d_accounts"), "50|50000");
    assert_eq!(target.sql("SELECT count(*) FROM stopped"), "0");
    let rows = "SELECT n, xid FROM a_written ORDER BY 2";
    assert_eq!(target.sql(rows), target.sql(&rows.replace("a_written", "c_written")));

    // Exactly what the manifest's snapshot sees: nothing that was committed after it, and nothing
    // lost that was committed before.
    let snapshot = &backup.manifest["snapshot"];
    let number = |field: &str| snapshot[field].as_u64().unwrap();
    let running: Vec<String> = snapshot["xip"]
        .as_array()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    let text = format!("{}:{}:{}", number("xmin"), number("xmax"), running.join(","));
    let seen = format!("SELECT n, xid FROM a_written WHERE pg_visible_in_snapshot(xid, '{text}') ORDER BY 2");
    assert_eq!(target.sql(rows), source.sql(&seen));
    assert_ne!(target.sql(rows), source.sql(rows), "no session wrote during the backup");

    assert!(number("xmin") <= number("xmax"));
    assert!((xmax_before..=xmax_after).contains(&number("xmax")));
    let lsn = snapshot["lsn"].as_str().unwrap();
    let between = format!("SELECT pg_lsn '{lsn}' BETWEEN '{lsn_before}' AND '{lsn_after}'");
    assert_eq!(source.sql(&between), "t", "{lsn}");
}

#[test]
fn a_busy_database_of_15_restores_to_one_moment() {
    a_busy_database_restores_to_one_moment(15);
}

#[test]
fn a_busy_database_of_18_restores_to_one_moment() {
    a_busy_database_restores_to_one_moment(18);
}

/// The session that holds the snapshot is idle in a transaction for as long as pg_dump reads.
fn hostile_defaults_of_the_database_change_nothing(major: u32, further: &str) {
    let source = Database::fresh(major);
    source.sql("CREATE TABLE held AS SELECT now() AS at, interval '1 day 2 hours' AS long, 0.1::float8 / 3 AS third, '\\xff'::bytea AS bytes");
    source.sql("CREATE TABLE \"Public\" (a integer); INSERT INTO \"Public\" VALUES (1)");
    let before = source.sql("TABLE held");
    // In one session: each next one would begin with the settings so far.
    let settings = [
        "statement_timeout = '500ms'",
        "lock_timeout = '500ms'",
        "idle_in_transaction_session_timeout = '500ms'",
        "idle_session_timeout = '500ms'",
        "search_path = nowhere, held",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'iso_8601'",
        "extra_float_digits = -15",
        "bytea_output = 'escape'",
        "timezone = 'Asia/Kathmandu'",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "default_transaction_read_only = on",
        "row_security = off",
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
        "enable_seqscan = off",
        further,
    ];
    let database = quoted(&source.name);
    source.sql(
        &settings
            .map(|setting| format!("ALTER DATABASE {database} SET {setting};\n"))
            .concat(),
    );
    let mut holder = Session::open(&source);
    holder.send("SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0;");
    if major >= 17 {
        holder.send("SET transaction_timeout = 0;");
    }
    holder.send("BEGIN READ WRITE; LOCK TABLE public.held IN ACCESS EXCLUSIVE MODE;");
    holder.settle();

    let backup = std::thread::scope(|scope| {
        let backup = scope.spawn(|| Backup::of(&source, &[]));
        until(
            &source,
            "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'public.held'::regclass AND NOT granted",
        );
        std::thread::sleep(Duration::from_millis(1500));
        holder.send("COMMIT;");
        backup.join().unwrap()
    });
    let target = backup.restored(&backup.file("dump"));
    // Read in a session like the one before.
    assert_eq!(target.sql("SET timezone = 'Etc/UTC'; TABLE held"), before);
    assert_eq!(target.sql("TABLE \"Public\""), "1");
}

#[test]
fn hostile_defaults_of_a_database_of_15_change_nothing() {
    hostile_defaults_of_the_database_change_nothing(15, "synchronize_seqscans = on");
}

#[test]
fn hostile_defaults_of_a_database_of_18_change_nothing() {
    hostile_defaults_of_the_database_change_nothing(18, "transaction_timeout = '500ms'");
}

/// A role that may read everything and is not subject to row security, but is no superuser.
struct Role {
    name: String,
    database: Database,
}

impl Drop for Role {
    fn drop(&mut self) {
        let name = quoted(&self.name);
        drop(crate::support::database::try_psql(
            self.database.major,
            &self.database.url(),
            &format!("DROP OWNED BY {name}; DROP ROLE {name}"),
        ));
    }
}

fn a_role_that_bypasses_row_security_saves_all_rows(major: u32) {
    let database = Database::fresh(major);
    let role = Role {
        name: format!("backup role {}", unique_word()),
        database,
    };
    let source = &role.database;
    let name = quoted(&role.name);
    source.sql(&format!(
        "CREATE ROLE {name} LOGIN BYPASSRLS PASSWORD 'p@ss/w:o%rd'' \"\\';
         GRANT pg_read_all_data TO {name};
         CREATE TABLE secured (id integer, tenant text);
         INSERT INTO secured VALUES (1, 'somebody'), (2, 'nobody');
         ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
         ALTER TABLE secured FORCE ROW LEVEL SECURITY;
         CREATE POLICY none ON secured USING (false);
         CREATE TABLE open AS SELECT 1 AS a;"
    ));
    let url = source.url_as(Some((&role.name, "p@ss/w:o%rd' \"\\")));
    let mut command = crate::support::program::pgstow();
    let backup = Backup::by(command.env("DATABASE_URL", url).arg("backup"), major);
    let target = backup.restored(&backup.file("dump"));
    assert_eq!(target.sql("SELECT * FROM secured ORDER BY id"), "1|somebody\n2|nobody");
    let globals = std::fs::read_to_string(backup.file("globals")).unwrap();
    assert!(globals.contains(&format!("CREATE ROLE {name};")) && !globals.contains("PASSWORD"));
}

#[test]
fn a_role_of_15_that_bypasses_row_security_saves_all_rows() {
    a_role_that_bypasses_row_security_saves_all_rows(15);
}

#[test]
fn a_role_of_17_that_bypasses_row_security_saves_all_rows() {
    a_role_that_bypasses_row_security_saves_all_rows(17);
}
