"""The ways there: a database into the object store, by stock pipelines, by other tools, and by
pgstow."""

import os
import shlex
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from counting import CountingProxy
from measuring import BUCKET, Contestant, figures, in_turn, measure

FOLDER = Path("target/bench/directory")


class Ways:
    def __init__(self, options, s3):
        self.options = options
        self.s3 = s3

    def contestant(self, name):
        kind, _, argument = name.partition(" ")
        return getattr(self, kind.replace("-", "_"))(name, argument)

    def pipeline(self, name, stages, flags=""):
        dump = f"'{self.options.postgres}/pg_dump' -Fc {flags} -d '{self.options.database}'"
        upload = f"{self.s3.copy()} --expected-size 20000000000 - s3://{BUCKET}/plain.dump"
        return Contestant(name, " | ".join([dump, *stages, upload]))

    def pg_dump(self, name, _):
        return self.pipeline(name, [])

    def zstd(self, name, _):
        return self.pipeline(name, ["zstd -q -T0 -1"], "-Z0")

    def pigz(self, name, _):
        return self.pipeline(name, ["pigz"], "-Z0")

    def directory(self, name, jobs):
        sync = f"'{self.s3.aws_program}' --endpoint-url \"$AWS_ENDPOINT_URL_S3\" s3 sync --quiet {FOLDER} s3://{BUCKET}/directory"
        dump = f"'{self.options.postgres}/pg_dump' -Fd -j{jobs} -d '{self.options.database}' -f {FOLDER}"
        return Contestant(name, f"rm -rf {FOLDER}; {dump} && {sync} && rm -rf {FOLDER}")

    def restic(self, name, _):
        """Uncompressed in: restic splits by content, and compresses itself."""
        dump = f"'{self.options.postgres}/pg_dump' -Fc -Z0 -d '{self.options.database}'"
        environment = {
            "RESTIC_REPOSITORY": f"s3:{self.s3.environment['AWS_ENDPOINT_URL_S3']}/{BUCKET}/restic",
            "RESTIC_PASSWORD": "bench",
            "HOME": str(Path("target/bench").resolve()),
        }
        backup = "restic backup --quiet --no-cache --stdin --stdin-filename dump"
        # A repository is made once, not for each backup, and its key costs a second and a half.
        init = "restic init --quiet --repository-version 2"
        return Contestant(name, f"{dump} | {backup}", environment, prepare=init)

    def pgbackrest(self, name, processes):
        """The server's files, all of them, read where they lie."""
        scratch = Path(os.environ["BENCH_SERVICES"], "scratch").read_text().strip()
        place = urlsplit(self.options.server)
        settings = {
            "pg1-path": f"{scratch}/{os.environ['BENCH_POSTGRES']}", "pg1-socket-path": f"{scratch}/{os.environ['BENCH_POSTGRES']}",
            "pg1-port": place.port, "pg1-user": place.username, "log-path": scratch, "lock-path": f"{scratch}/lock",
            "log-level-file": "off", "log-level-console": "error", "archive-check": "n", "start-fast": "y", "process-max": processes,
            "compress-type": "zst", "repo1-type": "s3", "repo1-path": "/pgbackrest", "repo1-s3-bucket": BUCKET,
            "repo1-s3-endpoint": "127.0.0.1", "repo1-s3-region": "us-east-1", "repo1-s3-uri-style": "path",
            "repo1-storage-port": os.environ["PGSTOW_TEST_S3_TLS_PORT"], "repo1-storage-verify-tls": "n",
            "repo1-s3-key": self.s3.environment["AWS_ACCESS_KEY_ID"],
            "repo1-s3-key-secret": self.s3.environment["AWS_SECRET_ACCESS_KEY"],
        }
        file = Path(scratch, "pgbackrest.conf")
        file.write_text("[bench]\n" + "".join(f"{key}={value}\n" for key, value in settings.items()))
        command = ["pgbackrest", "--config", str(file), "--stanza", "bench"]
        if os.geteuid() == 0:
            shutil.chown(file, "postgres", "postgres")
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
        file.chmod(0o600)
        environment = {"PGPASSWORD": place.password}
        prepare = f"cd / && {shlex.join(command)} stanza-create"
        return Contestant(name, f"cd / && exec {shlex.join(command)} --type=full backup", environment, prepare=prepare)

    def floor(self, name, _):
        dump = f"'{self.options.postgres}/pg_dump' -Fc -Z0 -d '{self.options.database}' > /dev/null"
        return Contestant(name, dump, stores=False)

    def pgstow(self, name, argument):
        jobs, _, compress = argument.partition(" ")
        command = [str(Path(self.options.pgstow).resolve()), "backup", "--store", f"s3://{BUCKET}/pgstow", "--jobs", jobs]
        command += ["--compress", compress] if compress else []
        environment = {"DATABASE_URL": self.options.database, "BACKUP_PG_BIN": self.options.postgres}
        return Contestant(name, command, environment)


def alone_in_the_store(contestant, s3):
    s3.empty()
    run = measure(contestant, s3)
    run.stored = s3.stored() if contestant.stores else 0
    return run


def run(options, s3, names, rounds):
    """The figures of all rounds, by way."""
    contestants = [Ways(options, s3).contestant(name) for name in names]
    in_turn(contestants, rounds, lambda contestant: alone_in_the_store(contestant, s3))
    return figures(contestants)


def requests(options, s3, names):
    """How many requests each way makes: counted apart, since to count costs time."""
    counts = {}
    direct = s3.environment["AWS_ENDPOINT_URL_S3"]
    for name in names:
        s3.empty()
        proxy = CountingProxy(direct)
        s3.environment["AWS_ENDPOINT_URL_S3"] = proxy.url
        try:
            measure(Ways(options, s3).contestant(name), s3)
        finally:
            s3.environment["AWS_ENDPOINT_URL_S3"] = direct
        counts[name] = proxy.requests
    return counts
