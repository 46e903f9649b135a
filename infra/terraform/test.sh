#!/usr/bin/env bash
# The Terraform module: formatted, valid, linted, and applied from the very examples that users copy.
#
#   infra/terraform/test.sh
#
# Each example is applied to a moto server of its own, read back, held against `pgstow retention show`, planned a second time
# (nothing may change) and destroyed. PGSTOW names the binary (target/debug/pgstow); nothing is built here. Terraform and its
# AWS provider come from no package registry: where they are absent it says so, and skips. The provider is looked for below
# /opt, or in PGSTOW_TERRAFORM_MIRROR. All is done in a copy, so that no state is left in the tree. checkov's rules are
# another script's: infra/checkov.sh.
set -euo pipefail
# Before the environment is cleared of what begins with PG.
BINARY=${PGSTOW:-}
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../../scripts/place.sh"
cd "$ROOT"

MODULE=$ROOT/infra/terraform
PGSTOW=${BINARY:-$ROOT/target/debug/pgstow}

mirror() {
    [ -z "${PGSTOW_TERRAFORM_MIRROR:-}" ] || {
        echo "$PGSTOW_TERRAFORM_MIRROR"
        return
    }
    find /opt -maxdepth 4 -type d -name registry.terraform.io -printf '%h\n' -quit 2>/dev/null
}

MIRROR=$(mirror)
if ! command -v terraform >/dev/null || [ -z "$MIRROR" ] || ! compgen -G "$MIRROR/registry.terraform.io/hashicorp/aws/*" >/dev/null; then
    say "terraform: NOT TESTED: this machine has no terraform, or no mirror of its AWS provider (PGSTOW_TERRAFORM_MIRROR)"
    exit 0
fi
[ -x "$PGSTOW" ] || die "$PGSTOW is not there: build it first, or name it in PGSTOW"

scripts/tools.sh aws

mkdir -p "$ROOT/target"
WORK=$(mktemp -d "$ROOT/target/terraform.XXXXXX")
STARTED=()
cleanup() {
    local pid
    trap - EXIT
    # The examples first: each stops the server that it has started.
    for pid in ${STARTED[@]+"${STARTED[@]}"}; do kill "$pid" 2>/dev/null || true; done
    wait || true
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cat >"$WORK/cli.tfrc" <<RC
disable_checkpoint = true
provider_installation {
  filesystem_mirror {
    path = "$MIRROR"
  }
}
RC
export TF_CLI_CONFIG_FILE=$WORK/cli.tfrc TF_IN_AUTOMATION=1 TF_INPUT=0 CHECKPOINT_DISABLE=1
for name in $(compgen -e TF_VAR_; compgen -e TF_CLI_ARGS; compgen -e TF_LOG); do unset "$name"; done
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_EC2_METADATA_DISABLED=true
# Each terraform reads the provider's whole schema and ends: half of its time would go into collecting that again.
export GOGC=off GOMEMLIMIT=512MiB

# Runs a step whose output matters only if it fails. In the background, because a trap waits for a foreground program to end
# by itself.
step() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    wait $! || {
        tail -n 60 "$log" >&2
        say "failed: $*"
        return 1
    }
}

# Starts the provider that `terraform init` has chosen for the present folder, for all that follows: a terraform that starts
# one by itself takes the checksum of its 700 MB first, and `terraform test` starts one a run.
provider() {
    local log=$1 file
    file=$(find -L .terraform/providers -type f -name 'terraform-provider-aws_*' -print -quit)
    # Started like this, it would write down every call.
    env -u GOGC -u GOMEMLIMIT TF_LOG_SDK=off TF_LOG_PROVIDER=off "$file" -debug >"$log" 2>&1 </dev/null &
    # 700 MB come from a disk that others use at the same time.
    for _ in $(seq 1800); do
        TF_REATTACH_PROVIDERS=$(sed -n "s/.*TF_REATTACH_PROVIDERS='\(.*\)'/\1/p" "$log")
        [ -z "$TF_REATTACH_PROVIDERS" ] || break
        kill -0 $! 2>/dev/null || break
        sleep 0.1
    done
    [ -n "$TF_REATTACH_PROVIDERS" ] || {
        cat "$log" >&2
        say "the provider does not start: $file"
        return 1
    }
    export TF_REATTACH_PROVIDERS
}

# In a subshell, in the background: ends what it has started.
in_background() {
    trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
    trap 'exit 143' TERM
    "$@"
}

