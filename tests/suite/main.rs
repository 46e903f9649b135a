//! All tests of pgstow from outside, in one program, so that the crates below it are linked once.
//! A module is a test group; `scripts/test.sh verify::` runs one.

// clippy.toml allows these in test functions, but does not see that the helpers are called by them alone.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

/// A test of one major, run on several of them side by side: `name::on_15` and so on.
macro_rules! on_majors {
    (@test 15, $($of:tt)*) => { on_majors! { @named on_15, 15, $($of)* } };
    (@test 16, $($of:tt)*) => { on_majors! { @named on_16, 16, $($of)* } };
    (@test 17, $($of:tt)*) => { on_majors! { @named on_17, 17, $($of)* } };
    (@test 18, $($of:tt)*) => { on_majors! { @named on_18, 18, $($of)* } };
    (@named $test:ident, $major:literal, $name:ident) => {
        #[test]
        fn $test() {
            super::$name($major);
        }
    };
    (@named $test:ident, $major:literal, $name:ident, async) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
        async fn $test() {
            super::$name($major).await;
        }
    };
    ($name:ident: $($major:tt)*) => {
        mod $name {
            $(on_majors! { @test $major, $name })*
        }
    };
    (async $name:ident: $($major:tt)*) => {
        mod $name {
            $(on_majors! { @test $major, $name, async })*
        }
    };
}

mod architecture;
mod archive;
mod catalog_stores;
mod command_line;
mod credentials;
mod doctor;
mod download;
mod drill;
mod drill_same;
mod faults_database;
mod faults_folder;
mod faults_process;
mod faults_s3;
mod gentle;
mod harness;
mod lambda;
mod library;
mod metrics;
mod notify_sns;
mod older_backups;
mod overview;
mod plain;
mod postgres_layer;
mod reading;
mod restore;
mod retention_rules;
mod round_trip;
mod safe_hands;
mod semantics;
mod sharing;
mod stores;
mod streams;
mod support;
mod torture;
mod verify;
