//! What the manifest says, held against the files and against what the server itself says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::format::archive::builder::read_int;
use crate::job::backup::round_trip::backup::{Backup, rich};
use crate::support::contents::copied;
use crate::support::database::Database;
use crate::support::program::{pgstow, program, stock, succeed};

/// Tables whose rows pg_dump dumps: all ordinary ones, of extensions those that are their
/// configuration, and of these the rows that the extension names. As JSON, since names may hold
/// anything; `source` is what COPY reads.
const TABLES: &str = "
SELECT json_agg(json_build_object('schema', nspname, 'name', relname, 'source',
    CASE WHEN condition <> ''
    THEN format('(SELECT %s FROM ONLY %I.%I %s)', columns, nspname, relname, condition)
    ELSE format('%I.%I %s', nspname, relname, '(' || columns || ')')
    END))
FROM (
    SELECT nspname, relname,
           (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '') AS columns,
           (SELECT extcondition[array_position(extconfig, c.oid)] FROM pg_extension WHERE c.oid = ANY (extconfig)) AS condition
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema')
      AND (NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
           OR EXISTS (SELECT FROM pg_extension WHERE c.oid = ANY (extconfig)))
) AS tables";

/// What pg_dump sets, too.
const SESSION: &str = "SET search_path = '';
SET datestyle = ISO;
SET intervalstyle = POSTGRES;
SET extra_float_digits = 3;
SET synchronize_seqscans = off;
SET statement_timeout = 0;
SET row_security = off;
";

/// By schema and name, as one text that no two tables share.
fn by_name(table: &Value) -> String {
    format!(
        "{}\0{}",
        table["schema"].as_str().unwrap(),
        table["name"].as_str().unwrap()
    )
}

fn tables_are_what_copy_prints(major: u32, compress: &str) {
    let source = rich(major);
    let backup = Backup::of(&source, &["--compress", compress]);
    let listed: Value = serde_json::from_str(&source.sql(TABLES)).unwrap();
    let sources: Vec<(String, String)> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|table| (by_name(table), table["source"].as_str().unwrap().to_owned()))
        .collect();
    let expected: BTreeMap<String, (u64, u64, String)> = copied(&source, SESSION, &sources)
        .into_iter()
        .map(|(name, text)| (name, (text.rows, text.bytes, text.sha256)))
        .collect();
    let tables = backup.manifest["tables"].as_array().unwrap();
    let told: BTreeMap<String, (u64, u64, String)> = tables
        .iter()
        .map(|table| {
            let number = |field: &str| table[field].as_u64().unwrap();
            let sha256 = table["sha256"].as_str().unwrap().to_owned();
            (by_name(table), (number("rows"), number("bytes"), sha256))
        })
        .collect();
    assert_eq!(told.len(), tables.len());
    assert!(told.len() > 40, "only {}", told.len());
    assert_eq!(told, expected);
    let rows: u64 = told.values().map(|table| table.0).sum();
    assert_eq!(backup.manifest["metadata"]["rows"], rows);
    assert_eq!(
        (&backup.report["tables"], &backup.report["rows"]),
        (&told.len().into(), &rows.into())
    );

    blocks_lie_where_the_manifest_says(&backup);
    large_objects_are_what_the_server_holds(&source, &backup);
}

/// Entries with data in the order of the table of contents: dump id, kind, and the rest of the line.
fn data_entries(backup: &Backup) -> Vec<(i64, &'static str, String)> {
    let list = succeed(stock(backup.major, "pg_restore").arg("--list").arg(backup.file("toc"))).text();
    let entry = |line: &str| {
        let (id, rest) = line.split_once("; ")?;
        // Two OIDs come first.
        let rest = rest.splitn(3, ' ').nth(2)?;
        let kind = ["TABLE DATA ", "BLOBS "]
            .into_iter()
            .find(|kind| rest.starts_with(kind))?;
        Some((id.parse().ok()?, kind.trim_end(), rest[kind.len()..].to_owned()))
    };
    list.lines().filter_map(entry).collect()
}

