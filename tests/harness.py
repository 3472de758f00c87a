"""A hub as its users have it: started by the command line, called through Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import operator
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import asyncpg
import grpc
import psutil

from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder

ROOT = Path(__file__).parents[1]
#: The root secret of hubs, so that tests can open what the hubs seal.
SECRET = "all hubs of the tests have this secret, so that their cursors can be opened"


@dataclass(frozen=True)
class Reply:
    """A complete HTTP reply."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The reason in the ErrorInfo of an error."""
        for detail in self.json().get("details", []):
            if detail["@type"].endswith("ErrorInfo"):
                return str(detail["reason"])
        raise AssertionError(f"no ErrorInfo in {self.text}")

    @property
    def request_id(self) -> str:
        """The id that Envoy gave the call."""
        return self.headers["x-request-id"]

    def violations(self) -> dict[str, str]:
        """Field -> description of the BadRequest in an error."""
        return {
            v["field"]: v["description"]
            for d in self.json().get("details", [])
            if d["@type"].endswith("BadRequest")
            for v in d["fieldViolations"]
        }


def new_customer(**values: Any) -> dict[str, Any]:
    """A customer's record with a unique key."""
    return {"customerId": f"t-{uuid.uuid4().hex[:12]}", "name": "Test", **values}


#: Ports below those that systems assign to outgoing connections: the system might give one of these
#: to a client before the hub listens on it.
PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A loopback port on which nothing listens, and which no other test run gets.

    A UDP socket on the same number marks it as taken for as long as this process lives.
    """
    for port in random.SystemRandom().sample(PORTS, 1000):
        mark = socket.socket(type=socket.SOCK_DGRAM)
        try:
            mark.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
            continue
        mark.detach()
        return port
    raise AssertionError("no port is free")


@dataclass
class RunningHub:
    """A hub in a folder of its own on a port of its own."""

    data: Path
    port: int = field(default_factory=free_port)
    customers: int = 300
    #: The root secret in the data folder at the first start; "" lets the hub make one.
    secret: str = SECRET
    environment: dict[str, str] = field(default_factory=dict)
    #: By consumer: a token, and when it was requested.
    tokens: dict[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The URL of its public port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_key(self) -> str:
        """The API key of the admin."""
        return self.consumers["admin"]["api_key"]

    @property
    def consumers(self) -> dict[str, dict[str, str]]:
        """The demo's credentials by consumer."""
        document = json.loads((self.data / "demo.json").read_text())
        return dict(document["consumers"])

    def env(self) -> dict[str, str]:
        """The environment of its commands."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        own = {"PENSTOCK_DATA_DIR": str(self.data), "PENSTOCK_PORT": str(self.port)}
        # Tests call faster than any caller may; tests of the limits set their own.
        own |= {"PENSTOCK_RATE_LIMIT": "0", "PENSTOCK_REFUSED_CALLS": "1000000"}
        # Commands need a consumer; tests that name none use the administrator.
        own["PENSTOCK_AS"] = "admin"
        return {**clean, **own, **self.environment}

    def command(
        self, *arguments: str, check: bool = True, input: bytes | None = None, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``penstock`` with arguments."""
        if self.secret and not (self.data / "secret").exists() and not self.data.is_file():
            self.data.mkdir(parents=True, exist_ok=True)
            (self.data / "secret").write_text(self.secret)
            (self.data / "secret").chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-m", "penstock.client.cli", *arguments],
            env={**self.env(), **env},
            input=input,
            capture_output=True,
            timeout=300,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{arguments}: {done.returncode}\n{done.stderr.decode()}")
        return done

    def start(self) -> None:
        """Start with the demo company and wait until it is ready."""
        self.command("up", "--demo", f"--customers={self.customers}", "--detach")

    def stop(self) -> None:
        """Stop in order."""
        self.command("down")
        self.tokens.clear()

    def token(self, consumer: str) -> str:
        """An access token that is valid for ten more minutes; it is reused for five."""
        token, since = self.tokens.get(consumer, ("", 0.0))
        if not token or time.monotonic() - since > TOKEN_SECONDS:
            form = {"grant_type": "client_credentials"}
            credentials = self.consumers[consumer]
            form |= {k: credentials[k] for k in ("client_id", "client_secret")}
            reply = self.insist(
                "POST",
                "/oauth2/token",
                body=urlencode(form).encode(),
                headers={"content-type": "application/x-www-form-urlencoded"},
            )
            assert reply.status == 200, reply.text
            token = str(reply.json()["access_token"])
            self.tokens[consumer] = token, time.monotonic()
        return token

    def request(
        self,
        method: str,
        path: str,
        *,
        consumer: str | None = None,
        body: bytes | Iterator[bytes] | None = None,
        json_body: Any = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
    ) -> Reply:
        """One HTTP/1.1 call on a connection of its own."""
        sent = dict(headers or {})
        if consumer is not None:
            sent["authorization"] = f"Bearer {self.token(consumer)}"
        if json_body is not None:
            body = json.dumps(json_body).encode()
            sent.setdefault("content-type", "application/json")
        if query:
            path += "?" + urlencode({k: str(v) for k, v in query.items()})
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=sent)
            reply = connection.getresponse()
            found = {k.lower(): v for k, v in reply.getheaders()}
            return Reply(reply.status, found, reply.read())

    def insist(self, method: str, path: str, **options: Any) -> Reply:
        """The answer to a call (see ``request``), which is repeated while nobody can answer it,
        such as right after a fault or a start. The call must be safe to repeat."""

        def answered() -> Reply | None:
            reply = self.request(method, path, **options)
            return reply if reply.status not in AWAY else None

        reply: Reply = eventually(answered)
        return reply

    def get(self, path: str, consumer: str = "admin", **query: object) -> Reply:
        """GET as a consumer."""
        return self.request("GET", path, consumer=consumer, query=query)

    def metadata(self, consumer: str) -> tuple[tuple[str, str], ...]:
        """What a gRPC call of a consumer carries."""
        return (("authorization", f"Bearer {self.token(consumer)}"),)

    @property
    def dsn(self) -> str:
        """The URL of the database: the embedded one, unless the test gave another."""
        given = self.environment.get("PENSTOCK_DATABASE_URL")
        return given or EmbeddedPostgres(self.data, sockets_folder(self.data)).dsn

    def sql(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Run SQL on the database as its owner; returns the rows."""

        async def run() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self.dsn)
            try:
                return [tuple(row) for row in await connection.fetch(statement, *arguments)]
            finally:
                await connection.close()

        return asyncio.run(run())

    def sql_script(self, statements: str) -> None:
        """Run several statements on the database as its owner."""

        async def run() -> None:
            connection = await asyncpg.connect(self.dsn)
            try:
                await connection.execute(statements)
            finally:
                await connection.close()

        asyncio.run(run())

    @contextlib.contextmanager
    def holding(self, statement: str) -> Iterator[None]:
        """Hold the locks of a statement during the block."""
        with asyncio.Runner() as runner:
            # The block may take long, and the hub's own server ends idle transactions.
            patient = {"idle_in_transaction_session_timeout": "0"}
            connection = runner.run(asyncpg.connect(self.dsn, server_settings=patient))
            try:
                runner.run(connection.execute(statement))
                yield
            finally:
                runner.run(connection.close())

    def settle(self) -> None:
        """Return once every worker uses the policy that is in force now."""
        ((wanted,),) = eventually(lambda: self.sql("SELECT revision FROM hub.policy"))
        used = (
            "SELECT count(DISTINCT request_id), min(policy_revision) FROM hub.audit_entry"
            " WHERE request_id = ANY($1) AND phase = 'CALL'"
        )

        def known() -> bool:
            replies = [self.get("/v1/datasets") for _ in range(EVERY_WORKER)]
            ((count, least),) = self.sql(used, [r.request_id for r in replies])
            # The revision may have moved on meanwhile.
            return bool(count == EVERY_WORKER and least >= wanted)

        eventually(known)

    def head(self) -> int:
        """The number of the newest change in the log, once every write has a number."""

        def numbered() -> list[tuple[Any, ...]]:
            # In this order: a write between the two reads gets a later number.
            left = self.sql("SELECT count(*) FROM hub.pending")
            return self.sql("SELECT last_number FROM hub.log_head") if left == [(0,)] else []

        ((number,),) = eventually(numbered)
        return int(number)

    def healthy_workers(self) -> int:
        """The number of workers to which Envoy sends calls."""
        return self._members("healthy")

    def _members(self, state: str) -> int:
        """The number of workers that Envoy counts as ``healthy``, or in ``total``."""
        connection = http.client.HTTPConnection("envoy")
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.settimeout(PATIENCE)
            connection.sock.connect(str(sockets_folder(self.data) / "admin.sock"))
            connection.request("GET", f"/stats?filter=^cluster.hub.membership_{state}$")
            text = connection.getresponse().read().decode()
        return int(text.rpartition(":")[2] or 0)

    def is_whole(self) -> bool:
        """Whether all its processes run, and every worker answers."""
        alone = [len(self.processes(kind)) for kind in ("keeper", "envoy")]
        workers = self._members("total")
        if {len(self.processes("worker")), self.healthy_workers()} != {workers} or alone != [1, 1]:
            return False
        # Envoy's statistics are a second old, and a worker may have lost the database since then.
        headers = {"x-api-key": self.api_key}
        replies = (
            self.request("GET", "/v1/datasets", headers=headers) for _ in range(EVERY_WORKER)
        )
        return all(reply.status == 200 for reply in replies)

    def mend(self) -> None:
        """Return when the hub runs and is whole, whatever an earlier test did to it. Start it if it
        does not run, and restart it if it does not recover."""
        if not (self.data / "ready").exists():
            self.start()
        try:
            eventually(self.is_whole)
        except (AssertionError, OSError, http.client.HTTPException, psutil.Error):
            self.stop()
            self.start()
            eventually(self.is_whole)

    def processes(self, name: str) -> list[psutil.Process]:
        """Its processes of a kind: worker, keeper, envoy, postgres, backend, guard, supervisor."""
        supervisor = psutil.Process(int((self.data / "ready").read_text()))
        if name == "supervisor":
            return [supervisor]
        found = []
        for process in supervisor.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if name == "postgres":
                    matches = process.name() == "postgres" and "-D" in process.cmdline()
                elif name == "backend":
                    matches = line.startswith("postgres: penstock penstock")
                elif name == "guard":
                    matches = line.endswith("guard.py")
                else:
                    matches = f"penstockd {name}" in line or process.name() == name
                if matches:
                    found.append(process)
        return found

    def kill(
        self,
        name: str,
        choose: Callable[[Sequence[psutil.Process]], psutil.Process] = operator.itemgetter(0),
    ) -> psutil.Process:
        """Kill a process of a kind with -9, by default the first, as soon as there is one."""

        def killed() -> psutil.Process | None:
            if not (found := self.processes(name)):
                return None
            victim = choose(found)
            victim.send_signal(signal.SIGKILL)  # if it has just ended, look for another one
            return victim

        victim: psutil.Process = eventually(killed)
        return victim


def signal_processes(processes: Iterable[psutil.Process], signum: signal.Signals) -> None:
    """Send a signal to each process that still runs: sessions of a database come and go."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signum)


#: With this many calls in a row, the chance that one of two workers gets none is one in a million.
EVERY_WORKER = 20
#: The seconds that a test waits for an expected event: a bound on hanging, not a promise of the
#: hub.
PATIENCE = 120.0
#: The attempts that a promise in seconds gets; see ``promptly``.
ATTEMPTS = 3
#: The seconds for which a token is reused: a third of its life. A run of all tests lasts longer
#: than a token.
TOKEN_SECONDS = 300.0
#: The statuses of calls that nobody can answer at the moment.
AWAY = frozenset({502, 503, 504})
#: The seconds that a small program takes on an idle reference machine; see ``slowness``.
PROGRAM_SECONDS = 0.1


def slowness() -> float:
    """How many times as long work takes here and now as on an idle reference machine; at least 1.

    Promises in seconds hold for such a machine. A slower or busier one gets proportionally more
    time.
    """
    program = [sys.executable, "-c", "import asyncio, http.client, json"]
    taken = duration(lambda: [subprocess.run(program, check=True) for _ in range(3)])
    return max(1.0, taken / 3 / PROGRAM_SECONDS)


def reference() -> float:
    """The processor seconds of some fixed work; 10 ms on a usual machine."""
    least = 1.0
    for _ in range(5):
        began = time.thread_time()
        sum(i * i for i in range(150_000))
        least = min(least, time.thread_time() - began)
    return least


def processor_slowness() -> float:
    """How many times as much processor time work takes here as on a usual machine; at least 1. For
    bounds on processor time."""
    return max(1.0, reference() / 0.01)


def promptly(seconds: float, attempt: Callable[[], float]) -> float:
    """The time that ``attempt`` reports, if it is within ``seconds``.

    This is for promises in seconds. A shared machine sometimes stops for seconds, but a hub that is
    too slow is slow each time. The attempt therefore gets three tries, each of which must do
    everything again, and a slow machine gets more time (see ``slowness``). Raises AssertionError
    with all three times if none was within the bound.
    """
    taken: list[float] = []
    while not _kept(seconds, taken):
        taken.append(attempt())
    return taken[-1]


async def promptly_awaited(seconds: float, attempt: Callable[[], Awaitable[float]]) -> float:
    """``promptly`` for an attempt that must be awaited."""
    taken: list[float] = []
    while not _kept(seconds, taken):
        taken.append(await attempt())
    return taken[-1]


def _kept(seconds: float, taken: list[float]) -> bool:
    if not taken:
        return False
    if taken[-1] <= seconds or taken[-1] <= seconds * slowness():
        return True
    told = ", ".join(f"{t:.2f}" for t in taken)
    assert len(taken) < ATTEMPTS, f"it took {told} s, not {seconds} s"
    return False


def in_force(check: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until every worker follows a change that was just made: no call that begins later does
    otherwise.

    ``check`` makes one call and returns whether it was answered by the new rules. It must succeed
    in a row often enough that every worker had its turn. A call that began within ``seconds`` may
    follow the old rules, whenever its answer came, so that a delayed test does not count against
    the hub.
    """
    changed, streak = time.monotonic(), 0
    while streak < EVERY_WORKER:
        began = time.monotonic() - changed
        try:
            streak = streak + 1 if check() else 0
        except AssertionError:
            if began > seconds * slowness():
                raise
            streak = 0
        if not streak and began > seconds:
            late = f"by the old rules {began:.2f} s after the change"
            assert began <= seconds * slowness(), late


def read_log(path: Path, start: int = 0) -> list[dict[str, Any]]:
    """The entries of a log after ``start``: only whole lines, since a writer may be active."""
    with path.open("rb") as file:
        file.seek(start)
        *lines, _ = file.read().split(b"\n")
    return [json.loads(line) for line in lines if line.startswith(b"{")]


def timed(check: Callable[[], object]) -> float:
    """Seconds from now until ``check`` holds."""
    began = time.monotonic()
    eventually(check)
    return time.monotonic() - began


def duration(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


#: The errors that ``eventually`` treats as passing.
_PASSING = (
    AssertionError,
    OSError,
    http.client.HTTPException,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresConnectionError,
    psutil.NoSuchProcess,
)


def without_nulls(value: Any) -> Any:
    """JSON without the members of objects that are null: what a record has."""
    if isinstance(value, dict):
        return {name: without_nulls(v) for name, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def contains(found: Any, wanted: Any) -> bool:
    """Whether JSON has what is wanted of it: objects may have further members."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(name in found and contains(found[name], v) for name, v in wanted.items())
    return bool(found == wanted)


def in_json(path: str) -> str:
    """The path of a field as errors of REST calls with a JSON body name it."""
    first, *others = path.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def eventually(check: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Poll ``check`` until it returns something true; at the end, raise its last error.

    It tries again, as a client would, if a hub cannot answer at the moment (UNAVAILABLE), if a
    database starts or recovers, and if a process has just ended.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = check()
        except _PASSING:
            if time.monotonic() > deadline:
                raise
            found = None
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets and that the database's own user may
    enter."""
    path = Path(tempfile.mkdtemp(prefix="pen"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
