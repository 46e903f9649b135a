//! `retention show` and `retention apply` through the command line, against two S3 servers and
//! AWS's own tool; and what the rules mean for the objects of real backups.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::bucket::{Bucket, client};
use crate::support::database::{Database, unique_word};
use crate::support::fault_proxy::{Fault, FaultProxy, On};
use crate::support::program::{Run, pgstow, program, run, succeed};
use crate::support::services::{REGION, S3, aws_cli, aws_endpoint, cloud, s3};
use serde_json::{Value, json};

/// A fresh bucket of one of two S3 servers.
struct Service {
    server: S3,
    bucket: String,
}

impl Service {
    async fn fresh(server: S3) -> Self {
        let bucket = format!("rules-{}", unique_word());
        client(&server).create_bucket().bucket(&bucket).send().await.unwrap();
        Self { server, bucket }
    }

    /// It expires objects.
    async fn seaweedfs() -> Self {
        Self::fresh(s3()).await
    }

    /// It keeps rules word by word.
    async fn moto() -> Self {
        Self::fresh(S3 {
            endpoint: aws_endpoint(),
            ..s3()
        })
        .await
    }

    fn aws(&self, action: &str, more: &[&str]) -> Run {
        let mut command = program(aws_cli());
        cloud(&mut command).args([
            "--endpoint-url",
            &self.server.endpoint,
            "--region",
            REGION,
            "s3api",
            action,
        ]);
        succeed(command.args(["--bucket", &self.bucket]).args(more))
    }

    fn put_rules(&self, rules: &Value) {
        let rules = rules.to_string();
        self.aws(
            "put-bucket-lifecycle-configuration",
            &["--lifecycle-configuration", &rules],
        );
    }

    fn rules(&self) -> BTreeMap<String, Value> {
        let found = self.aws("get-bucket-lifecycle-configuration", &[]).json();
        by_id(&found["Rules"])
    }

    fn retention(&self, action: &str, policy: &str, prefix: &str) -> Value {
        let mut command = pgstow();
        cloud(&mut command).env("AWS_ENDPOINT_URL_S3", &self.server.endpoint);
        let store = format!("s3://{}/{prefix}", self.bucket);
        succeed(command.args(["retention", action, "--json", "--store", &store, "--retention", policy])).json()
    }
}

fn by_id(rules: &Value) -> BTreeMap<String, Value> {
    let rules = rules.as_array().unwrap().iter();
    rules
        .map(|rule| (rule["ID"].as_str().unwrap().to_owned(), rule.clone()))
        .collect()
}

/// The tag that a rule asks for.
fn tag(rule: &Value) -> Option<&str> {
    let filter = &rule["Filter"];
    let tag = filter.get("Tag").or_else(|| filter["And"]["Tags"].get(0))?;
    assert_eq!(tag["Key"], "pgstow-tier");
    tag["Value"].as_str()
}

fn prefix(rule: &Value) -> &str {
    let filter = &rule["Filter"];
    let found = filter.get("Prefix").or_else(|| filter["And"].get("Prefix"));
    found.and_then(Value::as_str).unwrap_or_default()
}

/// Days after which the rules expire an object, as S3 reads them; `None`: never.
fn expiry(rules: &BTreeMap<String, Value>, key: &str, tags: &BTreeMap<String, String>) -> Option<u64> {
    let matching = rules.values().filter(|rule| {
        let tagged = tag(rule).is_none_or(|tier| tags.get("pgstow-tier").is_some_and(|value| value == tier));
        key.starts_with(prefix(rule)) && tagged
    });
    matching.filter_map(|rule| rule["Expiration"]["Days"].as_u64()).min()
}

fn days(rules: &BTreeMap<String, Value>, below: &str) -> BTreeMap<String, u64> {
    let rules = rules.values().filter(|rule| prefix(rule) == below);
    rules
        .filter_map(|rule| Some((tag(rule)?.to_owned(), rule["Expiration"]["Days"].as_u64()?)))
        .collect()
}

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(tier, days)| ((*tier).to_owned(), *days)).collect()
}

