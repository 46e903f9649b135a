//! What a manifest must be, and a whole one for the tests of this crate.

mod references;

use serde_json::{Value, json};

use super::*;
use crate::error::Code;
use crate::store::{Part, StoreChecksum};

/// A whole manifest for the tests of this crate.
pub(crate) fn sample(id: &BackupId, tier: Tier) -> Manifest {
    let files = files(id);
    Manifest {
        id: id.clone(),
        kind: id.kind(),
        timestamp: id.timestamp(),
        finished_at: id.timestamp(),
        version: "0.1.0".into(),
        database: id.database().into(),
        trigger: Trigger::Schedule,
        digest_file: None,
        predecessor: None,
        store: None,
        stores: Vec::new(),
        tags: None,
        event_id: None,
        server: server(),
        pg_dump: PgDump {
            version: "15.18".into(),
            archive_version: Some("1.14".into()),
        },
        format: Format::Custom,
        compression: CompressionRecord {
            algorithm: CompressionAlgorithm::Gzip,
            level: 6,
        },
        snapshot: SnapshotRecord {
            lsn: Some("0/1A2B3C4".into()),
            xmin: 731,
            xmax: 733,
            xip: vec![731],
            end: None,
        },
        tier,
        encryption: None,
        checksums: checksums(&files),
        files,
        data_files: vec![DataFile::of(role::DUMP)],
        missing: BTreeMap::new(),
        left_out: Vec::new(),
        extensions: None,
        collations: None,
        warnings: Vec::new(),
        script: None,
        tables: vec![orders()],
        large_objects: Vec::new(),
        settings: None,
        references: None,
        beginning: None,
        increment: None,
        metadata: Metadata {
            host: Some("vm-1".into()),
            ..Metadata::default()
        },
    }
}

fn files(id: &BackupId) -> BTreeMap<String, FileRecord> {
    let file = |name: String, digit: &str| FileRecord {
        name,
        bytes: 4,
        sha256: digit.repeat(64),
    };
    BTreeMap::from([
        (role::DUMP.to_owned(), file(id.dump_name(), "1")),
        (role::TOC.to_owned(), file(id.toc_name(), "2")),
    ])
}

fn server() -> Server {
    Server {
        version: "15.18 (Debian)".into(),
        version_num: 150_018,
        encoding: "UTF8".into(),
        system_identifier: Some("7412345678901234567".into()),
        database_oid: Some(16_384),
    }
}

fn orders() -> TableRecord {
    TableRecord {
        schema: "public".into(),
        name: "orders".into(),
        owner: Some("shop".into()),
        oid: Some(16_385),
        columns: Vec::new(),
        rows: 3,
        bytes: 30,
        sha256: "33".repeat(32),
        place: FileRange {
            file: FileIndex(0),
            offset: 100,
            length: 60,
        },
        read: ReadBy::PgDump,
        ranges: Vec::new(),
    }
}

/// A whole manifest of an increment with this span.
pub(crate) fn sample_increment(id: &BackupId, stream: Stream) -> Manifest {
    let changes = FileRecord {
        name: id.changes_name(),
        bytes: 4,
        sha256: "44".repeat(32),
    };
    let files = BTreeMap::from([(role::CHANGES.to_owned(), changes)]);
    let covered = |oid: u32, state: CoverageState| TableCoverage {
        schema: "public".into(),
        name: format!("t{oid}"),
        oid,
        state,
        from: None,
        to: None,
        why: None,
        is_gone: false,
        renamed: false,
    };
    Manifest {
        checksums: checksums(&files),
        files,
        data_files: vec![DataFile::of(role::CHANGES)],
        tables: Vec::new(),
        increment: Some(Increment {
            changes: vec![TableChanges {
                oid: 1,
                schema: "public".into(),
                name: "t1".into(),
                identity: "default".into(),
                inserts: 5,
                updates: 2,
                deletes: 1,
                truncates: 0,
            }],
            coverage: vec![covered(1, CoverageState::Exact), covered(2, CoverageState::FullOnly)],
            baselines: Vec::new(),
            sequences: Vec::new(),
            large_objects: None,
            stream,
        }),
        ..sample(id, Tier::Increment)
    }
}

fn id() -> BackupId {
    "shop/20250131T040500Z-full".parse().unwrap()
}

