//! Every compression and format, from every major, through every way that stock programs take.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::format::archive::builder::{read_int, streams};
use crate::job::backup::round_trip::backup::{Backup, assert_same_text, piped, rich};
use crate::support::contents::{Contents, copied};
use crate::support::database::{Database, quoted};
use crate::support::program::{program, stock, succeed};
use crate::support::services::MAJORS;

/// Tables that are restored alone; one of a name that needs quoting.
const ALONE: [(&str, &str); 2] = [
    ("shapes", "measured_default"),
    ("Schéma with spaces", "it's a \"table\""),
];

fn custom_format_survives(major: u32, compress: &str, archive_version: &str) {
    let source = rich(major);
    let before = Contents::of(&source);
    let backup = Backup::of(&source, &["--compress", compress]);
    let algorithm = compress.split(':').next().unwrap();
    assert_eq!(backup.manifest["compression"]["algorithm"], algorithm);
    assert_eq!(backup.manifest["pg_dump"]["archive_version"], archive_version);
    let (archive, seekable) = (backup.file("dump"), backup.seekable());

    before.assert_equals(&Contents::of(&backup.restored(&archive)));

    let from_pipe = Database::fresh(major);
    let mut pg_restore = backup.pg_restore();
    piped(program("cat").arg(&archive), pg_restore.args(["-d", &from_pipe.url()]));
    before.assert_equals(&Contents::of(&from_pipe));

    let in_parallel = Database::fresh(major);
    succeed(
        backup
            .pg_restore()
            .args(["-j2", "-d", &in_parallel.url()])
            .arg(&seekable),
    );
    before.assert_equals(&Contents::of(&in_parallel));

    for archive in [&archive, &seekable] {
        tables_come_back_alone(&source, &backup, archive);
    }

    let stock_text = succeed(stock(major, "pg_dump").args(["-d", &source.url()])).stdout;
    let text = succeed(stock(major, "pg_restore").args(["-f", "-"]).arg(&archive)).stdout;
    assert_same_text(&text, &stock_text);

    let list = |file: &Path| succeed(stock(major, "pg_restore").arg("--list").arg(file)).text();
    assert_eq!(list(&backup.file("toc")), list(&archive));
}

fn tables_come_back_alone(source: &Database, backup: &Backup, archive: &Path) {
    let target = Database::fresh(backup.major);
    for (schema, table) in ALONE {
        target.sql(&format!("CREATE SCHEMA {}", quoted(schema)));
        let mut pg_restore = backup.pg_restore();
        pg_restore.args([
            "-d",
            &target.url(),
            "--section=pre-data",
            "--section=data",
            "-n",
            schema,
            "-t",
            table,
        ]);
        succeed(pg_restore.arg(archive));
    }
    let sources: Vec<(String, String)> = ALONE
        .iter()
        .map(|(schema, table)| (table.to_string(), format!("{}.{}", quoted(schema), quoted(table))))
        .collect();
    let rows = |database: &Database| {
        let texts = copied(database, "", &sources);
        texts
            .into_values()
            .map(|text| (text.rows, text.in_any_order))
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(source), rows(&target));
    assert_eq!(
        target.sql("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND oid >= 16384"),
        "2"
    );
}

#[test]
fn gzip_from_15_survives() {
    custom_format_survives(15, "gzip:6", "1.14");
}

#[test]
fn gzip_from_16_survives() {
    custom_format_survives(16, "gzip:1", "1.15");
}

#[test]
fn gzip_from_18_survives() {
    custom_format_survives(18, "gzip:9", "1.16");
}

#[test]
fn zstd_from_16_survives() {
    custom_format_survives(16, "zstd:3", "1.15");
}

#[test]
fn zstd_from_17_survives() {
    custom_format_survives(17, "zstd:1", "1.16");
}

#[test]
fn zstd_from_18_survives() {
    custom_format_survives(18, "zstd:9", "1.16");
}

#[test]
fn uncompressed_from_15_survives() {
    custom_format_survives(15, "none", "1.14");
}

#[test]
fn uncompressed_from_17_survives() {
    custom_format_survives(17, "none", "1.16");
}

