//! When a backup exists, and what a failed run leaves: nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pgstow::error::{Code, Error};
use pgstow::repository::backup_id::{BackupId, BackupKind};
use pgstow::repository::catalog;
use pgstow::repository::signature::Trust;
use pgstow::run::stop::Reason;

use super::crashing::{Fate, Script};
use super::place::Place;
use super::world::*;
use crate::support::contents::Contents;
use crate::support::database::Database;
use crate::support::program::{stock, succeed};
use crate::support::services::postgres_bin;

fn places() -> [Place; 2] {
    [Place::folder(), block_on(Place::prefix())]
}

#[test]
fn the_manifest_is_put_last_if_absent_and_all_that_it_names_is_there() {
    for place in places() {
        let world = World::new(vec![place]);
        world.run().unwrap();
        advance(1);
        let script = Script::first(&["/manifest.json if absent"], Fate::Hold);
        let (report, held) = block_on(async {
            let at_the_commit = async {
                script.held().await;
                let held = world.places[0].state().await;
                script.resume();
                held
            };
            tokio::join!(world.backup(Some(&script), None), at_the_commit)
        });
        let id = report.unwrap().id;
        let state = world.state();
        let manifest = &backups(&state)[&id];
        assert!(!backups(&held).contains_key(&id));
        for file in manifest.files.values() {
            let there = &held.objects[&id.key(&file.name)];
            assert_eq!((there.bytes, &there.sha256), (file.bytes, &file.sha256));
        }
        if world.places[0].has_lifecycle() {
            assert_eq!(tiers(&held, &id), ["latest".to_owned()].into());
        }
        // After it, nothing of this backup is written any more.
        let calls = script.calls();
        let commit = calls.iter().position(|call| call.ends_with("/manifest.json if absent"));
        for call in &calls[commit.unwrap() + 1..] {
            let writes = ["upload ", "write ", "complete ", "put ", "set_tags "];
            assert!(
                !call.contains(&id.to_string()) || !writes.iter().any(|verb| call.starts_with(verb)),
                "{call}"
            );
        }
    }
}

#[test]
fn a_backup_exists_exactly_when_its_manifest_does() {
    for place in places() {
        let world = World::new(vec![place]);
        let first = world.run().unwrap().id;
        advance(1);
        let second = block_on(world.backup(None, Some("an event"))).unwrap().id;
        let listed = || {
            block_on(async {
                let store = world.places[0].store(&world.settings).await;
                let listed = catalog::backups(&*store, Some(&world.database.name)).await.unwrap();
                let found = catalog::find_by_event(
                    &*store,
                    &listed,
                    BackupKind::Full,
                    "an event",
                    clock(),
                    &Trust::default(),
                )
                .await
                .unwrap();
                let there: Vec<BackupId> = listed
                    .into_iter()
                    .filter(|one| one.has_manifest)
                    .map(|one| one.id)
                    .collect();
                (there, found.map(|summary| summary.id))
            })
        };
        assert_eq!(listed(), (vec![second.clone(), first.clone()], Some(second.clone())));
        world.remove([second.manifest_key()]);
        assert_eq!(listed(), (vec![first.clone()], None));
        // And the next run treats the rest as what a dead run has left.
        advance(1);
        let report = world.run().unwrap();
        assert!(!report.leftovers.is_empty());
        assert!(report.leftovers.iter().all(|one| one.key.starts_with(&second.folder())));
        assert_clean(&world.state());
    }
}

#[test]
fn what_a_run_after_a_crash_commits_restores_to_the_database_as_it_is() {
    let world = World::new(vec![Place::folder()]);
    world.run().unwrap();
    world.run_by(&Script::first(&["complete "], Fate::Die));
    world.let_the_lease_expire();
    let id = world.run().unwrap().id;
    let archive = format!("{}/{}", world.places[0].url(), id.key(&id.dump_name()));
    let copy = Database::fresh(17);
    succeed(stock(17, "pg_restore").args(["--exit-on-error", "-d", &copy.url(), &archive]));
    Contents::of(&world.database).assert_equals(&Contents::of(&copy));
}

/// PostgreSQL's programs of 17, with another pg_dump.
fn with_pg_dump(world: &mut World, script: &str) {
    let folder = world.temp.path().with_extension("bin");
    fs::create_dir_all(&folder).unwrap();
    for name in ["pg_dumpall", "pg_restore"] {
        let link = folder.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(postgres_bin(17).join(name), link).unwrap();
        }
    }
    let program = folder.join("pg_dump");
    let real = postgres_bin(17).join("pg_dump");
    let text = format!(
        "#!/bin/sh\nreal={}\n[ \"$1\" = --version ] && exec $real --version\n{script}\n",
        real.display()
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    world.settings.postgres.bin = Some(vec![folder]);
}

