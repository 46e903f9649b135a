#!/usr/bin/env bash
# Opens a folder store to its group, so that a user of another name may drill the backups: the group can read all that is there,
# and put results beside a backup. What pgstow makes there afterwards is opened by itself.
#
#   share.sh FOLDER            as the user to whom the store belongs, who is a member of that group
set -euo pipefail

cd "${1:?name the folder of the store}"
ours=(-mindepth 1 -name lost+found -prune -o -user "$(id -u)")
find . "${ours[@]}" -type f -exec chmod g+r {} +
find . "${ours[@]}" -type d ! -perm -1050 -exec chmod 1750 {} +
# A backup whose manifest is there gets no more files but results.
find . "${ours[@]}" -type f -path './*/*/manifest.json' -execdir chmod 1770 . \;
# Last: until here nobody of the group can go in.
chmod 1750 .
