//! Backups in S3: the store's own illnesses, and the tags.

use std::time::Duration;

use serde_json::Value;

use crate::job::verify::place::source;
use crate::support::bucket::{Bucket, client};
use crate::support::database::{Database, unique_word};
use crate::support::fault_proxy::{Fault, FaultProxy, On, Op};
use crate::support::program::{pgstow, run, succeed};
use crate::support::services::{s3, s3_reader};
use crate::support::wreck::{Site, fail, failure};

/// Shared by all tests, each under its own prefix.
const BUCKET: &str = "pgstow-verify";

struct Place {
    bucket: Bucket,
    prefix: String,
    site: Site,
    source: Database,
}

impl Place {
    async fn new() -> Self {
        let bucket = Bucket {
            name: BUCKET.to_owned(),
            client: client(&s3()),
        };
        // It may be there already.
        drop(bucket.client.create_bucket().bucket(BUCKET).send().await);
        let source = source(17);
        // Several requests long.
        source.sql("CREATE TABLE wide AS SELECT n, repeat(md5(n::text), 20) AS text FROM generate_series(1, 40000) n");
        Self {
            bucket,
            prefix: unique_word(),
            site: Site::new(),
            source,
        }
    }

    fn pgstow(&self, args: &[&str]) -> std::process::Command {
        let mut command = pgstow();
        command
            .args(args)
            .args(["--json", "--store", &self.bucket.url(&self.prefix)])
            .env("DATABASE_URL", self.source.url())
            .envs(s3().environment())
            .current_dir(self.site.path());
        command
    }

    fn backed_up(&self) -> String {
        let report = succeed(&mut self.pgstow(&["backup", "--compress", "none"])).json();
        report["id"].as_str().unwrap().to_owned()
    }

