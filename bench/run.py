#!/usr/bin/env python3
"""Runs the contestants in turn and prints their wall time, CPU, memory and size, also as ratios.

Started by bench/run.sh, which brings the database and the S3 server.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

BUCKET = "bench"


@dataclass
class Contestant:
    name: str
    # Shell text for a pipeline, an argument list for a single program.
    command: str | list
    environment: dict = field(default_factory=dict)
    # What it reads from the object store afterwards; None where nothing is stored.
    stores: bool = True
    runs: list = field(default_factory=list)


@dataclass
class Run:
    wall: float
    cpu: float
    # Of the one program, or of the largest in a pipeline.
    peak_mib: float
    stored: int

    def __getitem__(self, name):
        return getattr(self, name)


def measure(contestant, s3):
    s3.empty()
    shell = isinstance(contestant.command, str)
    command = ["bash", "-o", "pipefail", "-c", contestant.command] if shell else contestant.command
    log = Path("target/bench/last.log")
    with log.open("wb") as output:
        start = time.monotonic()
        child = subprocess.Popen(command, stdout=output, stderr=output, env={**s3.environment, **contestant.environment})
        # wait4's figures cover the child and every descendant that it has itself waited for:
        # the client side of the transfer, without the two servers.
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
    if status != 0:
        sys.exit(f"{contestant.name} failed:\n{log.read_text()[-4000:]}")
    stored = s3.largest() if contestant.stores else 0
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, stored)


class S3:
    def __init__(self, aws):
        self.aws_program = aws
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "AWS_ENDPOINT_URL_S3": os.environ["PGSTOW_TEST_S3_ENDPOINT"],
            "AWS_ACCESS_KEY_ID": os.environ["PGSTOW_TEST_S3_ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": os.environ["PGSTOW_TEST_S3_SECRET_KEY"],
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def aws(self, *arguments):
        endpoint = ["--endpoint-url", self.environment["AWS_ENDPOINT_URL_S3"]]
        return subprocess.run(
            [self.aws_program, *endpoint, *arguments], env=self.environment, check=True, capture_output=True, text=True
        ).stdout

    def empty(self):
        self.aws("s3", "rm", "--recursive", f"s3://{BUCKET}/")

    def largest(self):
        """The archive; what lies beside it (manifest, table of contents) is small."""
        query = ["--query", "Contents[].Size", "--output", "json"]
        return max(json.loads(self.aws("s3api", "list-objects-v2", "--bucket", BUCKET, *query)))


def contestants(options):
    dump = f"'{options.postgres}/pg_dump' -Fc"
    database = f"-d '{options.database}'"
    upload = f"'{options.aws}' --endpoint-url \"$AWS_ENDPOINT_URL_S3\" s3 cp --quiet - s3://{BUCKET}/plain.dump"
    yield Contestant("pg_dump -Fc | aws s3 cp", f"{dump} {database} | {upload}")
    yield Contestant("pg_dump -Z0 | zstd -T0 -1 | aws s3 cp", f"{dump} -Z0 {database} | zstd -q -T0 -1 | {upload}")
    for spec in options.compress.split():
        command = [str(Path(options.pgstow).resolve()), "backup", "--store", f"s3://{BUCKET}/pgstow", "--compress", spec]
        environment = {"DATABASE_URL": options.database, "BACKUP_PG_BIN": options.postgres}
        yield Contestant(f"pgstow --compress {spec}", command, environment)


def references(options):
    """What needs one run: the floor under all of them, and pg_dump's own sizes."""
    dump = f"'{options.postgres}/pg_dump' -Fc"
    database = f"-d '{options.database}'"
    yield Contestant("pg_dump -Z0 > /dev/null", f"{dump} -Z0 {database} > /dev/null", stores=False)
    if options.major >= 16:
        yield Contestant(
            "pg_dump -Z zstd (size)", f"{dump} -Z zstd {database} > target/bench/reference.dump", stores=False
        )


def median(runs, name):
    return statistics.median(run[name] for run in runs)


def spread(runs, name):
    values = [run[name] for run in runs]
    return f"{min(values):.1f}-{max(values):.1f}"


def report(options, measured, once):
    gzip, zstd = measured[0], measured[1]
    # pg_dump's own zstd, where its major has one.
    own_zstd = once[-1].runs[0].stored
    width = max(len(contestant.name) for contestant in measured + once) + 1
    print(f"\nPostgreSQL {options.major}, {options.gb} GB, {options.rounds} rounds, {os.cpu_count()} cores ({platform.machine()})")
    print("Medians; the range of the wall time in brackets. CPU and memory are those of the client side.\n")
    heads = ["wall s", "(range)", "CPU s", "peak MiB", "stored MB", "faster than 1", "than 2", "CPU vs 1",
             "size vs 1", "vs 2", "vs -Z zstd"]
    print(" " * (width + 3) + "".join(f"{head:>14}" for head in heads))
    for number, contestant in enumerate(measured, 1):
        wall, cpu, stored = (median(contestant.runs, name) for name in ("wall", "cpu", "stored"))
        cells = [
            f"{wall:.1f}",
            f"({spread(contestant.runs, 'wall')})",
            f"{cpu:.1f}",
            f"{max(run.peak_mib for run in contestant.runs):.0f}",
            f"{stored / 1e6:.1f}",
            f"{median(gzip.runs, 'wall') / wall:.2f}x",
            f"{median(zstd.runs, 'wall') / wall:.2f}x",
            f"{cpu / median(gzip.runs, 'cpu'):.2f}",
            f"{stored / median(gzip.runs, 'stored'):.3f}",
            f"{stored / median(zstd.runs, 'stored'):.3f}",
            f"{stored / own_zstd:.3f}" if own_zstd else "-",
        ]
        print(f"{number}. {contestant.name:<{width}}" + "".join(f"{cell:>14}" for cell in cells))
    print()
    for contestant in once:
        run = contestant.runs[0]
        size = f", {run.stored / 1e6:.1f} MB" if run.stored else ""
        print(f"   {contestant.name:<{width}} {run.wall:.1f} s wall, {run.cpu:.1f} s CPU{size}")


def main():
    parser = argparse.ArgumentParser()
    for name in ("database", "postgres", "gb", "pgstow", "aws", "result", "compress"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--major", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()

    s3 = S3(options.aws)
    s3.aws("s3", "mb", f"s3://{BUCKET}")

    # First, so that the caches are warm for everybody.
    once = list(references(options))
    for contestant in once:
        print(f"{contestant.name} …", file=sys.stderr)
        contestant.runs.append(measure(contestant, s3))
    reference = Path("target/bench/reference.dump")
    if reference.exists():
        once[-1].runs[0].stored = reference.stat().st_size
        reference.unlink()

    measured = list(contestants(options))
    for number in range(options.rounds):
        # To and fro: whatever drifts on this machine favours nobody.
        for contestant in measured if number % 2 == 0 else reversed(measured):
            run = measure(contestant, s3)
            contestant.runs.append(run)
            print(f"round {number + 1}: {contestant.name}: {run.wall:.1f} s", file=sys.stderr)

    report(options, measured, once)
    figures = {contestant.name: [vars(run) for run in contestant.runs] for contestant in measured + once}
    Path(options.result).write_text(json.dumps({"gb": options.gb, "major": options.major, "runs": figures}, indent=1))


if __name__ == "__main__":
    main()
