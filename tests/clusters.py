"""PostgreSQL servers as an operator has them: the system's own, version 15, on TCP of the loopback.

They can be killed, promoted, backed up, copied and restored. A hub reaches one by a port that
stays, whichever of them is behind it: a server listens on the port that it is started with::

    primary = Cluster.create(folder / "a")
    primary.start(port)
    standby = primary.standby(folder / "b")
    standby.start(free_port())
    ...
    primary.kill()
    standby.stop()
    standby.start(port)
    standby.promote()
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from harness import PATIENCE, eventually

#: Debian's folder for the programs of the PostgreSQL version that the hub supports.
PROGRAMS = Path("/usr/lib/postgresql/15/bin")
USER, DATABASE = "pen", "hub"
_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_level = replica
max_connections = 150
shared_buffers = 32MB
hot_standby = on
max_wal_senders = 4
wal_keep_size = 64MB
archive_mode = on
archive_command = 'cp %p {archive}/%f.part && mv {archive}/%f.part {archive}/%f'
restore_command = 'cp {archive}/%f %p'
fsync = off  # no test takes the machine's power away
log_min_messages = fatal
"""


def run(program: str, *arguments: object, **environment: str) -> str:
    """Run one of PostgreSQL's programs, which refuse to run as root; returns its output."""
    assert (PROGRAMS / program).exists(), f"{PROGRAMS / program} is missing: .ci/run installs it"
    done = subprocess.run(
        [*_account(), str(PROGRAMS / program), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, f"{program}: {done.stderr.decode()}"
    return done.stdout.decode()


def _account() -> list[str]:
    """The prefix of a command so that it does not run as root. A fork that changes its user is no
    alternative: its child would not survive in a process that uses gRPC."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] * _is_root()


def _is_root() -> bool:
    return os.geteuid() == 0


def _folder(path: Path) -> Path:
    """An empty folder that belongs to the account of the servers."""
    path.mkdir(mode=0o700)
    if _is_root():
        shutil.chown(path, "postgres", "postgres")
    return path


@dataclass
class Cluster:
    """The data of one server, and the server process while it runs."""

    data: Path
    port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @classmethod
    def create(cls, data: Path) -> Cluster:
        """A new cluster of its own, without the hub's database."""
        cluster = cls(_folder(data))
        archive = _folder(data.with_suffix(".archive"))
        run("initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale", "C", "-N")
        settings = _SETTINGS.format(archive=archive)
        with (data / "postgresql.conf").open("a") as file:
            file.write(settings)
        return cluster

    @property
    def url(self) -> str:
        """The URL of the hub's database."""
        return self.url_at(self.port)

    @staticmethod
    def url_at(port: int) -> str:
        """The URL of the hub's database on the server that listens on a port."""
        return f"postgresql://{USER}@127.0.0.1:{port}/{DATABASE}"

    def start(self, port: int) -> None:
        """Start the server, and wait until it answers."""
        self.port = port
        with self.data.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_account(), str(PROGRAMS / "postgres"), "-D", str(self.data), "-p", str(port)],
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd="/",
            )
        eventually(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.log
        try:
            self.sql("SELECT 1", database="postgres")
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    @property
    def log(self) -> str:
        """The server's log."""
        return self.data.with_suffix(".log").read_text()

    def stop(self) -> None:
        """Stop in order; connections are cut."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it like a machine that loses power."""
        self._end(signal.SIGQUIT)

    def _end(self, signum: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signum)
            self._process.wait(PATIENCE)
            self._process = None

    def promote(self) -> None:
        """Promote a standby; returns when it takes writes."""
        self.sql("SELECT pg_promote(true, 60)", database="postgres")
        eventually(lambda: self.sql("SELECT pg_is_in_recovery()") == [(False,)])

    def standby(self, data: Path) -> Cluster:
        """Make an asynchronous standby of its current state, which does not run yet."""
        standby = self.backup(data)
        (data / "standby.signal").touch()
        with (data / "postgresql.auto.conf").open("a") as file:
            file.write(f"primary_conninfo = 'host=127.0.0.1 port={self.port} user={USER}'\n")
        return standby

    def backup(self, data: Path) -> Cluster:
        """Make a base backup of its current state: it starts from that time."""
        _folder(data)
        run(
            "pg_basebackup",
            "-h",
            "127.0.0.1",
            "-p",
            self.port,
            "-U",
            USER,
            "-D",
            data,
            "-c",
            "fast",
        )
        return Cluster(data)

    def copy(self, data: Path) -> None:
        """Copy the volume, which must not be in use."""
        assert self._process is None, "it runs"
        subprocess.run(["cp", "-a", str(self.data), str(data)], check=True)

    def put_back(self, data: Path) -> None:
        """Replace the volume by a copy."""
        assert self._process is None, "it runs"
        shutil.rmtree(self.data)
        self.copy_of(data)

    def copy_of(self, data: Path) -> None:
        """Become a copy of the other's data."""
        subprocess.run(["cp", "-a", str(data), str(self.data)], check=True)

    def restore_point(self, name: str) -> None:
        """Name this moment, so that a backup can be recovered from the archive up to it."""
        self.sql("SELECT pg_create_restore_point($1)", name)
        ((segment,),) = self.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
        self.sql("SELECT pg_switch_wal()")
        archived = "SELECT last_archived_wal >= $1 FROM pg_stat_archiver"
        eventually(lambda: self.sql(archived, segment) == [(True,)])

    def recover_to(self, point: str) -> None:
        """Configure a base backup to recover up to a named restore point when it starts."""
        (self.data / "recovery.signal").touch()
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.write(f"recovery_target_name = '{point}'\nrecovery_target_action = 'promote'\n")

    def create_database(self) -> None:
        """Make the hub's database, empty."""
        self.sql(f"CREATE DATABASE {DATABASE}", database="postgres")

    def dump(self, file: Path) -> None:
        """Dump the hub's database, as ``pg_dump`` does."""
        _folder(file.parent)
        run("pg_dump", "-h", "127.0.0.1", "-p", self.port, "-U", USER, "-Fc", "-f", file, DATABASE)

    def restore(self, file: Path) -> None:
        """Restore such a dump into an empty database."""
        run("pg_restore", "-h", "127.0.0.1", "-p", self.port, "-U", USER, "-d", DATABASE, file)

    def sql(
        self, statement: str, *arguments: object, database: str = DATABASE
    ) -> list[tuple[Any, ...]]:
        """Run SQL as the owner; returns the rows."""

        async def work() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(
                host="127.0.0.1", port=self.port, user=USER, database=database, ssl=False
            )
            try:
                return [tuple(row) for row in await connection.fetch(statement, *arguments)]
            finally:
                await connection.close()

        return asyncio.run(work())

    def caught_up(self, primary: Cluster) -> bool:
        """Whether a standby has applied everything that its primary has written."""
        ((place,),) = primary.sql("SELECT pg_current_wal_flush_lsn()::text")
        ((done,),) = self.sql("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", place)
        return bool(done)