fn blocks_lie_where_the_manifest_says(backup: &Backup) {
    let archive = fs::read(backup.file("dump")).unwrap();
    let records = |name: &str| backup.manifest[name].as_array().cloned().unwrap_or_default();
    let entries = data_entries(backup);
    let ids = |kind| entries.iter().filter(move |entry| entry.1 == kind).map(|entry| entry.0);
    let tables = records("tables")
        .into_iter()
        .zip(ids("TABLE DATA"))
        .map(|(record, id)| (1, id, record));
    let objects = records("large_objects")
        .into_iter()
        .zip(ids("BLOBS"))
        .map(|(record, id)| (3, id, record));
    let mut blocks = Vec::new();
    for (block_type, id, record) in tables.chain(objects) {
        let number = |field: &str| usize::try_from(record[field].as_u64().unwrap()).unwrap();
        let (offset, length) = (number("offset"), number("length"));
        assert_eq!(archive[offset], block_type, "{record}");
        assert_eq!(read_int(&archive, &mut (offset + 1)), id, "{record}");
        if block_type == 3 {
            assert_eq!(record["dump_id"], id);
        }
        blocks.push((offset, length));
    }
    assert_eq!(blocks.len(), entries.len());
    // Without a gap, from the end of the table of contents to the end of the archive.
    blocks.sort_unstable();
    let mut at = fs::metadata(backup.file("toc")).unwrap().len() as usize;
    for (offset, length) in blocks {
        assert_eq!(offset, at);
        at += length;
    }
    assert_eq!(at, archive.len());
}

