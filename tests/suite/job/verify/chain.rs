//! `verify --chain`: the increments between two full backups lead exactly from one to the other, or it is found.

use std::fs;

use pgstow::format::changes::{Head, Writer};
use pgstow::format::pgoutput::Message;
use pgstow::repository::backup_id::BackupId;
use pgstow::repository::manifest::{IndexRecord, Manifest, checksums, role};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::job::increment::scene::{Scene, metric};
use crate::job::restore::moment::{PHASES, TABLES};
use crate::support::program::{Run, pgstow, run, run as run_of};

/// Two fulls, and three increments between and after them.
fn chained(major: u32) -> Scene {
    let scene = Scene::fresh(major);
    scene.sql(TABLES);
    scene.start();
    for phase in &PHASES[..2] {
        scene.sql(phase);
    }
    scene.increment();
    scene.sql(PHASES[2]);
    scene.increment();
    scene.sql(PHASES[3]);
    scene.backup(&[]);
    scene.sql(PHASES[4]);
    scene.increment();
    scene
}

fn verified(scene: &Scene) -> Run {
    let mut verify = pgstow();
    verify
        .args(["verify", "latest", "--chain", "--json", "--store", &scene.store()])
        .env("LOG_FORMAT", "text");
    run(&mut verify)
}

fn increments_that_lead_to_the_next_full_are_proved(major: u32) {
    let scene = chained(major);
    let run = verified(&scene);
    let document = run.json();
    assert_eq!(run.status.code(), Some(0), "{document}\n{}", run.stderr);
    let chain = &document["chain"];
    assert_eq!(
        (&chain["different"], &chain["not_compared"]),
        (&Value::Null, &Value::Null),
        "{document}"
    );
    let tables = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    assert_eq!(chain["equal"].to_string(), scene.sql(tables), "{document}");
    assert!(chain["changes"].as_u64().unwrap() > 100, "{document}");
    let id = document["id"].as_str().unwrap();
    let recorded = fs::read(scene.folder.path().join(id).join("verification.json")).unwrap();
    let recorded: Value = serde_json::from_slice(&recorded).unwrap();
    assert_eq!(recorded["chain"]["status"], "ok", "{recorded}");
}

on_majors! { increments_that_lead_to_the_next_full_are_proved: 15 18 }

#[test]
fn one_transaction_that_is_missing_from_the_increments_is_found() {
    let scene = chained(18);
    let increments = scene.increments();
    // A copy of the increment without its last transaction, in which every digest is right.
    forge(&scene, &increments[0], |transactions| drop(transactions.pop()));
    let run = verified(&scene);
    let document = run.json();
    assert_eq!(
        (run.status.code(), &document["error"]["code"]),
        (Some(40), &json!("INTEGRITY")),
        "{document}"
    );
    assert!(
        !document["chain"]["different"].as_array().unwrap().is_empty(),
        "{document}"
    );
}

/// Fails with `INTEGRITY`; returns what is said of the chain.
fn broken(run: &Run) -> String {
    let document = run.json();
    assert_eq!(
        (run.status.code(), &document["error"]["code"]),
        (Some(40), &json!("INTEGRITY")),
        "{document}"
    );
    document["chain"].to_string()
}

#[test]
fn damage_between_two_fulls_is_found() {
    type Blow = fn(&Scene, &str);
    let flip: Blow = |scene, id| {
        let name = &scene.manifest(&json!({ "id": id })).files[role::CHANGES].name;
        let path = scene.path(&json!(id), name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let remove: Blow = |scene, id| fs::remove_dir_all(scene.path(&json!(id), "")).unwrap();
    let alter: Blow = |scene, id| {
        let path = scene.path(&json!(id), "manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text.replace("\"transactions\":", "\"transactions\": 1")).unwrap();
    };
    let shift: Blow = |scene, id| {
        let report = json!({ "id": id });
        let mut manifest = scene.manifest(&report);
        let stream = &mut manifest.increment.as_mut().unwrap().stream;
        stream.to = pgstow::format::Lsn(stream.to.0 - 8);
        fs::write(scene.path(&report["id"], "manifest.json"), manifest.to_bytes().unwrap()).unwrap();
        for folder in fs::read_dir(scene.folder.path().join(&scene.database.name)).unwrap() {
            unlinked(&folder.unwrap().path(), &scene.database.name);
        }
    };
    let scene = chained(18);
    let database = scene.folder.path().join(&scene.database.name);
    let kept = tempfile::tempdir().unwrap();
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let mut copy = crate::support::program::program("cp");
        crate::support::program::succeed(copy.arg("-a").arg(from.join(".")).arg(to));
    };
    copy(&database, kept.path());
    let increments = scene.increments();
    for (name, blow) in [("flip", flip), ("remove", remove), ("alter", alter), ("shift", shift)] {
        for id in &increments[..2] {
            blow(&scene, id);
            let told = broken(&verified(&scene));
            assert!(
                told.contains("broken") || told.contains("different"),
                "{name} {id}: {told}"
            );
            fs::remove_dir_all(&database).unwrap();
            fs::create_dir(&database).unwrap();
            copy(kept.path(), &database);
        }
    }
    assert_eq!(verified(&scene).status.code(), Some(0));
}

