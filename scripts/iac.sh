#!/usr/bin/env bash
# Checks what is neither Rust nor run by a test: the scripts, and all that pgstow is deployed by, from the very files that
# users deploy.  scripts/iac.sh
#
# Each part is a script of its own and can be run alone; they use target/debug/pgstow, or the binary in PGSTOW.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
cd "$ROOT"

scripts/tools.sh iac

# Every shell script that git knows or would take in.
scripts=()
while IFS= read -r -d '' file; do
    if head -n 1 "$file" | grep -qE '^#!.*\b(ba|da)?sh\b'; then scripts+=("$file"); fi
done < <(git ls-files -z --cached --others --exclude-standard)
say "shellcheck: ${#scripts[@]} scripts"
shellcheck -x scripts/place.sh "${scripts[@]}"

# As the tests have it built: what they need beside it changes how a library is built, so that a build of the
# program alone would compile all of pgstow once more.
[ -n "${PGSTOW:-}" ] || scripts/build.sh --quiet

for script in infra/layer/test.sh infra/sam/test.sh infra/sam/iam-test.sh infra/sam/deploy-test.sh infra/terraform/test.sh \
    infra/kubernetes/test.sh infra/container/test.sh infra/systemd/test.sh; do
    began=$SECONDS
    "$script"
    say "$script: $((SECONDS - began)) s"
done
