#!/usr/bin/env bash
# Writes a bill of materials (CycloneDX 1.6, JSON) of what a release contains: the program's crates as Cargo.lock pins
# them, and what the Lambda layers are made of (infra/layer/sources).
#
#   scripts/sbom.sh [--target TRIPLE] [-o FILE] [LAYER.zip]...
#
# TRIPLE is this machine's, if none is given; FILE is target/sbom/pgstow-<TRIPLE>.cdx.json. The versions of the libraries
# in a layer come from the layers that are named, as infra/layer/build.sh makes them. The same sources make the same bytes.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"

target=$(rustc -vV | sed -n 's/^host: //p')
out=
layers=()
while [ $# -gt 0 ]; do
    case $1 in
    --target) target=${2:?--target TRIPLE} && shift 2 ;;
    -o) out=${2:?-o FILE} && shift 2 ;;
    -*) die "no such option: $1" ;;
    *) layers+=("$(realpath "$1")") && shift ;;
    esac
done
: "${out:=$ROOT/target/sbom/pgstow-$target.cdx.json}"
out=$(realpath -m "$out")
cd "$ROOT"

mkdir -p "$(dirname "$out")"
# All that the lock names has to be here, to ask it for its licence.
cargo fetch --locked --quiet
contents=$(python3 scripts/sbom.py --target "$target" --output "$out" ${layers[@]+"${layers[@]}"})
say "$out: $contents"
