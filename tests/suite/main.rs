//! All tests of pgstow from outside, in one program, so that the crates below it are linked once.
//! The folders are those of the source (ARCHITECTURE.md), with a few for the product as a whole (docs/testing.md);
//! `scripts/test.sh verify::` runs one.

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
mod dataflow;
mod face;
mod format;
mod harness;
mod job;
mod older_backups;
mod outside;
mod postgres;
mod repository;
mod run;
mod security;
mod semantics;
mod settings;
mod store;
mod support;
mod torture;
