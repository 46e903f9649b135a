"""What the benchmarks share: the servers, running one contestant, and its figures."""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

BUCKET = "bench"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Contestant:
    name: str
    # Shell text for a pipeline, an argument list for a single program.
    command: str | list
    environment: dict = field(default_factory=dict)
    # What it reads from the object store afterwards; None where nothing is stored.
    stores: bool = True
    # Shell text that is run before, outside of the time.
    prepare: str = ""
    runs: list = field(default_factory=list)


@dataclass
class Run:
    wall: float
    # Of the client's side: the program and all that it has started.
    cpu: float
    # Of PostgreSQL, and of the S3 server.
    server_cpu: float
    s3_cpu: float
    # Of the one program, or of the largest in a pipeline.
    peak_mib: float
    stored: int = 0

    def __getitem__(self, name):
        return getattr(self, name)


class Peak(threading.Thread):
    """The most memory that one process has used, without its children: wait4 takes the largest
    of the family for the program's own."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status = Path(f"/proc/{pid}/status")
        self.kib = 0
        self.start()

    def run(self):
        while True:
            try:
                lines = self.status.read_text().splitlines()
                # One that has ended has no such line any more.
                self.kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
            except (OSError, StopIteration):
                return
            time.sleep(0.02)


def stat(pid):
    """(parent, own seconds, seconds of the children that it has buried)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    except OSError:
        return 0, 0.0, 0.0
    own, buried = (sum(map(int, fields[at : at + 2])) / TICKS for at in (11, 13))
    return int(fields[1]), own, buried


class Server:
    """A server of scripts/services.sh, by the CPU time of its family. A backend that has ended counts
    with its postmaster."""

    def __init__(self, name):
        pids = Path(os.environ["BENCH_SERVICES"]) / "pids" / name
        self.pid = int(pids.read_text().split()[0])

    def cpu(self):
        _, own, buried = stat(self.pid)
        children = (stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return own + buried + sum(own + buried for parent, own, buried in children if parent == self.pid)


def measure(contestant, s3):
    """One run, to success."""
    if contestant.prepare:
        subprocess.run(["bash", "-c", contestant.prepare], env={**s3.environment, **contestant.environment}, check=True)
    shell = isinstance(contestant.command, str)
    command = ["bash", "-o", "pipefail", "-c", contestant.command] if shell else contestant.command
    log = Path("target/bench/last.log")
    servers = [Server(os.environ["BENCH_POSTGRES"]), Server("s3")]
    before = [server.cpu() for server in servers]
    with log.open("wb") as output:
        start = time.monotonic()
        child = subprocess.Popen(command, stdout=output, stderr=output, env={**s3.environment, **contestant.environment})
        own = None if shell else Peak(child.pid)
        # wait4's figures cover the child and every descendant that it has itself waited for:
        # the client side of the transfer, without the two servers.
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
    if status != 0:
        sys.exit(f"{contestant.name} failed:\n{log.read_text()[-4000:]}")
    postgres, store = (server.cpu() - cpu for server, cpu in zip(servers, before))
    peak = (own.kib if own else usage.ru_maxrss) / 1024
    return Run(wall, usage.ru_utime + usage.ru_stime, postgres, store, peak)


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

    def copy(self):
        """`aws s3 cp`, as shell text."""
        return f"'{self.aws_program}' --endpoint-url \"$AWS_ENDPOINT_URL_S3\" s3 cp --quiet"

    def make_bucket(self):
        if BUCKET not in self.aws("s3", "ls"):
            self.aws("s3", "mb", f"s3://{BUCKET}")

    def empty(self):
        self.aws("s3", "rm", "--recursive", f"s3://{BUCKET}/")

    def stored(self):
        """All bytes in the bucket."""
        query = ["--query", "sum(Contents[].Size || `[0]`)", "--output", "json"]
        return int(float(self.aws("s3api", "list-objects-v2", "--bucket", BUCKET, *query)))


def in_turn(contestants, rounds, before):
    """To and fro: whatever drifts on this machine favours nobody. `before` one run of a
    contestant, outside of its time; then the run."""
    for number in range(rounds):
        for contestant in contestants if number % 2 == 0 else reversed(contestants):
            run = before(contestant)
            contestant.runs.append(run)
            print(f"round {number + 1}: {contestant.name}: {run.wall:.1f} s", file=sys.stderr)


def median(runs, name):
    return statistics.median(run[name] for run in runs)


def spread(runs, name):
    values = [run[name] for run in runs]
    return f"{min(values):.1f}-{max(values):.1f}"


def figures(contestants):
    return {contestant.name: [vars(run) for run in contestant.runs] for contestant in contestants}


def save(path, document):
    """Whole or not at all: a run that is interrupted goes on where it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(document, indent=1))
    new.rename(path)
