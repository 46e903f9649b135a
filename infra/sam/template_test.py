"""Checks template.yaml without deploying it. Started by test.sh:

    template_test.py PGSTOW

The linters are run by their own entry points, but in this process: to import them takes longer than what they do.
"""

import contextlib
import io
import json
import os
import subprocess
import sys

import rendered

TEMPLATE = str(rendered.TEMPLATE)
DOCUMENT = "docs/deploy-lambda.md"


def say(what):
    print(what, file=sys.stderr, flush=True)


def command(name, entry, *arguments):
    """A command line's exit status, and what it prints unless it is content."""
    printed, ours = io.StringIO(), sys.argv
    sys.argv = [name, *arguments]
    try:
        with contextlib.redirect_stdout(printed):
            status = entry()
    except SystemExit as end:
        status = end.code
    finally:
        sys.argv = ours
    if status:
        sys.exit(f"{printed.getvalue()}{name} {' '.join(arguments)}: {status}")


def lint():
    from cfnlint.runner import main

    say("cfn-lint: template.yaml")
    command("cfn-lint", main, "--regions", "us-east-1", "--template", TEMPLATE)


def sam_validate():
    # It asks for no account; credentials only because its library insists.
    os.environ |= {"SAM_CLI_TELEMETRY": "0", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    from samcli.cli.main import cli

    say("sam validate: template.yaml")
    command("sam", cli, "validate", "--lint", "--region", "us-east-1", "--template", TEMPLATE)


def privileges():
    say(f"least privilege, alarms and schedules, with all parameters and with none; {DOCUMENT} names them")
    broken = rendered.check(DOCUMENT)
    for what in broken:
        say(f"template.yaml: {what}")
    if broken:
        sys.exit(1)


def lifecycle_rules(pgstow):
    """Of each preset, held against what pgstow itself would set."""
    for preset, spec in rendered.presets(rendered.load()).items():
        say(f"lifecycle rules: {preset} ({spec})")
        shown = subprocess.run(
            [pgstow, "retention", "show", "--store", "s3://backups/pgstow", "--retention", spec],
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "AWS_REGION": "us-east-1"},
            check=True,
            stdout=subprocess.PIPE,
        )
        template, wanted = rendered.lifecycle_rules(preset), json.loads(shown.stdout)
        if template.keys() != wanted.keys():
            sys.exit(f"{preset}: {template.keys()} and {wanted.keys()}")
        template, wanted = ({rule["ID"]: rule for rule in rules["Rules"]} for rules in (template, wanted))
        for name in sorted(template.keys() | wanted.keys()):
            if template.get(name) != wanted.get(name):
                sys.exit(f"{preset}: {name}: the template has {template.get(name)}, pgstow wants {wanted.get(name)}")
        if len(template) != 7:
            sys.exit(f"{preset}: there should be a rule for four tiers, increments, pending and uploads: {sorted(template)}")


if __name__ == "__main__":
    lint()
    sam_validate()
    privileges()
    lifecycle_rules(sys.argv[1])