    async fn tier(&self, id: &str, file: &str) -> Option<String> {
        let tags = self.bucket.tags(&format!("{}/{id}/{file}", self.prefix)).await;
        tags.get("pgstow-tier").cloned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_bears_the_tier_of_the_backup_and_changes_with_it() {
    let place = Place::new().await;
    let id = place.backed_up();
    let report = succeed(&mut place.pgstow(&["verify", &id])).json();
    assert_eq!(report["status"], "ok");
    assert_eq!(report["warnings"], Value::Null, "{report}");
    assert_eq!(place.tier(&id, "verification.json").await.as_deref(), Some("latest"));
    std::thread::sleep(Duration::from_millis(1100));
    place.backed_up();
    let tier = place.tier(&id, "manifest.json").await.unwrap();
    assert_ne!(tier, "latest");
    assert_eq!(place.tier(&id, "verification.json").await, Some(tier.clone()));
    // Verified anew, it expires with its backup still.
    succeed(&mut place.pgstow(&["verify", &id]));
    assert_eq!(place.tier(&id, "verification.json").await, Some(tier));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_verifies_and_is_warned_that_the_result_is_not_kept() {
    let place = Place::new().await;
    let id = place.backed_up();
    let mut verify = place.pgstow(&["verify", &id]);
    let report = succeed(verify.envs(s3_reader().environment())).json();
    assert_eq!(report["status"], "ok");
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1, "{report}");
    let keys = place.bucket.keys().await;
    assert!(!keys.contains(&format!("{}/{id}/verification.json", place.prefix)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_breaks_off_is_asked_again_and_one_that_stays_ill_ends_it() {
    let place = Place::new().await;
    let id = place.backed_up();
    let proxy = FaultProxy::start(&s3().endpoint).await;
    let through = |seconds: &str| {
        let mut verify = place.pgstow(&["verify", &id]);
        verify
            .env("AWS_ENDPOINT_URL_S3", proxy.url())
            .env("BACKUP_S3_RETRY_SECONDS", seconds)
            .env_remove("DATABASE_URL");
        verify
    };
    let blocks = || On::op(Op::GetObject).target(".dump");
    proxy.fault(blocks().calls(2..=2), Fault::CutAnswer { after: 1_000_000 });
    proxy.fault(blocks().calls(4..=5), Fault::Reject(503));
    let report = run(&mut through("20")).json();
    assert_eq!(report["status"], "ok", "{report}");
    assert_eq!(proxy.faults(), 3);

    // A fault of the store is not the backup's, and nothing is written of it.
    let key = format!("{}/{id}/verification.json", place.prefix);
    let before = place.bucket.get(&key).await;
    for fault in [Fault::Reject(500), Fault::CutAnswer { after: 1000 }] {
        proxy.heal();
        proxy.fault(blocks().calls(3..=usize::MAX), fault.clone());
        let told = fail(&mut through("2"), "STORE", 30);
        assert!(told.message.contains(".dump"), "{fault:?}: {}", told.message);
        assert_eq!(place.bucket.get(&key).await, before);
    }
    // pgstow waits for a silent store as long as for a slow one, but not after a stop.
    proxy.heal();
    let so_far = proxy.faults();
    proxy.fault(blocks().calls(3..=usize::MAX), Fault::HoldAnswer);
    let mut running = place.site.start(&mut through("2"));
    running.until("the store is silent", || proxy.faults() > so_far);
    running.signal(rustix::process::Signal::TERM);
    let run = running.end(Duration::from_secs(10));
    failure(&run, "INTERRUPTED", 143, None);
    assert_eq!(place.bucket.get(&key).await, before);

    // Of several, the others are verified all the same; of what is kept from us nothing is said or written.
    let newer = place.backed_up();
    let dump = format!("{id}/{}.dump", place.source.name);
    for (file, fault) in [
        (dump, Fault::Reject(500)),
        (format!("{id}/globals.sql"), Fault::Reject(403)),
        (format!("{id}/SHA256SUMS"), Fault::CutAnswer { after: 10 }),
        (format!("{id}/manifest.json"), Fault::Reject(403)),
    ] {
        proxy.heal();
        proxy.fault(On::op(Op::GetObject).target(&file), fault);
        let mut verify = place.pgstow(&["verify", "--all"]);
        verify
            .env("AWS_ENDPOINT_URL_S3", proxy.url())
            .env("BACKUP_S3_RETRY_SECONDS", "1");
        let told = self::run(&mut verify);
        let report = told.json();
        assert_eq!(
            (told.status.code(), &report["error"]["code"]),
            (Some(30), &"STORE".into()),
            "{file}: {report:#}"
        );
        let message = report["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("1 not verified: {id}")), "{message}");
        let [first, second] = &report["backups"].as_array().unwrap()[..] else {
            panic!("{report:#}")
        };
        assert_eq!(
            (&first["id"], &first["status"]),
            (&newer.clone().into(), &"ok".into()),
            "{report:#}"
        );
        assert_eq!(second["not_verified"]["code"], "STORE", "{report:#}");
        assert!(second["problems"].is_null(), "{report:#}");
        assert_eq!(place.bucket.get(&key).await, before, "{file}");
    }
    // What is not there at all is damage, while its manifest is.
    proxy.heal();
    let globals = format!("{}/{id}/globals.sql", place.prefix);
    place
        .bucket
        .client
        .delete_object()
        .bucket(BUCKET)
        .key(&globals)
        .send()
        .await
        .unwrap();
    let report = self::run(&mut through("2")).json();
    assert_eq!(report["problems"][0]["file"], "globals.sql", "{report:#}");
    assert!(
        report["problems"][0]["what"].as_str().unwrap().contains("is missing"),
        "{report:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_is_flipped_on_the_way_is_read_again_and_nothing_is_called_damaged() {
    let place = Place::new().await;
    let id = place.backed_up();
    let proxy = FaultProxy::start(&s3().endpoint).await;
    let through = |args: &[&str]| {
        let mut command = place.pgstow(args);
        command.env("AWS_ENDPOINT_URL_S3", proxy.url());
        run(&mut command)
    };
    for (part, file) in [
        (".dump", true),
        (".toc", false),
        ("manifest.json", false),
        ("globals.sql", false),
    ] {
        proxy.fault(On::op(Op::GetObject).target(part).calls(1..=1), Fault::CorruptAnswer);
        let faults = proxy.faults();
        let verified = through(&["verify", &id]);
        assert!(proxy.faults() > faults, "{part}");
        let report = verified.json();
        assert_eq!(
            (verified.status.code(), &report["status"]),
            (Some(0), &"ok".into()),
            "{part}: {report}"
        );
        if file {
            let warnings = report["warnings"].to_string();
            assert!(warnings.contains("they are not in the store"), "{part}: {report}");
        }
        let kept = place
            .bucket
            .get(&format!("{}/{id}/verification.json", place.prefix))
            .await;
        assert_eq!(
            serde_json::from_slice::<Value>(&kept).unwrap()["verify"]["status"],
            "ok",
            "{part}"
        );
    }
    // One of a time when nothing stood for a manifest's digest: unreadable once, or read otherwise once.
    let manifest_key = format!("{}/{id}/manifest.json", place.prefix);
    let mut manifest: Value = serde_json::from_slice(&place.bucket.get(&manifest_key).await).unwrap();
    manifest.as_object_mut().unwrap().remove("digest_file");
    let sealed = format!("{manifest_key}.sha256");
    place
        .bucket
        .client
        .delete_object()
        .bucket(BUCKET)
        .key(&sealed)
        .send()
        .await
        .unwrap();
    place.bucket.put(&manifest_key, manifest.to_string().as_bytes()).await;
    for fault in [Fault::CorruptAnswer, Fault::CutAnswer { after: 100 }] {
        proxy.heal();
        proxy.fault(
            On::op(Op::GetObject).target("manifest.json").calls(1..=1),
            fault.clone(),
        );
        let verified = through(&["verify", &id]);
        assert_eq!(verified.status.code(), Some(0), "{fault:?}: {}", verified.text());
    }
    proxy.heal();
    proxy.fault(
        On::op(Op::GetObject).target("manifest.json").calls(1..=1),
        Fault::CorruptAnswer,
    );
    let listed = through(&["list"]).json();
    assert_eq!(
        (&listed["backups"][0]["id"], &listed["problems"]),
        (&id.into(), &serde_json::json!([])),
        "{listed:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_was_written_meanwhile_is_not_lost() {
    let place = Place::new().await;
    let id = place.backed_up();
    let proxy = FaultProxy::start(&s3().endpoint).await;
    let put = On::op(Op::PutObject).target("verification.json").calls(1..=1);
    proxy.fault(put, Fault::Delay(Duration::from_secs(3)));
    let mut verify = place.pgstow(&["verify", &id]);
    let mut running = place.site.start(verify.env("AWS_ENDPOINT_URL_S3", proxy.url()));
    running.until("the result is on its way", || proxy.count(Op::PutObject) > 0);
    let key = format!("{}/{id}/verification.json", place.prefix);
    let drilled = serde_json::json!({"schema": 1, "id": id, "drill": {"status": "ok", "at": "2025-01-31T00:00:00Z"}});
    let body = aws_sdk_s3::primitives::ByteStream::from(drilled.to_string().into_bytes());
    let sent = place
        .bucket
        .client
        .put_object()
        .bucket(BUCKET)
        .key(&key)
        .body(body)
        .send();
    sent.await.unwrap();
    let run = running.end(Duration::from_secs(30));
    assert!(run.status.success(), "{}", run.stderr);
    let kept: Value = serde_json::from_slice(&place.bucket.get(&key).await).unwrap();
    assert_eq!(kept["verify"]["status"], "ok", "{kept}");
    assert_eq!(kept["drill"], drilled["drill"], "{kept}");
}