fn large_objects_are_what_the_server_holds(source: &Database, backup: &Backup) {
    // pg_dump 17 and newer group them by owner and privileges, older ones do not.
    let order = if backup.major >= 17 {
        "lomowner, lomacl::text, oid"
    } else {
        "oid"
    };
    let query = format!(
        "SELECT concat_ws(' ', oid, length(lo_get(oid)), encode(sha256(lo_get(oid)), 'hex')) FROM pg_largeobject_metadata ORDER BY {order}"
    );
    let held = source.sql(&query);
    let held: Vec<&str> = held.lines().collect();
    let blocks = backup.manifest["large_objects"].as_array().unwrap();
    let mut seen = 0;
    for (block, entry) in blocks
        .iter()
        .zip(data_entries(backup).iter().filter(|entry| entry.1 == "BLOBS"))
    {
        // `- BLOBS postgres`, or `- 400001..400005 postgres`, or `- 400002 postgres`.
        let name = entry.2.split(' ').nth(1).unwrap();
        let first = name.split("..").next().unwrap();
        let start = held
            .iter()
            .position(|line| line.split(' ').next() == Some(first))
            .unwrap_or(0);
        let count = block["count"].as_u64().unwrap() as usize;
        let lines = &held[start..start + count];
        let digest = Sha256::digest(lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        assert_eq!(block["sha256"], hex::encode(digest), "{name}");
        let bytes: u64 = lines
            .iter()
            .map(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap())
            .sum();
        assert_eq!(block["bytes"], bytes);
        seen += count;
    }
    assert_eq!(seen, held.len());
    assert_eq!(backup.report["large_objects"], held.len());
}

#[test]
fn tables_of_15_are_what_copy_prints() {
    tables_are_what_copy_prints(15, "gzip");
}

#[test]
fn tables_of_16_are_what_copy_prints() {
    tables_are_what_copy_prints(16, "none");
}

#[test]
fn tables_of_17_are_what_copy_prints() {
    tables_are_what_copy_prints(17, "zstd");
}

#[test]
fn tables_of_18_are_what_copy_prints() {
    tables_are_what_copy_prints(18, "zstd");
}

fn files_are_what_is_promised(major: u32, format: &str) {
    let source = rich(major);
    let mut command = pgstow();
    command
        .env("DATABASE_URL", source.url())
        .env("BACKUP_MD5", "true")
        .args(["backup", "--format", format]);
    let backup = Backup::by(&mut command, major);
    let manifest = &backup.manifest;

    let mut names =
        BTreeSet::from(["SHA256SUMS", "MD5SUMS", "manifest.json", "manifest.json.sha256"].map(str::to_owned));
    let files = manifest["files"].as_object().unwrap();
    for (role, file) in files {
        let bytes = fs::read(backup.file(role)).unwrap();
        let sha256 = hex::encode(Sha256::digest(&bytes));
        assert_eq!(file["bytes"], bytes.len(), "{role}");
        assert_eq!(file["sha256"], sha256, "{role}");
        assert_eq!(manifest["checksums"][role], format!("sha256:{sha256}"));
        names.insert(file["name"].as_str().unwrap().to_owned());
    }
    let roles: &[&str] = match format {
        "plain" => &["globals", "sql", "system_info"],
        _ => &["dump", "globals", "system_info", "toc"],
    };
    assert_eq!(files.keys().collect::<Vec<_>>(), roles);
    let there = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let there: BTreeSet<String> = fs::read_dir(&backup.folder)
        .unwrap()
        .map(|entry| there(entry.unwrap()))
        .collect();
    assert_eq!(there, names);

    for (tool, sums) in [("sha256sum", "SHA256SUMS"), ("md5sum", "MD5SUMS")] {
        let checked = succeed(program(tool).args(["-c", "--strict", sums]).current_dir(&backup.folder)).text();
        assert_eq!(
            checked.lines().filter(|line| line.ends_with(": OK")).count(),
            files.len(),
            "{checked}"
        );
    }

    let globals = fs::read_to_string(backup.file("globals")).unwrap();
    for role in [
        "CREATE ROLE pgstow_test_owner;",
        "CREATE ROLE \"pgstow test \"\"odd\"\" role\";",
    ] {
        assert!(globals.contains(role), "{globals}");
    }
    assert!(!globals.contains("PASSWORD") && !globals.contains("SCRAM-SHA-256"));
    for name in there {
        let bytes = fs::read(backup.folder.join(&name)).unwrap();
        let password = source.password();
        assert!(
            memchr::memmem::find(&bytes, password.as_bytes()).is_none(),
            "the password is in {name}"
        );
    }
    system_info_is_the_servers(&source, &backup);
}

fn system_info_is_the_servers(source: &Database, backup: &Backup) {
    let info: Value = serde_json::from_slice(&fs::read(backup.file("system_info")).unwrap()).unwrap();
    assert_eq!(info["database"]["name"], source.name.as_str());
    assert_eq!(info["database"]["encoding"], "UTF8");
    assert_eq!(info["version"], source.sql("SELECT version()"));
    assert_eq!(info["settings"]["wal_level"], "logical");
    assert_eq!(
        info["large_objects"].to_string(),
        source.sql("SELECT count(*) FROM pg_largeobject_metadata")
    );
    let extensions: Vec<String> = info["extensions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{}|{}", one["name"].as_str().unwrap(), one["version"].as_str().unwrap()))
        .collect();
    assert_eq!(
        extensions.join("\n"),
        source.sql("SELECT extname, extversion FROM pg_extension ORDER BY extname")
    );

    let server = &backup.manifest["server"];
    assert_eq!(server["version"], source.sql("SHOW server_version"));
    assert_eq!(server["version_num"].to_string(), source.sql("SHOW server_version_num"));
    assert_eq!(server["encoding"], "UTF8");
    assert_eq!(
        server["system_identifier"],
        source.sql("SELECT system_identifier FROM pg_control_system()")
    );
}

#[test]
fn files_of_a_custom_backup_are_what_is_promised() {
    files_are_what_is_promised(15, "custom");
}

#[test]
fn files_of_a_plain_backup_are_what_is_promised() {
    files_are_what_is_promised(18, "plain");
}
