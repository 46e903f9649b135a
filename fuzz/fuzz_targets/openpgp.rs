#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pgstow_fuzz::check(bytes, pgstow::fuzzing::openpgp::check));
