#!/usr/bin/env python3
"""Writes what was measured into docs/performance.md, between its markers, and draws the plots."""

import argparse
import json
import sys
from pathlib import Path

import model
import plot
from cases import PLAN
from measuring import median

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
NAMES = {
    "floor": "`pg_dump -Fc -Z0 > /dev/null`",
    "pg_dump": "`pg_dump -Fc \\| aws s3 cp -`",
    "zstd": "`pg_dump -Fc -Z0 \\| zstd -T0 -1 \\| aws s3 cp -`",
    "pigz": "`pg_dump -Fc -Z0 \\| pigz \\| aws s3 cp -`",
    "directory 2": "`pg_dump -Fd -j2`, `aws s3 sync`",
    "pgbackrest 2": "pgBackRest, 2 processes, zst",
    "restic": "`pg_dump -Fc -Z0 \\| restic backup --stdin`",
}
DATABASES = {
    "giant": "one table", "mixed": "a shop's tables", "json": "documents (jsonb)", "bytea": "incompressible bytea",
    "pgbench": "pgbench",
}


def name(way):
    return NAMES.get(way) or f"pgstow --jobs {way.removeprefix('pgstow ')}".replace(" gzip", " --compress gzip")


def label(way):
    """Short, for a plot."""
    short = {"floor": "pg_dump > /dev/null", "pg_dump": "pg_dump -Fc | aws", "zstd": "zstd -T0 -1 | aws", "pigz": "pigz | aws",
             "directory 2": "pg_dump -Fd -j2; sync", "restic": "restic --stdin"}
    return short.get(way) or f"pgstow --jobs {way.removeprefix('pgstow ')}"


def table(heads, rows):
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows])


def span(runs, figure):
    values = sorted(run[figure] for run in runs)
    middle = f"{median(runs, figure):.1f}"
    return middle if len(values) == 1 else f"{middle} ({values[0]:.1f}–{values[-1]:.1f})"


