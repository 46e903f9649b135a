#!/usr/bin/env bash
# Checks template.yaml without deploying it:  infra/sam/test.sh
#
# The linters, least privilege, and that the bucket's rules are those that `pgstow retention show` prints for every
# preset. checkov's rules are another script's: infra/checkov.sh. The binary is $PGSTOW, or target/debug/pgstow; nothing
# is built here.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../../scripts/place.sh"
cd "$ROOT"

PGSTOW=${PGSTOW:-$ROOT/target/debug/pgstow}
[ -x "$PGSTOW" ] || die "no pgstow at $PGSTOW: run cargo build, or set PGSTOW"
scripts/tools.sh iac

"$IAC_VENV/bin/python" infra/sam/template_test.py "$PGSTOW"
