//! Large tables, loaded by several pg_restores at once.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::job::restore::place::{Backed, flip};
use crate::support::database::Database;

/// About 200 MB of rows, in little time: each is long, and alike in itself.
const GIANT: &str = "CREATE TABLE giant (n integer GENERATED ALWAYS AS IDENTITY, parent integer, text text);
    INSERT INTO giant (parent, text) SELECT 2001 - n, repeat(md5(n::text), 3200) FROM generate_series(1, 2000) n;";
/// Every row refers to one that may be in another part, and is unique.
const KEYS: &str = "ALTER TABLE giant ADD PRIMARY KEY (n); CREATE INDEX ON giant (parent);
    ALTER TABLE giant ADD FOREIGN KEY (parent) REFERENCES giant;
    CREATE TABLE small AS SELECT n FROM generate_series(1, 10) n;";
const DIGEST: &str = "SELECT count(*), md5(string_agg(n || ' ' || parent || ' ' || md5(text), ',' ORDER BY n)),
    pg_get_serial_sequence('giant', 'n') FROM giant";

fn giant(more: &str) -> Database {
    let source = Database::fresh(17);
    source.sql(GIANT);
    source.sql(more);
    source
}

fn ranges(backed: &Backed, table: &str) -> Vec<Value> {
    let manifest = backed.manifest();
    let tables = manifest["tables"].as_array().unwrap();
    let table = tables.iter().find(|one| one["name"] == table).unwrap();
    table["ranges"].as_array().cloned().unwrap_or_default()
}

