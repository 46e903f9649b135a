#!/usr/bin/env bash
# The units, checked and run by a real systemd.
#
#   infra/systemd/test.sh          PGSTOW names the binary; default: target/debug/pgstow
#
# A systemd of its own is started in namespaces, on a copy of this machine's files that keeps all
# changes in memory (an overlay), with nothing in it but its journal and what install.sh installs
# there. So the units are started, sandboxed, given their credentials, stopped and failed by systemd
# itself; this machine's own systemd, if it has one, is left alone.
set -euo pipefail
# Before place.sh, which forgets all that begins with PG.
BINARY=${PGSTOW:-target/debug/pgstow}
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../../scripts/place.sh"
# shellcheck source=scripts/sample.sh
. "$ROOT/scripts/sample.sh"
cd "$ROOT"

[ -x "$BINARY" ] || die "there is no $BINARY: cargo build, or name another one in PGSTOW"
BINARY=$(realpath "$BINARY")
[ "$(id -u)" = 0 ] || {
    say "systemd: NOT TESTED: a systemd of its own wants root"
    exit 0
}
scripts/tools.sh postgres deploy
HERE=$ROOT/infra/systemd

say "systemd-analyze security: at most 1.5 of 10, the drill with its namespaces 2.0"
for limit in backup=15 follow=15 serve=15 verify=20; do
    unit=$HERE/pgstow-${limit%=*}.service
    systemd-analyze security --offline=true --threshold="${limit#*=}" --no-pager "$unit" >/dev/null ||
        die "${unit##*/} is more exposed than that: systemd-analyze security --offline=true $unit"
done
systemd-analyze security --offline=true --threshold=25 --no-pager "$HERE/pgstow-failed@.service" >/dev/null ||
    die "pgstow-failed@.service is more exposed than 2.5 of 10"

