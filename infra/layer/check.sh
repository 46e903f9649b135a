#!/usr/bin/env bash
# Checks the layers that infra/layer/build.sh has built, and fails unless all holds.
#
#   infra/layer/check.sh [ZIP]...      CLIENTS.zip, SERVER.zip, or both, which are then checked together
#
# Without running anything, for every architecture: each library with its package, version and
# licence; no symbol newer than glibc 2.34; nothing unresolved outside the layer and glibc.
# For this machine's architecture, in a root that holds /opt, glibc and a shell and nothing else:
#   - each program starts with an empty environment, and with a LD_LIBRARY_PATH full of broken libraries;
#   - psql of each major connects by TLS with verify-full, and refuses a wrong authority and a wrong name;
#   - pg_dump of each major that can dumps a real server, and pg_restore reads the dump;
#   - of the server layer, each major is initialised, started, made to create every extension, dumped
#     by the clients if they are there, and stopped.
# Without ZIP: the clients' layer in target/layer. The server for the clients: PGSTOW_LAYER_SERVER
# (pg15, which all but major 14 can dump).
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../../scripts/place.sh"

HERE=$ROOT/infra/layer
# Nobody's: like the function, what runs there owns nothing.
NOBODY=65534
UNSHARE=$(command -v unshare)

say_of() { say "$(basename "$1"): $2"; }

examine() {
    local zip=$1 folder=$2
    mkdir "$folder"
    "$LAYER_VENV/bin/python" -m zipfile -e "$zip" "$folder"
    "$LAYER_VENV/bin/python" "$HERE/examine.py" "$zip" "$folder" >&2 || die "$zip is not as it must be"
    say_of "$zip" "every library known and licensed, every symbol found, none newer than glibc 2.34"
}

# A root with glibc, a shell (initdb and pg_ctl start programs by one) and the layers as Lambda
# lays them: one over the other.
make_root() {
    local library file zip libraries
    libraries=$(ldconfig -p)
    mkdir -p "$BOX"/{opt,bin,dev,etc/pki/tls,proc,tmp,decoy}
    for library in libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 libresolv.so.2 librt.so.1 libutil.so.1; do
        file=$(awk -v name="$library" '$1 == name && /x86-64|AArch64/ { print $NF; exit }' <<<"$libraries")
        install -D -m 755 "$file" "$BOX$file"
    done
    file=$(readelf -p .interp "$FIRST_PROGRAM" | grep -o '/lib.*')
    install -D -m 755 "$file" "$BOX$file"
    file=$(command -v dash) || die "dash is missing"
    install -D -m 755 "$file" "$BOX/bin/sh"
    for zip in "$@"; do
        (cd "$BOX/opt" && python3 "$HERE/unpack.py" "$zip")
    done
    echo "layer:x:$NOBODY:$NOBODY::/tmp:/bin/sh" >"$BOX/etc/passwd"
    printf '127.0.0.1 localhost\n127.0.0.1 elsewhere.example\n' >"$BOX/etc/hosts"
    as_root mknod -m 666 "$BOX/dev/null" c 1 3
    # Libraries that nothing may look at.
    for file in "$BOX"/opt/pgsql/lib/* "$BOX"/opt/pgsql/*/lib/libpq*; do echo decoy >"$BOX/decoy/${file##*/}"; done
    chmod -R a+rX "$BOX"
    chmod 1777 "$BOX/tmp"
}

# Runs a program in the root with an environment of the leading NAME=VALUE arguments alone. The
# loader asks /proc where a program lies.
inside() {
    local environment=()
    while [[ $1 == *=* ]]; do
        environment+=("$1")
        shift
    done
    as_root env -i "${environment[@]}" "$UNSHARE" --root="$BOX" --mount-proc --setgid=$NOBODY --setuid=$NOBODY "$@"
}

