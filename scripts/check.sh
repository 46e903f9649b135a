#!/usr/bin/env bash
# What continuous integration runs: format, lints, templates and scripts, then all tests.  scripts/check.sh
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
cd "$ROOT"

cargo fmt --check

# Every script below installs what it needs. Most of that is waiting for the network, and can be done while the compiler
# works; should it fail here, it fails again where it is needed, and says so. It is never cut short, since Debian's
# packages would be left half installed: not by an interrupt either, for which it has a session of its own.
mkdir -p target
say "installing tools meanwhile (target/tools.log)"
setsid scripts/tools.sh postgres majors s3 aws lambda rust iac checkov deploy layer ministack elf >target/tools.log 2>&1 &
tools=$!
trap 'wait $tools || true' EXIT

cargo clippy --locked --all-targets -- -D warnings
cargo build --locked --tests
wait "$tools" || say "a tool could not be installed: see target/tools.log"
trap - EXIT

scripts/iac.sh
scripts/test.sh --locked