#[test]
fn the_chain_between_any_two_fulls_is_proved_alone() {
    let scene = chained(18);
    scene.sql("UPDATE acc SET bal = bal + 3 WHERE id < 9");
    let last = scene.backup(&[]);
    scene.sql("UPDATE acc SET bal = bal + 4 WHERE id < 9");
    scene.increment();
    let fulls = || {
        let listed = fs::read_dir(scene.folder.path().join(&scene.database.name)).unwrap();
        let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut fulls: Vec<String> = names.filter(|name| name.ends_with("-full")).collect();
        fulls.sort();
        fulls
    };
    let of = |name: &str| {
        let id = format!("{}/{name}", scene.database.name);
        run(&mut scene.pgstow(&["verify", &id, "--chain", "--json"]))
    };
    let fulls = fulls();
    assert_eq!(fulls.len(), 3);
    for (at, name) in fulls.iter().enumerate().skip(1) {
        let document = of(name).json();
        let from = document["chain"]["from"].as_str().unwrap().to_owned();
        assert!(from.ends_with(&fulls[at - 1]), "{document}");
        assert_eq!(document["chain"]["different"], Value::Null, "{document}");
    }
    assert!(last["id"].as_str().unwrap().ends_with(&fulls[2]));
    // The third increment lies between the second full and the third.
    forge(&scene, &scene.increments()[2], |transactions| drop(transactions.pop()));
    assert_eq!(of(&fulls[1]).status.code(), Some(0));
    broken(&of(&fulls[2]));
}

#[test]
fn the_increment_that_reaches_a_full_proves_it_once_and_a_failure_is_an_alarm() {
    let scene = Scene::fresh(18);
    scene.sql(TABLES);
    scene.start();
    scene.sql(PHASES[0]);
    scene.increment();
    // Otherwise the increments have reached the full already, and its own run proves it.
    scene.sql("UPDATE acc SET bal = 5 WHERE id = 3");
    scene.backup(&[]);
    scene.sql(PHASES[1]);
    let (proved, metrics) = scene.increment_with_metrics();
    let document = proved.json();
    assert_eq!(
        (proved.status.code(), &document["chain"]["different"]),
        (Some(0), &Value::Null),
        "{document}"
    );
    assert!(document["chain"]["equal"].as_u64().unwrap() > 5, "{document}");
    assert!(metric(&metrics, "pgstow_chain_last_run_success") > 0.5);
    scene.sql("UPDATE acc SET bal = 7 WHERE id = 1");
    scene.sql("UPDATE acc SET bal = 7 WHERE id = 5");
    let again = scene.increment();
    assert_eq!(again["chain"], Value::Null, "{again}");

    // One transaction is taken out of the newest increment, before another full.
    forge(&scene, scene.increments().last().unwrap(), |all| drop(all.pop()));
    scene.sql("UPDATE acc SET bal = 6 WHERE id = 4");
    scene.backup(&[]);
    scene.sql("UPDATE acc SET bal = 8 WHERE id = 2");
    let (failed, metrics) = scene.increment_with_metrics();
    let document = failed.json();
    assert_eq!(
        (failed.status.code(), &document["status"]),
        (Some(3), &json!("degraded")),
        "{document}"
    );
    assert_eq!(document["chain"]["different"][0]["table"], "public.acc", "{document}");
    assert!(metric(&metrics, "pgstow_chain_last_run_success") < 0.5);
    let status = run(&mut scene.pgstow(&["status", "--json"]));
    assert_eq!(status.status.code(), Some(1), "{}", status.text());
    assert!(status.text().contains("do not lead to it"), "{}", status.text());
}

