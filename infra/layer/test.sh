#!/usr/bin/env bash
# The layers as continuous integration sees them:  infra/layer/test.sh
#
# The clients of all majors for this machine's architecture, built twice, bit for bit the same; the server's layer of one
# major; and both checked together (infra/layer/check.sh). The clients of the other architecture are built and looked
# through, and not run.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../../scripts/place.sh"
cd "$ROOT"

OWN=$(uname -m | sed 's/aarch64/arm64/')
OTHER=$([ "$OWN" = arm64 ] && echo x86_64 || echo arm64)
mkdir -p target
WORK=$(mktemp -d "$ROOT/target/layer-test.XXXXXX")
trap 'rm -rf "$WORK"' EXIT

# Its output matters only if it fails.
quiet() {
    "$@" >"$WORK/log" 2>&1 || {
        tail -n 60 "$WORK/log" >&2
        die "failed: $*"
    }
}

quiet infra/layer/build.sh --arch "$OWN" -o "$WORK/clients.zip"
quiet infra/layer/build.sh --arch "$OWN" -o "$WORK/again.zip"
cmp "$WORK/clients.zip" "$WORK/again.zip" || die "the same sources made two different layers"
say "layer: the clients' layer for $OWN, built twice: the same bytes"
quiet infra/layer/build.sh --arch "$OWN" --server --majors 17 -o "$WORK/server.zip"
quiet infra/layer/check.sh "$WORK/clients.zip" "$WORK/server.zip"
grep -v '^  pgsql/' "$WORK/log" | sed 's/^ */layer: /' >&2
quiet infra/layer/build.sh --arch "$OTHER" -o "$WORK/other.zip"
quiet infra/layer/check.sh "$WORK/other.zip"
say "layer: the clients' layer for $OTHER: every library known and licensed, none newer than glibc 2.34"
