//! The catalog, the lease and the left-overs on the real stores: a folder, and S3.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use pgstow::error::Code;
use pgstow::outside::aws;
use pgstow::repository::backup_id::{BackupId, BackupKind, database_folder};
use pgstow::repository::lease::{Holder, Lease};
use pgstow::repository::manifest::{
    CompressionAlgorithm, CompressionRecord, DataFile, FileIndex, FileRange, FileRecord, Manifest, Metadata, PgDump,
    ReadBy, Server, SnapshotRecord, TableRecord, checksums, role,
};
use pgstow::repository::retention::{self, Tier};
use pgstow::repository::trigger::Trigger;
use pgstow::repository::{catalog, leftovers};
use pgstow::settings::{self, Format, Policy};
use pgstow::store::local::Local;
use pgstow::store::s3::S3;
use pgstow::store::{Expected, Store};
use secrecy::SecretString;
use sha2::{Digest, Sha256};

/// Names that are hard on paths, keys, headers and listings.
const DATABASES: [&str; 9] = [
    "shop",
    "shop2",
    "..",
    ".lease",
    "a/b\\c",
    "100%",
    "two\nlines",
    "-rf  *",
    "Ünï \"q\" 🐘",
];

struct Place {
    store: Arc<dyn Store>,
    _folder: Option<tempfile::TempDir>,
}