/// The stream shows such a change with the next row, and there is none.
#[test]
fn columns_that_changed_just_before_the_later_full_are_not_compared() {
    let scene = Scene::fresh(18);
    scene.sql(
        "CREATE TABLE wider (id int PRIMARY KEY); CREATE TABLE narrower (id int PRIMARY KEY, v text);
         CREATE TABLE named (id int PRIMARY KEY, v text); CREATE TABLE stays (id int PRIMARY KEY);
         INSERT INTO wider VALUES (1); INSERT INTO narrower VALUES (1, 'a'); INSERT INTO named VALUES (1, 'a')",
    );
    scene.start();
    scene.sql("INSERT INTO wider VALUES (2); INSERT INTO narrower VALUES (2, 'b'); INSERT INTO named VALUES (2, 'b')");
    scene.sql("INSERT INTO stays VALUES (1)");
    scene.increment();
    scene.sql("ALTER TABLE wider ADD v int DEFAULT 7; ALTER TABLE narrower DROP v; ALTER TABLE named RENAME v TO w");
    scene.backup(&[]);
    scene.sql("INSERT INTO wider VALUES (3, 3); INSERT INTO narrower VALUES (3); INSERT INTO named VALUES (3, 'c')");
    scene.increment();
    let run = verified(&scene);
    let document = run.json();
    assert_eq!(run.status.code(), Some(0), "{document}\n{}", run.stderr);
    let chain = &document["chain"];
    assert_eq!(
        (&chain["different"], &chain["equal"]),
        (&Value::Null, &json!(1)),
        "{document}"
    );
    let named = chain["not_compared"].as_array().unwrap().iter();
    let named: Vec<&str> = named.map(|one| one["table"].as_str().unwrap()).collect();
    assert_eq!(named, ["public.named", "public.narrower", "public.wider"], "{document}");
}

/// The first increment has what happened since the first of them.
#[test]
fn two_fulls_before_the_first_increment_are_chained_with_what_changed_between_them() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE stays (id int PRIMARY KEY); INSERT INTO t VALUES (1, 'a')");
    scene.start();
    scene.sql("INSERT INTO stays VALUES (1); ALTER TABLE t ALTER v TYPE text USING upper(v)");
    scene.backup(&[]);
    scene.sql("INSERT INTO t VALUES (2, 'b'); INSERT INTO stays VALUES (2)");
    scene.increment();
    let document = verified(&scene).json();
    let chain = &document["chain"];
    assert_eq!(
        (&chain["different"], &chain["equal"]),
        (&Value::Null, &json!(1)),
        "{document}"
    );
    assert_eq!(chain["not_compared"][0]["table"], "public.t", "{document}");
}

#[test]
fn a_full_before_which_there_is_none_has_no_chain_to_prove() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1)");
    scene.increment();
    let run = verified(&scene);
    let document = run.json();
    assert_eq!(
        (run.status.code(), &document["error"]["code"]),
        (Some(43), &json!("NOT_PROVED")),
        "{document}"
    );
    assert!(
        document["error"]["message"]
            .to_string()
            .contains("no chain of increments"),
        "{document}"
    );
    // Its bytes are right, and that is recorded.
    let id = document["id"].as_str().unwrap();
    let recorded = fs::read(scene.folder.path().join(id).join("verification.json")).unwrap();
    let recorded: Value = serde_json::from_slice(&recorded).unwrap();
    assert_eq!(
        (&recorded["verify"]["status"], &recorded["chain"]),
        (&json!("ok"), &Value::Null)
    );
    // Neither does an increment alone prove anything, nor a store without a chain.
    let increment = scene.increments().remove(0);
    for asked in [&["verify", &increment, "--chain"][..], &["verify", "--all", "--chain"]] {
        let run = run_of(&mut scene.pgstow(asked));
        assert_eq!(run.status.code(), Some(43), "{}", run.stderr);
    }
}

