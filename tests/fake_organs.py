"""A hub in memory for commands: each organ is a fake of what commands use of it.

There is no database here. A test states in ``answers`` the rows of statements, by a part of their
text; ``statements`` lists those that ran. A statement without an answer returns nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from penstockd.audit.entry import Entry
from penstockd.audit.open_streams import OpenStreams
from penstockd.audit.shown import Shown
from penstockd.auth.jwks import Origins
from penstockd.auth.keys import SigningKey, SigningKeys
from penstockd.auth.secret import RootSecret
from penstockd.auth.tickets import Tickets
from penstockd.calls import Call
from penstockd.catalog import Catalog
from penstockd.egress import EgressGuard
from penstockd.feed.limits import Streams
from penstockd.keyring import FixedKey, KeyRing, Seal
from penstockd.policy.model import Consumer, Permission, Principal, Role
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.query import PageTokens
from penstockd.store.cursor import Cursor, Extent
from penstockd.store.places import Places
from penstockd.store.tables import Tables
from penstockd.tasks import Tasks
from penstockd.webhooks.desk import WebhookDesk
from places import PLACES

#: The caller, unless a test names another.
CALLER = "caller"
#: A consumer that has no role.
NOBODY = "nobody"


class Row(tuple[Any, ...]):
    """A row like asyncpg's, with access by index and by name."""

    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, **values: Any) -> Row:
        row = cls(values.values())
        row.names = tuple(values)
        return row

    def __getitem__(self, place: Any) -> Any:
        return super().__getitem__(self.names.index(place) if isinstance(place, str) else place)

    def keys(self) -> Sequence[str]:
        return self.names


#: COPY's output for no rows.
NO_ROWS = b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\xff\xff"


class CommitFailed(Exception):
    """The error of a fake database's COMMIT that is to fail."""


Answer = Sequence[Sequence[Any]] | Callable[..., Sequence[Sequence[Any]]]


@dataclass
class FakeConnection:
    """``answers``: rows by a part of a statement's text (the longest match counts), or a function
    that makes them from the statement's arguments."""

    answers: dict[str, Answer] = field(default_factory=dict)
    statements: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    async def fetch(self, text: str, *arguments: Any, **_: Any) -> list[Any]:
        self.statements.append((text, arguments))
        fitting = [part for part in self.answers if part in text]
        if not fitting:
            return []
        answer = self.answers[max(fitting, key=len)]
        return list(answer(*arguments) if callable(answer) else answer)

    async def fetchrow(self, text: str, *arguments: Any, **_: Any) -> Any:
        rows = await self.fetch(text, *arguments)
        return rows[0] if rows else None

    async def fetchval(self, text: str, *arguments: Any, **_: Any) -> Any:
        row = await self.fetchrow(text, *arguments)
        return row[0] if row is not None else None

    async def execute(self, text: str, *arguments: Any, **_: Any) -> str:
        rows = await self.fetch(text, *arguments)
        return f"{text.split(None, 1)[0].upper()} {len(rows) or 1}"

    async def executemany(self, text: str, values: Sequence[Any], **_: Any) -> None:
        self.statements.append((text, tuple(values)))

    async def copy_records_to_table(self, table: str, **arguments: Any) -> None:
        self.statements.append((f"COPY {table}", tuple(arguments["records"])))

    async def copy_from_query(self, text: str, *, output: Any, **_: Any) -> None:
        self.statements.append((text, ()))
        await output(NO_ROWS)

    def asked(self, part: str) -> list[tuple[Any, ...]]:
        """The arguments of each statement whose text contains this part."""
        return [arguments for text, arguments in self.statements if part in text]


class FakeDatabase:
    """Lends one connection, and remembers what was committed."""

    def __init__(self) -> None:
        self.connected = FakeConnection()
        self.transactions: list[str] = []
        self.commits_fail = False

    @contextlib.asynccontextmanager
    async def connection(self, *_: Any, **__: Any) -> AsyncIterator[FakeConnection]:
        yield self.connected

    @contextlib.asynccontextmanager
    async def snapshot(self, *_: Any, **__: Any) -> AsyncIterator[FakeConnection]:
        yield self.connected

    @contextlib.asynccontextmanager
    async def transaction(self, *, dry: bool = False, **_: Any) -> AsyncIterator[FakeConnection]:
        try:
            yield self.connected
        except BaseException:
            self.transactions.append("rolled back")
            raise
        if self.commits_fail:
            self.transactions.append("failed")
            raise CommitFailed
        self.transactions.append("rolled back" if dry else "committed")

    @property
    def committed(self) -> int:
        return self.transactions.count("committed")


class FakePolicy:
    """A test's policy; ``refreshes`` counts how often it was read again."""

    def __init__(self, snapshot: PolicySnapshot) -> None:
        self.current = self.newest = snapshot
        self.refreshes = 0

    async def refresh(self) -> None:
        self.refreshes += 1


