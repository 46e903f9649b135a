#!/usr/bin/env bash
# Checks template.yaml without deploying it:  infra/sam/test.sh
#
# The linters, least privilege, and that the bucket's rules are those that `pgstow retention show` prints for every
# preset. The binary is $PGSTOW, or target/debug/pgstow; nothing is built here.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../../scripts/place.sh"
cd "$ROOT"

PGSTOW=${PGSTOW:-$ROOT/target/debug/pgstow}
[ -x "$PGSTOW" ] || die "no pgstow at $PGSTOW: run cargo build, or set PGSTOW"
scripts/tools.sh iac checkov
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
rendered() { "$IAC_VENV/bin/python" infra/sam/rendered.py "$@"; }

say "cfn-lint: template.yaml"
"$IAC_VENV/bin/cfn-lint" --regions us-east-1 --template template.yaml

say "sam validate: template.yaml"
# It asks for no account; credentials and a region only because its library insists.
SAM_CLI_TELEMETRY=0 AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none \
    "$IAC_VENV/bin/sam" validate --lint --region us-east-1 --template template.yaml >/dev/null

say "checkov: template.yaml, and no rule skipped without a reason or without need"
"$CHECKOV_VENV/bin/checkov" --skip-download --compact --framework cloudformation --file template.yaml \
    --output json >"$WORK/checkov.json" || {
    "$CHECKOV_VENV/bin/checkov" --skip-download --compact --quiet --framework cloudformation \
        --file template.yaml >&2 || true
    die "checkov is not content with template.yaml"
}
python3 - "$WORK/checkov.json" <<'PY'
import json, re, sys
results = json.load(open(sys.argv[1]))["results"]
skipped = sorted(one["check_id"] for one in results["skipped_checks"])
reasons = sorted(re.findall(r"- id: (CKV\w+)\n\s+comment: \S", open("template.yaml").read()))
if skipped != reasons:
    sys.exit(f"checkov skips {skipped}, the template gives reasons for {reasons}")
if any(not one["check_result"].get("suppress_comment") for one in results["skipped_checks"]):
    sys.exit("checkov does not see the reason for a skipped rule")
PY

say "least privilege, alarms and schedules, with all parameters and with none; docs/deploy-lambda.md names them"
rendered check docs/deploy-lambda.md

rendered presets >"$WORK/presets"
while read -r preset spec; do
    say "lifecycle rules: $preset ($spec)"
    rendered rules "$preset" >"$WORK/template.json"
    AWS_REGION=us-east-1 "$PGSTOW" retention show --store s3://backups/pgstow --retention "$spec" >"$WORK/pgstow.json"
    python3 - "$WORK/template.json" "$WORK/pgstow.json" <<'PY' || die "the rules of template.yaml for $preset differ"
import json, sys
template, pgstow = (json.load(open(path)) for path in sys.argv[1:])
if template.keys() != pgstow.keys():
    sys.exit(f"{template.keys()} and {pgstow.keys()}")
template, pgstow = ({rule["ID"]: rule for rule in rules["Rules"]} for rules in (template, pgstow))
for name in sorted(template.keys() | pgstow.keys()):
    if template.get(name) != pgstow.get(name):
        sys.exit(f"{name}: the template has {template.get(name)}, pgstow wants {pgstow.get(name)}")
if len(template) != 6:
    sys.exit(f"there should be a rule for four tiers, pending and uploads: {sorted(template)}")
PY
done <"$WORK/presets"