/// How many pg_restores would load the data.
fn processes(backed: &Backed, target: &Database, options: &[&str]) -> u64 {
    let options = [options, &["--dry-run"]].concat();
    let planned = crate::support::program::succeed(&mut backed.restore(&target.url(), &options)).json();
    let steps = planned["steps"].as_array().unwrap();
    let load = steps
        .iter()
        .find_map(|step| step.as_str().unwrap().strip_prefix("load "));
    let count = load.unwrap().split(", ").find_map(|part| part.strip_prefix("in "));
    count.unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn one_table_is_loaded_by_several_at_once_and_is_the_same() {
    let source = giant(KEYS);
    for (compress, jobs) in [("zstd", "1"), ("none", "2")] {
        let backed = Backed::up(
            crate::job::restore::place::copy(&source),
            &["--compress", compress, "--jobs", jobs],
        );
        let found = ranges(&backed, "giant");
        assert!((3..=4).contains(&found.len()), "{found:?}");
        assert!(ranges(&backed, "small").is_empty());
        let target = Database::fresh(17);
        // The parts, and the rest; the numbers of the sequence are loaded by themselves.
        assert_eq!(processes(&backed, &target, &["--jobs", "2"]), found.len() as u64 + 2);
        let mut running = backed.site.start(&mut backed.restore(&target.url(), &["--jobs", "2"]));
        running.until("two load the one table", || {
            target.sql("SELECT count(*) FROM pg_stat_progress_copy WHERE relid = to_regclass('giant')") == "2"
        });
        let run = running.end(Duration::from_secs(120));
        let report = run.json();
        assert_eq!(
            (&report["tables"], &report["rows"]),
            (&2.into(), &2010.into()),
            "{report}"
        );
        assert_eq!(target.sql(DIGEST), source.sql(DIGEST));
        assert_eq!(target.sql("INSERT INTO giant (parent) VALUES (1) RETURNING n"), "2001");
        backed.site.assert_nothing_runs();
    }
}

#[test]
fn one_zlib_stream_rows_whose_order_counts_and_rows_for_a_table_that_is_there_stay_whole() {
    let source = giant(KEYS);
    let zlib = Backed::up(crate::job::restore::place::copy(&source), &["--compress", "gzip:1"]);
    assert!(ranges(&zlib, "giant").is_empty());
    let target = Database::fresh(17);
    zlib.restored(&target, &["--jobs", "2"]);
    assert_eq!(target.sql(DIGEST), source.sql(DIGEST));

    let backed = Backed::up(source, &[]);
    let only = ["--table", "public.giant", "--jobs", "2"];
    assert!(processes(&backed, &Database::fresh(17), &only) > 3);
    // Its rows refer to each other, and the constraint is there: all of them must come at once.
    target.sql("TRUNCATE giant");
    let rows = [&only[..], &["--data-only"]].concat();
    assert_eq!(backed.restored(&target, &rows)["compared"], 1);
    assert_eq!(target.sql(DIGEST), backed.source.sql(DIGEST));

    for order in [
        "CREATE INDEX ON giant USING brin (n)",
        "CREATE INDEX by_parent ON giant (parent); ALTER TABLE giant CLUSTER ON by_parent",
        "CREATE FUNCTION is_right(integer) RETURNS boolean LANGUAGE sql AS 'SELECT $1 > 0';
         ALTER TABLE giant ADD CHECK (is_right(parent))",
    ] {
        let ordered = crate::job::restore::place::copy(&backed.source);
        ordered.sql(order);
        let ordered = Backed::up(ordered, &[]);
        assert!(ranges(&ordered, "giant").len() > 2, "{order}");
        assert_eq!(processes(&ordered, &Database::fresh(17), &only), 2, "{order}");
    }
}

#[test]
fn a_range_that_is_spoilt_is_not_loaded_and_the_error_says_what_is_there() {
    let backed = Backed::up(giant(""), &["--compress", "none"]);
    let found = ranges(&backed, "giant");
    let number = |range: &Value, name: &str| usize::try_from(range[name].as_u64().unwrap()).unwrap();
    // A letter in a row of the last large range: no framing knows it.
    let at = number(&found[2], "offset") + number(&found[2], "length") / 2;
    flip(&backed.file("dump"), at);
    let target = Database::fresh(17);
    let refused = backed.refused(&target.url(), &["--jobs", "2"], "INTEGRITY", 40);
    for word in ["public.giant", "have the SHA-256", "0 of 1 table;"] {
        assert!(refused.message.contains(word), "{word}: {}", refused.message);
    }
    let there: u64 = target.sql("SELECT count(*) FROM giant").parse().unwrap();
    assert_eq!(
        there > 0,
        refused.message.contains("public.giant (in part)"),
        "{}",
        refused.message
    );
    // Whole ranges, and never the one that is spoilt.
    let sound = found.iter().enumerate().filter(|(index, _)| *index != 2);
    let sums = sound.fold(vec![0], |sums, (_, range)| {
        let rows = range["rows"].as_u64().unwrap();
        sums.iter().flat_map(|sum| [*sum, sum + rows]).collect()
    });
    assert!(sums.contains(&there), "{there} of {sums:?}");
    flip(&backed.file("dump"), at);
    backed.restored(&target, &["--jobs", "2", "--clean"]);
    assert_eq!(target.sql(DIGEST), backed.source.sql(DIGEST));
    let verify = |backed: &Backed| {
        let mut verify = crate::support::program::pgstow();
        verify
            .args(["verify", backed.id(), "--json", "--store", &backed.store])
            .current_dir(backed.site.path());
        crate::support::program::run(&mut verify).json()
    };
    assert_eq!(verify(&backed)["status"], "ok");

    // A manifest whose ranges are of another archive, or do not fit together.
    let path = backed.folder().join("manifest.json");
    let whole = fs::read(&path).unwrap();
    let altered = |alter: &dyn Fn(&mut Value)| {
        let mut manifest: Value = serde_json::from_slice(&whole).unwrap();
        alter(&mut manifest["tables"][0]["ranges"]);
        fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
        crate::support::wreck::reseal(&backed.folder());
    };
    altered(&|ranges| ranges[1]["stored_sha256"] = "00".repeat(32).into());
    let verified = verify(&backed);
    assert_eq!(verified["problems"][0]["table"], "public.giant", "{verified}");
    let refused = backed.refused(&Database::fresh(17).url(), &["--jobs", "2"], "INTEGRITY", 40);
    assert!(
        refused.message.contains("the manifest says 0000"),
        "{}",
        refused.message
    );
    backed.restored(&Database::fresh(17), &[]);
    let shifted: [&dyn Fn(&mut Value); 4] = [
        &|ranges| ranges[1]["offset"] = (ranges[1]["offset"].as_u64().unwrap() + 1).into(),
        &|ranges| ranges[0]["rows"] = (ranges[0]["rows"].as_u64().unwrap() + 1).into(),
        &|ranges| drop(ranges.as_array_mut().unwrap().pop()),
        &|ranges| ranges[0]["length"] = u64::MAX.into(),
    ];
    for alter in shifted {
        altered(alter);
        let target = Database::fresh(17);
        let refused = backed.refused(&target.url(), &["--jobs", "2"], "INTEGRITY", 40);
        assert!(
            refused.message.contains("do not make up its block"),
            "{}",
            refused.message
        );
        assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
    }
}

#[test]
fn a_check_that_takes_numbers_moves_no_sequence_on() {
    let source = Database::fresh(16);
    source.sql(
        "CREATE SEQUENCE counted;
         CREATE FUNCTION ticks(a int) RETURNS boolean LANGUAGE sql
           AS 'SELECT nextval(''public.counted'') > 0 AND pg_sleep(0.003) IS NOT NULL';
         CREATE TABLE ticking (a int CHECK (ticks(a))); INSERT INTO ticking SELECT generate_series(1, 300)",
    );
    const STANDS: &str = "SELECT last_value, is_called FROM counted";
    let stands = source.sql(STANDS);
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(16);
    crate::support::program::succeed(&mut backed.restore(&target.url(), &["--jobs", "4"]));
    assert_eq!(target.sql(STANDS), stands);
}
