//! Events that come again, and forged backups that are in the store before the event comes.

use std::fs;
use std::process::Command;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::place::{MANIFEST, SIGNATURE, Signed, keygen, line};
use crate::support::program::{program, run, succeed};
use crate::support::role::Role;
use crate::support::wreck::{Site, fail, reseal};

/// As the deployed schedules name them: by the time for which they are planned.
const EVENT: &str = "full-2026-01-31T04:05:00Z";

/// The backup once more under the id of this moment, as if this event had asked for it.
fn plant(signed: &Signed, event: &str) -> String {
    let (database, _) = signed.id().split_once('/').unwrap();
    // The one before may have been given an id a little ahead of the clock.
    let (id, target) = loop {
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let id = format!("{database}/{}-full", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
        let target = signed.site.store().join(&id);
        match fs::create_dir(&target) {
            Ok(()) => break (id, target),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists),
        }
    };
    for entry in fs::read_dir(signed.folder()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
    }
    let mut manifest: Value = serde_json::from_slice(&signed.read(MANIFEST)).unwrap();
    manifest["id"] = json!(id);
    manifest["event_id"] = json!(event);
    fs::write(target.join(MANIFEST), manifest.to_string()).unwrap();
    reseal(&target);
    id
}

fn asked(signed: &Signed, event: &str) -> Command {
    let mut backup = signed.site.backup(&signed.source.url());
    backup.args(["--event-id", event]);
    backup
}

#[test]
fn a_backup_that_was_planted_for_an_event_to_come_does_not_pass_for_the_one_that_it_asks_for() {
    let signed = Signed::up(&["--event-id", "full-2026-01-30T04:05:00Z"]);
    let stranger = keygen(&signed.site, "stranger");
    let with_old_signature = plant(&signed, EVENT);
    let unsigned = plant(&signed, EVENT);
    fs::remove_file(signed.site.store().join(&unsigned).join(SIGNATURE)).unwrap();
    let strangers = plant(&signed, EVENT);
    let mut minisign = program("minisign");
    minisign.args(["-S", "-W", "-s", stranger.to_str().unwrap(), "-m", MANIFEST]);
    succeed(minisign.current_dir(signed.site.store().join(&strangers)));

    // By the signer's key alone, and by those that are trusted beside it.
    for (number, keys) in [None, Some(line(&signed.key))].into_iter().enumerate() {
        let event = format!("{EVENT}{}", ".".repeat(number));
        let planted = match number {
            0 => vec![with_old_signature.clone(), unsigned.clone(), strangers.clone()],
            _ => vec![plant(&signed, &event)],
        };
        let made = |repeated: bool| {
            let mut backup = asked(&signed, &event);
            backup.arg("--sign-key").arg(&signed.key);
            if let Some(keys) = &keys {
                backup.env("BACKUP_VERIFY_KEYS", keys);
            }
            let report = succeed(&mut backup).json();
            assert_eq!(report["repeated"].as_bool().unwrap_or(false), repeated, "{report:#}");
            assert_eq!(report["signed_by"], signed.report["signed_by"], "{report:#}");
            report["id"].as_str().unwrap().to_owned()
        };
        let id = made(false);
        assert!(!planted.contains(&id));
        succeed(&mut signed.command(&["verify", &id]));
        // Its own is known again.
        assert_eq!(made(true), id);
    }
    // Without keys no run can tell.
    let known = succeed(&mut asked(&signed, EVENT)).json();
    assert_eq!(known["repeated"], true, "{known}");
}

/// How old the last good backup is, after a run that made none.
#[test]
fn a_planted_backup_hides_no_silence_from_the_metrics_of_one_that_signs() {
    let signed = Signed::up(&[]);
    plant(&signed, EVENT);
    let poor = Role::fresh(&signed.source, "pw", "");
    let last_good = |sign: bool| -> f64 {
        let site: &Site = &signed.site;
        let mut backup = site.backup(&signed.source.url_as(Some((&poor.name, "pw"))));
        backup.env("BACKUP_METRICS", "emf");
        if sign {
            backup.arg("--sign-key").arg(&signed.key);
        }
        let failed = run(&mut backup);
        assert_eq!(failed.status.code(), Some(13), "{}", failed.stderr);
        let lines = failed
            .stderr
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut ages = lines.filter_map(|line| line["LastGoodBackupAge"].as_f64());
        ages.next_back().unwrap_or_else(|| panic!("{}", failed.stderr))
    };
    let (planted, signed_one) = (last_good(false), last_good(true));
    assert!(signed_one >= planted + 1.0, "{signed_one} after {planted}");
}

/// Before the first good one, only the keys decide what is one: an unreadable key decides nothing.
#[test]
fn a_key_that_cannot_be_read_makes_no_backup_that_counts_for_less() {
    let signed = Signed::up(&[]);
    let mut backup = asked(&signed, EVENT);
    backup.env("BACKUP_VERIFY_KEYS", "no-such-file");
    let failure = fail(&mut backup, "CONFIG", 2);
    assert!(failure.message.contains("BACKUP_VERIFY_KEYS"), "{}", failure.message);
}
