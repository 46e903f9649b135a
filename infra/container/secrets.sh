#!/usr/bin/env bash
# Makes the passwords and keys of the try-out (docker-compose.yml): new ones, on this machine alone.
#
#   secrets.sh [FOLDER]      default: secrets/, beside this file
#
# What is there already stays: the database knows its password from the first start.
set -euo pipefail

FOLDER=${1:-$(cd "$(dirname "$0")" && pwd)/secrets}
word() { od -An -N20 -tx1 /dev/urandom | tr -d ' \n'; }

mkdir -p "$FOLDER"
# Closed to others here; the files are open, because Compose mounts them as they are and the
# containers' users are not ours.
chmod 700 "$FOLDER"
umask 022
# For the pages: the token, and what pgstow knows of it.
[ -e "$FOLDER/tokens" ] || {
    word >"$FOLDER/token"
    printf 'you:admin:%s\n' "$(sha256sum <"$FOLDER/token" | cut -d ' ' -f 1)" >"$FOLDER/tokens"
}
[ ! -e "$FOLDER/s3.json" ] || {
    echo "$FOLDER holds them already" >&2
    exit 0
}
backup_password=$(word)
key=$(word)
word >"$FOLDER/postgres_password"
printf '%s' "$backup_password" >"$FOLDER/backup_password"
cat >"$FOLDER/pgstow.env" <<ENV
DATABASE_URL=postgresql://backup:$backup_password@db:5432/shop
AWS_ACCESS_KEY_ID=pgstow
AWS_SECRET_ACCESS_KEY=$key
ENV
cat >"$FOLDER/s3.json" <<JSON
{"identities": [{"name": "pgstow", "credentials": [{"accessKey": "pgstow", "secretKey": "$key"}],
  "actions": ["Read", "Write", "List", "Tagging"]}]}
JSON
echo "made $FOLDER" >&2
