//! SIGKILL at random moments of the real program.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::place::Place;
use super::world::*;
use crate::support::program::{pgstow, succeed};
use crate::support::services::s3;

fn command(world: &World) -> Command {
    let mut command = pgstow();
    command
        .args(["backup", "--json", "--compress", "none", "--store"])
        .arg(world.places[0].url())
        .env("DATABASE_URL", world.database.url())
        .env("BACKUP_S3_PART_SIZE", "5242880")
        .env("TMPDIR", world.temp.path())
        .current_dir(world.temp.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if world.places[0].has_lifecycle() {
        command.envs(s3().environment());
    }
    command
}

/// Programs that read this test's database.
fn readers(world: &World) -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains("pg_dump") && line.contains(&world.database.name))
        .collect()
}

fn survives_being_killed(place: Place) {
    let world = World::new(vec![place]);
    world
        .database
        .sql("CREATE TABLE bulk AS SELECT n, repeat(md5(n::text), 32) AS text FROM generate_series(1, 12000) n");
    let started = Instant::now();
    let first = succeed(&mut command(&world)).json();
    let whole = started.elapsed();
    let mut last = first["id"].as_str().unwrap().to_owned();

    let seed = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .subsec_nanos();
    println!("seed {seed}, a run takes {whole:?}");
    let mut random = u64::from(seed);
    for _ in 0..7 {
        // Knuth's numbers; the upper bits are the good ones.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let after = whole.mul_f64((random >> 33) as f64 / f64::from(1_u32 << 31) * 1.1);
        let mut run = command(&world).spawn().unwrap();
        std::thread::sleep(after);
        run.kill().unwrap();
        run.wait().unwrap();
        println!("killed after {after:?}");

        let wreck = world.state();
        assert_backups_are_whole(&wreck);
        assert!(backups(&wreck).contains_key(&last.parse().unwrap()), "{last} is gone");
        for id in backups(&wreck).keys() {
            assert!(!tiers(&wreck, id).contains("pending"), "{id}");
        }
        let end = Instant::now() + Duration::from_secs(5);
        while !readers(&world).is_empty() {
            assert!(Instant::now() < end, "{:?}", readers(&world));
            std::thread::sleep(Duration::from_millis(10));
        }

        block_on(world.places[0].expire_lease());
        let report: Value = succeed(&mut command(&world)).json();
        last = report["id"].as_str().unwrap().to_owned();
        let mut state = world.state();
        // Another run may be about to take the lease, so this one lasts a day.
        state.unfinished.retain(|key| !key.ends_with("/.lease"));
        assert_backups_are_whole(&state);
        assert_clean(&state);
        if world.places[0].has_lifecycle() {
            assert_tagged(&state, 1);
        }
        world.assert_nothing_left_here();
    }
}

#[test]
fn a_folder_survives_sigkill_at_any_moment() {
    survives_being_killed(Place::folder());
}

#[test]
fn s3_survives_sigkill_at_any_moment() {
    survives_being_killed(block_on(Place::prefix()));
}
