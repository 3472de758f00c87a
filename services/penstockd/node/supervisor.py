"""The supervisor of one node: starts its processes in order, keeps them alive, ends them in order.

PostgreSQL starts first, then ``prepare`` runs (migrations), then workers and keeper start, then
Envoy; they end in reverse order. A process that dies is restarted; a supervisor that dies takes its
children with it (see guard).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import structlog

from penstockd.heartbeat import VARIABLE as HEARTBEAT
from penstockd.node.certificates import SOON
from penstockd.node.envoy import Edge, Envoy, EnvoyConfig, check_port
from penstockd.node.errors import NodeError, ProcessFailed
from penstockd.node.guard import ChildGuard
from penstockd.node.journal import (
    follow_log,
    is_severe,
    is_severe_envoy,
    is_severe_postgres,
    never_severe,
)
from penstockd.node.lock import hold_folder
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.process import DETACHED_LOG, Process, spawn_process
from penstockd.node.pulse import INTERVAL as PULSE_INTERVAL
from penstockd.node.pulse import Pulse
from penstockd.node.ring import forget_plan_rate
from penstockd.node.sockets import sockets_folder
from penstockd.output import tell_progress

READY_SECONDS = 180.0
"""From the start of the workers until a call through Envoy succeeds."""
STOP_SECONDS = 15.0
"""What workers and keeper get to end their calls after SIGTERM."""
STEADY_SECONDS = 10.0
"""A process that lived this long is started again at once; others after growing pauses."""
LONGEST_PAUSE = 5.0
FILE_LIMIT = 65_536
"""Open files that each process may have, if the system lets us say so."""
OTHER_FILES = 200
"""Files that a process opens besides those of client connections."""
EARLY_DEATHS = 3
"""So many ends of one process before the node was ever ready make the start fail."""

#: For the C library's allocator, which otherwise keeps freed memory for each of many threads: an
#: export, with a handful of threads, left twice the memory in use. Blocks above 2.5 MiB, such as
#: sets of keys, return to the system when freed; doing so for smaller blocks would cost time.
_FRUGAL = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(5 << 19),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 20),
}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Node:
    """What to run. The sidecar's paths are files of the repository or the wheel.

    ``database_url`` is the user's PostgreSQL (libpq form), None for the embedded one, which allows
    ``connections`` and some more. ``worker`` returns the command of a worker that listens on a
    socket, ``keeper`` is the keeper's command. ``environment`` returns variables for both from the
    database's URL, which are added to our own environment without ``withheld``;
    ``keeper_environment`` is for the keeper alone.
    """

    data: Path
    database_url: str | None
    workers: int
    connections: int
    worker: Callable[[Path], Sequence[str]]
    keeper: Sequence[str]
    environment: Callable[[str], Mapping[str, str]]
    withheld: Collection[str] = ()
    keeper_environment: Mapping[str, str] = field(default_factory=dict)
    template: Path
    inputs: Path
    descriptors: Path
    portal: Path
    edge: Edge
    issuer: str
    audience: str

    @property
    def logs(self) -> Path:
        """The folder of the log files."""
        return self.data.absolute() / "log"

    def envoy(self, sockets: Path) -> EnvoyConfig:
        """The sidecar's configuration, given the folder of the sockets."""
        return EnvoyConfig(
            **{field.name: getattr(self.edge, field.name) for field in fields(Edge)},
            template=self.template,
            inputs=self.inputs,
            descriptors=self.descriptors,
            portal=self.portal,
            issuer=self.issuer,
            audience=self.audience,
            worker_sockets=[sockets / f"worker-{i}.sock" for i in range(self.workers)],
            sockets=sockets,
            logs=self.logs,
        )


async def supervise_node(
    node: Node,
    prepare: Callable[[str], Awaitable[None]],
    on_ready: Callable[[], Awaitable[None]],
    console: TextIO | None = None,
) -> None:
    """Run ``node`` until SIGINT, SIGTERM or SIGHUP; call from the main thread.

    ``prepare`` receives the database's URL (libpq form) before any worker starts; ``on_ready`` is
    called once, when calls are served. Severe log lines are repeated on ``console``, by default on
    the value of stderr when the line is written, since ``output`` replaces stderr by a guarded
    stream. Returns after a normal end. Raises NodeError if the node cannot start, and what
    ``prepare`` or ``on_ready`` raise; everything started is ended first.
    """
    with hold_folder(node.data):
        _check_certificates(node.edge)
        sockets = sockets_folder(node.data)
        # The guard of a killed run may still be ending that run's processes.
        try:
            guard = await asyncio.to_thread(ChildGuard, sockets / "guard.lock")
        except OSError as error:
            raise ProcessFailed(f"what an earlier run left behind does not end: {error}") from error
        try:
            # Only now: until the killed run's processes ended, its sidecar may have had the port.
            check_port(node.envoy(node.data))
            _raise_file_limit()
            await _run_until_signal(_Running(node, sockets, guard, console), prepare, on_ready)
        finally:
            await asyncio.to_thread(guard.close)


