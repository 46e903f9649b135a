#!/usr/bin/env bash
# Installs pgstow as systemd units: the program, the units, its user, and settings to fill in.
#
#   install.sh BINARY          as root; DESTDIR names another root than /
#
# Settings and credentials that are there already stay as they are. Nothing is started: fill in
# /etc/pgstow, then  systemctl enable --now pgstow-backup.timer pgstow-verify.timer
# Increments: first `pgstow incremental start`, then  systemctl enable --now pgstow-follow.service
# Pages, API and schedules in one process, instead of the timers: tokens in /etc/pgstow/tokens, then
#   systemctl enable --now pgstow-serve.service
# Before you remove it all: `pgstow incremental stop`, or the server keeps its log until its disk is full.
set -euo pipefail

BINARY=${1:-}
[ -x "$BINARY" ] || {
    echo "install.sh: name the pgstow binary" >&2
    exit 2
}
HERE=$(cd "$(dirname "$0")" && pwd)
DESTDIR=${DESTDIR:-}

install -D -m 755 "$BINARY" "$DESTDIR/usr/local/bin/pgstow"
install -D -m 644 "$HERE/../../docs/deploy-systemd.md" "$DESTDIR/usr/local/share/doc/pgstow/deploy-systemd.md"
for unit in "$HERE"/*.service "$HERE"/*.timer "$HERE"/*.socket; do
    install -D -m 644 "$unit" "$DESTDIR/etc/systemd/system/${unit##*/}"
done
install -D -m 644 "$HERE/pgstow.sysusers" "$DESTDIR/etc/sysusers.d/pgstow.conf"
[ -e "$DESTDIR/etc/pgstow/settings.env" ] ||
    install -D -m 644 "$HERE/settings.env" "$DESTDIR/etc/pgstow/settings.env"
# Root alone reads them, and gives them to each run.
[ -e "$DESTDIR/etc/pgstow/credentials.env" ] ||
    install -D -m 600 "$HERE/credentials.env" "$DESTDIR/etc/pgstow/credentials.env"
[ -e "$DESTDIR/etc/pgstow/drill.env" ] ||
    install -D -m 600 "$HERE/drill.env" "$DESTDIR/etc/pgstow/drill.env"
[ -e "$DESTDIR/etc/pgstow/tokens" ] ||
    install -D -m 600 "$HERE/tokens" "$DESTDIR/etc/pgstow/tokens"
systemd-sysusers ${DESTDIR:+--root="$DESTDIR"} "$DESTDIR/etc/sysusers.d/pgstow.conf"
[ -n "$DESTDIR" ] || systemctl daemon-reload

# A store that was made before drills had a user of their own: what is in it belongs to pgstow, who opens it, not root.
STORE=/var/lib/pgstow/backups
if [ -z "$DESTDIR" ] && [ -d "$STORE" ]; then
    runuser -u pgstow -- bash -s -- "$STORE" <"$HERE/share.sh"
fi
# Where drills wrote their metrics before they had a user of their own; a collector that reads both would see them twice.
[ -n "$DESTDIR" ] || rm -f /run/pgstow/verify.prom
