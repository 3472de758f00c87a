"""Webhooks without a hub around them: a store, a log, a clock that the test sets, a receiver."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from announcing import FakeAnnouncements
from penstock.model.v1 import customers_pb2
from penstockd.auth.credentials import Credentials
from penstockd.calls import Allowance
from penstockd.catalog import Catalog
from penstockd.demo.access import put_demo_access
from penstockd.egress import EgressGuard, Network
from penstockd.keyring import FixedKey, Seal
from penstockd.metering.admission import Limiter
from penstockd.policy.snapshot import Policy
from penstockd.store.database import Database
from penstockd.store.migrate import apply_migration
from penstockd.store.tables import Tables
from penstockd.store.writer import BEGIN_REVISION
from penstockd.webhooks.dispatcher import Dispatcher
from penstockd.webhooks.endpoints import put_secret, put_webhook, read_webhook
from penstockd.webhooks.events import FeedLog
from penstockd.webhooks.intake import Intake
from penstockd.webhooks.messages import Composer, Payloads
from penstockd.webhooks.model import Options, Scheme, Selection, Webhook, WebhookKind
from penstockd.webhooks.owners import Roster
from penstockd.webhooks.sender import Sender
from penstockd.webhooks.signing import Secret, new_secret
from places import PLACES

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOOPBACK: tuple[Network, ...] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)
URL = "https://hub.example.com"


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time

    def move(self, **by: float) -> None:
        self.time += timedelta(**by)


def customer(key: str, **values: Any) -> bytes:
    """A customer's image, as in the log."""
    fields = {"name": "Ada", "status": "ACTIVE", "etag": "1", **values}
    record = customers_pb2.Customer(customer_id=key, **fields)
    return record.SerializeToString(deterministic=True)


@dataclass
class Request:
    """A request that a receiver got."""

    headers: Mapping[str, str]
    body: bytes
    path: str

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


