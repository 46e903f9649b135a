#!/usr/bin/env python3
"""The way there: a database into the object store. Runs the contestants in turn and prints their
wall time, CPU, memory and size, also as ratios.

Started by bench/run.sh, which brings the database and the S3 server.
"""

import argparse
import json
import os
import platform
import sys
from pathlib import Path

from measuring import BUCKET, S3, Contestant, figures, in_turn, measure, median, spread


def contestants(options, s3):
    dump = f"'{options.postgres}/pg_dump' -Fc"
    database = f"-d '{options.database}'"
    upload = f"{s3.copy()} - s3://{BUCKET}/plain.dump"
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


def alone_in_the_store(contestant, s3):
    s3.empty()
    run = measure(contestant, s3)
    run.stored = s3.largest() if contestant.stores else 0
    return run


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
    s3.make_bucket()

    # First, so that the caches are warm for everybody.
    once = list(references(options))
    for contestant in once:
        print(f"{contestant.name} …", file=sys.stderr)
        contestant.runs.append(alone_in_the_store(contestant, s3))
    reference = Path("target/bench/reference.dump")
    if reference.exists():
        once[-1].runs[0].stored = reference.stat().st_size
        reference.unlink()

    measured = list(contestants(options, s3))
    in_turn(measured, options.rounds, lambda contestant: alone_in_the_store(contestant, s3))

    report(options, measured, once)
    runs = figures(measured + once)
    Path(options.result).write_text(json.dumps({"gb": options.gb, "major": options.major, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
