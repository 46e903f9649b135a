#!/usr/bin/env bash
# Checks what kustomize makes of the base and of each overlay.
#
#   infra/kubernetes/test.sh          PGSTOW names the binary; default: target/debug/pgstow
#
# No cluster is asked. Kubernetes' own schemas tell whether the API would take a document, and the
# binary whether it knows what it would be given; whether a pod is closed as it should be is also
# checkov's to say (infra/checkov.sh).
set -euo pipefail
# Before place.sh, which forgets all that begins with PG.
BINARY=${PGSTOW:-target/debug/pgstow}
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../../scripts/place.sh"
cd "$ROOT"

[ -x "$BINARY" ] || die "there is no $BINARY: cargo build, or name another one in PGSTOW"
scripts/tools.sh deploy
HERE=infra/kubernetes
WORK=$(mktemp -d /tmp/pgstow-kubernetes.XXXXXX)
trap 'rm -rf "$WORK"' EXIT

# The oldest API server that has all that is used, and the newest that the schemas know.
VERSIONS=(1.31 1.37)

mkdir "$WORK/made"
for folder in "$HERE/base" "$HERE"/overlays/*/; do
    folder=${folder%/}
    made=$WORK/made/${folder##*/}.yaml
    "$DEPLOY_VENV/bin/kubectl" kustomize "$folder" >"$made"