fn what_show_prints_is_taken_by_the_aws_tool_and_given_back_the_same(service: &Service) {
    let policy = "daily=7,weekly=4,monthly=12,yearly=3";
    let mut shown = service.retention("show", policy, "")["Rules"].take();
    let mut below = service.retention("show", policy, "team a/pg")["Rules"].take();
    // The rules of two stores in one bucket.
    shown.as_array_mut().unwrap().append(below.as_array_mut().unwrap());
    service.put_rules(&json!({"Rules": shown}));
    let given_back = service.rules();
    for (id, rule) in by_id(&shown) {
        let there = &given_back[&id];
        assert_eq!((tag(&rule), prefix(&rule)), (tag(there), prefix(there)), "{there}");
        for part in [
            "Status",
            "Expiration",
            "NoncurrentVersionExpiration",
            "AbortIncompleteMultipartUpload",
        ] {
            assert_eq!(rule.get(part), there.get(part), "{id}");
        }
    }
    assert_eq!(given_back.len(), 14);
}

#[tokio::test]
async fn what_show_prints_is_taken_by_the_aws_tool_and_given_back_the_same_by_seaweedfs() {
    what_show_prints_is_taken_by_the_aws_tool_and_given_back_the_same(&Service::seaweedfs().await);
}

#[tokio::test]
async fn what_show_prints_is_taken_by_the_aws_tool_and_given_back_the_same_by_moto() {
    what_show_prints_is_taken_by_the_aws_tool_and_given_back_the_same(&Service::moto().await);
}

#[test]
fn show_asks_no_store_and_without_json_prints_the_same_document() {
    let store = [
        "retention",
        "show",
        "--store",
        "s3://nowhere-at-all/pg",
        "--retention",
        "30d",
    ];
    let mut command = pgstow();
    command.env("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1");
    let text = succeed(command.args(store)).json();
    let mut command = pgstow();
    command.env("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1");
    assert_eq!(text, succeed(command.args(store).arg("--json")).json());
}

