#!/usr/bin/env bash
# Real servers for tests, demos and benchmarks: on free ports of 127.0.0.1, with throwaway data.
#
#   scripts/services.sh start [--into DIR] [--owner PID] [SERVICE]...
#   scripts/services.sh stop  [--into DIR]
#   scripts/services.sh env   [--into DIR]      what to export, as shell text
#   scripts/services.sh alive [--into DIR]      exit 0 if all that was started still runs
#
# Services: pg15 pg16 pg17 pg18 s3 aws; all of them when none is named. The tools must be there
# (scripts/tools.sh). DIR is target/services; DIR/env then holds the addresses.
# With --owner the services end when that process does, however it ends.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"

SELF=$ROOT/scripts/services.sh

# A process is known by its pid and the moment at which it started: a pid alone may belong to a
# stranger by the time we come back to it.
# One that has ended and only waits to be buried (a container's first process may never do it)
# counts as gone.
identity() { sed -n 's/.*) //; /^[^ZX]/p' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

record() { echo "$2 $(identity "$2")" >"$DIR/pids/$1"; }

is_alive() {
    local pid started
    read -r pid started <"$1" && [ -n "$started" ] && [ "$(identity "$pid")" = "$started" ]
}

# Its own session: an interrupt typed at the terminal is for the tests, which still need the
# servers to clean up after themselves. And no descriptor of ours, so that nobody's lock or pipe
# is held open.
launch() {
    local name=$1
    shift
    setsid "$@" </dev/null >"$DIR/$name.log" 2>&1 6>&- 7>&- 8>&- 9>&- &
    record "$name" $!
}

kill_recorded() {
    local file=$1 signal=$2 pid
    is_alive "$file" || return 0
    read -r pid _ <"$file"
    kill "-$signal" "$pid" 2>/dev/null || true
    for _ in $(seq 100); do
        is_alive "$file" || return 0
        sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null || true
}

certificates() {
    # An authority and a server certificate signed by it, so that sslmode=verify-full can be
    # tested as well as its failure.
    (
        cd "$SCRATCH/tls"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj '/CN=pgstow test authority' \
            -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=localhost' -keyout server.key -out server.csr
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out server.crt \
            -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE')
        chmod 600 server.key
    ) >"$DIR/tls.log" 2>&1 || die "openssl could not make certificates: see $DIR/tls.log"
}

start_postgres() {
    local major=$1 port=$2 bin data
    bin=$(postgres_bin "$major")
    data=$SCRATCH/pg$major
    [ -x "$bin/postgres" ] || die "PostgreSQL $major is not in $bin: run scripts/tools.sh"
    as_postgres "$bin/initdb" -D "$data" -U postgres --encoding=UTF8 --locale=C.UTF-8 \
        --auth=scram-sha-256 --pwfile="$SCRATCH/password" --no-sync
    # Throwaway data: no fsync. Logical WAL for backups from a slot. Hundreds of small databases come and go:
    # nothing that looks after them in the background, and no compiler for their catalogs' queries.
    as_postgres tee -a "$data/postgresql.conf" >/dev/null <<CONF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = '$data'
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = logical
max_connections = 200
max_locks_per_transaction = 256
max_prepared_transactions = 4
max_wal_size = '4GB'
shared_buffers = '128MB'
autovacuum = off
jit = off
ssl = on
ssl_cert_file = '$SCRATCH/tls/server.crt'
ssl_key_file = '$SCRATCH/tls/server.key'
CONF
    # The wheels' modules (postgres_fdw, logical replication) would otherwise find Debian's libpq.
    as_postgres env LD_LIBRARY_PATH="$(dirname "$bin")/lib" "$bin/pg_ctl" start -w -t 60 -s -D "$data" -l "$data/server.log" </dev/null >/dev/null 2>&1 6>&- 7>&- 8>&- 9>&-
}

# In two steps: the servers start side by side, each in a subshell; what they are is recorded
# by the one shell that ends last.
record_postgres() {
    local major=$1 port=$2
    record "pg$major" "$(as_postgres head -n 1 "$SCRATCH/pg$major/postmaster.pid")"
    export_value "PGSTOW_TEST_PG${major}_URL" "postgresql://postgres:$PASSWORD@127.0.0.1:$port/postgres"
    export_value "PGSTOW_TEST_PG_BIN_$major" "$(postgres_bin "$major")"
}

start_s3() {
    local s3=$1 master=$2 volume=$3 filer=$4 access_key secret_key reader_key reader_secret name tls=()
    [ -x "$WEED" ] || die "SeaweedFS is not in $WEED: run scripts/tools.sh"
    access_key=pgstow-test
    secret_key=$(openssl rand -hex 20)
    # May look, but not write: for tests of what a refusal looks like.
    reader_key=pgstow-reader
    reader_secret=$(openssl rand -hex 20)
    # Large files, on a disk.
    S3_DATA=$(mktemp -d /tmp/pgstow.XXXXXX)
    echo "$S3_DATA" >>"$DIR/scratch"
    (umask 077 && cat >"$SCRATCH/s3.json") <<JSON
{"identities": [{"name": "pgstow", "credentials": [{"accessKey": "$access_key", "secretKey": "$secret_key"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
 {"name": "reader", "credentials": [{"accessKey": "$reader_key", "secretKey": "$reader_secret"}],
  "actions": ["Read", "List"]}]}
JSON
    # For clients that will have nothing else.
    if [ -n "${5:-}" ]; then
        tls=(-s3.port.https="$5" -s3.cert.file="$SCRATCH/tls/server.crt" -s3.key.file="$SCRATCH/tls/server.key")
        export_value PGSTOW_TEST_S3_TLS_PORT "$5"
    fi
    # Without a key for it, asking for server-side encryption is answered with 500.
    # And every test has a bucket, for each of which it would make seven volumes at once.
    # It may take memory rather than collect garbage.
    GOGC=400 WEED_S3_SSE_KEK=$(openssl rand -hex 32) WEED_MASTER_VOLUME_GROWTH_COPY_1=1 launch s3 "$WEED" -logtostderr server -dir="$S3_DATA" \
        -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.port="$master" -volume.port="$volume" -filer.port="$filer" \
        -filer -s3 -s3.port="$s3" -s3.port.iceberg=0 -s3.port.lance=0 -s3.autoCreateBucket=false \
        -s3.config="$SCRATCH/s3.json" ${tls[@]+"${tls[@]}"} -master.volumeSizeLimitMB=1024 -volume.max=10000 -master.telemetry=false
    # It leaves these behind in /tmp when it is killed.
    for name in "filer-$filer" "filer-grpc-$((filer + 10000))" "master-grpc-$((master + 10000))" \
        "volume-grpc-$((volume + 10000))" "s3-$s3" "s3-grpc-$((s3 + 10000))"; do
        echo "/tmp/seaweedfs-$name.sock" >>"$DIR/sockets"
    done
    export_value PGSTOW_TEST_S3_ENDPOINT "http://127.0.0.1:$s3"
    export_value PGSTOW_TEST_S3_ACCESS_KEY "$access_key"
    export_value PGSTOW_TEST_S3_SECRET_KEY "$secret_key"
    export_value PGSTOW_TEST_S3_READER_ACCESS_KEY "$reader_key"
    export_value PGSTOW_TEST_S3_READER_SECRET_KEY "$reader_secret"
    AWAITED+=("http://127.0.0.1:$s3/healthz")
}

start_aws() {
    local port=$1
    [ -x "$AWS_VENV/bin/moto_server" ] || die "moto is not in $AWS_VENV: run scripts/tools.sh"
    launch aws "$AWS_VENV/bin/moto_server" -H 127.0.0.1 -p "$port"
    export_value PGSTOW_TEST_AWS_ENDPOINT "http://127.0.0.1:$port"
    AWAITED+=("http://127.0.0.1:$port/moto-api/")
}

export_value() { printf "export %s='%s'\n" "$1" "$2" >>"$DIR/env.new"; }

start() {
    stop
    mkdir -p "$DIR/pids"
    chmod 700 "$DIR"
    : >"$DIR/env.new"
    trap 'stop' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    # Not below DIR: the user `postgres` must be able to reach its data.
    SCRATCH=$(mktemp -d "$(throwaway)/pgstow.XXXXXX")
    chmod 711 "$SCRATCH"
    echo "$SCRATCH" >"$DIR/scratch"
    PASSWORD=$(openssl rand -hex 12)
    (umask 077 && echo "$PASSWORD" >"$SCRATCH/password")
    # Of the tests' own: a short name, since sockets are in there.
    mkdir -m 1777 "$SCRATCH/t"
    export_value PGSTOW_TEST_TMP "$SCRATCH/t"
    mkdir "$SCRATCH/tls"
    certificates
    [ "$(id -u)" != 0 ] || chown -R postgres: "$SCRATCH"

    local ports service major starting=()
    read -ra ports <<<"$(python3 "$ROOT/scripts/net.py" ports 10)"
    AWAITED=()
    for service in "$@"; do
        case $service in
        s3) start_s3 "${ports[@]:4:4}" ;;
        s3+tls) start_s3 "${ports[@]:4:4}" "${ports[9]}" ;;
        aws) start_aws "${ports[8]}" ;;
        pg15 | pg16 | pg17 | pg18)
            major=${service#pg}
            (trap - EXIT INT TERM && start_postgres "$major" "${ports[major - 15]}") >"$DIR/$service.log" 2>&1 &
            starting+=("$service $!")
            ;;
        *) die "no such service: $service" ;;
        esac
    done
    for service in ${starting[@]+"${starting[@]}"}; do
        wait "${service#* }" || {
            tail -n 20 "$DIR/${service% *}.log" >&2
            die "${service% *} did not start"
        }
        major=${service#pg}
        major=${major% *}
        record_postgres "$major" "${ports[major - 15]}"
    done
    # No server of it stands ready: the tests that want one start theirs.
    export_value PGSTOW_TEST_PG_BIN_14 "$(postgres_bin 14)"
    for url in ${AWAITED[@]+"${AWAITED[@]}"}; do
        python3 "$ROOT/scripts/net.py" wait "$url" 60
    done
    export_value PGSTOW_TEST_PG_CA "$SCRATCH/tls/ca.crt"
    [ ! -x "$RIE" ] || export_value PGSTOW_TEST_RIE "$RIE"
    [ ! -x "$AWS_VENV/bin/aws" ] || export_value PGSTOW_TEST_AWSCLI "$AWS_VENV/bin/aws"

    if [ -n "$OWNER" ]; then
        # Also when the owner is killed outright and can stop nothing itself.
        # shellcheck disable=SC2016
        setsid bash -c 'tail --pid="$1" -f /dev/null; exec "$2" stop --into "$3"' _ "$OWNER" "$SELF" "$DIR" \
            </dev/null >/dev/null 2>&1 6>&- 7>&- 8>&- 9>&- &
        record watcher $!
    fi
    mv "$DIR/env.new" "$DIR/env"
    trap - EXIT INT TERM
}

stop() {
    local file scratch
    for file in "$DIR"/pids/*; do
        [ -e "$file" ] || continue
        case ${file##*/} in
        # PostgreSQL's immediate shutdown; its children go with it.
        pg*) kill_recorded "$file" QUIT ;;
        # The watcher may be the one that is running this.
        watcher) is_alive "$file" && [ "$(cut -d ' ' -f 1 "$file")" != $$ ] && kill_recorded "$file" KILL ;;
        # SeaweedFS takes half a minute to end politely, and its data is thrown away.
        *) kill_recorded "$file" KILL ;;
        esac
        rm -f "$file"
    done
    [ ! -e "$DIR/sockets" ] || xargs -d '\n' rm -f <"$DIR/sockets"
    while read -r scratch; do
        case $scratch in
        /tmp/pgstow.?????? | /dev/shm/pgstow.??????) rm -rf "$scratch" ;;
        esac
    done < <(cat "$DIR/scratch" 2>/dev/null || true)
    rm -f "$DIR/scratch" "$DIR/sockets" "$DIR/env" "$DIR/env.new"
}

alive() {
    local file
    [ -e "$DIR/env" ] || return 1
    for file in "$DIR"/pids/*; do
        is_alive "$file" || return 1
    done
}

command=${1:-}
shift || true
DIR=$ROOT/target/services
OWNER=
while [ $# -gt 0 ]; do
    case $1 in
    --into) DIR=$2 && shift 2 ;;
    --owner) OWNER=$2 && shift 2 ;;
    *) break ;;
    esac
done
mkdir -p "$DIR"
DIR=$(cd "$DIR" && pwd)

case $command in
start)
    [ $# -gt 0 ] || set -- pg15 pg16 pg17 pg18 s3 aws
    start "$@"
    ;;
stop) stop ;;
env) cat "$DIR/env" ;;
alive) alive ;;
*) die "start, stop, env or alive?" ;;
esac
