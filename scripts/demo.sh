#!/usr/bin/env bash
# One backup, from a throwaway PostgreSQL into a folder; listed, verified, drilled, one table of it
# restored; rows put back in place; all of it by stock pg_restore; and a table as it was before a mistake, out of increments.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
# shellcheck source=scripts/sample.sh
. "$ROOT/scripts/sample.sh"
cd "$ROOT"

scripts/tools.sh postgres
build_pgstow

DEMO=target/demo
rm -rf "$DEMO/backups"
mkdir -p "$DEMO"
trap 'scripts/services.sh stop --into "$DEMO/services"' EXIT
scripts/services.sh start --into "$DEMO/services" --owner $$ pg15
# shellcheck source=/dev/null
. "$DEMO/services/env"
SERVER=$PGSTOW_TEST_PG15_URL
BIN=$PGSTOW_TEST_PG_BIN_15

heading "A PostgreSQL $("$BIN/psql" -X -A -t -d "$SERVER" -c 'SHOW server_version') with a small shop in it"
load_sample "$BIN" "$SERVER"
counts "$BIN" "$(database_url "$SERVER" shop)" | awk '{ printf "%-16s %10d\n", $1, $2 }'

heading "Back it up into a folder"
# The URL holds a password: it goes through the environment, where other users cannot see it.
DATABASE_URL=$(database_url "$SERVER" shop)
export DATABASE_URL
shown "$BUILT" backup --store "./$DEMO/backups"
unset DATABASE_URL

heading "What is in the folder"
(cd "$DEMO/backups" && find . -type f -printf '%10s  %P\n' | sort -k 2)

BACKUP=$(find "$DEMO/backups/shop" -name manifest.json -printf '%h\n' | sort | tail -n 1)
heading "The manifest, written last: without it there is no backup"
cat "$BACKUP/manifest.json"
echo

heading "The checksums, by sha256sum"
(cd "$BACKUP" && shown sha256sum -c SHA256SUMS)

STORE=./$DEMO/backups
heading "What the store knows"
shown "$BUILT" list --store "$STORE"

heading "Prove it: every byte, then a drill in a throwaway server"
shown "$BUILT" verify latest --drill --store "$STORE"

heading "One table back, and nothing else"
"$BIN/psql" -X -q -d "$SERVER" -c 'CREATE DATABASE shop_one_table'
# The target's URL holds a password too.
BACKUP_TARGET_URL=$(database_url "$SERVER" shop_one_table)
export BACKUP_TARGET_URL
shown "$BUILT" restore latest --table public.orders --store "$STORE"
counts "$BIN" "$BACKUP_TARGET_URL" | awk '{ printf "%-16s %10d\n", $1, $2 }'

heading "The whole database, two streams at once"
BACKUP_TARGET_URL=$(database_url "$SERVER" shop_again)
shown "$BUILT" restore latest --create --jobs 2 --store "$STORE"

heading "Somebody deletes orders, and their items go with them"
BACKUP_TARGET_URL=$(database_url "$SERVER" shop)
BEFORE=$(counts "$BIN" "$BACKUP_TARGET_URL")
"$BIN/psql" -X -d "$BACKUP_TARGET_URL" -c 'DELETE FROM orders WHERE id % 3 = 0'
counts "$BIN" "$BACKUP_TARGET_URL" | awk '{ printf "%-16s %10d\n", $1, $2 }'

heading "Put them back in place: in one transaction, and nothing else is touched"
shown "$BUILT" restore latest --data-only --clean --table public.orders --table public.order_items --store "$STORE"
[ "$(counts "$BIN" "$BACKUP_TARGET_URL")" = "$BEFORE" ] || die "the rows are not what they were"
echo "$BEFORE" | awk '{ printf "%-16s %10d\n", $1, $2 }'
unset BACKUP_TARGET_URL

heading "Restore with stock pg_restore"
printf '$ pg_restore --exit-on-error -d …/shop_restored %s\n' "$BACKUP/shop.dump"
"$BIN/pg_restore" --exit-on-error -d "$(database_url "$SERVER" shop_restored)" "$BACKUP/shop.dump"
compare_counts "$BIN" "$SERVER"

heading "Increments: the changes from now on, out of the server's log"
SHOP=$(database_url "$SERVER" shop)
DATABASE_URL=$SHOP
export DATABASE_URL
# Without a limit a slot that nobody reads would fill the disk, so pgstow asks for one.
"$BIN/psql" -X -q -d "$SERVER" -c "ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'" -c 'SELECT pg_reload_conf()' >/dev/null
shown "$BUILT" incremental start --store "$STORE"
"$BIN/psql" -X -d "$SHOP" -c "UPDATE orders SET status = 'shipped' WHERE id % 7 = 0"
shown "$BUILT" backup --kind incremental --store "$STORE"

heading "Somebody deletes orders by mistake, and the shop goes on"
asked() { "$BIN/psql" -X -A -t -d "$SHOP" -c "$1"; }
digest() { asked "SELECT count(*), sum(hashtextextended(o::text, 0)) FROM $1 o"; }
BEFORE=$(digest orders)
"$BIN/psql" -X -d "$SHOP" -c 'DELETE FROM orders WHERE id % 5 = 0'
"$BIN/psql" -X -d "$SHOP" -c "UPDATE orders SET status = 'returned' WHERE id % 11 = 0"
shown "$BUILT" backup --kind incremental --store "$STORE"

heading "When was that?"
shown "$BUILT" changes --table public.orders --since 1h --store "$STORE" --database shop
# The column BEFORE of the transaction that deleted.
CHANGES=$("$BUILT" changes --table public.orders --since 1h --store "$STORE" --database shop --json)
MOMENT=$("$BIN/psql" -X -A -t -v changes="$CHANGES" -d "$SHOP" <<<"SELECT t ->> 'before'
    FROM jsonb_array_elements(:'changes'::jsonb -> 'transactions') AS t WHERE (t ->> 'deletes')::int > 0")

heading "The table as it was before, beside the damaged one"
BACKUP_TARGET_URL=$SHOP
export BACKUP_TARGET_URL
shown "$BUILT" restore latest --table public.orders --to-lsn "$MOMENT" --into recovered --store "$STORE" --database shop
printf '%-18s %s\n' 'orders before' "$BEFORE" 'orders now' "$(digest orders)" 'recovered.orders' "$(digest recovered.orders)"
[ "$(digest recovered.orders)" = "$BEFORE" ] || die "the table is not what it was"
unset BACKUP_TARGET_URL

heading "Stop increments: nothing stays on the server"
shown "$BUILT" incremental stop --store "$STORE"
[ "$(asked 'SELECT count(*) FROM pg_replication_slots') $(asked 'SELECT count(*) FROM pg_publication')" = '0 0' ] ||
    die "something of it is left"
unset DATABASE_URL

heading "Done. The backup is still in $DEMO/backups; the server is gone."