fn assert_fails(world: &World, code: Code, script: Option<&std::sync::Arc<Script>>) -> Error {
    advance(1);
    let before = world.state();
    let error = block_on(world.backup(script, None)).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    let after = world.state();
    assert_eq!(backups(&after), backups(&before));
    assert_clean(&after);
    world.assert_nothing_left_here();
    error
}

/// One failure for each stage of a run, in its order.
#[test]
fn a_failed_run_leaves_nothing_whatever_the_error() {
    for place in places() {
        let mut world = World::new(vec![place]);
        world.run().unwrap();
        let good = world.settings.clone();

        let elsewhere = Database::fresh(17);
        elsewhere.sql("SELECT 1");
        let gone = elsewhere.url();
        drop(elsewhere);
        world.settings = World::with(vec![Place::folder()], &[("DATABASE_URL", &gone)]).settings;
        world.settings.postgres.temp = good.postgres.temp.clone();
        assert_fails(&world, Code::ConnErr, None);
        world.settings = good.clone();

        world.settings.postgres.bin = Some(vec![Path::new("/nonexistent").to_owned()]);
        let error = block_on(world.backup(None, None)).unwrap_err();
        assert!(matches!(error.code(), Code::PgDumpErr | Code::Config), "{error}");
        world.settings = good.clone();

        assert_fails(&world, Code::Store, Some(&Script::first(&["reach"], Fate::Reject)));

        for (script, code) in [
            ("exec false", Code::PgDumpErr),
            ("exec head -c 100000 /dev/urandom", Code::PgDumpErr),
            ("$real \"$@\" | head -c 3000", Code::PgDumpErr),
            ("$real \"$@\"; kill -KILL $$", Code::PgDumpErr),
            ("$real \"$@\"; exit 1", Code::PgDumpErr),
            ("$real \"$@\"; echo more", Code::PgDumpErr),
            ("$real \"$@\"; sleep 60", Code::Stalled),
        ] {
            with_pg_dump(&mut world, script);
            world.settings.postgres.stall = std::time::Duration::from_secs(1);
            assert_fails(&world, code, None);
            world.settings = good.clone();
        }

        let role = format!("poor_{}", crate::support::database::unique_word());
        world.database.sql(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'p'; GRANT CONNECT ON DATABASE {} TO {role}",
            world.database.name
        ));
        let poor = world.database.url_as(Some((&role, "p")));
        world.settings = World::with(vec![Place::folder()], &[("DATABASE_URL", &poor)]).settings;
        world.settings.postgres.temp = good.postgres.temp.clone();
        assert_fails(&world, Code::Permission, None);
        world.settings = good.clone();

        world.stop.request(Reason::Deadline {
            left: std::time::Duration::from_secs(9),
        });
        assert_fails(&world, Code::Deadline, None);
        world.stop = pgstow::run::stop::Stop::new();

        assert_fails(&world, Code::Store, Some(&Script::first(&["complete "], Fate::Reject)));
        assert_fails(
            &world,
            Code::Store,
            Some(&Script::first(&["SHA256SUMS if absent"], Fate::Reject)),
        );
        advance(1);
        world.run().unwrap();
        world.database.sql(&format!(
            "REVOKE ALL ON DATABASE {} FROM {role}; DROP ROLE {role}",
            world.database.name
        ));
    }
}

#[test]
fn an_event_delivered_again_makes_no_second_backup() {
    for place in places() {
        let world = World::new(vec![place]);
        let first = block_on(world.backup(None, Some("event 1"))).unwrap();
        assert!(!first.repeated);
        advance(30);
        let again = block_on(world.backup(None, Some("event 1"))).unwrap();
        assert!(again.repeated);
        assert_eq!(again.id, first.id);
        assert_eq!(backups(&world.state()).len(), 1);
        let other = block_on(world.backup(None, Some("event 2"))).unwrap();
        assert!(!other.repeated);
        assert_eq!(backups(&world.state()).len(), 2);
    }
}

#[test]
fn an_event_whose_run_died_before_the_commit_is_done_again_and_after_it_is_not() {
    for place in places() {
        let world = World::new(vec![place]);
        for (words, repeated) in [
            (&["SHA256SUMS if absent"][..], false),
            (&["/manifest.json if absent"][..], true),
        ] {
            let event = format!("event {repeated}");
            let script = Script::first(
                if repeated {
                    &["/manifest.json if absent"]
                } else {
                    &["SHA256SUMS if absent"]
                },
                Fate::Die,
            );
            block_on(async {
                tokio::select! {
                    _ = world.backup(Some(&script), Some(&event)) => panic!("it should have died at {words:?}"),
                    () = script.died() => {}
                }
            });
            // The lease is still the dead run's.
            assert_eq!(
                block_on(world.backup(None, Some(&event))).unwrap_err().code(),
                Code::Busy
            );
            world.let_the_lease_expire();
            let before = backups(&world.state()).len();
            let report = block_on(world.backup(None, Some(&event))).unwrap();
            assert_eq!(report.repeated, repeated);
            assert_eq!(backups(&world.state()).len(), before + usize::from(!repeated));
        }
    }
}