#[test]
fn the_manifest_has_the_contracts_names_and_shapes() {
    let bytes = sample(&id(), Tier::Monthly).to_bytes().unwrap();
    assert!(bytes.ends_with(b"}\n"));
    let json: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json["schema"], 2);
    assert_eq!(json["id"], "shop/20250131T040500Z-full");
    assert_eq!(json["type"], "full");
    assert_eq!(json["timestamp"], "2025-01-31T04:05:00Z");
    assert_eq!(json["trigger"], "schedule");
    assert_eq!(json["tier"], "monthly");
    assert_eq!(json["encryption"], Value::Null);
    assert!(json.as_object().unwrap().contains_key("encryption"));
    assert_eq!(json["compression"], json!({"algorithm": "gzip", "level": 6}));
    assert_eq!(
        json["snapshot"],
        json!({"lsn": "0/1A2B3C4", "xmin": 731, "xmax": 733, "xip": [731]})
    );
    assert_eq!(
        json["files"]["dump"],
        json!({"name": "shop.dump", "bytes": 4, "sha256": "11".repeat(32)})
    );
    assert_eq!(json["checksums"]["dump"], format!("sha256:{}", "11".repeat(32)));
    assert_eq!(json["tables"][0]["rows"], 3);
    assert_eq!(json["parts"], json!([]));
}

#[test]
fn it_is_read_back_whole_and_as_a_summary() {
    let manifest = sample(&id(), Tier::Daily);
    let bytes = manifest.to_bytes().unwrap();
    assert_eq!(Manifest::parse(&bytes, &id()), Ok(manifest.clone()));
    assert_eq!(Summary::parse(&bytes, &id()), Ok(manifest.summary()));
    assert_eq!(manifest.to_bytes().unwrap(), bytes);
}

#[test]
fn fields_of_a_later_version_are_passed_over() {
    let mut json: Value = serde_json::from_slice(&sample(&id(), Tier::Daily).to_bytes().unwrap()).unwrap();
    json["novelty"] = json!({"deep": [1, 2]});
    json["server"]["color"] = json!("blue");
    let bytes = serde_json::to_vec(&json).unwrap();
    assert!(Manifest::parse(&bytes, &id()).is_ok());
}

