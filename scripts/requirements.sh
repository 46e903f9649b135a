#!/usr/bin/env bash
# Pins the Python packages of scripts/requirements anew, with all that they pull in and the SHA-256 of every file:
#
#   scripts/requirements.sh [NAME]...      aws checkov deploy iac layer ministack seaweedfs zig, when none is named
#
# To move a version, change it in NAME.txt and run this. What is installed afterwards is what has these digests, whoever
# serves it. The other files there are written by hand: uv's own, and programs for two architectures alone.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/place.sh"
cd "$ROOT"

[ $# -gt 0 ] || set -- aws checkov deploy iac layer ministack seaweedfs zig
python=$(python3 -c 'import platform; print(platform.python_version())')
for name in "$@"; do
    file=scripts/requirements/$name.txt
    pins=$(sed -n '/^[^ #]*==/s/ *\\$//p; /^[^ #\\]*==[^\\]*$/p' "$file")
    [ -n "$pins" ] || die "$file names no package"
    # The index that is asked is the machine's own affair: its name stays out of the file.
    scripts/tools.sh --with-uv pip compile --quiet --universal --python-version "$python" --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --output-file "$file" - <<<"$pins"
    say "$file: $(grep -c '==' "$file") packages, $(grep -c -- --hash= "$file") files"
done