async def _run_until_signal(
    running: _Running,
    prepare: Callable[[str], Awaitable[None]],
    on_ready: Callable[[], Awaitable[None]],
) -> None:
    with _catch_signals() as asked:
        try:
            await _work_until(asked, running.run(prepare, on_ready))
        finally:
            await running.stop()


class _Running:
    """The processes of one run of a node."""

    def __init__(
        self, node: Node, sockets: Path, guard: ChildGuard, console: TextIO | None
    ) -> None:
        self._node = node
        self._sockets = sockets
        self._guard = guard
        self._console = console
        config = node.envoy(sockets)
        self._worker_sockets = config.worker_sockets
        self._envoy = Envoy(config, sockets / "envoy.yaml", guard=guard)
        self._postgres: EmbeddedPostgres | None = None
        self._children: dict[str, Process] = {}
        self._environment: dict[str, str] = {}
        self._ready = False
        self._pulse = Pulse()

    async def run(
        self,
        prepare: Callable[[str], Awaitable[None]],
        on_ready: Callable[[], Awaitable[None]],
    ) -> None:
        """Start everything and keep it running; ends only by cancellation or error."""
        node = self._node
        url = node.database_url
        if url is None:
            tell_progress("starting PostgreSQL")
            self._postgres = EmbeddedPostgres(
                node.data, self._sockets, guard=self._guard, connections=node.connections
            )
            await self._postgres.start()
            url = self._postgres.dsn
        await prepare(url)
        forget_plan_rate(self._sockets)
        # Our processes never fork; without this setting, gRPC checks the process id all the time.
        calm = {"GRPC_ENABLE_FORK_SUPPORT": "false"}
        ours = {k: v for k, v in os.environ.items() if k not in node.withheld}
        self._environment = {**_FRUGAL, **ours, **calm, **node.environment(url)}
        tell_progress(f"starting {node.workers} workers, the keeper and Envoy")
        try:
            async with asyncio.TaskGroup() as group:
                self._follow(group)
                if self._postgres is not None:
                    group.create_task(self._keep("postgres", self._start_postgres))
                for i, socket in enumerate(self._worker_sockets):
                    name = f"worker-{i}"
                    group.create_task(self._keep(name, self._worker(name, socket)))
                group.create_task(self._keep("keeper", self._keeper))
                group.create_task(self._end_hanging())
                await self._envoy.start()
                group.create_task(self._keep("envoy", self._start_envoy))
                group.create_task(self._envoy.follow_plans())
                await self._envoy.ready(READY_SECONDS)
                self._ready = True
                _log.info("node_ready", url=self._envoy.config.url)
                await on_ready()
        except BaseExceptionGroup as errors:
            # The first error is the cause; the others, if any, follow from it.
            raise errors.exceptions[0] from None

    async def stop(self) -> None:
        """End all processes: Envoy first, so that calls under way can finish, PostgreSQL last."""
        await self._envoy.stop()
        workers = [p for name, p in self._children.items() if name != "keeper"]
        await asyncio.gather(*(p.stop(signal.SIGTERM, STOP_SECONDS) for p in workers))
        if (keeper := self._children.get("keeper")) is not None:
            await keeper.stop(signal.SIGTERM, STOP_SECONDS)
        if self._postgres is not None:
            await self._postgres.stop()

    async def _keep(self, name: str, start: Callable[[], Awaitable[Process]]) -> None:
        deaths, pause = 0, 0.0
        while True:
            began = time.monotonic()
            try:
                process = await start()
                reason = f"exit code {await process.wait()}"
            except (NodeError, OSError) as error:
                reason = str(error)
            self._pulse.end(name)
            deaths += 1
            if not self._ready and deaths >= EARLY_DEATHS:
                log = self._node.logs / f"{name}.log"
                raise ProcessFailed(f"{name} does not start ({reason}); see {log}")
            steady = time.monotonic() - began >= STEADY_SECONDS
            pause = 0.0 if steady or deaths == 1 else min(max(pause * 2, 0.2), LONGEST_PAUSE)
            _log.error("process_ended", process=name, reason=reason, again_in_seconds=pause)
            await asyncio.sleep(pause)

    async def _end_hanging(self) -> None:
        """Kill a process that hangs, for ``_keep`` to restart it."""
        while True:
            await asyncio.sleep(PULSE_INTERVAL)
            if (name := self._pulse.hanging()) is not None:
                _log.error("process_hangs", process=name)
                self._children[name].send(signal.SIGKILL)
                self._pulse.begin(name)  # no other process is killed before it beats again

    async def _start_postgres(self) -> Process:
        assert self._postgres is not None
        if self._postgres.process is None or self._postgres.process.code is not None:
            await self._postgres.start()
        assert self._postgres.process is not None
        return self._postgres.process

    async def _start_envoy(self) -> Process:
        if self._envoy.process is None or self._envoy.process.code is not None:
            await self._envoy.start()
        assert self._envoy.process is not None
        return self._envoy.process

    def _worker(self, name: str, socket: Path) -> Callable[[], Awaitable[Process]]:
        async def start() -> Process:
            return self._spawn(name, self._node.worker(socket), socket)

        return start

    async def _keeper(self) -> Process:
        return self._spawn("keeper", self._node.keeper, more=self._node.keeper_environment)

    def _spawn(
        self,
        name: str,
        argv: Sequence[str],
        socket: Path | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Process:
        if socket is not None:
            socket.unlink(missing_ok=True)  # left by a worker that was killed
        log = self._node.logs / f"{name}.log"
        with contextlib.suppress(OSError):  # then the process runs without a log
            log.parent.mkdir(parents=True, exist_ok=True)
        heartbeat = self._pulse.listen(name)
        try:
            child = spawn_process(
                name,
                argv,
                log=log,
                env={**self._environment, **(more or {}), HEARTBEAT: str(heartbeat)},
                guard=self._guard,
                descriptors=[heartbeat],
            )
        finally:
            os.close(heartbeat)
        self._children[name] = child
        return child

    def _follow(self, group: asyncio.TaskGroup) -> None:
        names = ["keeper", *(path.stem for path in self._worker_sockets)]
        judged = [(name, is_severe) for name in names]
        judged += [
            ("postgres", is_severe_postgres),
            ("envoy", is_severe_envoy),
            ("access", never_severe),
        ]
        for name, severe in judged:
            path = self._node.logs / f"{name}.log"
            group.create_task(follow_log(name, path, severe, self._console))
        # What a detached supervisor writes itself; its lines are never repeated, only bounded.
        own = self._node.data / DETACHED_LOG
        group.create_task(follow_log("supervisor", own, never_severe, self._console))


def _check_certificates(edge: Edge) -> None:
    """Check the certificates, and warn if one expires soon. Raises CertificateUnusable."""
    if edge.certificates is not None:
        ends = edge.certificates.check()
        if ends - datetime.now(UTC) < SOON:
            _log.warning("certificate_ends_soon", file=str(edge.certificates.chain), ends=str(ends))


def missing_files(connections: int) -> int:
    """The number of open files that a process may lack for this many client connections; 0 if it
    has enough.

    It uses the hard limit, up to which ``supervise_node`` raises the soft one.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if hard == resource.RLIM_INFINITY else max(0, connections + OTHER_FILES - hard)


def _raise_file_limit() -> None:
    """Let the children open many connections: the soft limit is often only 1024, for historical
    reasons."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILE_LIMIT if hard == resource.RLIM_INFINITY else min(FILE_LIMIT, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _work_until(asked: asyncio.Event, work: Awaitable[None]) -> None:
    """Do ``work`` until it ends or raises, or ``asked`` is set."""
    task = asyncio.ensure_future(work)
    waiter = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        waiter.cancel()
        task.cancel()


@contextlib.contextmanager
def _catch_signals() -> Iterator[asyncio.Event]:
    """An event that is set by SIGINT, SIGTERM and SIGHUP while the block runs."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    signums = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it stays ignored
        signums.append(signal.SIGHUP)
    for signum in signums:
        loop.add_signal_handler(signum, asked.set)
    try:
        yield asked
    finally:
        for signum in signums:
            loop.remove_signal_handler(signum)