#[test]
fn a_newer_schema_is_told_apart_from_a_broken_file() {
    let error = Manifest::parse(br#"{"schema": 4, "id": 7}"#, &id()).unwrap_err();
    assert_eq!(error, ManifestError::NewerSchema(4));
    let error = error.into_error(&id());
    assert_eq!(error.code(), Code::Integrity);
    assert!(error.message().contains("schema 4"), "{error}");
    assert!(error.hint_text().contains("newer"), "{}", error.hint_text());
    assert!(matches!(
        Manifest::parse(b"{\"schema\": 2", &id()),
        Err(ManifestError::NotJson(_))
    ));
    assert!(matches!(
        Manifest::parse(b"\0\0\0", &id()),
        Err(ManifestError::NotJson(_))
    ));
    assert!(matches!(Manifest::parse(b"{}", &id()), Err(ManifestError::Shape(_))));
    assert!(matches!(Summary::parse(b"[]", &id()), Err(ManifestError::Shape(_))));
}

#[test]
fn a_manifest_of_another_backup_or_with_a_climbing_name_is_broken() {
    let other: BackupId = "shop/20250201T040500Z-full".parse().unwrap();
    let mut manifest = sample(&other, Tier::Daily);
    let bytes = manifest.to_bytes().unwrap();
    assert!(matches!(
        Manifest::parse(&bytes, &id()),
        Err(ManifestError::OtherBackup { .. })
    ));
    for name in [
        "../other.dump",
        "a\\b",
        "..",
        "",
        "other\n.dump",
        "other\r.dump",
        "\u{1b}[2J.dump",
        "other\u{85}.dump",
    ] {
        manifest.files.get_mut(role::DUMP).unwrap().name = name.into();
        let bytes = manifest.to_bytes().unwrap();
        let read = Summary::parse(&bytes, &other);
        assert!(matches!(read, Err(ManifestError::FileName(_))), "{name:?}");
    }
}

/// What a version of schema 1 would have written of this manifest.
fn as_schema_1(manifest: &Manifest) -> Value {
    let mut json: Value = serde_json::from_slice(&manifest.to_bytes().unwrap()).unwrap();
    json["schema"] = 1.into();
    json.as_object_mut().unwrap().remove("data_files");
    for kind in ["tables", "large_objects"] {
        let records = json.get_mut(kind).and_then(Value::as_array_mut);
        for record in records.into_iter().flatten() {
            record.as_object_mut().unwrap().remove("file");
            record.as_object_mut().unwrap().remove("oid");
        }
    }
    json
}

fn read(json: &Value) -> Result<Manifest, ManifestError> {
    Manifest::parse(json.to_string().as_bytes(), &id())
}

/// With a receipt of the store, a block of large objects, and ranges.
fn whole() -> Manifest {
    let mut manifest = sample(&id(), Tier::Daily);
    manifest.data_files[0].parts = vec![Part {
        number: 1,
        bytes: 4,
        checksum_sha256: "eA==".into(),
    }];
    manifest.data_files[0].store_checksum = Some(StoreChecksum {
        algorithm: "SHA256".into(),
        kind: "COMPOSITE".into(),
        value: "eA==-1".into(),
    });
    manifest.tables[0].ranges = vec![RangeRecord {
        rows: 3,
        bytes: 30,
        offset: 105,
        length: 50,
        stored_sha256: "55".repeat(32),
    }];
    manifest.large_objects = vec![LargeObjectsRecord {
        dump_id: 9,
        count: 2,
        bytes: 5,
        sha256: "66".repeat(32),
        place: FileRange::new(FileIndex(0), 160, 40),
    }];
    manifest
}

#[test]
fn schema_2_says_of_each_place_in_which_file_it_lies_and_keeps_what_schema_1_had() {
    let json: Value = serde_json::from_slice(&whole().to_bytes().unwrap()).unwrap();
    assert_eq!(
        json["data_files"],
        json!([{
            "role": "dump", "name": "shop.dump", "bytes": 4, "digests": {"sha256": "11".repeat(32)},
            "parts": [{"number": 1, "bytes": 4, "checksum_sha256": "eA=="}],
            "store_checksum": {"algorithm": "SHA256", "kind": "COMPOSITE", "value": "eA==-1"},
            "encryption": null
        }])
    );
    let table = &json["tables"][0];
    assert_eq!(
        (&table["file"], &table["offset"], &table["length"], &table["oid"]),
        (&"shop.dump".into(), &100.into(), &60.into(), &16_385.into())
    );
    assert_eq!(json["large_objects"][0]["file"], "shop.dump");
    assert_eq!(json["parts"], json["data_files"][0]["parts"]);
    assert_eq!(json["store_checksum"], json["data_files"][0]["store_checksum"]);
}

#[test]
fn schema_1_is_read_as_a_backup_with_one_data_file() {
    let mut manifest = whole();
    manifest.tables[0].oid = None;
    assert_eq!(read(&as_schema_1(&manifest)), Ok(manifest.clone()));

    // Large objects of a script have no place.
    let script = FileRecord {
        name: "shop.sql.zst".into(),
        ..manifest.files.remove(role::DUMP).unwrap()
    };
    manifest.files = BTreeMap::from([(role::SQL.to_owned(), script)]);
    manifest.data_files[0].role = role::SQL.to_owned();
    manifest.format = Format::Plain;
    manifest.large_objects[0].place = None;
    let json = as_schema_1(&manifest);
    assert_eq!(json["large_objects"][0]["offset"], 0);
    assert_eq!(read(&json), Ok(manifest.clone()));
    assert_eq!(Manifest::parse(&manifest.to_bytes().unwrap(), &id()), Ok(manifest));
}

#[test]
fn manifests_that_older_versions_wrote_are_read() {
    let kept = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backups");
    for (id, role) in [
        ("shop/20250131T040459Z-full", role::DUMP),
        ("shop/20250131T040502Z-full", role::SQL),
    ] {
        let id: BackupId = id.parse().unwrap();
        let bytes = std::fs::read(kept.join(id.manifest_key())).unwrap();
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["schema"], 1);
        let manifest = Manifest::parse(&bytes, &id).unwrap();
        assert_eq!(manifest.data_files, [DataFile::of(role)]);
        assert_eq!(manifest.summary(), Summary::parse(&bytes, &id).unwrap());
        let offsets: Vec<u64> = manifest.tables.iter().map(|table| table.place.offset).collect();
        let told = json["tables"].as_array().unwrap().iter();
        assert_eq!(
            offsets,
            told.map(|table| table["offset"].as_u64().unwrap()).collect::<Vec<_>>()
        );
        assert!(manifest.tables.iter().all(|table| table.place.file == FileIndex(0)));
        assert_eq!(manifest.large_objects[0].place.is_some(), role == role::DUMP);
        assert_eq!(
            (manifest.metadata.rows, manifest.metadata.streams),
            (Some(343), Some(1))
        );

        // All that it said is written again, as schema 2.
        let again: Value = serde_json::from_slice(&manifest.to_bytes().unwrap()).unwrap();
        for (field, value) in json.as_object().unwrap() {
            if !["schema", "tables", "large_objects"].contains(&field.as_str()) {
                assert_eq!(&again[field], value, "{field}");
            }
        }
    }
}