class FakeJournal:
    """Keeps entries and rules in memory."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    async def record(self, entry: Entry) -> None:
        self.entries.append(entry)

    def introduce(self, shown: Shown) -> bytes:
        return shown.digest

    async def store(self, shown: Shown) -> bytes:
        return shown.digest


class FakeWrite:
    """A transaction that writes records: remembers the calls, and returns the rows that it was
    given."""

    def __init__(self, connection: FakeConnection) -> None:
        self.connection = connection
        self.done: list[tuple[str, tuple[Any, ...]]] = []
        self.fails: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            self.done.append((name, arguments))
            if self.fails is not None:
                raise self.fails
            return None

        return call


class FakeWriter:
    """Opens transactions of the fake database."""

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database
        self.write = FakeWrite(database.connected)

    @contextlib.asynccontextmanager
    async def transaction(self, *, dry: bool = False, **_: Any) -> AsyncIterator[Any]:
        async with self._database.transaction(dry=dry):
            yield self.write


class FakeCredentials:
    """Issues secrets that are distinguishable."""

    def __init__(self) -> None:
        self.issued: list[tuple[str, str]] = []
        self.known: dict[str, Principal] = {}

    async def issue(self, _: Any, consumer_id: str, kind: str, __: Any = None) -> Any:
        self.issued.append((consumer_id, kind))
        return SimpleNamespace(credential_id=f"new{len(self.issued)}", secret="s3cret")

    @staticmethod
    def redacted(text: str) -> str:
        return text

    def principal(self, _: PolicySnapshot, __: str, secret: str) -> Principal | None:
        return self.known.get(secret)


class FakeAnnouncements:
    """Remembers what was announced."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []

    async def announce(self, _: Any, *said: Any) -> None:
        self.made.append(said)


class FakeTrust:
    """Rotates keys that are just names."""

    async def rotate(self, _: Any, *, now: bool) -> str:
        return "k3"


class FakeFeed:
    """The end of a log that is empty."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.cursor = Cursor("0" * 16, 7)
        self.tail = SimpleNamespace(head=7, bells=SimpleNamespace(line=lambda _: None))

    async def head(self) -> Cursor:
        return self.cursor

    async def extent(self) -> Extent:
        return Extent(self.cursor, self.cursor, None)

    async def read(self, *_: Any) -> None:
        return None


def made_keys(*ids: str) -> SigningKeys:
    """Keys in force, one an hour after the other."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    private = ec.generate_private_key(ec.SECP256R1())
    times = [begin + timedelta(hours=n) for n in range(len(ids))]
    keys = zip(ids, times, strict=True)
    return SigningKeys([SigningKey(key_id, private, t, t, None) for key_id, t in keys])


@dataclass
class FakeHub:
    """The organs of a hub, as far as commands use them."""

    catalog: Catalog
    policy: FakePolicy
    database: FakeDatabase = field(default_factory=FakeDatabase)
    journal: FakeJournal = field(default_factory=FakeJournal)
    credentials: FakeCredentials = field(default_factory=FakeCredentials)
    feed: FakeFeed = field(default_factory=FakeFeed)
    trust: FakeTrust = field(default_factory=FakeTrust)
    announcements: FakeAnnouncements = field(default_factory=FakeAnnouncements)
    places: Places = PLACES
    page_tokens: PageTokens = field(default_factory=lambda: PageTokens(FixedKey(b"p" * 32)))
    streams: Streams = field(default_factory=lambda: Streams(most=10, stall_seconds=1))
    tickets: Tickets = field(default_factory=lambda: Tickets(FixedKey(b"t" * 32)))
    tasks: Tasks = field(default_factory=Tasks)
    public_url: str = "https://hub.example"
    ring: KeyRing = field(default_factory=lambda: KeyRing.of(RootSecret("s" * 32)))
    allowance: Any = None

    def __post_init__(self) -> None:
        self.writer = FakeWriter(self.database)
        organs: Any = self
        self.webhooks = WebhookDesk(
            organs.database, self.catalog, organs.announcements, Seal(FixedKey(b"s" * 32)),
            EgressGuard(()), self.public_url, self.places,
        )  # fmt: skip
        self.open_streams = OpenStreams(organs.database, organs.journal)
        self.states = SimpleNamespace()  # any use of it fails
        self.exports = SimpleNamespace(stall_seconds=0.05, connections=1)
        self.issuers = SimpleNamespace(origins=Origins((), loopback=False))
        self.noted: list[str] = []
        self.uses = SimpleNamespace(note=self.noted.append)
        self.tokens = SimpleNamespace(
            issuer="https://hub.example",
            own_issuers={"https://hub.example"},
            lifetime=600,
            keys=made_keys("k1", "k2"),
        )

    def give(self, answers: Mapping[str, Answer]) -> None:
        self.database.connected.answers.update(answers)

    def asked(self, part: str) -> list[tuple[Any, ...]]:
        return self.database.connected.asked(part)

    def call(self, *, caller: str = CALLER, scopes: frozenset[str] | None = None) -> Call:
        """A call by a consumer that the policy knows, or by one without roles."""
        consumer = self.policy.current.consumers.get(caller)
        roles = consumer.roles if consumer is not None else frozenset()
        claims = consumer.claims if consumer is not None else {}
        entry = Entry("r1", "/test", consumer_id=caller)
        principal = Principal(caller, "k1", roles, claims, scopes)
        return Call(entry, self.policy.current, self, principal)  # type: ignore[arg-type]


#: A ``FakeHub``, typed as a ``Hub`` for commands.
HubLike = Any


def fake_hub(catalog: Catalog, tables: Tables, *roles: Role, **consumers: Consumer) -> FakeHub:
    """A hub whose caller has the given roles; the test tells the policy of other consumers."""
    caller = Consumer(CALLER, True, frozenset(r.role_id for r in roles))
    grants = {r.role_id: r.grants for r in roles}
    permissions = {r.role_id: frozenset(r.permissions) for r in roles}
    nobody = Consumer(NOBODY, True, frozenset())
    known = {CALLER: caller, NOBODY: nobody, **consumers}
    snapshot = PolicySnapshot(7, known, {}, grants, permissions, catalog, tables, b"k" * 32)
    return FakeHub(catalog, FakePolicy(snapshot))


def administrator() -> Role:
    """A role with all permissions on the hub, but none on its data."""
    return Role("administrator", "", (), frozenset(Permission))


def modules(folder: Any) -> Iterator[Any]:
    """The files of a folder of commands, without the package's own file."""
    return (p for p in sorted(folder.rglob("*.py")) if p.name != "__init__.py")
