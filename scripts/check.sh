#!/usr/bin/env bash
# What continuous integration runs: format, lints, templates and scripts, then all tests.  scripts/check.sh
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
cd "$ROOT"

# Every script below installs what it needs. Most of that is waiting for the network, and can be done while the compiler
# works; should it fail here, it fails again where it is needed, and says so.
mkdir -p target
say "installing tools meanwhile (target/tools.log)"
setsid scripts/tools.sh postgres majors s3 aws lambda rust iac checkov deploy layer ministack elf >target/tools.log 2>&1 &
tools=$!
trap 'kill -TERM -- -$tools 2>/dev/null || true' EXIT

cargo fmt --check
cargo clippy --locked --all-targets -- -D warnings
cargo build --locked --tests
wait "$tools" || say "a tool could not be installed: see target/tools.log"
trap - EXIT

scripts/iac.sh
scripts/test.sh --locked