class Report:
    def __init__(self, results, plots):
        self.cases = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
        levels = results / "levels.txt"
        self.levels = [line.split("\t") for line in levels.read_text().splitlines()] if levels.exists() else []
        self.plots = plots
        self.parts = []

    def wall(self, case, way):
        runs = self.cases.get(case, {}).get("there", {}).get(way)
        return median(runs, "wall") if runs else None

    def figure(self, file, draw, *arguments):
        draw(self.plots / file, *arguments)
        self.parts.append(f"![{arguments[0]}]({self.plots.name}/{file})")

    def there(self):
        for case, data in self.cases.items():
            if data["database"] == "many" or not case.endswith("-1gb") or case == "physical-1gb":
                continue
            dump = self.wall(case, "pg_dump")
            rows = []
            for way, runs in sorted(data["there"].items(), key=lambda item: -median(item[1], "wall")):
                stored = median(runs, "stored")
                wall = median(runs, "wall")
                rows.append([
                    name(way), span(runs, "wall"), f"{median(runs, 'cpu'):.1f}", f"{median(runs, 'server_cpu'):.1f}",
                    f"{median(runs, 's3_cpu'):.1f}", f"{max(run['peak_mib'] for run in runs):.0f}",
                    f"{stored / 1e6:.1f}" if stored else "", data["requests"].get(way, ""),
                    f"{dump / wall:.1f}" if dump else "",
                ])
            what = DATABASES[data["database"]]
            self.parts.append(f"### {what[0].upper()}{what[1:]}, {data['gb']:g} GB\n")
            heads = ["way", "wall s", "client CPU s", "server CPU s", "S3 CPU s", "peak MiB", "stored MB", "requests", "faster"]
            self.parts.append(table(heads, rows))
            bars = [(label(way), median(runs, "wall"), *(f(run["wall"] for run in runs) for f in (min, max)))
                    for way, runs in sorted(data["there"].items(), key=lambda item: median(item[1], "wall"))]
            self.figure(f"there-{data['database']}.svg", plot.bars, f"Backup: {what}, {data['gb']:g} GB", "wall, seconds", bars)

    def physical(self):
        data = self.cases.get("physical-1gb")
        if data:
            self.parts.append(
                f"### A physical backup, for comparison\n\nPostgreSQL {data['major']}, one table of 1 GB of COPY text. pgBackRest "
                "copies the server's files, including indexes, from the server's own disk, and must use TLS. The archives of pg_dump "
                "15 support only gzip, so pgstow uses gzip here.\n")
            rows = [[name(way), span(runs, "wall"), f"{median(runs, 'cpu'):.1f}", f"{median(runs, 'server_cpu'):.1f}",
                     f"{median(runs, 's3_cpu'):.1f}", f"{median(runs, 'stored') / 1e6:.1f}"] for way, runs in data["there"].items()]
            self.parts.append(table(["way", "wall s", "client CPU s", "server CPU s", "S3 CPU s", "stored MB"], rows))

    def growth(self):
        sizes = [size for size in (1, 2, 4, 8) if f"giant-{size}gb" in self.cases]
        if len(sizes) > 1:
            ways = ["floor", "zstd", "pgstow 2"]
            self.parts.append("### Size\n")
            rows = []
            for size in sizes:
                runs = self.cases[f"giant-{size}gb"]["there"]["pgstow 2"]
                rows.append([size, *(f"{self.wall(f'giant-{size}gb', way):.1f}" for way in ways),
                             f"{max(run['peak_mib'] for run in runs):.0f}"])
            self.parts.append(table(["GB", *map(name, ways), "peak MiB of pgstow"], rows))
            series = {label(way): [self.wall(f"giant-{size}gb", way) for size in sizes] for way in ways}
            self.figure("by-size.svg", plot.lines, "One table: wall by size", "GB of COPY text", "seconds", sizes, series)
            peaks = {label(way): [max(run["peak_mib"] for run in self.cases[f"giant-{size}gb"]["there"][way]) for size in sizes]
                     for way in ("zstd", "pgstow 2")}
            self.figure("memory-by-size.svg", plot.lines, "One table: peak memory by size", "GB of COPY text", "MiB", sizes, peaks)
        counts = [count for count in (10, 100, 1000, 10000) if f"many-{count}" in self.cases]
        if len(counts) > 1:
            ways = ["floor", "pgstow 1", "pgstow 2"]
            self.parts.append("### Number of tables\n\nThe same gigabyte, in one table and in many.\n")
            columns = [*(["giant-1gb"] if "giant-1gb" in self.cases else []), *(f"many-{count}" for count in counts)]
            points = [*([1] if "giant-1gb" in self.cases else []), *counts]
            rows = [[point, *(f"{self.wall(case, way):.1f}" for way in ways)] for point, case in zip(points, columns)]
            self.parts.append(table(["tables", *map(name, ways)], rows))
            series = {label(way): [self.wall(case, way) for case in columns] for way in ways}
            self.figure("by-tables.svg", plot.lines, "One gigabyte: wall by number of tables", "tables", "seconds", points, series)
        jobs = [count for count in (1, 2, 4) if self.wall("giant-1gb", f"pgstow {count}")]
        if len(jobs) > 1:
            self.parts.append("### Jobs\n")
            cases = [case for case in ("giant-1gb", "mixed-1gb", "bytea-1gb") if case in self.cases]
            series = {DATABASES[self.cases[case]["database"]]: [self.wall(case, f"pgstow {count}") for count in jobs] for case in cases}
            self.figure("by-jobs.svg", plot.lines, "One gigabyte: wall by jobs, all on two cores", "jobs", "seconds", jobs, series)

    def back(self):
        rows = []
        for data in self.cases.values():
            for way, runs in (data.get("back") or {}).get("runs", {}).items():
                rows.append([DATABASES[data["database"]], f"`{way}`".replace("|", "\\|"), span(runs, "wall"),
                             f"{median(runs, 'cpu'):.1f}", f"{median(runs, 'server_cpu'):.1f}",
                             f"{max(run['peak_mib'] for run in runs):.0f}"])
        if rows:
            self.parts.append("### Restore\n")
            self.parts.append(table(["database", "way", "wall s", "client CPU s", "server CPU s", "peak MiB"], rows))

    def targets(self):
        rows = []

        def target(what, ratio, holds, limit):
            if ratio is None:
                rows.append([what, limit, "", "not measured"])
            else:
                rows.append([what, limit, f"{ratio:.2f}", "met" if holds(ratio) else "**missed**"])

        def ratio(case, one, other):
            walls = self.wall(case, one), self.wall(case, other)
            return walls[0] / walls[1] if all(walls) else None

        def fastest(case):
            """The better of one job and two."""
            return min(("pgstow 1", "pgstow 2"), key=lambda way: self.wall(case, way) or float("inf"))

        for case in ("giant-1gb", "mixed-1gb"):
            what = DATABASES[case.split("-")[0]]
            best = fastest(case)
            target(f"{what}: how many times as fast as `pg_dump -Fc \\| aws`, zstd", ratio(case, "pg_dump", best), lambda r: r >= 6, "≥ 6")
            target(f"{what}: the same, gzip", ratio(case, "pg_dump", "pgstow 2 gzip:6"), lambda r: r >= 2.5, "≥ 2.5")
            target(f"{what}: how many times as fast as `zstd -T0 -1 \\| aws`", ratio(case, "zstd", best), lambda r: r >= 1.3, "≥ 1.3")
            limit = 1.0 if case.startswith("giant") else 1.15
            target(f"{what}: time, divided by that of `pg_dump -Z0 > /dev/null`", ratio(case, best, "floor"), lambda r: r <= limit,
                   f"≤ {limit}")
            runs = (self.cases.get(case, {}).get("back") or {}).get("runs", {})
            theirs, ours = [median(runs, "wall") for runs in runs.values()][:2] or (None, None)
            target(f"{what}: restore, how many times as fast as `aws s3 cp`, `pg_restore -j 2`", theirs and theirs / ours,
                   lambda r: r >= 1.5, "≥ 1.5")
        many = self.wall("many-10000", fastest("many-10000"))
        one = self.wall("giant-1gb", fastest("giant-1gb"))
        target("10,000 tables: time, divided by that of one table", many / one if many and one else None, lambda r: r <= 2, "≤ 2")
        target("10,000 tables: time, divided by that of `pg_dump -Fc \\| aws`",
               ratio("many-10000", fastest("many-10000"), "pg_dump"), lambda r: r <= 1.2, "≤ 1.2")
        target("10,000 tables: time, divided by that of `pg_dump -Z0 > /dev/null`",
               ratio("many-10000", fastest("many-10000"), "floor"), lambda r: r <= 1.2, "≤ 1.2")
        peaks = {case: max(run["peak_mib"] for run in data["there"]["pgstow 2"])
                 for case, data in self.cases.items() if "pgstow 2" in data["there"]}
        target("peak memory at 2 jobs, MiB", max(peaks.values(), default=None), lambda peak: peak <= 128, "≤ 128")
        small, large = peaks.get("giant-1gb"), peaks.get("giant-8gb")
        target("peak memory at 8 GB, divided by that at 1 GB", large / small if small and large else None, lambda r: r <= 1.1,
               "flat: ≤ 1.1")
        self.parts.append(
            "### Compared with the aims\n\nRatios of medians within one run; for pgstow, the better of one job and two. In the tables "
            "below, a value without a range is from a single run.\n")
        self.parts.append(table(["", "aim", "measured", ""], rows))

    def efforts(self):
        if not self.levels:
            return
        kinds = list(dict.fromkeys(kind for kind, *_ in self.levels))
        ways = list(dict.fromkeys(way for _, way, *_ in self.levels))
        known = {(kind, way): f"{float(ratio):.2f} / {float(cost):.1f}" for kind, way, ratio, cost in self.levels}
        self.parts.append("### Levels\n\nRatio / CPU seconds per GB, one core, frames of 2 MiB (`cargo bench --bench levels`).\n")
        self.parts.append(table(["", *kinds], [[way, *(known[kind, way] for kind in kinds)] for way in ways]))

    def larger(self):
        data = self.cases.get("mixed-1gb")
        if not data:
            return
        self.parts.append("### Larger machines\n")
        checks, cores = [], data["cores"]
        for case in ("giant-1gb", "mixed-1gb", "json-1gb", "bytea-1gb", "pgbench-1gb"):
            ways = self.cases.get(case, {}).get("there", {})
            for jobs in (1, 2) if "pgstow 1" in ways else ():
                # What one job costs must say what two take.
                cost = model.cost(ways["pgstow 1"], 1, median)
                said, was = cost.seconds_here(cores, jobs), self.wall(case, f"pgstow {jobs}")
                checks.append([DATABASES[case.split("-")[0]], jobs, f"{said:.1f}", f"{was:.1f}", f"{(said / was - 1) * 100:+.0f} %"])
        cost = model.cost(data["there"]["pgstow 2"], data["gb"], median)
        self.parts.append(
            f"One gigabyte of the shop's COPY text costs the server {cost.server:.1f} s of CPU, pgstow {cost.client:.1f} s, and the S3 "
            f"server here {cost.store:.1f} s; {cost.stored_gb * 1000:.0f} MB are stored. `bench/model.py` assumes that client, server "
            "and store each have a machine of their own, that the server has a core for each job, that CPU seconds are the same there "
            "as here, and that all three work at the same time, so that the slowest one limits the speed. To check the model, this "
            "table applies it to the two cores that all three share, with the costs measured with one job:\n")
        self.parts.append(table(["database", "jobs", "model, s", "measured, s", "error"], checks))
        self.parts.append("\nA separate client machine, a network of 10 Gbit/s, as many jobs as vCPUs:\n")
        self.parts.append(table(["vCPU", "seconds per GB", "MB/s", "limited by"],
                                [[v, f"{s:.2f}", f"{1000 / s:.0f}", why] for v, s, why in model.machines(cost)]))
        self.parts.append(
            f"\nA Lambda function's 15 minutes, with a tenth of them in reserve. AWS promises no bandwidth. A common value is "
            f"{model.LAMBDA_GBIT} Gbit/s in each direction, which then limits the larger functions:\n")
        self.parts.append(table(["memory, MB", "vCPU", "jobs", "seconds per GB", "largest, GB of COPY text", "without the network's limit"],
                                [[mb, f"{v:.1f}", jobs, f"{s:.1f}", f"{most:.0f}", f"{free:.0f}"]
                                 for mb, v, jobs, s, most, free in model.functions(cost)]))
        stored = cost.stored_gb * 100
        self.parts.append(f"\n100 GB of COPY text, list prices of us-east-1 (x86), data transfer within the region free; storing the "
                          f"{stored:.0f} GB costs ${stored * model.S3_GB_MONTH:.2f} a month:\n")
        self.parts.append(table(["where", "hours", "$ per run"], [[what, f"{h:.2f}", f"{d:.3f}"] for what, h, d in model.prices(cost)]))

    def text(self):
        first = next((data for case, data in self.cases.items() if case != "physical-1gb"), None)
        if first is None:
            sys.exit("nothing has been measured yet")
        self.parts.append(f"PostgreSQL {first['major']}, SeaweedFS and the clients share {first['cores']} cores ({first['machine']}); "
                          f"{first['date']}. Medians, with the range if there were several rounds.\n")
        for part in (self.targets, self.there, self.physical, self.growth, self.back, self.efforts, self.larger):
            part()
        return "\n\n".join(part.strip("\n") for part in self.parts)


def main():
    parser = argparse.ArgumentParser()
    for option in ("results", "document", "plots"):
        parser.add_argument(f"--{option}", required=True, type=Path)
    options = parser.parse_args()
    document = options.document.read_text()
    before, rest = document.split(BEGIN)
    after = rest.split(END)[1]
    report = Report(options.results, options.plots)
    if missing := [case.name for case in PLAN if case.name not in report.cases]:
        beside = options.results.parent
        options.document, report.plots = beside / options.document.name, beside / options.plots.name
        print(f"not measured yet: {', '.join(missing)}; see {options.document}", file=sys.stderr)
    options.document.write_text(f"{before}{BEGIN}\n\n{report.text()}\n\n{END}{after}")


if __name__ == "__main__":
    main()
