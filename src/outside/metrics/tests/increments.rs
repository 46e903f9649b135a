//! The metrics of increments.

use super::*;

fn increment(end: IncrementEnd, slot: Option<SlotSpace>) -> Observation {
    Observation {
        run: Run::Increment(Increment { end, slot }),
        ..success("shop")
    }
}

fn made_increment() -> IncrementEnd {
    IncrementEnd::Made(MadeIncrement {
        id: "shop/20250131T040500Z-incr".into(),
        seconds: 1.5,
        bytes: 70_000,
        transactions: 41,
        baselines: 1,
        seen_to: at("2025-01-31T04:05:40.25Z"),
        degraded: false,
    })
}

#[test]
fn an_increment_counts_for_no_full_backup_and_tells_the_age_of_what_is_stored() {
    let slot = SlotSpace {
        retained: Some(16 << 20),
        safe: None,
    };
    let line = emf(&increment(made_increment(), Some(slot)));
    let told: Vec<(String, f64)> = values(&line)
        .into_iter()
        .map(|(name, (_, value))| (name, value))
        .collect();
    let expected = [
        ("ChainBroken", 0.0),
        ("IncrementBaselines", 1.0),
        ("IncrementBytes", 70_000.0),
        ("IncrementDuration", 1.5),
        ("IncrementFailed", 0.0),
        ("IncrementSucceeded", 1.0),
        ("IncrementTransactions", 41.0),
        ("NotificationsFailed", 0.0),
        ("RecoveryPointAge", 9.0),
        ("SlotWalRetained", 16_777_216.0),
    ];
    assert_eq!(told, expected.map(|(name, value)| (name.to_owned(), value)));
    assert_eq!(line["Command"], "increment");

    let mut samples = Samples::default();
    samples.observe("nightly", &success("shop"));
    samples.observe("nightly", &increment(made_increment(), Some(slot)));
    let failed = Observation::of_failed_increment(
        Some("shop".into()),
        Code::Slot,
        at("2025-01-31T05:00:00Z"),
        at("2025-01-31T05:00:01Z"),
    );
    samples.observe("nightly", &failed);
    let text = samples.render();
    let has = |line: &str| assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
    // What was stored before stays known, and so does the last full backup.
    has("pgstow_recovery_point_timestamp_seconds{service=\"nightly\",database=\"shop\"} 1738296340");
    has("pgstow_increment_chain_broken{service=\"nightly\",database=\"shop\"} 1");
    has("pgstow_increment_last_run_exit_code{service=\"nightly\",database=\"shop\"} 44");
    has("pgstow_backup_last_run_success{service=\"nightly\",database=\"shop\"} 1");
    assert_eq!(values(&emf(&failed))["ChainBroken"].1, 1.0);
    assert_eq!(Samples::parse(&text), Ok(samples));
}
