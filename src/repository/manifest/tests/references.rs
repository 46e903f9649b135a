//! What a manifest says of the backup that it refers to.

use serde_json::{Value, json};

use super::super::*;
use super::{id, sample};

/// A backup whose first table is in an older one.
fn referring() -> Manifest {
    let mut manifest = sample(&id(), Tier::Daily);
    manifest.references = Some(References {
        from: "shop/20250130T040500Z-full".parse().unwrap(),
        file: manifest.files["dump"].clone(),
        tables: 1,
        bytes: 3,
    });
    manifest.tables[0].place = FileRange {
        file: FileIndex(manifest.data_files.len()),
        offset: 1,
        length: 3,
    };
    manifest
}

#[test]
fn a_backup_that_refers_to_another_has_a_schema_of_its_own_and_says_what_is_where() {
    let manifest = referring();
    let bytes = manifest.to_bytes().unwrap();
    let json: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json["schema"], 3);
    assert_eq!(json["references"]["from"], "shop/20250130T040500Z-full");
    let table = &json["tables"][0];
    assert_eq!(
        [&table["from"], &table["file"], &table["offset"], &table["length"]],
        [
            &json!("shop/20250130T040500Z-full"),
            &json!("shop.dump"),
            &json!(1),
            &json!(3)
        ]
    );
    let read = Manifest::parse(&bytes, &id()).unwrap();
    assert_eq!(read, manifest);
    assert!(read.is_referenced(read.tables[0].place));
    assert_eq!(Figures::parse(&bytes, &id()).unwrap().references, manifest.references);
    assert_eq!(Summary::parse(&bytes, &id()).unwrap().references, manifest.references);
}

#[test]
fn a_manifest_that_contradicts_itself_about_what_it_refers_to_is_broken() {
    type Alter = fn(&mut Value);
    let changes: [(&str, Alter); 7] = [
        ("do not name", |json| json["references"] = Value::Null),
        ("another database", |json| {
            json["references"]["from"] = json!("other/20250130T040500Z-full");
        }),
        ("not older", |json| {
            json["references"]["from"] = json!("shop/20250131T040500Z-full");
        }),
        ("cannot be in its folder", |json| {
            json["references"]["file"]["name"] = json!("../x");
        }),
        ("but not in", |json| json["tables"][0]["file"] = json!("shop.toc")),
        ("do not name", |json| {
            json["tables"][0]["from"] = json!("shop/20250129T040500Z-full");
        }),
        ("beyond its end", |json| json["tables"][0]["length"] = json!(4)),
    ];
    for (why, change) in changes {
        let mut json: Value = serde_json::from_slice(&referring().to_bytes().unwrap()).unwrap();
        change(&mut json);
        let error = Manifest::parse(&serde_json::to_vec(&json).unwrap(), &id()).unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
}
