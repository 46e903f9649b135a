#!/usr/bin/env python3
"""What is measured: databases of several kinds and sizes, and the ways on each. Started by
bench/run.sh, which brings the servers."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import there
from measuring import S3, save

FLOOR = "floor"
QUICK = [FLOOR, "zstd", "pgstow 1", "pgstow 2"]


@dataclass
class Case:
    name: str
    database: str
    gb: float
    # Run in every round; and, since they take long, in two of them at most.
    ways: list
    slow: list
    rounds: int = 1
    tables: int = 1
    back: bool = False
    requests: tuple = ()
    # Beside pgBackRest, on the server that it can read.
    physical: bool = False
    # Roughly, for the plan that is printed first.
    minutes: float = 1


PLAN = [
    Case("giant-1gb", "giant", 1, [*QUICK, "pgstow 4"], ["pg_dump", "pigz", "directory 2", "restic", "pgstow 2 gzip:6"],
         rounds=3, back=True, requests=("zstd", "directory 2", "restic", "pgstow 2"), minutes=12),
    Case("mixed-1gb", "mixed", 1, QUICK, ["pg_dump", "pgstow 2 gzip:6"], rounds=3, back=True, minutes=7),
    Case("json-1gb", "json", 1, QUICK, ["pg_dump"], rounds=2, minutes=3),
    Case("bytea-1gb", "bytea", 1, QUICK, ["pg_dump"], rounds=2, minutes=3.5),
    Case("pgbench-1gb", "pgbench", 1, QUICK, ["pg_dump"], rounds=2, minutes=2.5),
    *(Case(f"many-{tables}", "many", 1, [FLOOR, "pgstow 1", "pgstow 2"], ["pg_dump"] if tables == 10000 else [],
           tables=tables, rounds=2, minutes=2) for tables in (10, 100, 1000, 10000)),
    *(Case(f"giant-{gb}gb", "giant", gb, [FLOOR, "zstd", "pgstow 2"], [], minutes=gb * 1.3) for gb in (2, 4, 8)),
    Case("physical-1gb", "giant", 1, [FLOOR, "pgbackrest 2", "pgstow 2"], [], physical=True, minutes=2),
]


class Bench:
    def __init__(self, options):
        self.options = options
        self.s3 = S3(options.aws)
        options.database = urlunsplit(urlsplit(options.server)._replace(path="/bench", query=options.options))

    def psql(self, database, *arguments):
        command = [f"{self.options.postgres}/psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def generate(self, case):
        self.drop()
        self.psql(self.options.server, "-c", "CREATE DATABASE bench TEMPLATE template0")
        if case.database == "pgbench":
            pgbench = [f"{self.options.postgres}/pgbench", "-i", "-q", "-s", str(round(105 * case.gb)), self.options.database]
            subprocess.run(pgbench, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        else:
            values = ["-v", f"gb={case.gb}", "-v", f"tables={case.tables}"]
            self.psql(self.options.database, *values, "-f", f"bench/databases/{case.database}.sql")
        self.psql(self.options.database, "-c", "VACUUM FREEZE", "-c", "CHECKPOINT")

    def drop(self):
        self.psql(self.options.server, "-c", "DROP DATABASE IF EXISTS bench WITH (FORCE)",
                  "-c", "DROP DATABASE IF EXISTS restored WITH (FORCE)", "-c", "CHECKPOINT")

    def run(self, case, result):
        print(f"== {case.name}: generating", file=sys.stderr)
        self.generate(case)
        document = {
            "case": case.name, "database": case.database, "gb": case.gb, "tables": case.tables,
            "rounds": case.rounds, "major": self.options.major, "cores": os.cpu_count(),
            "machine": platform.machine(), "date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0],
        }
        # First, so that the caches are warm for everybody.
        there.run(self.options, self.s3, [FLOOR], 1)
        document["there"] = there.run(self.options, self.s3, case.ways, case.rounds)
        document["there"] |= there.run(self.options, self.s3, case.slow, min(case.rounds, 2))
        document["requests"] = there.requests(self.options, self.s3, case.requests)
        if case.back:
            back = result.with_suffix(".back")
            command = ["bench/back.py", "--database", self.options.database, "--postgres", self.options.postgres,
                       "--major", str(self.options.major), "--gb", str(case.gb), "--rounds", "2",
                       "--pgstow", self.options.pgstow, "--aws", self.options.aws, "--result", str(back)]
            subprocess.run(command, check=True)
            document["back"] = json.loads(back.read_text())
            back.unlink()
        save(result, document)
        self.s3.empty()


def main():
    parser = argparse.ArgumentParser()
    for name in ("server", "options", "postgres", "pgstow", "aws", "results", "only"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--major", type=int, required=True)
    parser.add_argument("--physical", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()

    only = options.only.split()
    known = {case.name for case in PLAN}
    if unknown := set(only) - known:
        sys.exit(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    results = Path(options.results)
    due = [case for case in PLAN if case.physical == options.physical and (not only or case.name in only)]
    due = [case for case in due if options.fresh or not (results / f"{case.name}.json").exists()]
    print(f"{len(due)} cases, about {sum(case.minutes for case in due):.0f} minutes", file=sys.stderr)
    bench = Bench(options)
    bench.s3.make_bucket()
    for case in due:
        bench.run(case, results / f"{case.name}.json")
    bench.drop()


if __name__ == "__main__":
    main()