fn plain_format_survives(major: u32, compress: &str, extension: &str, unpack: &[&str]) {
    let source = rich(major);
    let backup = Backup::of(&source, &["--format", "plain", "--compress", compress]);
    let script = backup.file("sql");
    assert!(script.to_str().unwrap().ends_with(extension), "{}", script.display());

    // zcat judges a file by its name, zstd by its content.
    let unpacked = || {
        let mut command = program(unpack[0]);
        command.args(&unpack[1..]).arg(&script);
        command
    };
    let stock_text = succeed(stock(major, "pg_dump").args(["-d", &source.url()])).stdout;
    assert_same_text(&succeed(&mut unpacked()).stdout, &stock_text);

    let target = Database::fresh(major);
    let mut psql = stock(major, "psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &target.url()]);
    piped(&mut unpacked(), psql.stdout(Stdio::null()));
    Contents::of(&source).assert_equals(&Contents::of(&target));
}

#[test]
fn plain_sql_from_15_survives() {
    plain_format_survives(15, "none", ".sql", &["cat"]);
}

#[test]
fn plain_gzip_from_16_survives() {
    plain_format_survives(16, "gzip", ".sql.gz", &["zcat"]);
}

#[test]
fn plain_zstd_from_15_survives() {
    plain_format_survives(15, "zstd", ".sql.zst", &["zstd", "-dc"]);
}

#[test]
fn plain_zstd_from_18_survives() {
    plain_format_survives(18, "auto", ".sql.zst", &["zstd", "-dc"]);
}

#[test]
fn auto_is_gzip_for_pg_dump_15_and_zstd_for_newer_ones() {
    for (major, algorithm) in [(15, "gzip"), (16, "zstd"), (17, "zstd"), (18, "zstd")] {
        let source = Database::fresh(major);
        let backup = Backup::of(&source, &[]);
        assert_eq!(backup.manifest["compression"]["algorithm"], algorithm, "{major}");
    }
}

/// An archive of each version and algorithm is, to every pg_restore that may read it, what
/// pg_dump's own is.
#[test]
fn every_newer_pg_restore_reads_our_archives_as_it_reads_pg_dumps() {
    for (major, compress) in [(15, "gzip"), (16, "zstd"), (16, "gzip"), (17, "zstd"), (18, "gzip")] {
        let source = Database::loaded(major, "shop.sql");
        let backup = Backup::of(&source, &["--compress", compress]);
        let stock_archive = backup.store().join("stock.dump");
        succeed(
            stock(major, "pg_dump")
                .args(["-Fc", "-Z1", "-d", &source.url(), "-f"])
                .arg(&stock_archive),
        );
        for reader in MAJORS.into_iter().filter(|reader| *reader >= major) {
            let text = |archive: &Path| succeed(stock(reader, "pg_restore").args(["-f", "-"]).arg(archive)).stdout;
            assert_same_text(&text(&backup.file("dump")), &text(&stock_archive));
        }
    }
}

/// Where the header keeps the time of the dump: seven integers behind the compression.
fn clear_time(head: &mut [u8]) {
    let start = if head[6] >= 15 { 12 } else { 16 };
    head[start..start + 35].fill(0);
}

fn differs_from_pg_dumps_only_in_time_and_chunks(major: u32) {
    let source = rich(major);
    // pg_dump numbers the entries in the order in which the catalog's rows come, and autovacuum
    // could change the plan between two dumps.
    source.sql("VACUUM ANALYZE");
    let backup = Backup::of(&source, &["--compress", "none"]);
    let ours = fs::read(backup.file("dump")).unwrap();
    let mut toc = fs::read(backup.file("toc")).unwrap();
    let dump = |options: &[&str]| stock_dump(&source, options);
    let piped = dump(&["-Fc", "-Z0"]);

    let (mut our_head, mut stock_head) = (ours[..toc.len()].to_vec(), piped[..toc.len()].to_vec());
    clear_time(&mut our_head);
    clear_time(&mut stock_head);
    let differs = our_head
        .iter()
        .zip(&stock_head)
        .position(|(mine, theirs)| mine != theirs);
    if let Some(at) = differs {
        let around = |head: &[u8]| {
            String::from_utf8_lossy(&head[at.saturating_sub(300)..(at + 100).min(head.len())]).into_owned()
        };
        panic!(
            "the heads differ at {at}:\n{}\nagainst\n{}",
            around(&our_head),
            around(&stock_head)
        );
    }

    let (our_streams, stock_streams) = (streams(&ours, toc.len()), streams(&piped, toc.len()));
    assert_eq!(our_streams.len(), stock_streams.len());
    for (mine, theirs) in our_streams.iter().zip(&stock_streams) {
        assert_eq!(mine.dump_id, theirs.dump_id);
        assert!(mine.chunks.concat() == theirs.chunks.concat(), "block {}", mine.dump_id);
    }

    // pg_dump's own file, into which it has filled the offsets: the same fields are filled, each
    // with the place of the same block.
    let file = backup.store().join("stock.dump");
    succeed(
        stock(major, "pg_dump")
            .args(["-Fc", "-Z0", "-d", &source.url(), "-f"])
            .arg(&file),
    );
    let seekable = fs::read(&file).unwrap();
    let mut stock_toc = seekable[..toc.len()].to_vec();
    clear_time(&mut toc);
    clear_time(&mut stock_toc);
    let mut filled = 0;
    let mut at = 0;
    while at < toc.len() {
        if toc[at] == our_head[at] {
            assert_eq!(stock_toc[at], toc[at], "byte {at} of the head");
            at += 1;
            continue;
        }
        assert_eq!(
            (our_head[at], toc[at], stock_toc[at]),
            (1, 2, 2),
            "the offset's state at {at}"
        );
        let place =
            |head: &[u8]| usize::try_from(u64::from_le_bytes(head[at + 1..at + 9].try_into().unwrap())).unwrap();
        let (mine, theirs) = (place(&toc), place(&stock_toc));
        assert_eq!(ours[mine], seekable[theirs]);
        assert_eq!(read_int(&ours, &mut (mine + 1)), read_int(&seekable, &mut (theirs + 1)));
        filled += 1;
        at += 9;
    }
    let mut blocks: Vec<usize> = our_streams.iter().map(|stream| stream.block_at).collect();
    blocks.dedup();
    assert_eq!(filled, blocks.len());
}

fn stock_dump(source: &Database, options: &[&str]) -> Vec<u8> {
    succeed(stock(source.major, "pg_dump").args(options).args(["-d", &source.url()])).stdout
}

#[test]
fn an_uncompressed_archive_of_15_differs_from_pg_dumps_only_in_time_and_chunks() {
    differs_from_pg_dumps_only_in_time_and_chunks(15);
}

#[test]
fn an_uncompressed_archive_of_16_differs_from_pg_dumps_only_in_time_and_chunks() {
    differs_from_pg_dumps_only_in_time_and_chunks(16);
}

#[test]
fn an_uncompressed_archive_of_18_differs_from_pg_dumps_only_in_time_and_chunks() {
    differs_from_pg_dumps_only_in_time_and_chunks(18);
}
