//! Increments in a function: one that is done in time, one that ends at a commit because its time is short, and one that
//! cannot end before its time.

use std::time::Duration;

use serde_json::{Value, json};

use super::place::{AMPLE, Place, failed, handed_over, succeeded};
use crate::support::function::Function;
use crate::support::moto::Cluster;
use crate::support::program::succeed;
use crate::support::server::OwnServer;
use crate::support::watched_wire::{Line, Step, WatchedWire};

/// A function with little time, which is enough on a busy machine to begin.
const SHORT: Duration = Duration::from_secs(20);

/// A database on a server of its own, whose increments were started.
async fn started(server: &OwnServer) -> Place {
    let database = server.database("shop");
    database.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    let place = Place::around(database).await;
    let mut start = place.command_line();
    succeed(start.args(["incremental", "start", "--accept-unbounded-wal"]));
    place.topic.messages();
    place
}

/// A function whose database is behind a line on which each change of a row takes so long.
fn behind(
    (place, server): (&Place, &OwnServer),
    (timeout, pace): (Duration, Duration),
    cluster: Option<&Cluster>,
) -> Function {
    let wire = WatchedWire::start(server.port, move |step| {
        if *step == Step::Change {
            std::thread::sleep(pace);
        }
        Line::Passes
    });
    let url = wire.before(&place.database.url());
    place.function_within(timeout, cluster, |command| {
        command.env("DATABASE_URL", url);
    })
}

fn event() -> Value {
    json!({"action": "backup", "kind": "incremental"})
}

#[track_caller]
fn succeeded_in_an_increment(made: &Value) {
    succeeded(made);
    assert_eq!(made["kind"], "incremental", "{made:#}");
}

async fn transactions(place: &Place) -> u64 {
    let mut sum = 0;
    for id in place.backups().await.iter().filter(|id| id.ends_with("-incr")) {
        sum += place.manifest(id).await["stream"]["transactions"].as_u64().unwrap();
    }
    sum
}

#[tokio::test]
async fn an_event_makes_an_increment_and_again_none() {
    let server = OwnServer::start(18);
    let place = started(&server).await;
    place.database.sql("INSERT INTO orders VALUES (1)");
    let function = behind((&place, &server), (AMPLE, Duration::ZERO), None);
    let event = json!({"action": "backup", "kind": "incremental", "event_id": "every-15-minutes"});
    let made = function.invoke(&event);
    succeeded_in_an_increment(&made);
    assert_eq!(made["increment"]["transactions"], 1);
    let again = function.invoke(&event);
    assert_eq!(
        (&again["id"], &again["repeated"]),
        (&made["id"], &json!(true)),
        "{again:#}"
    );
    // Nobody wants a message each quarter of an hour.
    assert!(place.topic.messages().is_empty());
}

#[tokio::test]
async fn an_increment_ends_at_a_commit_before_the_functions_time_is_up() {
    let server = OwnServer::start(18);
    let place = started(&server).await;
    for id in 0..100 {
        place.database.sql(&format!("INSERT INTO orders VALUES ({id})"));
    }
    let function = behind((&place, &server), (SHORT, Duration::from_millis(250)), None);
    let made = function.invoke(&event());
    succeeded_in_an_increment(&made);
    assert_eq!(made["increment"]["is_behind"], true, "{made:#}");
    let first = transactions(&place).await;
    assert!((1..100).contains(&first), "{first}");
    assert!(!function.log().contains("timed out"), "{}", function.log());
    drop(function);
    // One with more time makes the rest.
    let rest = succeed(place.command_line().args(["backup", "--kind", "incremental", "--json"])).json();
    assert_eq!(rest["increment"]["transactions"], 100 - first, "{rest:#}");
}

#[tokio::test]
async fn a_transaction_that_is_longer_than_the_function_is_handed_over() {
    let server = OwnServer::start(18);
    let place = started(&server).await;
    place.database.sql("INSERT INTO orders SELECT generate_series(1, 3)");
    let without = behind((&place, &server), (SHORT, Duration::from_secs(60)), None);
    failed(&without.invoke(&event()), "DEADLINE");
    drop(without);
    let cluster = Cluster::fresh();
    let function = behind((&place, &server), (SHORT, Duration::from_secs(60)), Some(&cluster));
    let answer = function.invoke(&event());
    let words = handed_over(&answer, &cluster);
    assert!(words.contains(&"--kind=incremental".to_owned()), "{words:?}");
    assert_eq!(transactions(&place).await, 0);
    assert_eq!(place.bucket.uploads().await, [""; 0]);
    drop(function);
    // What the task runs.
    let made = succeed(place.command_line().args(words)).json();
    assert_eq!(
        (&made["kind"], &made["increment"]["transactions"]),
        (&json!("incremental"), &json!(1)),
        "{made:#}"
    );
}
