"""What a backup takes on other machines, from the CPU seconds that one gigabyte of COPY text costs
here: the server's, and ours. Whoever is slowest sets the pace, since all of them work at once."""

from dataclasses import dataclass

# Published list prices, us-east-1, x86, in dollars; look them up before you rely on them.
LAMBDA_GB_SECOND = 0.0000166667
FARGATE_VCPU_HOUR, FARGATE_GB_HOUR = 0.04048, 0.004445
S3_PUT, S3_GB_MONTH = 0.005 / 1000, 0.023
PART_GB = 8 * 2**20 / 1e9
# A function has one vCPU for each 1,769 MB, six at most.
LAMBDA_MB_PER_VCPU, LAMBDA_VCPUS = 1769, 6
LAMBDA_SECONDS = 15 * 60
# Seen by many, promised by nobody: what one function moves, each way.
LAMBDA_GBIT = 0.6
# The part of a function's time that the backup may plan with.
MARGIN = 0.9


@dataclass
class Cost:
    """Of one gigabyte of COPY text."""

    server: float
    client: float
    store: float
    stored_gb: float

    def seconds(self, vcpus, jobs, gbit):
        """On a client of its own, before a server that has a core for each job and a store that
        keeps up. What comes in and what goes out share no direction of the line."""
        line = max(1.0, self.stored_gb) * 8 / gbit
        return max(self.server / jobs, self.client / vcpus, line)

    def seconds_here(self, cores, jobs):
        """Where all three share the cores: nobody's time can be hidden behind another's, and a
        backend works on one core."""
        return max((self.server + self.client + self.store) / cores, self.server / jobs)


def cost(runs, gb, median):
    return Cost(median(runs, "server_cpu") / gb, median(runs, "cpu") / gb, median(runs, "s3_cpu") / gb,
                median(runs, "stored") / 1e9 / gb)


def machines(cost):
    """(vCPU, seconds per GB, what sets the pace)"""
    for vcpus in (2, 4, 6):
        seconds = cost.seconds(vcpus, vcpus, 10)
        limits = {"the server": cost.server / vcpus, "our compression": cost.client / vcpus,
                  "the line": max(1.0, cost.stored_gb) * 8 / 10}
        yield vcpus, seconds, max(limits, key=limits.get)


def functions(cost):
    """(MB, vCPU, jobs, seconds per GB, largest GB in 15 minutes, without the line's limit)"""
    for mb in (1769, 3538, 5307, 7076, 10240):
        vcpus = min(mb / LAMBDA_MB_PER_VCPU, LAMBDA_VCPUS)
        jobs = max(1, round(vcpus))
        with_line, without = (cost.seconds(vcpus, jobs, gbit) for gbit in (LAMBDA_GBIT, 10))
        yield mb, vcpus, jobs, with_line, LAMBDA_SECONDS * MARGIN / with_line, LAMBDA_SECONDS * MARGIN / without


def prices(cost, gb=100):
    """(what, hours, dollars for the run)"""
    puts = cost.stored_gb * gb / PART_GB * S3_PUT
    for vcpus, memory in ((2, 4), (4, 8)):
        hours = cost.seconds(vcpus, vcpus, 5) * gb / 3600
        yield f"Fargate, {vcpus} vCPU, {memory} GB", hours, hours * (vcpus * FARGATE_VCPU_HOUR + memory * FARGATE_GB_HOUR) + puts
    seconds = cost.seconds(1, 1, LAMBDA_GBIT) * gb
    yield "Lambda, 1,769 MB (in several databases)", seconds / 3600, seconds * 1769 / 1024 * LAMBDA_GB_SECOND + puts