fn apply_installs_ours_replaces_ours_and_leaves_all_others_alone(service: &Service) {
    let foreign = json!([
        {"ID": "pgstow-to-glacier", "Status": "Enabled", "Filter": {"Prefix": "pg/"}, "Expiration": {"Days": 4000}},
        {"ID": "logs", "Status": "Disabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}},
    ]);
    service.put_rules(&json!({"Rules": foreign}));
    let tiers = "daily=7,weekly=4,monthly=12";
    let applied = service.retention("apply", tiers, "pg");
    let mut left_alone: Vec<&str> = applied["applied"][0]["foreign"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    left_alone.sort_unstable();
    assert_eq!(left_alone, ["logs", "pgstow-to-glacier"]);
    assert_eq!(applied["applied"][0]["installed"], 7);
    // What is shown is what is installed.
    assert_eq!(applied["Rules"], service.retention("show", tiers, "pg")["Rules"]);
    let other = service.retention("apply", "30d", "other");

    let installed = service.rules();
    let mut expected = by_id(&foreign);
    expected.extend(by_id(&applied["Rules"]));
    expected.extend(by_id(&other["Rules"]));
    assert_eq!(
        installed.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (id, rule) in &installed {
        assert_eq!(rule["Expiration"], expected[id]["Expiration"], "{id}");
        assert_eq!((tag(rule), prefix(rule)), (tag(&expected[id]), prefix(&expected[id])));
        assert_eq!(rule["Status"], expected[id]["Status"], "{id}");
    }

    // Another policy: what it has is replaced, what it lost stays as it was.
    let changed = service.retention("apply", "daily=14,yearly=2", "pg");
    assert_eq!(changed, service.retention("apply", "daily=14,yearly=2", "pg"));
    let replaced = service.rules();
    assert_eq!(replaced.len(), installed.len());
    let expected = [
        ("daily", 14),
        ("weekly", 28),
        ("monthly", 372),
        ("yearly", 732),
        ("pending", 2),
        ("increment", 9),
    ];
    assert_eq!(days(&replaced, "pg/"), counts(&expected));
    let others = replaced
        .iter()
        .filter(|(id, _)| !by_id(&applied["Rules"]).contains_key(*id));
    for (id, rule) in others {
        assert_eq!(*rule, installed[id]);
    }
}

#[tokio::test]
async fn apply_installs_ours_replaces_ours_and_leaves_all_others_alone_in_seaweedfs() {
    apply_installs_ours_replaces_ours_and_leaves_all_others_alone(&Service::seaweedfs().await);
}

#[tokio::test]
async fn apply_installs_ours_replaces_ours_and_leaves_all_others_alone_in_moto() {
    apply_installs_ours_replaces_ours_and_leaves_all_others_alone(&Service::moto().await);
}

#[test]
fn a_missing_bucket_and_a_folder_are_refused_each_with_its_code() {
    let mut command = pgstow();
    cloud(&mut command).args(["retention", "apply", "--json", "--store"]);
    let missing = crate::support::program::run(command.arg(format!("s3://rules-{}", unique_word())));
    assert_eq!(missing.status.code(), Some(30), "{}", missing.stderr);
    assert_eq!(missing.json()["error"]["code"], "STORE");
    let folder = crate::support::program::run(pgstow().args(["retention", "apply", "--store", "./backups"]));
    assert_eq!(folder.status.code(), Some(2), "{}", folder.stderr);
}

/// Days after which each object expires under the bucket's rules, by its backup's id (or key).
async fn expiries(bucket: &Bucket) -> BTreeMap<String, Vec<Option<u64>>> {
    let service = Service {
        server: s3(),
        bucket: bucket.name.clone(),
    };
    let rules = service.rules();
    let mut found: BTreeMap<String, Vec<Option<u64>>> = BTreeMap::new();
    for key in bucket.keys().await {
        let folder = key.rsplit_once('/').unwrap().0;
        let name = if key.ends_with("/.lease") { "lease" } else { folder };
        let days = expiry(&rules, &key, &bucket.tags(&key).await);
        found.entry(name.to_owned()).or_default().push(days);
    }
    for days in found.values_mut() {
        days.dedup();
    }
    found
}

#[tokio::test]
async fn the_latest_backup_and_the_lease_never_expire_and_all_others_do_under_every_policy() {
    let database = Database::fresh(15);
    let bucket = Bucket::fresh().await;
    let with_policy = |policy: &str, words: &[&str]| {
        let mut command = pgstow();
        cloud(&mut command)
            .env("DATABASE_URL", database.url())
            .env("BACKUP_STORE", bucket.url("pg"))
            .env("BACKUP_RETENTION", policy);
        succeed(command.args(words).arg("--json")).json()
    };
    let backup = |policy: &str| {
        let report = with_policy(policy, &["backup"]);
        format!("pg/{}", report["id"].as_str().unwrap())
    };
    let tiers = "daily=7,monthly=12";
    with_policy(tiers, &["retention", "apply"]);
    let monthly = backup(tiers);
    let daily = backup(tiers);
    let expected = |pairs: &[(&String, Option<u64>)]| {
        let backups = pairs.iter().map(|(id, days)| ((*id).clone(), vec![*days]));
        backups
            .chain([("lease".to_owned(), vec![None])])
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(
        expiries(&bucket).await,
        expected(&[(&monthly, Some(372)), (&daily, None)])
    );

    // The policy has no monthlies any more. The one that there is keeps the time that it was
    // promised, and has one.
    with_policy("30d", &["retention", "apply"]);
    let newest = backup("30d");
    let after = expected(&[(&monthly, Some(372)), (&daily, Some(30)), (&newest, None)]);
    assert_eq!(expiries(&bucket).await, after);
}

/// It takes rules, and drops the tags from them.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_makes_other_rules_of_ours_gets_its_former_ones_back() {
    let service = Service::moto().await;
    let foreign =
        json!([{"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}}]);
    service.put_rules(&json!({"Rules": foreign}));
    let proxy = FaultProxy::start(&aws_endpoint()).await;
    let store = format!("s3://{}/pg", service.bucket);
    let apply = |policy: &str| {
        let mut command = pgstow();
        cloud(&mut command).env("AWS_ENDPOINT_URL_S3", proxy.url());
        run(command.args(["retention", "apply", "--json", "--store", &store, "--retention", policy])).json()
    };
    let strip = Fault::Strip(&[("<Tag>", "</Tag>"), ("<And>", ""), ("</And>", "")]);
    let put = On::any().method("PUT").target("lifecycle");
    proxy.fault(put.clone(), strip.clone());
    let said = |report: Value, word: &str, hint: &str| {
        let error = &report["error"];
        assert_eq!(error["code"], "STORE", "{report}");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("expires everything below pg/ after 7 days"),
            "{message}"
        );
        assert!(message.contains(word), "{message}");
        assert!(error["hint"].as_str().unwrap().contains(hint), "{report}");
    };
    let before = service.rules();
    said(apply("7d"), "the former rules are back", "prune --allow-delete");
    assert_eq!(service.rules(), before);

    // What an earlier run left there comes back as well, and is named with what it would do.
    service.put_rules(&json!({"Rules": [
        {"ID": "pgstow-0-daily", "Status": "Enabled", "Filter": {"Prefix": "pg/"}, "Expiration": {"Days": 30}}
    ]}));
    said(
        apply("7d"),
        "pgstow-0-daily expires everything below pg/ after 30 days, the last good backup too",
        "remove pgstow-0-daily at once",
    );
    service.put_rules(&json!({"Rules": foreign}));

    // Rules of ours that were there come back too, where the store takes them at least.
    proxy.heal();
    apply("30d");
    let before = service.rules();
    assert!(before.len() > 1);
    proxy.fault(put.clone().calls(1..=1), strip.clone());
    said(apply("7d"), "the former rules are back", "prune --allow-delete");
    assert_eq!(service.rules(), before);
    proxy.heal();
    proxy.fault(put, strip);
    // Another program has rules there: they must stay when pgstow's go.
    let report = apply("7d");
    assert!(
        !report["error"]["hint"].as_str().unwrap().contains("delete-bucket"),
        "{report}"
    );
    said(report, "NOT BACK", "put-bucket-lifecycle-configuration");
}

/// As S3 may: what it has taken it shows later.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_shows_its_former_rules_for_a_while_is_asked_until_it_shows_ours() {
    const NONE: &str = "<Error><Code>NoSuchLifecycleConfiguration</Code><Message>There are none</Message></Error>";
    let service = Service::moto().await;
    let proxy = FaultProxy::start(&aws_endpoint()).await;
    // The first two are asked before the rules are put.
    let asked = On::any().method("GET").target("lifecycle");
    proxy.fault(asked.calls(3..=5), Fault::Answer(404, NONE));
    let store = format!("s3://{}/pg", service.bucket);
    let mut command = pgstow();
    cloud(&mut command).env("AWS_ENDPOINT_URL_S3", proxy.url());
    let begun = Instant::now();
    let report = succeed(command.args(["retention", "apply", "--json", "--store", &store, "--retention", "7d"])).json();
    assert_eq!(proxy.faults(), 3);
    assert!(begun.elapsed() > Duration::from_millis(1200), "{:?}", begun.elapsed());
    let ours = by_id(&report["Rules"]);
    assert_eq!(
        service.rules().keys().collect::<Vec<_>>(),
        ours.keys().collect::<Vec<_>>()
    );
    // Nothing was put a second time, or taken back.
    let puts = proxy.seen().into_iter().filter(|seen| seen.method != "GET");
    assert_eq!(puts.count(), 1);
}