check_starts() {
    local program count=0
    for program in "$BOX"/opt/pgsql/*/bin/*; do
        program=${program#"$BOX"}
        answers "(PostgreSQL) $(cut -d / -f 4 <<<"$program")\." inside "$program" --version
        # The right libraries must come first whatever the function's environment says.
        answers '(PostgreSQL)' inside LD_LIBRARY_PATH=/decoy "$program" --version
        count=$((count + 1))
    done
    say "$count programs start with an empty environment, and whatever LD_LIBRARY_PATH says"
}

# psql of one major, in the root, as one statement's unadorned answer.
ask() {
    local major=$1 url=$2 statement=$3
    inside PGCONNECT_TIMEOUT=10 "/opt/pgsql/$major/bin/psql" -XAtq -v ON_ERROR_STOP=1 -d "$url" -c "$statement"
}

# Must succeed, and with these words.
answers() {
    local words=$1
    shift
    "$@" >"$SCRATCH/answer" || die "failed: $*"
    grep -q "$words" "$SCRATCH/answer" || die "no \"$words\" in what this says: $*"
}

# Must fail, and with these words.
refused() {
    local words=$1
    shift
    if "$@" >"$SCRATCH/refused" 2>&1; then die "this was not refused: $*"; fi
    grep -q "$words" "$SCRATCH/refused" || die "refused, but not because of \"$words\": $(cat "$SCRATCH/refused")"
}

check_tls() {
    local major url=$1 protocol
    install -m 644 "$PGSTOW_TEST_PG_CA" "$BOX/etc/right.crt"
    openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj '/CN=pgstow test authority' \
        -keyout "$SCRATCH/wrong.key" -out "$BOX/etc/wrong.crt" 2>"$SCRATCH/log" || die "openssl: $(cat "$SCRATCH/log")"
    chmod 644 "$BOX/etc/wrong.crt"
    for major in "${CLIENTS[@]}"; do
        protocol=$(ask "$major" "$url?sslmode=verify-full&sslrootcert=/etc/right.crt" \
            'SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()')
        [ "$protocol" = TLSv1.3 ] || die "psql $major speaks ${protocol:-no TLS}"
        refused 'certificate verify failed' ask "$major" \
            "$url?sslmode=verify-full&sslrootcert=/etc/wrong.crt" 'SELECT 1'
        refused 'does not match host name' ask "$major" \
            "${url/localhost/elsewhere.example}?sslmode=verify-full&sslrootcert=/etc/right.crt" 'SELECT 1'
        # The system's authorities, which libpq knows from 16 on, where Amazon Linux keeps them.
        [ "$major" -ge 16 ] || continue
        install -m 644 "$BOX/etc/wrong.crt" "$BOX/etc/pki/tls/cert.pem"
        refused 'certificate verify failed' ask "$major" "$url?sslrootcert=system" 'SELECT 1'
        install -m 644 "$BOX/etc/right.crt" "$BOX/etc/pki/tls/cert.pem"
        [ "$(ask "$major" "$url?sslrootcert=system" 'SELECT 1')" = 1 ] || die "psql $major has no system authorities"
    done
    say "psql ${CLIENTS[*]}: TLS 1.3 with verify-full; a wrong authority and a wrong name are refused"
}

# Dumps what `url` leads to with one major's programs, in each compression that it knows.
dump() {
    local major=$1 url=$2 bin=/opt/pgsql/$1/bin compression compressions=(6)
    [ "$major" -lt 16 ] || compressions=(gzip:6 lz4 zstd:3)
    for compression in "${compressions[@]}"; do
        inside "$bin/pg_dump" -Fc -Z "$compression" -f "/tmp/$major.dump" -d "$url"
        answers 'TABLE DATA public layered' inside "$bin/pg_restore" --list "/tmp/$major.dump"
        answers '^42	Ελλάδα$' inside "$bin/pg_restore" -f - "/tmp/$major.dump"
    done
    answers '^CREATE ROLE' inside "$bin/pg_dumpall" --globals-only -d "$url"
}

check_clients() {
    local service=${PGSTOW_LAYER_SERVER:-pg15} name url major tools=(postgres) able=()
    [ "$service" = pg15 ] || tools+=(majors)
    "$ROOT/scripts/tools.sh" "${tools[@]}"
    "$ROOT/scripts/services.sh" start --into "$SCRATCH/services" --owner $$ "$service"
    # shellcheck source=/dev/null
    . "$SCRATCH/services/env"
    name=PGSTOW_TEST_PG${service#pg}_URL
    url=${!name/127.0.0.1/localhost}
    check_tls "$url"
    ask "${CLIENTS[-1]}" "$url" "CREATE TABLE layered AS SELECT 42 AS number, 'Ελλάδα' AS word"
    for major in "${CLIENTS[@]}"; do
        if [ "$major" -ge "${service#pg}" ]; then
            dump "$major" "$url"
            able+=("$major")
        else
            refused 'server version mismatch' inside "/opt/pgsql/$major/bin/pg_dump" -d "$url"
        fi
    done
    say "pg_dump, pg_restore, pg_dumpall ${able[*]}: a dump of PostgreSQL ${service#pg} in each compression, read back"
    "$ROOT/scripts/services.sh" stop --into "$SCRATCH/services"
}

stop_server() {
    [ -n "${SERVING:-}" ] || return 0
    inside "/opt/pgsql/$SERVING/bin/pg_ctl" -s -m immediate -D "/tmp/data$SERVING" stop || true
}

# As pgstow's drill starts it (src/postgres/scratch.rs), on Lambda: no /dev/shm, no time zones but
# the layer's.
check_server() {
    local major=$1 bin=/opt/pgsql/$1/bin data=/tmp/data$1 url="host=/tmp user=postgres dbname=postgres" moment count
    inside TZ=:UTC "$bin/initdb" --username=postgres --encoding=UTF8 --locale=C --auth=trust --no-sync -D "$data" \
        >"$SCRATCH/log" 2>&1 || die "initdb $major: $(tail -n 5 "$SCRATCH/log")"
    SERVING=$major
    inside TZ=:UTC "$bin/pg_ctl" -w -t 30 -s -D "$data" -l /tmp/log \
        -o "-c listen_addresses= -c unix_socket_directories=/tmp -c dynamic_shared_memory_type=mmap -c fsync=off" \
        start </dev/null >/dev/null 2>"$SCRATCH/log" || die "PostgreSQL $major: $(cat "$SCRATCH/log" "$BOX/tmp/log")"
    if [ -x "$BOX$bin/psql" ]; then
        moment="'2026-07-01 12:00 Europe/Athens'::timestamptz"
        [ "$(ask "$major" "$url" "SELECT $moment AT TIME ZONE 'America/Lima'")" = '2026-07-01 04:00:00' ] ||
            die "PostgreSQL $major has no time zones"
        [ "$(ask "$major" "$url" "SELECT (xpath('/a/text()', '<a>b</a>'))[1]")" = b ] ||
            die "PostgreSQL $major knows no XML"
        # shellcheck disable=SC2016
        ask "$major" "$url" 'DO $$ DECLARE name text; BEGIN
            FOR name IN SELECT e.name FROM pg_available_extensions e LOOP
                EXECUTE format($f$CREATE EXTENSION IF NOT EXISTS %I CASCADE$f$, name);
            END LOOP; END $$' 2>"$SCRATCH/log" || die "PostgreSQL $major: an extension: $(cat "$SCRATCH/log")"
        count=$(ask "$major" "$url" 'SELECT count(*) FROM pg_extension')
        ask "$major" "$url" "CREATE TABLE layered AS SELECT 42 AS number, 'Ελλάδα' AS word"
        ask "$major" "$url" 'SELECT uuid_generate_v4(), gen_random_bytes(8), similarity(word, word) FROM layered' \
            >/dev/null
        dump "$major" "$url"
        say "PostgreSQL $major: initialised, started, $count extensions created, dumped by its own clients"
    else
        say "PostgreSQL $major: initialised and started"
    fi
    inside "$bin/pg_ctl" -w -s -D "$data" -m fast stop || die "PostgreSQL $major does not stop"
    SERVING=
    as_root rm -rf "$BOX$data"
}

[ $# -gt 0 ] || set -- "$ROOT/target/layer/pgstow-postgresql-clients-$(uname -m | sed s/aarch64/arm64/).zip"
"$ROOT/scripts/tools.sh" layer
SCRATCH=$(mktemp -d)
BOX=$SCRATCH/root
trap 'stop_server; "$ROOT/scripts/services.sh" stop --into "$SCRATCH/services"; as_root rm -rf "$SCRATCH"' EXIT
# The user of the root must be able to enter it.
chmod 711 "$SCRATCH"

zips=()
for zip in "$@"; do
    [ -f "$zip" ] || die "no such file: $zip"
    zips+=("$(realpath "$zip")")
    examine "$zip" "$SCRATCH/unpacked${#zips[@]}"
done
for FIRST_PROGRAM in "$SCRATCH"/unpacked1/pgsql/*/bin/*; do break; done
case $(uname -m)$(readelf -h "$FIRST_PROGRAM") in
x86_64*X86-64* | aarch64*AArch64*) ;;
*)
    say "of another architecture than this machine: examined, not run"
    exit 0
    ;;
esac

make_root "${zips[@]}"
CLIENTS=()
SERVERS=()
for folder in "$BOX"/opt/pgsql/[0-9]*; do
    [ ! -x "$folder/bin/pg_dump" ] || CLIENTS+=("${folder##*/}")
    [ ! -x "$folder/bin/postgres" ] || SERVERS+=("${folder##*/}")
done
check_starts
[ ${#CLIENTS[@]} = 0 ] || check_clients
for major in ${SERVERS[@]+"${SERVERS[@]}"}; do check_server "$major"; done
