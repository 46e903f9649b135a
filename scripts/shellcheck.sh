#!/usr/bin/env bash
# Every shell script that git knows or would take in, by shellcheck:  scripts/shellcheck.sh
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
cd "$ROOT"

scripts/tools.sh iac
scripts=()
while IFS= read -r -d '' file; do
    if head -n 1 "$file" | grep -qE '^#!.*\b(ba|da)?sh\b'; then scripts+=("$file"); fi
done < <(git ls-files -z --cached --others --exclude-standard)
say "shellcheck: ${#scripts[@]} scripts"
shellcheck -x scripts/place.sh "${scripts[@]}"
