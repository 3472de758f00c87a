"""Twin worlds: two hubs that differ only in what some consumers must not see.

Both are created alike and hold the same rows. Then every hidden value is changed in one of them:
columns that the roles hide or null, masked ones behind their mask, and whole rows that the row
rules hide, which are changed, removed or added. A consumer's results must not distinguish the two.

Both have the same root secret, the same epoch of the log and the same mark for all transactions, so
that equal cursors, sequences and transaction ids have equal texts.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from urllib.parse import urlsplit

import asyncpg

from harness import PATIENCE, SECRET, RunningHub, folder
from penstockd.auth.credentials import API_KEY, Credentials
from penstockd.auth.secret import RootSecret
from penstockd.catalog import Catalog, Dataset, FieldClass
from penstockd.keyring import CREDENTIALS, KeyRing
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder
from penstockd.policy.admin import put_consumer, put_role
from penstockd.policy.model import Action, Consumer, Grant, Mask, Role
from penstockd.store.migrate import apply_migration

from .twin_changes import change_hidden

CUSTOMERS = 150

#: Values that are random in other databases. The hub has no setting for this; the test changes the
#: database.
_SAME_PLACES = """
CREATE OR REPLACE FUNCTION hub.new_mark() RETURNS bytea LANGUAGE sql VOLATILE
RETURN '\\x7477696e7477696e'::bytea;
UPDATE hub.log_head SET epoch = 'twinworlds12';
"""

_OPEN = {FieldClass.PUBLIC: Mask.CLEAR, FieldClass.INTERNAL: Mask.CLEAR}
_RULE = {"customers": "status = ACTIVE", "products": ""}
_READ = frozenset({Action.READ})
_WRITE = frozenset(Action) - _READ
#: The usual masks of members of repeated messages.
_MEMBERS = {"lines.unit_price": Mask.HIDE, "lines.discount": Mask.NULL}
#: Role -> masks of its classes, masks of its fields and members.
ROLES: Mapping[str, tuple[Mapping[FieldClass, Mask], Mapping[str, Mask]]] = {
    "hides": (_OPEN, {}),
    "nulls": (
        _OPEN | {FieldClass.PII: Mask.NULL, FieldClass.SENSITIVE: Mask.NULL},
        {"lines.unit_price": Mask.NULL, "lines.product_id": Mask.HASH},
    ),
    "masks": (
        _OPEN | {FieldClass.PII: Mask.NULL},
        {
            "email": Mask.PARTIAL,
            "phone": Mask.PARTIAL,
            "tax_id": Mask.NULL,
            "billing_address.line1": Mask.HIDE,
        },
    ),
    # INTERNAL is the same in both worlds, so its hash may be shown.
    "hashes": ({FieldClass.PUBLIC: Mask.CLEAR, FieldClass.INTERNAL: Mask.HASH}, {}),
    "timeless": (_OPEN, {"update_time": Mask.HIDE}),
}
#: Role -> a field of customers, and the domain in which it is hashed. Only that role uses the
#: domain of the last one.
HASHED = {
    "phone-north": ("phone", "north"),
    "tax-north": ("tax_id", "north"),
    "tax-south": ("tax_id", "south"),
    "tax-own": ("tax_id", ""),
}
#: Consumer -> roles. None of them may see the differences.
BLIND = {
    "hides": ["hides"],
    "nulls": ["nulls"],
    "masks": ["masks"],
    "hashes": ["hashes"],
    "many": ["hides", "masks", "hashes"],
    "timeless": ["timeless"],
}
#: The negative control: its roles show everything.
SEER = "seer"
#: It may write every field of the rows that the others read, and read none of them.
WRITES = "writes"
#: Consumer -> roles. They write more than they may see of the differences.
WRITERS = {
    "writes-only": [WRITES],
    "writes-hides": ["hides", WRITES],
    "writes-nulls": ["nulls", WRITES],
    "writes-masks": ["masks", WRITES],
}
#: The negative control for these writers.
SEEING_WRITER = "writes-seer"


@dataclass
class World:
    """One of the two, with the API keys of its consumers."""

    hub: RunningHub
    keys: dict[str, str] = field(default_factory=dict)

    def connect(self) -> HTTPConnection:
        """A persistent connection."""
        place = urlsplit(self.hub.url)
        return HTTPConnection(place.hostname or "", place.port, timeout=PATIENCE)


@contextlib.contextmanager
def worlds(catalog: Catalog, seed: int) -> Iterator[tuple[World, World]]:
    """The two running worlds."""
    with folder() as data:
        # One worker each: both worlds answer at once, and only the answers matter here.
        environment = {"PENSTOCK_SECRET": SECRET, "PENSTOCK_WORKERS": "1"}
        pair = [
            World(RunningHub(data / name, customers=CUSTOMERS, environment=environment))
            for name in ("a", "b")
        ]
        try:
            for world in pair:
                asyncio.run(_place_alike(world.hub, catalog))
                world.hub.start()
                asyncio.run(_prepare(world, catalog))
            asyncio.run(change_hidden(pair[1].hub.dsn, catalog, random.Random(seed)))
            yield pair[0], pair[1]
        finally:
            for world in pair:
                world.hub.stop()


def _rule_of(dataset: Dataset) -> str:
    """The row filter of all roles except the seer's."""
    return _RULE.get(dataset.name, "customer.status = ACTIVE")


