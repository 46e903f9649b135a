#!/usr/bin/env bash
# Deploys pgstow as a Lambda function with all that belongs to it (template.yaml), or updates what is deployed.
#
#   infra/deploy.sh --secret ARN [--stack NAME] [--arch x86_64|arm64] [PARAMETER=VALUE]...
#
#   --secret ARN     Secrets Manager secret with the database's credentials
#   --stack NAME     the stack [default: pgstow]
#   --arch ARCH      what the function runs on [default: this machine's]
#   --no-build       take target/lambda/bootstrap and target/layer/clients.zip as they are
#   PARAMETER=VALUE  any parameter of template.yaml, such as SubnetIds=subnet-1,subnet-2 SecurityGroupIds=sg-1
#
# Builds the function's binary and the layer of PostgreSQL's clients, then calls `sam deploy`, with the AWS credentials
# and the region of the environment. docs/deploy-lambda.md goes through it step by step.
set -euo pipefail

# Sourced below, scripts/place.sh takes AWS_* out of the environment, so that no test meets somebody's account. This
# script is there to meet it.
account=()
for name in $(compgen -e AWS_); do account+=("$name=${!name}"); done
# sam knows only the older name.
[ -z "${AWS_REGION:-}" ] || account+=("AWS_DEFAULT_REGION=$AWS_REGION")
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../scripts/place.sh"
cd "$ROOT"

SECRET=
STACK=pgstow
ARCH=$(uname -m | sed 's/aarch64/arm64/')
BUILD=yes
parameters=()
while [ $# -gt 0 ]; do
    case $1 in
    --secret) SECRET=$2 && shift 2 ;;
    --stack) STACK=$2 && shift 2 ;;
    --arch) ARCH=$2 && shift 2 ;;
    --no-build) BUILD=no && shift ;;
    # In quotes of its own, because sam splits at blanks, of which every cron expression has some.
    [A-Z]*=*) parameters+=("${1%%=*}=\"${1#*=}\"") && shift ;;
    *) die "what is $1? See the head of this script" ;;
    esac
done
[ -n "$SECRET" ] || die "--secret ARN is missing: the secret with the database's credentials"

scripts/tools.sh iac
if [ "$BUILD" = yes ]; then
    infra/lambda/build.sh --arch "$ARCH"
    infra/layer/build.sh --arch "$ARCH" -o target/layer/clients.zip
fi
for file in target/lambda/bootstrap target/layer/clients.zip; do
    [ -f "$file" ] || die "$file is not there: leave --no-build away"
done

# Of the parameters, none holds a secret. Those that are left away keep what an earlier deployment gave them.
exec env "${account[@]}" SAM_CLI_TELEMETRY=0 "$IAC_VENV/bin/sam" deploy \
    --template-file template.yaml --stack-name "$STACK" --resolve-s3 --capabilities CAPABILITY_IAM \
    --no-fail-on-empty-changeset --no-progressbar \
    --parameter-overrides "DatabaseSecretArn=$SECRET" "Architecture=$ARCH" ${parameters[@]+"${parameters[@]}"}