done
# By the name of the file, an answer tells the folder.
for version in "${VERSIONS[@]}"; do
    "$DEPLOY_VENV/bin/kubernetes-validate" --strict --quiet -k "$version" "$WORK"/made/*.yaml ||
        die "this is not what Kubernetes $version takes"
done
made=("$WORK"/made/*.yaml)
say "kustomize: $(basename -a -s .yaml "${made[@]}" | xargs), taken by the schemas of Kubernetes ${VERSIONS[*]}"

# What no schema can know: that the parts fit each other, the image, and pgstow.
"$BINARY" backup --help=all >"$WORK/help"
for option in --follow --every; do
    grep -q -e "$option" "$WORK/help" || die "pgstow knows no $option, which pgstow-follow gives"
done
"$DEPLOY_VENV/bin/python" - "$WORK" <<'PY'
import re, sys
from pathlib import Path

import yaml

work = Path(sys.argv[1])
help_text = (work / "help").read_text()
# Of libraries below pgstow, and of the pod itself.
not_settings = {"JOB_NAME"}
codes = {int(code) for code in re.findall(r"\b(\d+)\s+[A-Z_0-9]+", help_text.split("Exit codes:")[1])}


def check(name, condition, what):
    if not condition:
        sys.exit(f"{name}: {what}")


def selected(policies, labels):
    """The names of the policies that select pods with these labels."""

    def selects(selector):
        plain = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
        return plain and all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))

    return {d["metadata"]["name"] for d in policies if selects(d["spec"]["podSelector"])}


def job(name, cron, settings, policies):
    spec = cron["spec"]["jobTemplate"]["spec"]
    for rule in spec["podFailurePolicy"]["rules"]:
        values = set(rule.get("onExitCodes", {}).get("values", []))
        check(name, values <= codes, f"exit codes that pgstow does not have: {sorted(values - codes)}")
    closed(name, spec["template"], settings, policies)


def closed(name, template, settings, policies, serves=False):
    pod = template["spec"]
    (container,) = pod["containers"]
    labels = template["metadata"]["labels"]
    variables = {variable["name"] for variable in container["env"]}

    for variable in (variables | set(settings)) - not_settings:
        check(name, re.search(rf"\b{variable}\b", help_text), f"pgstow knows no {variable}")
    for argument in container["args"]:
        for variable in re.findall(r"\$\((\w+)\)", argument):
            check(name, variable in variables, f"{argument}: {variable} is not set")

    # The network policies' selectors, which must not miss a pod.
    check(name, labels.get("app.kubernetes.io/name") == "pgstow", "its pods lack the label that the policies select")
    check(name, pod["automountServiceAccountToken"] is False, "it would hold a token of the cluster")
    check(name, pod["securityContext"]["runAsUser"] == 65532, "the image's user is 65532")
    security = container["securityContext"]
    check(name, security["readOnlyRootFilesystem"] is True, "its root file system can be written to")
    check(name, security["capabilities"]["drop"] == ["ALL"], "it keeps capabilities")
    mounts = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    check(name, mounts == {"/tmp"} | ({"/var/lib/pgstow"} if serves else set()), f"it can write to {sorted(mounts)}")
    limit = container["resources"]["limits"]
    check(name, {"cpu", "memory", "ephemeral-storage"} <= set(limit), "a resource has no limit")
    full = "--drill" in container["args"]
    wanted = {"pgstow"} | (set() if full else {"pgstow-database"}) | ({"pgstow-serve"} if serves else set())
    check(name, selected(policies, labels) == wanted, f"the policies {selected(policies, labels)} select it")
    check(name, (pod["serviceAccountName"] == "pgstow-drill") == full, "backups and drills have one identity")
    secrets = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
    check(name, all((secret == "pgstow-drill") == full for secret in secrets), f"it has the secrets {secrets}")
    check(name, full == ("full" in container["image"]), f"{container['image']} is not the image for this")


for made in sorted((work / "made").glob("*.yaml")):
    documents = list(yaml.safe_load_all(made.read_text()))
    settings = next(d["data"] for d in documents if d["kind"] == "ConfigMap")
    jobs = [d for d in documents if d["kind"] == "CronJob"]
    policies = [d for d in documents if d["kind"] == "NetworkPolicy"]
    names = [d["metadata"]["name"] for d in jobs]
    check(made.stem, names == ["pgstow-backup", "pgstow-drill"], f"its jobs are {names}")
    for cron in jobs:
        job(f"{made.stem}: {cron['metadata']['name']}", cron, settings, policies)
    follow, serve = [d for d in documents if d["kind"] == "Deployment"]
    name = f"{made.stem}: {follow['metadata']['name']}"
    # Until increments are started, every run would fail; and a second one finds the slot in use.
    check(name, follow["spec"]["replicas"] == 0, "it runs before increments are started")
    check(name, follow["spec"]["strategy"]["type"] == "Recreate", "an update starts a second one beside the first")
    template = follow["spec"]["template"]
    chosen = follow["spec"]["selector"]["matchLabels"].items()
    check(name, chosen <= template["metadata"]["labels"].items(), "it does not select its pods")
    closed(name, template, settings, policies)
    name = f"{made.stem}: {serve['metadata']['name']}"
    check(name, serve["spec"]["replicas"] == 0, "it runs before it has tokens, and an ingress")
    template = serve["spec"]["template"]
    # Settings that an overlay must give before it is switched on.
    closed(name, template, settings, policies, serves=True)
    (service,) = [d for d in documents if d["kind"] == "Service"]
    labels = template["metadata"]["labels"].items()
    check(name, service["spec"]["selector"].items() <= labels, "the service does not select its pods")
    (port,) = template["spec"]["containers"][0]["ports"]
    listens = f"--listen=0.0.0.0:{port['containerPort']}"
    check(name, listens in template["spec"]["containers"][0]["args"], "it listens on another port")
    check(name, service["spec"]["ports"][0]["targetPort"] == port["name"], "the service goes to another port")
    if made.stem != "base":
        check(made.stem, settings.get("BACKUP_STORE"), "it names no store")
        check(made.stem, all(d["metadata"].get("namespace") for d in documents), "something is in no namespace")
        registry = "registry.example/"
        for d in documents:
            pod = str(d.get("spec", ""))
            check(made.stem, "pgstow:0.1.0" not in pod or registry in pod, "an image has no registry")
PY
say "jobs: settings, exit codes and arguments are pgstow's; pods are closed, and the policies select them"