async def _place_alike(hub: RunningHub, catalog: Catalog) -> None:
    """Create the hub's database before the hub knows it, with the shared epoch and marks."""
    server = EmbeddedPostgres(hub.data, sockets_folder(hub.data))
    url = await server.start()
    try:
        await apply_migration(url, catalog)
        connection = await asyncpg.connect(hub.dsn)
        await connection.execute(_SAME_PLACES)
        await connection.close()
    finally:
        await server.stop()


async def _prepare(world: World, catalog: Catalog) -> None:
    """Create the same roles and the same rows, including times and etags."""
    connection = await asyncpg.connect(world.hub.dsn)
    try:
        async with connection.transaction():
            for role in _roles(catalog):
                await put_role(connection, role)
            await _make_consumers(connection, world)
            for dataset in catalog:
                await _make_alike(connection, dataset)
    finally:
        await connection.close()


def _roles(catalog: Catalog) -> Iterator[Role]:
    for role, (classes, fields) in ROLES.items():
        grants = [
            Grant(role, d.name, _READ, classes, _masks_of(d, fields), _rule_of(d)) for d in catalog
        ]
        yield Role(role, "", tuple(grants))
    everything = dict.fromkeys(FieldClass, Mask.CLEAR)
    seer = tuple(Grant(SEER, d.name, _READ, everything, {}) for d in catalog)
    yield Role(SEER, "", seer)
    writes = tuple(Grant(WRITES, d.name, _WRITE, everything, {}, _rule_of(d)) for d in catalog)
    yield Role(WRITES, "", writes)
    for role, (path, domain) in HASHED.items():
        masks, rule = {path: Mask.HASH}, _RULE["customers"]
        grant = Grant(role, "customers", _READ, _OPEN, masks, rule, hash_domain=domain)
        yield Role(role, "", (grant,))


def _masks_of(dataset: Dataset, fields: Mapping[str, Mask]) -> dict[str, Mask]:
    masks = {**_MEMBERS, **fields}
    return {f.path: masks[f.path] for f in dataset.every_field if f.path in masks}


async def _make_consumers(connection: asyncpg.Connection[asyncpg.Record], world: World) -> None:
    """Create all consumers with their roles; the world gets their API keys."""
    credentials = Credentials(KeyRing.of(RootSecret(SECRET)).keys(CREDENTIALS))
    seers = {SEER: [SEER], SEEING_WRITER: [SEER, WRITES]}
    hashed = {role: [role] for role in HASHED}
    for consumer, roles in {**BLIND, **WRITERS, **seers, **hashed}.items():
        await put_consumer(connection, Consumer(consumer, True, frozenset(roles)))
        issued = await credentials.issue(connection, consumer, API_KEY)
        world.keys[consumer] = issued.secret


async def _make_alike(connection: asyncpg.Connection[asyncpg.Record], dataset: Dataset) -> None:
    """Rows with the same times and etags in both worlds."""
    # One customer in three is visible to nobody, and so are its records.
    if dataset.name == "customers":
        await connection.execute(
            "UPDATE data.customers SET status = CASE hashtext(customer_id) & 3"
            " WHEN 0 THEN 'LEAD' WHEN 1 THEN 'CHURNED' ELSE 'ACTIVE' END"
        )
    await connection.execute(
        f"UPDATE data.\"{dataset.name}\" SET create_time = '2026-01-02Z',"
        f" update_time = '2026-01-03Z', etag = abs(hashtext(\"{dataset.key.path}\"))"
    )


def same_times(pair: Sequence[World]) -> None:
    """Give all records of both the same times again after writes; the log keeps its own."""
    times = "create_time = '2026-01-02Z', update_time = '2026-01-03Z'"
    for world in pair:
        for dataset in ("customers", "orders"):
            world.hub.sql(f"UPDATE data.{dataset} SET {times}")