async fn places() -> Vec<Place> {
    let folder = tempfile::tempdir().unwrap();
    let mut places = vec![Place {
        store: Arc::new(Local::new(folder.path().join("backups"))),
        _folder: Some(folder),
    }];
    let variable = |name: &str| std::env::var(format!("PGSTOW_TEST_S3_{name}")).ok();
    let Some(endpoint) = variable("ENDPOINT") else {
        println!("S3 skipped: PGSTOW_TEST_S3_ENDPOINT is not set");
        return places;
    };
    let settings = settings::Aws {
        region: Some("us-east-1".into()),
        endpoint_s3: Some(endpoint),
        s3_access_key_id: variable("ACCESS_KEY"),
        s3_secret_access_key: variable("SECRET_KEY").map(SecretString::from),
        access_key_id: variable("ACCESS_KEY"),
        secret_access_key: variable("SECRET_KEY").map(SecretString::from),
        ..settings::Aws::default()
    };
    let s3 = settings::S3 {
        max_parts: 10_000,
        part_size: 8 << 20,
        memory: 40 << 20,
        retry: Duration::from_secs(35),
        checksums: settings::Checksums::Always,
        tagging: settings::TagMode::On,
        encryption: settings::Encryption::Bucket,
        storage_class: None,
        path_style: None,
    };
    let patience = aws::Patience::default();
    let client = aws::s3_client(
        &aws::load(&settings).await.unwrap(),
        &settings,
        s3.checksums,
        s3.path_style,
        &patience,
    );
    let nanos = Timestamp::now().as_nanosecond();
    let bucket = format!("catalog-{}-{nanos}", std::process::id());
    client.create_bucket().bucket(&bucket).send().await.unwrap();
    places.push(Place {
        store: Arc::new(S3::new(client, &bucket, "team x/", s3, patience)),
        _folder: None,
    });
    places
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Writes a backup up to, and with, its manifest.
async fn make(store: &dyn Store, id: &BackupId, tier: Tier, finish: bool) {
    let body = Bytes::from_static(b"PGDMP");
    let sha256: [u8; 32] = Sha256::digest(&body).into();
    let file = |name: String| FileRecord {
        name,
        bytes: 5,
        sha256: hex::encode(sha256),
    };
    let files = BTreeMap::from([
        (role::DUMP.to_owned(), file(id.dump_name())),
        (role::TOC.to_owned(), file(id.toc_name())),
    ]);
    let object = catalog::object_info(id, "15.18 (Debian 15.18-0+deb12u1)", "application/octet-stream");
    for file in files.values() {
        let mut upload = store.upload(&id.key(&file.name), &object).await.unwrap();
        upload.write(body.clone()).await.unwrap();
        upload.complete(&Expected { bytes: 5, sha256 }).await.unwrap();
    }
    if !finish {
        return;
    }
    let tagged: Vec<_> = files
        .values()
        .map(|file| (file.name.clone(), file.sha256.clone()))
        .collect();
    catalog::commit_tags(store, id, &tagged).await.unwrap();
    let manifest = Manifest {
        id: id.clone(),
        kind: BackupKind::Full,
        timestamp: id.timestamp(),
        finished_at: id.timestamp(),
        version: "0.1.0".into(),
        database: id.database().into(),
        trigger: Trigger::Cli,
        digest_file: None,
        predecessor: None,
        store: None,
        stores: Vec::new(),
        tags: None,
        event_id: None,
        server: Server {
            version: "15.18".into(),
            version_num: 150_018,
            encoding: "UTF8".into(),
            system_identifier: None,
            database_oid: None,
        },
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
            lsn: None,
            xmin: 1,
            xmax: 1,
            xip: Vec::new(),
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
        tables: vec![TableRecord {
            schema: "public".into(),
            name: "t\n".into(),
            owner: None,
            oid: None,
            columns: Vec::new(),
            rows: 0,
            bytes: 0,
            sha256: String::new(),
            place: FileRange {
                file: FileIndex(0),
                offset: 0,
                length: 0,
            },
            read: ReadBy::PgDump,
            ranges: Vec::new(),
        }],
        large_objects: Vec::new(),
        settings: None,
        references: None,
        beginning: None,
        increment: None,
        metadata: Metadata::default(),
    };
    catalog::publish(store, &manifest, None).await.unwrap();
    // Again, as after a lost answer: the same bytes are no conflict.
    catalog::publish(store, &manifest, None).await.unwrap();
    let other = Manifest {
        version: "other".into(),
        ..manifest
    };
    assert!(matches!(
        catalog::publish(store, &other, None).await,
        Err(catalog::NotPublished::Taken(_))
    ));
}

async fn tier_of(store: &dyn Store, key: &str) -> Option<String> {
    let tags = store.lifecycle()?.tags(key).await.unwrap().unwrap();
    retention::Tag::of(&tags).map(|tag| tag.to_string())
}

#[tokio::test]
async fn databases_with_any_name_live_beside_each_other() {
    for place in places().await {
        let store = &*place.store;
        for database in DATABASES {
            let id = BackupId::next(database, BackupKind::Full, at("2025-01-31T04:05:00Z"), None);
            make(store, &id, Tier::Daily, true).await;
        }
        let mut databases = catalog::databases(store).await.unwrap();
        databases.sort();
        let mut expected = DATABASES.map(str::to_owned);
        expected.sort();
        assert_eq!(databases, expected, "{}", store.url());
        assert_eq!(catalog::backups(store, None).await.unwrap().len(), DATABASES.len());
        for database in DATABASES {
            let listed = catalog::backups(store, Some(database)).await.unwrap();
            assert_eq!(listed.len(), 1, "{database:?}");
            let manifest = catalog::read_manifest(store, &listed[0].id)
                .await
                .unwrap()
                .good()
                .unwrap();
            assert_eq!(manifest.database, database);
            assert!(listed[0].holds(&manifest.summary()));
            let head = store
                .head(&listed[0].id.key(&listed[0].id.dump_name()))
                .await
                .unwrap()
                .unwrap();
            if store.lifecycle().is_some() {
                assert!(head.metadata.contains(&("pgstow-id".to_owned(), listed[0].id.ascii())));
            }
        }
    }
}

#[tokio::test]
async fn a_success_moves_latest_and_the_next_run_clears_what_a_dead_one_left() {
    for place in places().await {
        let store = &*place.store;
        let id = |day: u32| -> BackupId { format!("shop/202501{day:02}T040500Z-full").parse().unwrap() };
        make(store, &id(1), Tier::Monthly, true).await;
        make(store, &id(2), Tier::Daily, true).await;
        let done = catalog::retag(store, "shop", 1, jiff::Timestamp::now()).await.unwrap();
        if store.lifecycle().is_some() {
            assert_eq!(done.len(), 1);
            assert_eq!(
                tier_of(store, &id(1).key("shop.dump")).await.as_deref(),
                Some("monthly")
            );
            assert_eq!(tier_of(store, &id(1).manifest_key()).await.as_deref(), Some("monthly"));
            assert_eq!(tier_of(store, &id(2).manifest_key()).await.as_deref(), Some("latest"));
        }
        let listed = catalog::backups(store, Some("shop")).await.unwrap();
        let policy = Policy::Tiers(vec![(Tier::Daily, 7), (Tier::Monthly, 12)]);
        let tier = catalog::choose_tier(store, &policy, id(3).timestamp(), &listed)
            .await
            .unwrap();
        assert_eq!(tier, Tier::Daily);

        make(store, &id(3), Tier::Daily, false).await;
        let object = catalog::object_info(&id(3), "15", "application/octet-stream");
        let mut dead = store.upload(&id(3).key("globals.sql"), &object).await.unwrap();
        dead.write(Bytes::from(vec![7; 20 << 20])).await.unwrap();
        drop(dead);
        let other = "shop2/20250103T040500Z-full".parse().unwrap();
        make(store, &other, Tier::Daily, false).await;

        let listed = catalog::backups(store, Some("shop")).await.unwrap();
        assert_eq!(listed[0].id, id(3));
        assert!(!listed[0].has_manifest);
        let own = BackupId::next("shop", BackupKind::Full, id(3).timestamp(), Some(&listed[0].id));
        let cleared = leftovers::clear(store, &own, &listed, Timestamp::now()).await;
        assert!(cleared.warnings.is_empty(), "{:?}", cleared.warnings);
        assert!(store.unfinished(&database_folder("shop")).await.unwrap().is_empty());
        println!(
            "{}: {}",
            store.url(),
            serde_json::to_string(&cleared.left_overs).unwrap()
        );
        if store.lifecycle().is_some() {
            assert_eq!(
                tier_of(store, &id(3).key("shop.dump")).await.as_deref(),
                Some("pending")
            );
        } else {
            assert_eq!(cleared.left_overs.len(), 3);
            assert_eq!(catalog::backups(store, Some("shop")).await.unwrap().len(), 2);
        }
        assert_eq!(catalog::backups(store, Some("shop2")).await.unwrap()[0].files.len(), 2);
    }
}

async fn acquire(
    place: &Place,
    pid: u32,
    ttl: Duration,
) -> Result<pgstow::repository::lease::Acquired, pgstow::error::Error> {
    let holder = Holder {
        host: "vm-1".into(),
        pid,
    };
    Lease::acquire(Arc::clone(&place.store), "shop", holder, ttl, Timestamp::now).await
}

#[tokio::test]
async fn of_many_runs_at_once_one_holds_the_lease() {
    let minute = Duration::from_secs(60);
    for place in places().await {
        for round in 0..3 {
            let runs = futures::future::join_all((0..8).map(|pid| acquire(&place, pid, minute))).await;
            let mut won = Vec::new();
            for run in runs {
                match run {
                    Ok(run) => won.push(run),
                    Err(error) => assert_eq!(error.code(), Code::Busy, "{error}"),
                }
            }
            assert_eq!(won.len(), 1, "{} round {round}", place.store.url());
            let run = won.remove(0);
            let id = "shop/20250103T040500Z-full".parse().unwrap();
            run.lease.announce(&id).await.unwrap();
            run.lease.still_held().await.unwrap();
            let error = acquire(&place, 99, minute).await.unwrap_err();
            assert!(error.message().contains("shop/20250103T040500Z-full"), "{error}");
            run.lease.release().await.unwrap();
        }
        assert!(catalog::backups(&*place.store, Some("shop")).await.unwrap().is_empty());
        assert!(place.store.unfinished("shop/").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_dead_runs_lease_is_taken_over_and_a_stolen_one_noticed() {
    for place in places().await {
        let ttl = Duration::from_secs(2);
        drop(acquire(&place, 1, ttl).await.unwrap());
        assert_eq!(acquire(&place, 2, ttl).await.unwrap_err().code(), Code::Busy);
        tokio::time::sleep(ttl).await;
        let second = acquire(&place, 2, ttl).await.unwrap();
        assert_eq!(second.took_over.unwrap().holder.pid, 1);
        let key = catalog::lease_key("shop");
        let object = catalog::object_info(&"shop/20250103T040500Z-full".parse().unwrap(), "", "application/json");
        let theirs = Bytes::from_static(b"{}");
        place.store.put(&key, theirs, &object).await.unwrap();
        assert_eq!(second.lease.lost().await.code(), Code::Busy);
        second.lease.release().await.unwrap();
    }
}

#[tokio::test]
async fn our_rules_are_installed_and_read_back() {
    for place in places().await {
        let Some(lifecycle) = place.store.lifecycle() else {
            continue;
        };
        let policy = Policy::Tiers(vec![(Tier::Daily, 7), (Tier::Yearly, 3)]);
        let ours = retention::rules(&retention::Retention::of(policy), lifecycle.prefix());
        lifecycle.install_rules(&ours).await.unwrap();
        let installed = lifecycle.rules().await.unwrap();
        println!("{:#}", retention::rules_json(&installed.ours));
        assert_eq!(installed.ours, ours);
        let fewer = retention::rules(&retention::Retention::of(Policy::Days(30)), lifecycle.prefix());
        lifecycle.install_rules(&fewer).await.unwrap();
        assert_eq!(lifecycle.rules().await.unwrap().ours, fewer);
    }
}
