#!/usr/bin/env bash
# Checks what is neither Rust nor run by a test: the template and the scripts.
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

say "cfn-lint: template.yaml"
"$IAC_VENV/bin/cfn-lint" --regions us-east-1 --template template.yaml
say "sam validate: template.yaml"
# It asks for no account; credentials and a region only because its library insists.
SAM_CLI_TELEMETRY=0 AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none \
    "$IAC_VENV/bin/sam" validate --lint --region us-east-1 --template template.yaml >/dev/null
