#!/usr/bin/env python3
"""Where the time goes: one backup, or one restore of it ("restore 2"), with all that it uses on this machine, sampled and
drawn as a flame graph. Started by bench/run.sh, which brings the servers."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import back
import cases
import there

SAMPLES = Path("target/bench/perf.data")


def draw(samples, title, picture, inferno):
    """Whoever has no frame pointers has short stacks: the leaves count."""
    script = subprocess.Popen(["perf", "script", "-i", str(samples)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    folded = subprocess.run([f"{inferno}/inferno-collapse-perf"], stdin=script.stdout, check=True, capture_output=True)
    if script.wait() != 0:
        sys.exit("perf could not read its samples")
    # Idle processors are no cost.
    busy = b"".join(line for line in folded.stdout.splitlines(keepends=True) if not line.startswith(b"swapper"))
    flame = [f"{inferno}/inferno-flamegraph", "--title", title, "--width", "1200", "--minwidth", "0.6", "--hash"]
    drawn = subprocess.run(flame, input=busy, check=True, capture_output=True).stdout.decode()
    # A picture, without the program to search in it.
    for rest in (r"<script.*?</script>", r"<!--.*?-->", r' onload="[^"]*"', r'<text [^>]*id="(search|unzoom|matched)".*?</text>'):
        drawn = re.sub(rest, "", drawn, flags=re.DOTALL)
    picture.write_text(drawn)
    shares(busy)


def shares(busy):
    """By program and leaf, in percent of all samples."""
    count, whole = {}, 0
    for line in busy.decode(errors="replace").splitlines():
        stack, samples = line.rsplit(" ", 1)
        frames = stack.split(";")
        whole += int(samples)
        for key in ((frames[0],), (frames[0], frames[-1])):
            count[key] = count.get(key, 0) + int(samples)
    for key, samples in sorted(count.items(), key=lambda item: -item[1]):
        if samples / whole >= 0.005:
            print(f"{samples / whole * 100:5.1f} %  {'  '.join(key)}")


def main():
    parser = argparse.ArgumentParser()
    for name in ("server", "options", "postgres", "pgstow", "aws", "database", "way", "plots", "inferno"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    case = next((case for case in cases.PLAN if case.name == options.database), None)
    if case is None:
        sys.exit(f"no such case: {options.database}")
    bench = cases.Bench(options)
    bench.s3.make_bucket()
    bench.s3.empty()
    bench.generate(case)
    name = case.database
    if options.way == "restore 2":
        name += "-restore"
        way_back = back.Bench(options)
        way_back.prepare()
        way_back.fresh_target()
        _, contestant = way_back.whole()
    else:
        # So that the caches are warm.
        there.run(options, bench.s3, ["floor"], 1)
        contestant = there.Ways(options, bench.s3).contestant(options.way)
    record = ["perf", "record", "-q", "-a", "-g", "-F", "499", "-o", str(SAMPLES), "--", *contestant.command]
    environment = {**os.environ, **bench.s3.environment, **contestant.environment}
    subprocess.run(record, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    picture = Path(options.plots) / f"flame-{name}.svg"
    draw(SAMPLES, f"{options.way}: {case.name}, all programs", picture, options.inferno)
    bench.s3.empty()
    bench.drop()


if __name__ == "__main__":
    main()