WORK=$(mktemp -d /tmp/pgstow-systemd.XXXXXX)
# What runs in it is ended by the group's own switch, whatever it has started meanwhile.
GROUPS_AT=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)
[ -n "$GROUPS_AT" ] || die "there is no cgroup2 file system"
GROUP=$GROUPS_AT/${WORK##*/}
BOOT=
LOCK=
clean_up() {
    [ -z "$LOCK" ] || kill "$LOCK" 2>/dev/null || true
    if [ -d "$GROUP" ]; then
        echo 1 >"$GROUP/cgroup.kill" || true
        [ -z "$BOOT" ] || wait "$BOOT" 2>/dev/null || true
        for _ in $(seq 50); do
            find "$GROUP" -depth -type d -exec rmdir {} + 2>/dev/null && break
            sleep 0.1
        done
    fi
    scripts/services.sh stop --into "$WORK/services" || true
    rm -rf "$WORK"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

scripts/services.sh start --into "$WORK/services" --owner $$ pg15
# shellcheck source=/dev/null
. "$WORK/services/env"
load_sample "$PGSTOW_TEST_PG_BIN_15" "$PGSTOW_TEST_PG15_URL"

mkdir "$WORK/memory" "$GROUP"
cat >"$WORK/boot.sh" <<'BOOT'
set -eu
work=$1 here=$2 binary=$3
mount -t tmpfs tmpfs "$work/memory"
mkdir "$work"/memory/{upper,work,root}
root=$work/memory/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/memory/upper,workdir=$work/memory/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/tmp"
# Not /var/cache as it is here: root keeps its tools in a folder there that has the name of the unit's own, and systemd
# would give all of it to the unit's user, file by file, a copy of each in memory.
for folder in run dev var/cache; do mount -t tmpfs -o mode=755 tmpfs "$root/$folder"; done
mkdir "$root"/dev/{pts,shm}
for device in null zero random urandom full tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
# PrivateDevices= wants to know what it is.
ln -s pts/ptmx "$root/dev/ptmx"
# A bare system: nothing that this machine's own would start at boot.
rm -rf "$root"/etc/systemd/system "$root"/{lib,usr/lib}/systemd/system/*.{wants,requires}
mkdir "$root/etc/systemd/system"
printf '[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service systemd-journald.socket\n' \
    >"$root/etc/systemd/system/bare.target"
# A system target of its own name does as much as that one here: nothing.
for target in sysinit basic; do
    printf '[Unit]\nDefaultDependencies=no\n' >"$root/etc/systemd/system/$target.target"
done
DESTDIR=$root "$here/install.sh" "$binary"
# Not chroot: units have mount namespaces of their own, made from the root of this one.
cd "$root"
mkdir -p old
pivot_root . old
umount -l /old
# As at a boot of systemd outside a container: a run's credentials are a mount that must be seen from here.
mount --make-rshared /
exec env -i container=pgstow-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=bare.target --log-target=journal --show-status=no
BOOT
(
    echo "$BASHPID" >"$GROUP/cgroup.procs"
    exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child=KILL \
        bash "$WORK/boot.sh" "$WORK" "$HERE" "$BINARY" >"$WORK/boot.log" 2>&1
) &
BOOT=$!

# In the namespaces of that systemd.
first() { cut -d ' ' -f 1 "/proc/$BOOT/task/$BOOT/children" 2>/dev/null; }
inside() { nsenter --target "$INIT" --mount --pid --ipc --uts --cgroup --root --wd "$@"; }
INIT=
for _ in $(seq 200); do
    INIT=$(first)
    [ -n "$INIT" ] && inside systemctl is-system-running >/dev/null 2>&1 && break
    kill -0 "$BOOT" 2>/dev/null || break
    sleep 0.1
done
inside systemctl is-system-running >/dev/null || {
    cat "$WORK/boot.log" >&2
    die "systemd does not run"
}
say "$(inside systemctl --version | head -n 1) runs in namespaces of its own"

say "systemd-analyze verify: services and timers, as installed"
answer=$(inside systemd-analyze verify --man=no --recursive-errors=one pgstow-backup.service pgstow-backup.timer \
    pgstow-follow.service pgstow-serve.service pgstow-serve.socket pgstow-verify.service pgstow-verify.timer pgstow-failed@pgstow-backup.service 2>&1) || die "$answer"
[ -z "$answer" ] || die "$answer"

into() { inside tee "$1" >/dev/null; }
credentials() { echo "DATABASE_URL=$1" | into /etc/pgstow/credentials.env; }
property() { inside systemctl show --property="$2" --value "$1"; }
log() { inside journalctl --no-pager -q -o cat -u "$1"; }
start() {
    inside systemctl start "$1" || {
        log "$1" >&2
        die "$1 failed"
    }
}
[ "$(inside stat -c '%U %a' /etc/pgstow/credentials.env)" = 'root 600' ] || die "credentials.env is open to others"
[ "$(inside stat -c '%U %a' /etc/pgstow/drill.env)" = 'root 600' ] || die "drill.env is open to others"
credentials "$(database_url "$PGSTOW_TEST_PG15_URL" shop)"

start pgstow-backup.service
backups=$(inside find /var/lib/pgstow/backups -name manifest.json | wc -l)
[ "$backups" = 1 ] || die "there are $backups backups"
open=$(inside find /var/lib/pgstow \( -perm /007 -o -type f -perm /030 -o ! -user pgstow -o ! -group pgstow \) -print)
[ -z "$open" ] || die "open to others: $open"
say "pgstow-backup.service: a backup into /var/lib/pgstow/backups, which only pgstow and its drills may read"

start pgstow-verify.service
left=$(inside find /var/cache/pgstow-drill -mindepth 1 -maxdepth 1)
[ -z "$left" ] || die "the drill has left $left"
said=$(log pgstow-verify.service)
case $said in *'could not be written'*) die "the drill could not put its result beside the backup: $said" ;; esac
say "pgstow-verify.service: $(grep -m 1 shop/ <<<"$said")"

# The drill's user has put its result there, and can do nothing else to the backups; their own user can read the result.
result=$(inside find /var/lib/pgstow/backups -name verification.json)
[ "$(inside stat -c '%U %G %a' "$result")" = 'pgstow-drill pgstow 640' ] || die "not the drill's: $result"
as() { inside setpriv --reuid "$1" --regid pgstow --clear-groups -- "${@:2}"; }
as pgstow grep -q '"drill"' "$result" || die "pgstow may not read $result"
sums() { inside sh -c 'cd /var/lib/pgstow/backups && find . -type f ! -name "verification.json*" -exec sha256sum {} + | sort'; }
before=$(sums)
as pgstow-drill sh -c 'cat /var/lib/pgstow/backups/*/*/manifest.json' >/dev/null || die "the drill's user cannot read a manifest"
# shellcheck disable=SC2016 # for that shell
as pgstow-drill sh -c 'cd /var/lib/pgstow/backups && for one in */*/* */.* */* *; do
    [ "${one##*/}" != verification.json ] || continue
    rm -rf "$one"; mv "$one" "$one.x"; echo >>"$one"; chmod 777 "$one"
done
for one in */* *; do mkdir "$one/20990101T000000Z-full"; done' 2>/dev/null || true
[ "$(sums)" = "$before" ] || die "a drill can change backups"
# What it may do, so that the attack has taken place.
inside sh -c 'ls -d /var/lib/pgstow/backups/*/*/20990101T000000Z-full' >/dev/null || die "the drill's user has tried nothing"
inside find /var/lib/pgstow/backups -mindepth 3 -type d -exec rm -r {} +
say "the user of the drill can read the backups, and change none"

# Increments: refused until they are started; then one after another, until the unit is stopped.
inside systemctl start pgstow-follow.service 2>/dev/null || true
for _ in $(seq 150); do
    [ "$(property pgstow-follow.service ActiveState)" != failed ] || break
    sleep 0.2
done
[ "$(property pgstow-follow.service ExecMainStatus)" = 2 ] || die "increments that were not started: $(log pgstow-follow.service)"
inside systemctl reset-failed
for order in 'start --accept-unbounded-wal' stop; do
    # shellcheck disable=SC2016 # systemd puts it in
    inside sed -e "s|^ExecStart=.*|ExecStart=/usr/local/bin/pgstow incremental $order --env-file \${CREDENTIALS_DIRECTORY}/pgstow.env|" \
        -e 's|^Type=.*|Type=oneshot|' -e 's|^Restart=.*|Restart=no|' /etc/systemd/system/pgstow-follow.service |
        into "/etc/systemd/system/increments-${order%% *}.service"
done
start increments-start.service
start pgstow-follow.service
for _ in $(seq 100); do
    followed=$(inside find /var/lib/pgstow/backups -path '*-incr/manifest.json' | wc -l)
    [ "$followed" = 0 ] || break
    sleep 0.2
done
[ "$followed" = 1 ] || die "no increment: $(log pgstow-follow.service)"
inside systemctl stop pgstow-follow.service
[ "$(property pgstow-follow.service Result)" = success ] || die "the follower does not end well: $(log pgstow-follow.service)"
start increments-stop.service
say "pgstow-follow.service: refused until increments are started, an increment, and a clean end"

# Pages and API: started when it listens, watched, and ended in good order. At a port that is free here.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
inside mkdir /etc/systemd/system/pgstow-serve.{service,socket}.d
printf '[Socket]\nListenStream=\nListenStream=127.0.0.1:%s\n' "$port" |
    into /etc/systemd/system/pgstow-serve.socket.d/port.conf
printf '[Service]\nWatchdogSec=2s\n' | into /etc/systemd/system/pgstow-serve.service.d/watchdog.conf
token=$(head -c 32 /dev/urandom | sha256sum | cut -d ' ' -f 1)
printf 'ci:viewer:%s\n' "$(printf %s "$token" | sha256sum | cut -d ' ' -f 1)" | into /etc/pgstow/tokens
inside systemctl daemon-reload
start pgstow-serve.socket
# The first request starts it, by its socket.
said=$(curl -sS -m 30 -H "Authorization: Bearer $token" "http://127.0.0.1:$port/api/v1/status") ||
    die "pgstow-serve does not answer: $(log pgstow-serve.service)"
case $said in *'"databases"'*) ;; *) die "pgstow-serve: $said" ;; esac
began=$(property pgstow-serve.service ExecMainStartTimestampMonotonic)
sleep 4
[ "$(property pgstow-serve.service ActiveState)" = active ] || die "the watchdog: $(log pgstow-serve.service)"
[ "$(property pgstow-serve.service ExecMainStartTimestampMonotonic)" = "$began" ] || die "the watchdog has ended it"
[ "$(inside stat -c '%U %a' /var/log/pgstow /var/lib/pgstow/journal | xargs)" = 'pgstow 750 pgstow 700' ] ||
    die "its log files or its journal are open to others"