#[test]
fn a_backup_may_have_several_data_files() {
    let mut manifest = whole();
    let changes = FileRecord {
        name: "shop.changes".into(),
        bytes: 7,
        sha256: "77".repeat(32),
    };
    manifest.files.insert("changes".into(), changes);
    manifest.data_files.push(DataFile {
        encryption: Some(json!({"length": 5})),
        ..DataFile::of("changes")
    });
    manifest.tables[0].place.file = FileIndex(1);
    let json: Value = serde_json::from_slice(&manifest.to_bytes().unwrap()).unwrap();
    assert_eq!(json["tables"][0]["file"], "shop.changes");
    assert_eq!(json["parts"].as_array().unwrap().len(), 1);
    assert_eq!(read(&json), Ok(manifest.clone()));
    let names: Vec<&str> = manifest.data_records().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["shop.dump", "shop.changes"]);

    manifest.tables[0].place.file = FileIndex(2);
    assert!(manifest.to_bytes().is_err());
}

type Change<'a> = &'a dyn Fn(&mut Value);

#[test]
fn a_manifest_that_contradicts_itself_about_its_data_files_is_broken() {
    let whole: Value = serde_json::from_slice(&whole().to_bytes().unwrap()).unwrap();
    let second = |json: &mut Value| {
        let mut second = json["data_files"][0].clone();
        second["role"] = "toc".into();
        json["data_files"].as_array_mut().unwrap().push(second);
    };
    let changes: [(&str, Change<'_>); 13] = [
        ("`data_files` does not name", &|json| {
            json["tables"][0]["file"] = "other.dump".into();
        }),
        ("does not say which file", &|json| {
            json["tables"][0].as_object_mut().unwrap().remove("file");
        }),
        ("does not say which file", &|json| {
            json["large_objects"][0].as_object_mut().unwrap().remove("file");
        }),
        ("ends beyond", &|json| json["tables"][0]["offset"] = u64::MAX.into()),
        ("ends beyond", &|json| {
            json["large_objects"][0]["length"] = u64::MAX.into();
        }),
        ("differ on the \"dump\" file", &|json| {
            json["data_files"][0]["bytes"] = 5.into();
        }),
        ("differ on the \"dump\" file", &|json| {
            json["data_files"][0]["name"] = "x".into();
        }),
        ("differ on the \"dump\" file", &|json| {
            json["data_files"][0]["digests"]["sha256"] = "00".into();
        }),
        ("`files` has none", &|json| {
            json["data_files"][0]["role"] = "other".into();
        }),
        ("differ on the \"toc\" file", &second),
        ("twice", &|json| {
            let first = json["data_files"][0].clone();
            json["data_files"].as_array_mut().unwrap().push(first);
        }),
        ("not those of the first", &|json| json["parts"] = json!([])),
        ("`data_files` has none", &|json| {
            json["data_files"] = json!([]);
            json["parts"] = json!([]);
            json.as_object_mut().unwrap().remove("store_checksum");
        }),
    ];
    for (what, change) in changes {
        let mut json = whole.clone();
        change(&mut json);
        let broken = read(&json).unwrap_err();
        assert!(
            matches!(&broken, ManifestError::Shape(why) if why.contains(what)),
            "{what}: {broken}"
        );
    }
    // A list of thousands is refused while it is read.
    let mut json = whole.clone();
    json["data_files"] = Value::Array(vec![whole["data_files"][0].clone(); 2_000]);
    assert!(read(&json).unwrap_err().to_string().contains("more than 1000 entries"));

    // Schema 1 has places only in the archive or the script.
    let mut json = as_schema_1(&sample(&id(), Tier::Daily));
    json["files"].as_object_mut().unwrap().remove("dump");
    let broken = read(&json).unwrap_err().to_string();
    assert!(broken.contains("no file with data"), "{broken}");
    json["tables"] = json!([]);
    assert_eq!(read(&json).unwrap().data_files, []);
}