# One example, from its init to its destroy.
example() {
    local name=$1 compute=$2 retention=$3 port=$4
    cd "$WORK/module/examples/$name"

    "$AWS_VENV/bin/python" "$MODULE/emulator.py" "$port" >"$WORK/$name.moto" 2>&1 </dev/null &
    export AWS_ENDPOINT_URL=http://127.0.0.1:$port
    # Nothing of the example is changed; this is laid over its provider, and over the module for what it does not use.
    cat >moto_override.tf <<TF
provider "aws" {
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true
}
module "pgstow" {
  sign_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/519e0000-2222-3333-4444-555555555555"
}
TF
    cat >terraform.tfvars <<TF
region             = "eu-west-1"
secret_arn         = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/shop-AbCdEf"
subnet_ids         = ["subnet-0a"]
security_group_ids = ["sg-0a"]
TF
    step "$WORK/$name.init" terraform init -no-color
    provider "$WORK/$name.provider"
    python3 "$ROOT/scripts/net.py" wait "$AWS_ENDPOINT_URL/moto-api/" 180
    if [ "$compute" = lambda ]; then
        # moto wants the layer to be there; what is in it does not matter here, nor what is in the function.
        local arn
        arn=$("$AWS_VENV/bin/aws" --region eu-west-1 lambda publish-layer-version --layer-name pgstow-clients \
            --zip-file "fileb://$WORK/function.zip" --query LayerVersionArn --output text)
        printf 'function_zip = "%s"\nlayer_arn = "%s"\n' "$WORK/function.zip" "$arn" >>terraform.tfvars
    else
        cat >>terraform.tfvars <<TF
image               = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/pgstow:1.0"
notification_emails = ["ops@example.com"]
TF
    fi
    step "$WORK/$name.apply" terraform apply -no-color -auto-approve

    local bucket=pgstow-123456789012-eu-west-1
    env -u AWS_ENDPOINT_URL "$PGSTOW" retention show --store "s3://$bucket/pgstow" --retention "$retention" >"$WORK/$name.rules"
    "$AWS_VENV/bin/python" "$MODULE/deployed.py" "$compute" pgstow "$bucket" "$WORK/$name.rules"
    say "terraform: examples/$name: applied, and read back as it was meant; its rules are those of \`retention show --retention $retention\`"

    step "$WORK/$name.plan" terraform plan -no-color -detailed-exitcode
    step "$WORK/$name.destroy" terraform destroy -no-color -auto-approve -refresh=false
    say "terraform: examples/$name: nothing changes in a second plan; destroyed"
}

# Every variable and output stands in the README's tables, and nothing else does.
documented() {
    local kind=$1 file=$2
    diff <(sed -n "s/^$kind \"\(.*\)\" {/\1/p" "$MODULE/$file" | sort) \
        <(sed -n "/^## ${kind^}s/,/^## /s/^| \`\([a-z0-9_]*\)\`.*/\1/p" "$MODULE/README.md" | sort) >&2 ||
        die "infra/terraform/README.md: its table of ${kind}s is not that of $file"
}

terraform fmt -check -diff -recursive "$MODULE" >&2 || die "run: terraform fmt -recursive infra/terraform"
documented variable variables.tf
documented output outputs.tf
say "terraform: formatted; the README names every variable and output"

mkdir "$WORK/module"
(cd "$MODULE" && find . -name '*.tf' -o -name '*.tftest.hcl') | (cd "$MODULE" && xargs cp --parents -t "$WORK/module")
printf '#!/bin/sh\n' >"$WORK/bootstrap"
(cd "$WORK" && python3 -m zipfile -c function.zip bootstrap)

# The module by itself: valid, and its own tests.
module() {
    cd "$WORK/module"
    step "$WORK/init" terraform init -no-color
    provider "$WORK/provider"
    step "$WORK/validate" terraform validate -no-color
    step "$WORK/test" terraform test -no-color
    say "terraform: valid; $(sed -n 's/^Success! \([0-9]* passed\).*/\1/p' "$WORK/test") of the module's own tests, with the refusals"
}

read -ra ports <<<"$(python3 scripts/net.py ports 2)"
(in_background example lambda lambda 30d "${ports[0]}") &
STARTED+=($!)
(in_background example fargate fargate daily=7,weekly=4,monthly=12,yearly=3 "${ports[1]}") &
STARTED+=($!)
(in_background module) &
STARTED+=($!)

failed=
for pid in "${STARTED[@]}"; do wait "$pid" || failed=1; done
[ -z "$failed" ] || die "an example or the module failed"