/// A full and a baseline that are read at the same time: the later snapshot may see more than the earlier one.
#[test]
fn rows_that_were_read_after_the_later_full_are_not_taken_for_its_rows() {
    let scene = Scene::fresh(18);
    scene.sql(
        "CREATE TABLE packed (id int PRIMARY KEY); CREATE TABLE wider (id int PRIMARY KEY);
         INSERT INTO packed VALUES (1); INSERT INTO wider VALUES (1)",
    );
    scene.start();
    scene.sql("INSERT INTO packed VALUES (2); INSERT INTO wider VALUES (2)");
    scene.increment();
    scene.sql("VACUUM FULL packed; ALTER TABLE wider ADD v int");
    let full = scene.backup(&[]);
    scene.sql("INSERT INTO packed VALUES (3); INSERT INTO wider VALUES (3)");
    let increment = scene.increment();
    // As if the end of the full's snapshot had been read after both baselines.
    let to = scene.manifest(&increment).increment.unwrap().stream.to;
    let path = scene.path(&full["id"], "manifest.json");
    let mut manifest = scene.manifest(&full);
    manifest.snapshot.end.as_mut().unwrap().lsn = to;
    fs::write(path, manifest.to_bytes().unwrap()).unwrap();
    for folder in fs::read_dir(scene.folder.path().join(&scene.database.name)).unwrap() {
        unlinked(&folder.unwrap().path(), &scene.database.name);
    }
    let run = verified(&scene);
    let document = run.json();
    assert_eq!(run.status.code(), Some(0), "{document}\n{}", run.stderr);
    let chain = &document["chain"];
    assert_eq!(
        (&chain["different"], &chain["broken"], &chain["equal"]),
        (&Value::Null, &Value::Null, &json!(1)),
        "{document}"
    );
    assert_eq!(chain["not_compared"][0]["table"], "public.wider", "{document}");
}

/// Writes the changes of an increment anew, and everything that says something of them; the manifests of all backups
/// lose their links by digests, which would tell.
fn forge(scene: &Scene, id: &str, change: impl FnOnce(&mut Vec<Vec<Vec<u8>>>)) {
    let report = json!({ "id": id });
    let mut transactions: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut described = Vec::new();
    for message in scene.messages(&report) {
        match Message::parse(&message).unwrap() {
            Message::Begin(_) => transactions.push(vec![message]),
            // So that no later change lacks its description.
            Message::Relation(_) => described.push(message),
            _ => transactions.last_mut().unwrap().push(message),
        }
    }
    change(&mut transactions);
    transactions[0].splice(1..1, described);
    let mut manifest = scene.manifest(&report);
    let increment = manifest.increment.as_mut().unwrap();
    let stream = &mut increment.stream;
    let head = Head {
        system_identifier: stream.system_identifier.parse().unwrap(),
        timeline: stream.timeline,
        database_oid: stream.database_oid,
        from: stream.from,
    };
    let mut writer = Writer::new(&head, 3).unwrap();
    let mut file = Vec::new();
    for message in transactions.iter().flatten() {
        file.extend(writer.push(message).unwrap().unwrap_or_default());
    }
    let (rest, summary) = writer.finish(stream.to).unwrap();
    file.extend(rest);
    stream.transactions = summary.transactions;
    stream.index = IndexRecord::from(&summary.index);
    increment.changes = summary.tables.iter().map(Into::into).collect();
    let record = manifest.files.get_mut(role::CHANGES).unwrap();
    record.bytes = file.len() as u64;
    record.sha256 = hex::encode(Sha256::digest(&file));
    fs::write(scene.path(&report["id"], &record.name), &file).unwrap();
    manifest.checksums = checksums(&manifest.files);
    fs::write(scene.path(&report["id"], "manifest.json"), manifest.to_bytes().unwrap()).unwrap();
    for folder in fs::read_dir(scene.folder.path().join(&scene.database.name)).unwrap() {
        unlinked(&folder.unwrap().path(), &scene.database.name);
    }
}

fn unlinked(folder: &std::path::Path, database: &str) {
    let path = folder.join("manifest.json");
    let Ok(bytes) = fs::read(&path) else { return };
    let name = folder.file_name().unwrap().to_str().unwrap();
    let id: BackupId = format!("{database}/{name}").parse().unwrap();
    let mut manifest = Manifest::parse(&bytes, &id).unwrap();
    manifest.predecessor = None;
    manifest.digest_file = None;
    fs::write(&path, manifest.to_bytes().unwrap()).unwrap();
    for file in fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
        if file
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("manifest.json.")
        {
            fs::remove_file(file).unwrap();
        }
    }
}
