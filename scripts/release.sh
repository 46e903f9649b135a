#!/usr/bin/env bash
# Puts together what a release is, for one architecture: the program, the Lambda layers, the bill of materials of both, and
# the digests of all of it.
#
#   scripts/release.sh [--arch x86_64|arm64] [-o DIR]
#
# The architecture is this machine's, if none is given; DIR is target/releases/pgstow-<version>-<architecture>, and must not
# be there yet. The program is the function's `bootstrap` as well as the command line's `pgstow`. The image has what it
# holds in itself (docs/security.md, "Supply chain").
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"

architecture=$(uname -m | sed 's/aarch64/arm64/')
out=
while [ $# -gt 0 ]; do
    case $1 in
    --arch) architecture=${2:?--arch x86_64 or arm64} && shift 2 ;;
    -o) out=${2:?-o DIR} && shift 2 ;;
    *) die "no such option: $1" ;;
    esac
done
case $architecture in
x86_64) target=x86_64-unknown-linux-gnu ;;
arm64) target=aarch64-unknown-linux-gnu ;;
*) die "--arch is x86_64 or arm64, not $architecture" ;;
esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
: "${out:=$ROOT/target/releases/pgstow-$version-$architecture}"
out=$(realpath -m "$out")
[ ! -e "$out" ] || die "$out is there already"
cd "$ROOT"

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
mkdir "$WORK/release"
infra/lambda/build.sh --arch "$architecture" -o "$WORK/program"
install -m 755 "$WORK/program/bootstrap" "$WORK/release/pgstow"
clients=$WORK/release/pgstow-postgresql-clients-$architecture.zip
server=$WORK/release/pgstow-postgresql-server-$architecture.zip
infra/layer/build.sh --arch "$architecture" -o "$clients"
infra/layer/build.sh --arch "$architecture" --server -o "$server"
# Of the layers as they were built: what is said of them is read from their own notices.
scripts/sbom.sh --target "$target" -o "$WORK/release/pgstow-$target.cdx.json" "$clients" "$server"
install -m 644 LICENSE CHANGELOG.md "$WORK/release"
(cd "$WORK/release" && sha256sum -- * >"$WORK/sums" && mv "$WORK/sums" SHA256SUMS)
mkdir -p "$(dirname "$out")"
mv -T "$WORK/release" "$out"
chmod 755 "$out"
say "ready: $out"
