#!/usr/bin/env bash
# checkov's rules over all that is deployed:  infra/checkov.sh
#
# And the bill of materials against CycloneDX's own schema, which comes along with checkov.
#
# The CloudFormation template, the Terraform module with its examples, and what kustomize makes of each overlay; in one
# run, because checkov takes longer to start than to look.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../scripts/place.sh"
cd "$ROOT"

scripts/tools.sh deploy checkov
WORK=$(mktemp -d /tmp/pgstow-checkov.XXXXXX)
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A copy of each, in which nothing else lies: no state, and nothing that another folder of the tree holds.
mkdir "$WORK"/{it,it/cloudformation,it/terraform,it/kubernetes}
cp template.yaml "$WORK/it/cloudformation/"
(cd infra/terraform && find . \( -name '*.tf' -o -name '*.tftest.hcl' \) -exec cp --parents -t "$WORK/it/terraform" {} +)
# The base is in no namespace: that is the overlay's to give.
for overlay in infra/kubernetes/overlays/*/; do
    "$DEPLOY_VENV/bin/kubectl" kustomize "$overlay" >"$WORK/it/kubernetes/$(basename "$overlay").yaml"
done

look() {
    (cd "$WORK/it" && "$CHECKOV_VENV/bin/checkov" --skip-download --compact \
        --framework cloudformation terraform kubernetes --directory . "$@")
}
look --output json >"$WORK/found.json" || {
    look --quiet >&2 || true
    die "checkov is not content"
}
python3 - "$WORK/found.json" <<'PY'
import json, re, sys

found = {one["check_type"]: one for one in json.load(open(sys.argv[1]))}
# What it cannot read, it leaves out, and is content.
for kind in "cloudformation", "terraform", "kubernetes":
    summary = found[kind]["summary"] if kind in found else {}
    if not summary.get("passed") or summary.get("failed") or summary.get("parsing_errors"):
        sys.exit(f"checkov has not read what is there for {kind}: {summary}")

skipped = found["cloudformation"]["results"]["skipped_checks"]
ids = sorted(one["check_id"] for one in skipped)
reasons = sorted(re.findall(r"- id: (CKV\w+)\n\s+comment: \S", open("template.yaml").read()))
if ids != reasons:
    sys.exit(f"checkov skips {ids}, the template gives reasons for {reasons}")
if any(not one["check_result"].get("suppress_comment") for one in skipped):
    sys.exit("checkov does not see the reason for a skipped rule")

for kind, one in sorted(found.items()):
    print(f"checkov: {kind}: {one['summary']['passed']} passed, {one['summary']['skipped']} skipped", file=sys.stderr)
PY
scripts/sbom.sh -o "$WORK/sbom.json"
"$CHECKOV_VENV/bin/python" - "$WORK/sbom.json" <<'PY'
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
if wrong:
    sys.exit(f"the bill of materials is not CycloneDX 1.6: {wrong}")
PY
say "checkov: the bill of materials is CycloneDX 1.6"
say "checkov: no rule of template.yaml skipped without a reason or without need"