inside systemctl stop pgstow-serve.socket pgstow-serve.service
[ "$(property pgstow-serve.service Result)" = success ] || die "pgstow-serve does not end well: $(log pgstow-serve.service)"
say "pgstow-serve.service: started by its socket, alive for the watchdog, a clean end"

# What stands around the throwaway server, in the very surroundings of the drill; doctor wants to know the database.
# shellcheck disable=SC2016 # systemd puts it in
inside sed -e 's|^ExecStart=.*|ExecStart=-/usr/local/bin/pgstow doctor --env-file ${CREDENTIALS_DIRECTORY}/pgstow.env|' \
    -e 's|drill.env|credentials.env|' /etc/systemd/system/pgstow-verify.service | into /etc/systemd/system/walls.service
start walls.service
walls=$(log walls.service | grep -m 1 'a throwaway server by') || die "doctor: $(log walls.service)"
# Those that this machine gives to an ordinary user.
given=$(DATABASE_URL=$(database_url "$PGSTOW_TEST_PG15_URL" shop) "$BINARY" doctor --store "$WORK" 2>/dev/null | grep -o 'files (Landlock): .*' | head -c 20) || true
for wall in 'user: ours, who is not root' 'system call filter: yes' 'namespaces: processes, network, memory' "$given"; do
    case $walls in *"$wall"*) ;; *) die "the drill is without \"$wall\": $walls" ;; esac