Answer = Callable[[Any], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """Receives deliveries. ``answers`` defines the reply by path; by default it accepts all."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)

    def of(self, path: str) -> list[Request]:
        return [r for r in self.requests if r.path == path]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        headers = {k.lower(): v for k, v in request.headers.items()}
        self.requests.append(Request(headers, body, request.path))
        answer = self.answers.get(request.path)
        return web.Response() if answer is None else await answer(request)


def status(code: int, **headers: str) -> Answer:
    """Answers with a status."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=code, headers=headers)

    return answer


@contextlib.asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver on the loopback."""
    receiver = Receiver()
    runner = web.ServerRunner(web.Server(receiver.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    receiver.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@dataclass
class Rig:
    """The parts of the organ, which the test runs one by one."""

    database: Database
    catalog: Catalog
    policy: Policy
    seal: Seal
    clock: FakeClock
    sender: Sender
    intake: Intake
    dispatcher: Dispatcher
    keys: dict[str, Secret] = field(default_factory=dict)

    async def endpoint(
        self,
        url: str,
        *,
        consumer: str = "crm",
        selections: Iterable[Selection] = (Selection("customers"),),
        scheme: Scheme = Scheme.HMAC,
        headers: Mapping[str, str] | None = None,
        scopes: frozenset[str] | None = None,
        **options: Any,
    ) -> str:
        """A new endpoint; its secret is in ``keys``."""
        name = f"wh_{secrets.token_hex(6)}"
        webhook = Webhook(
            name,
            consumer,
            WebhookKind.HTTP,
            tuple(selections),
            replace(Options(), **options),
            url=url,
            headers=headers or {},
            scopes=scopes,
        )
        self.keys[name] = new_secret(scheme, self.clock())
        async with self.database.transaction() as connection:
            await put_webhook(connection, webhook, self.seal)
            await put_secret(connection, name, self.keys[name], self.seal)
        return name

    async def log(self, *changes: tuple[str, bytes | None, bytes | None]) -> None:
        """Log one transaction: keys of customers with their images before and after."""
        async with self.database.transaction() as connection:
            await connection.execute(BEGIN_REVISION)
            for i, (key, before, after) in enumerate(changes):
                operation = 1 if before is None else 3 if after is None else 2
                await connection.execute(
                    "INSERT INTO hub.change (ordinal, dataset, key, operation, before, after)"
                    " VALUES ($1, 'customers', $2, $3, $4, $5)",
                    i,
                    key,
                    operation,
                    before,
                    after,
                )
            await connection.execute(
                "INSERT INTO hub.pending (row_count) VALUES ($1)", len(changes)
            )
        async with self.database.connection() as connection:
            await connection.execute("SELECT hub.stamp()")

    async def take_in(self) -> int:
        """Turn the whole log into deliveries; returns how many."""
        count, more = 0, True
        while more:
            made, more = await self.intake.step()
            count += made
        return count

    async def deliver(self) -> int:
        """Take in the log, and deliver all that is due; returns the number of attempts."""
        await self.take_in()
        return await self.dispatcher.drain()

    async def webhook(self, name: str) -> Webhook:
        async with self.database.connection() as connection:
            found = await read_webhook(connection, name, self.seal)
        assert found is not None
        return found

    async def rows(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        async with self.database.connection() as connection:
            return [tuple(r) for r in await connection.fetch(sql, *arguments)]

    async def states(self, name: str) -> list[tuple[str, str]]:
        """The state and reason of an endpoint's deliveries, in order."""
        found = await self.rows(
            "SELECT state, reason FROM hub.webhook_delivery WHERE webhook_id = $1"
            " ORDER BY delivery_id",
            name,
        )
        return [(r[0], r[1]) for r in found]


@contextlib.asynccontextmanager
async def rigged(
    url: str,
    catalog: Catalog,
    *,
    allowed: tuple[Network, ...] = LOOPBACK,
    chance: Callable[[], float] = lambda: 0.5,
    **sending: Any,
) -> AsyncIterator[Rig]:
    """A rig on an empty database, with the demo's roles and consumers."""
    await apply_migration(url, catalog)
    database = Database(url, size=8)
    await database.open()
    await put_demo_access(database, Credentials(FixedKey(b"p" * 32)), catalog)
    policy = Policy(
        database, FakeAnnouncements(), catalog, Tables(catalog), lambda: b"m" * 32, stale_after=3600
    )
    await policy.refresh()
    rig = make(database, catalog, policy, allowed=allowed, chance=chance, **sending)
    await rig.intake.step()  # the log begins here
    try:
        yield rig
    finally:
        await rig.sender.close()
        policy.close()
        await database.close()
        await asyncio.sleep(0)


def make(
    database: Database,
    catalog: Catalog,
    policy: Policy,
    *,
    allowed: tuple[Network, ...] = LOOPBACK,
    chance: Callable[[], float] = lambda: 0.5,
    clock: FakeClock | None = None,
    allowance: Allowance | None = None,
    limiter: Limiter | None = None,
    wrap_sender: Callable[[Sender], Any] = lambda sender: sender,
    wrap_policy: Callable[[Policy], Any] = lambda policy: policy,
    **sending: Any,
) -> Rig:
    """The organ's parts, as the keeper assembles them. The dispatcher alone uses the sender and the
    policy in the wrappings given."""
    clock, seal = clock or FakeClock(), Seal(FixedKey(b"s" * 32))
    log, roster = FeedLog(database, catalog), Roster(catalog, seal)
    sender = Sender(EgressGuard(allowed), **sending)
    composer = Composer(Payloads(catalog, URL, "e" * 12, PLACES), roster, log)
    intake = Intake(
        database, FakeAnnouncements(), catalog, policy, roster, log, PLACES, clock=clock
    )
    dispatcher = Dispatcher(
        database,
        wrap_policy(policy),
        seal,
        roster,
        wrap_sender(sender),
        composer,
        clock=clock,
        chance=chance,
        allowance=allowance,
        limiter=limiter,
    )
    return Rig(database, catalog, policy, seal, clock, sender, intake, dispatcher)
