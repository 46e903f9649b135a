//! A run that dies, or is refused, between the signature and the manifest.

use std::process::Command;

use crate::semantics::crashing::{Fate, Script};
use crate::semantics::place::Place;
use crate::semantics::world::{End, World, backups, block_on};
use crate::support::program::{pgstow, succeed};
use pgstow::repository::catalog::find;
use pgstow::repository::signature::{Keyring, Subject};
use tempfile::TempDir;

/// With a key that signs, which is trusted too.
fn world(place: Place) -> (World, TempDir) {
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    let mut keygen: Command = pgstow();
    succeed(keygen.arg("keygen").arg(&key));
    let (secret, public) = (key.display().to_string(), format!("{}.pub", key.display()));
    let mut world = World::with(
        vec![place],
        &[("BACKUP_SIGN_KEY", &secret), ("BACKUP_VERIFY_KEYS", &public)],
    );
    world.record();
    (world, keys)
}

/// The signed backups, all of which must be usable.
fn assert_all_are_signed(world: &World) -> usize {
    block_on(async {
        let keyring = Keyring::new(world.settings.signing.clone(), |_| panic!("no key is in KMS"));
        let demand = pgstow::repository::catalog::Demand {
            trust: keyring.trust().await.unwrap(),
            manifest: None,
            now: jiff::Timestamp::now(),
            altered: false,
        };
        let stores = [world.places[0].store(&world.settings).await];
        let ids: Vec<_> = backups(&world.places[0].state().await).into_keys().collect();
        for id in &ids {
            let located = find(&stores, &id.to_string(), None, &demand).await.unwrap();
            assert!(located.signed_by.is_some() && located.warnings.is_empty());
        }
        ids.len()
    })
}

fn dies_between(place: Place) {
    let (world, _keys) = world(place);
    world.run().unwrap();
    let script = Script::first(&["put", "manifest.json.minisig"], Fate::Die);
    assert!(matches!(world.run_by(&script), End::Died));
    let state = world.state();
    assert_eq!(backups(&state).len(), 1, "there is no backup without its manifest");
    let left = state
        .objects
        .keys()
        .filter(|key| key.ends_with("manifest.json.minisig"));
    assert_eq!(left.count(), 2);
    world.let_the_lease_expire();
    let report = world.run().unwrap();
    let told = report
        .leftovers
        .iter()
        .any(|one| one.key.ends_with("manifest.json.minisig"));
    assert!(told, "{:?}", report.leftovers);
    let state = world.state();
    assert_eq!(assert_all_are_signed(&world), 2);
    for (key, found) in &state.objects {
        let Some((id, _)) = pgstow::repository::backup_id::BackupId::of_key(key) else {
            continue;
        };
        if !backups(&state).contains_key(&id) {
            assert_eq!(found.tier.as_deref(), Some("pending"), "{key}");
        }
    }
    world.assert_nothing_left_here();
}

#[test]
fn in_a_folder_the_signature_is_a_left_over_that_the_next_run_clears() {
    dies_between(Place::folder());
}

#[test]
fn in_a_bucket_the_signature_is_a_left_over_that_the_next_run_gives_up() {
    let place = block_on(Place::prefix());
    dies_between(place);
}

#[test]
fn a_manifest_or_signature_that_is_refused_leaves_nothing() {
    for put in ["manifest.json.minisig", "manifest.json if absent"] {
        let (world, _keys) = world(Place::folder());
        let words: &'static [&'static str] = match put {
            "manifest.json.minisig" => &["put", "manifest.json.minisig"],
            _ => &["put", "manifest.json if absent"],
        };
        let End::Returned(result) = world.run_by(&Script::first(words, Fate::Reject)) else {
            panic!("died")
        };
        assert_eq!(result.unwrap_err().code().name(), "STORE");
        let left: Vec<String> = world
            .state()
            .objects
            .into_keys()
            .filter(|key| !key.ends_with(".lease"))
            .collect();
        assert_eq!(left, [""; 0], "{put}");
        let End::Returned(result) = world.run_by(&Script::first(words, Fate::LoseAnswer)) else {
            panic!("died")
        };
        // An answer that was lost is looked up.
        assert!(result.is_ok(), "{put}");
        assert_eq!(assert_all_are_signed(&world), 1);
    }
}

#[test]
fn the_signature_lies_beside_its_manifest_and_is_pgstows_own_file() {
    let id: pgstow::repository::backup_id::BackupId = "shop/20260131T040500Z-full".parse().unwrap();
    for subject in [Subject::manifest(&id), Subject::verification(&id)] {
        let key = subject.signature_key();
        let (folder, name) = pgstow::repository::backup_id::BackupId::of_key(&key).unwrap();
        assert!(folder == id && id.makes(name), "{key}");
    }
}