done
say "the drill's walls: ${walls##*its roles: }"

# Signed by a key that systemd hands over, as the guide says.
inside /usr/local/bin/pgstow keygen /etc/pgstow/sign.key >/dev/null
for unit in backup verify; do
    inside mkdir "/etc/systemd/system/pgstow-$unit.service.d"
    printf '[Service]\nLoadCredential=sign.key:/etc/pgstow/sign.key\nEnvironment=BACKUP_SIGN_KEY=%%d/sign.key\n' |
        into "/etc/systemd/system/pgstow-$unit.service.d/sign.conf"
done
printf 'BACKUP_VERIFY_KEYS=%s\n' "$(inside tail -n 1 /etc/pgstow/sign.key.pub)" |
    inside tee -a /etc/pgstow/settings.env >/dev/null
inside systemctl daemon-reload
start pgstow-backup.service
start pgstow-verify.service
for file in manifest verification; do
    signed=$(inside find /var/lib/pgstow/backups -name "$file.json.minisig" | wc -l)
    [ "$signed" = 1 ] || die "$signed signatures of $file.json"
done
say "a key that systemd hands over signs the backup and the drill's result"

if "$BINARY" backup --help | grep metrics-file >/dev/null; then
    for file in /run/pgstow/backup.prom /run/pgstow-drill/verify.prom; do
        [ "$(inside stat -c %a "$file")" = 644 ] || die "node exporter may not read $file"
    done
    say "metrics for node exporter in /run/pgstow and /run/pgstow-drill"
fi

# Stopped while pg_dump waits for a lock, on what it alone reads.
printf 'BEGIN; LOCK TABLE pg_catalog.pg_ts_template; SELECT 1; SELECT pg_sleep(60);' |
    "$PGSTOW_TEST_PG_BIN_15/psql" -X -q -d "$(database_url "$PGSTOW_TEST_PG15_URL" shop)" >"$WORK/lock.txt" 2>&1 &
LOCK=$!
manifests() { inside find /var/lib/pgstow/backups -name manifest.json | wc -l; }
had=$(manifests)
inside systemctl start --no-block pgstow-backup.service
# The pg_dump that reads; the one that is asked for its version has gone before.
dumping() {
    local status
    # Not 0 for a unit that is still starting, as a oneshot is to its end.
    status=$(inside systemctl status --no-pager --full pgstow-backup.service) || true
    case $status in *pg_dump*--snapshot*) ;; *) return 1 ;; esac
}
for _ in $(seq 100); do
    dumping && break
    sleep 0.1
done
dumping || die "no pg_dump waits for the lock"
inside systemctl stop pgstow-backup.service
kill "$LOCK" 2>/dev/null || true
LOCK=
[ "$(property pgstow-backup.service ExecMainStatus)" = 143 ] || {
    log pgstow-backup.service >&2
    die "stopped, it ended with $(property pgstow-backup.service ExecMainStatus)"
}
[ "$(manifests)" = "$had" ] || die "a stopped backup has left one"
say "systemctl stop: a clean abort, nothing visible left"

# A password that has become wrong: no second try, and the hook.
inside systemctl reset-failed
credentials "$(database_url "${PGSTOW_TEST_PG15_URL/postgres:/postgres:wrong}" shop)"
! inside systemctl start pgstow-backup.service 2>/dev/null || die "a wrong password did not fail the unit"
code=$(property pgstow-backup.service ExecMainStatus)
[ "$code" = 11 ] || die "it ended with $code"
[ "$(property pgstow-backup.service ActiveState)" = failed ] || die "it is tried again"
for _ in $(seq 50); do
    [ -n "$(log pgstow-failed@pgstow-backup.service.service)" ] && break
    sleep 0.1
done
hook=pgstow-failed@pgstow-backup.service.service
[ "$(property $hook Result)" = success ] || die "the hook failed"
[ -n "$(property $hook ExecMainStartTimestamp)" ] || die "the hook did not run"
say "a wrong password: the unit fails at once, and pgstow-failed@ is started"

inside systemctl enable --now -q pgstow-backup.timer pgstow-verify.timer
for timer in pgstow-backup.timer pgstow-verify.timer; do
    next=$(property "$timer" NextElapseUSecRealtime)
    [ -n "$next" ] || die "$timer does not know its next run"
    say "$timer: next on $next"
done
