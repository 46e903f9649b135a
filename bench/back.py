#!/usr/bin/env python3
"""The way back: from the object store into databases. One backup is made; then whole restores, one
table alone, and reading all that is stored, each by stock programs and by pgstow.

Started by bench/run.sh, which brings the database and the S3 server.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from counting import CountingProxy
from measuring import BUCKET, S3, Contestant, figures, in_turn, measure, median, save, spread

FILES = Path("target/bench/files")


class Bench:
    def __init__(self, options):
        self.options = options
        self.s3 = S3(options.aws)
        self.pgstow = str(Path(options.pgstow).resolve())
        self.store = f"s3://{BUCKET}/back"
        self.target = urlunsplit(urlsplit(options.database)._replace(path="/restored"))
        self.manifest = None
        self.table = None

    def psql(self, sql, database=None):
        command = [f"{self.options.postgres}/psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database or self.options.database]
        return subprocess.run([*command, "-c", sql], check=True, capture_output=True, text=True).stdout.strip()

    def ours(self, *arguments):
        return [self.pgstow, *arguments, "--store", self.store]

    def environment(self):
        return {"BACKUP_PG_BIN": self.options.postgres}

    def prepare(self):
        """One backup, and the very frames of its blocks as a file for `zstd -d`."""
        self.s3.make_bucket()
        self.s3.empty()
        environment = {**self.s3.environment, **self.environment(), "DATABASE_URL": self.options.database}
        backup = subprocess.run(self.ours("backup", "--jobs", "2", "--json"), env=environment, check=True, capture_output=True)
        self.id = json.loads(backup.stdout)["id"]
        self.folder = f"{self.store}/{self.id}"
        self.manifest = json.loads(self.s3.aws("s3", "cp", f"{self.folder}/manifest.json", "-"))
        # The smallest that has rows.
        full = [table for table in self.manifest["tables"] if table["rows"] > 0]
        self.table = min(full, key=lambda table: table["bytes"])
        self.dump, self.toc = (self.manifest["files"][role]["name"] for role in ("dump", "toc"))
        FILES.mkdir(parents=True, exist_ok=True)
        self.s3.aws("s3", "cp", "--quiet", f"{self.folder}/{self.dump}", str(FILES / "archive"))
        if self.manifest["compression"]["algorithm"] == "zstd":
            frames(FILES / "archive", self.manifest["files"]["toc"]["bytes"], FILES / "frames.zst")
            self.s3.aws("s3", "cp", "--quiet", str(FILES / "frames.zst"), f"s3://{BUCKET}/frames.zst")
        self.clear()

    def clear(self):
        for file in FILES.iterdir():
            file.unlink()

    def fresh_target(self):
        self.psql("DROP DATABASE IF EXISTS restored WITH (FORCE)")
        self.psql("CREATE DATABASE restored TEMPLATE template0")
        # So that no checkpoint falls into a measured run.
        self.psql("CHECKPOINT")

    def counts(self, database):
        tables = [f'"{table["schema"]}"."{table["name"]}"' for table in self.manifest["tables"]]
        return self.psql("; ".join(f"SELECT '{table}', count(*) FROM {table}" for table in sorted(tables)), database)

    def into_fresh_target(self, contestant):
        self.fresh_target()
        run = measure(contestant, self.s3)
        self.clear()
        if self.counts(self.target) != self.counts(self.options.database):
            sys.exit(f"{contestant.name} restored other rows than there were")
        return run

    def whole(self):
        """The documented recipe with stock tools against one command."""
        copy, restore = self.s3.copy(), f"'{self.options.postgres}/pg_restore' --exit-on-error -j 2 -d '{self.target}'"
        archive, toc = FILES / "shop.dump", FILES / "shop.toc"
        yield Contestant(
            "aws s3 cp; pg_restore -j 2",
            f"{copy} '{self.folder}/{self.dump}' {archive} && {copy} '{self.folder}/{self.toc}' {toc} && "
            f"dd if={toc} of={archive} conv=notrunc status=none && {restore} {archive}",
        )
        command = self.ours("restore", "latest", "--target", self.target, "--jobs", "2")
        yield Contestant("pgstow restore --jobs 2", command, self.environment())

    def reading(self):
        """All that is stored, read and unpacked, kept nowhere."""
        if self.manifest["compression"]["algorithm"] == "zstd":
            yield Contestant("aws s3 cp - | zstd -d", f"{self.s3.copy()} s3://{BUCKET}/frames.zst - | zstd -q -dc > /dev/null")
        yield Contestant("pgstow verify", self.ours("verify", "latest"), self.environment())

    def fetching(self):
        archive = FILES / "shop.dump"
        yield Contestant("aws s3 cp", f"{self.s3.copy()} '{self.folder}/{self.dump}' {archive}")
        yield Contestant("pgstow download", self.ours("download", "latest", "-o", str(archive)), self.environment())

    def one_table(self, endpoint=None):
        command = self.ours("restore", "latest", "--target", self.target, "--table", f"public.{self.table['name']}")
        environment = self.environment() | ({"AWS_ENDPOINT_URL_S3": endpoint} if endpoint else {})
        return Contestant("pgstow restore --table, the smallest", command, environment)

    def into_empty_target(self, contestant):
        self.fresh_target()
        run = measure(contestant, self.s3)
        count = f"SELECT count(*) FROM {self.table['name']}"
        if self.psql(count, self.target) != self.psql(count):
            sys.exit(f"{contestant.name} restored other rows than there were")
        return run

    def and_clear(self, contestant):
        run = measure(contestant, self.s3)
        self.clear()
        return run


def frames(archive, head, target):
    """The content of every block of an archive, chunk after chunk: each chunk is a zstd frame."""
    with archive.open("rb") as source, target.open("wb") as sink:
        source.seek(head)

        def integer():
            sign, magnitude = source.read(1), source.read(4)
            return -int.from_bytes(magnitude, "little") if sign == b"\1" else int.from_bytes(magnitude, "little")

        def chunks():
            while length := integer():
                sink.write(source.read(length))

        while kind := source.read(1):
            integer()
            if kind == b"\1":
                chunks()
            else:
                while integer():
                    chunks()


def table(title, contestants):
    first = contestants[0]
    width = 34
    print(f"\n{title}")
    print(" " * width + "".join(f"{head:>14}" for head in ("wall s", "(range)", "CPU s", "peak MiB", "faster than 1")))
    for contestant in contestants:
        wall = median(contestant.runs, "wall")
        cells = [
            f"{wall:.1f}",
            f"({spread(contestant.runs, 'wall')})",
            f"{median(contestant.runs, 'cpu'):.1f}",
            f"{max(run.peak_mib for run in contestant.runs):.0f}",
            f"{median(first.runs, 'wall') / wall:.2f}x",
        ]
        print(f"{contestant.name:<{width}}" + "".join(f"{cell:>14}" for cell in cells))


def main():
    parser = argparse.ArgumentParser()
    for name in ("database", "postgres", "gb", "pgstow", "aws", "result"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--major", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()

    bench = Bench(options)
    bench.prepare()
    files = bench.manifest["files"]
    print(f"\nPostgreSQL {options.major}, {options.gb} GB, {options.rounds} rounds, {os.cpu_count()} cores ({platform.machine()})")
    print(f"An archive of {files['dump']['bytes'] / 1e6:.1f} MB. Medians; CPU is the client side's, memory the program's own.")

    kinds = [
        ("Everything into an empty database", list(bench.whole()), bench.into_fresh_target),
        ("Reading and unpacking all of it", list(bench.reading()), bench.and_clear),
        ("Into a file", list(bench.fetching()), bench.and_clear),
    ]
    # Where there is but one, it has been restored above.
    several = len(bench.manifest["tables"]) > 1
    if several:
        kinds.append(("One small table", [bench.one_table()], bench.into_empty_target))
    for title, contestants, run in kinds:
        in_turn(contestants, options.rounds, run)
        table(title, contestants)

    table_bytes = None
    if several:
        # Once more, and counted: the proxy would cost the measured runs their time.
        proxy = CountingProxy(bench.s3.environment["AWS_ENDPOINT_URL_S3"])
        bench.into_empty_target(bench.one_table(proxy.url))
        needed = bench.table["length"] + files["toc"]["bytes"]
        print(f"  {proxy.given:,} bytes in {proxy.requests} answers; the block and the head have {needed:,}")
        table_bytes = {"given": proxy.given, "answers": proxy.requests, "block_and_head": needed}

    runs = figures([contestant for _, contestants, _ in kinds for contestant in contestants])
    document = {"gb": options.gb, "major": options.major, "runs": runs, "one_table": table_bytes}
    save(Path(options.result), document)


if __name__ == "__main__":
    main()
