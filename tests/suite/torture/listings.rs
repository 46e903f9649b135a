//! Lists that lag: what was put a moment ago is not in them yet.

use super::arena::{Arena, Shape, wait};
use super::campaign::Campaign;
use crate::support::bucket::{Bucket, client};
use crate::support::fault_proxy::{Fault, FaultProxy, On};
use crate::support::program::run;
use crate::support::services::s3;

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_lag_give_up_and_replace_no_good_backup() {
    tokio::task::block_in_place(|| {
        Campaign::of("stale lists", 4).run(|_, dice| {
            let mut arena = Arena::new(Shape::Bucket);
            let proxy = wait(FaultProxy::start(&s3().endpoint));
            let lists = || On::any().target("list-type=2");
            // As they are before the second backup, for the comparison afterwards.
            proxy.remember_lists(true);
            let second = run(arena.backup("1").env("AWS_ENDPOINT_URL_S3", proxy.url()));
            assert!(arena.note(&second).is_some(), "{}", second.stderr);
            drop(run(arena
                .command(&["prune", "--dry-run"])
                .env("AWS_ENDPOINT_URL_S3", proxy.url())));
            proxy.remember_lists(false);
            for _ in 0..3 {
                let first = 1 + dice.below(4);
                proxy.fault(lists().calls(first..=first + dice.below(4)), Fault::Stale);
            }
            let words = dice.pick(&[
                &["backup", "--jobs", "1"][..],
                &["backup", "--jobs", "2"],
                &["prune", "--retention", "1d"],
                &["verify", "--all"],
                &["list"],
                &["status"],
            ]);
            let third = run(arena.command(words).env("AWS_ENDPOINT_URL_S3", proxy.url()));
            proxy.heal();
            let came_to = match third.status.code() {
                Some(0 | 3) => "done".to_owned(),
                // That the newest is not to be seen yet.
                Some(1) if words[0] == "status" => "complained".to_owned(),
                _ => Arena::code(&third),
            };
            if words[0] == "backup" {
                arena.note(&third);
            }
            arena.assert_all_good();
            assert_kept(&arena);
            arena.assert_goes_on();
            assert_kept(&arena);
            format!("{}: {came_to}", words[0])
        });
    });
}

/// No file of a backup that counts is on its way out.
fn assert_kept(arena: &Arena) {
    let url = arena.stores[0].trim_start_matches("s3://");
    let (name, prefix) = url.split_once('/').unwrap();
    let bucket = Bucket {
        name: name.to_owned(),
        client: client(&s3()),
    };
    for key in wait(bucket.keys()) {
        if arena.good.iter().any(|id| key.starts_with(&format!("{prefix}/{id}/"))) {
            let tags = wait(bucket.tags(&key));
            assert_ne!(tags.get("pgstow-tier").map(String::as_str), Some("pending"), "{key}");
        }
    }
}
