"""The policy is followed; without news it refuses; Views are cached by what decides them."""

from __future__ import annotations

import ast
import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import penstockd
from announcing import FakeAnnouncements
from harness import PATIENCE, processor_slowness
from penstockd.catalog import Catalog
from penstockd.catalog.load import load_catalog
from penstockd.errors import (
    AccessChanged,
    AccessRevoked,
    DatabaseUnavailable,
    PermissionDenied,
    PolicyStale,
)
from penstockd.organs import end_tasks
from penstockd.policy import snapshot
from penstockd.policy.model import (
    Action,
    Consumer,
    Credential,
    Grant,
    Mask,
    Permission,
    Principal,
)
from penstockd.policy.snapshot import Policy, PolicySnapshot
from penstockd.policy.standing import Standing
from penstockd.policy.view import View
from penstockd.resources import find_descriptors
from penstockd.store.announcements import LOG_CHANNEL, POLICY_CHANNEL
from penstockd.store.database import Database
from penstockd.store.sql import compile_statement
from penstockd.store.tables import Tables

READ, UPDATE = Action.READ, Action.UPDATE


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(find_descriptors())


def grant(
    role: str,
    *actions: Action,
    dataset: str = "customers",
    rows: str = "",
    masks: dict[str, Mask] | None = None,
    mask: Mask = Mask.CLEAR,
) -> Grant:
    fields = {f: mask for f in ("name", "source", "status", "email")} | (masks or {})
    return Grant(role, dataset, frozenset(actions), {}, fields, rows)


def made(catalog: Catalog, *grants: Grant, **permissions: set[Permission]) -> PolicySnapshot:
    by_role: dict[str, tuple[Grant, ...]] = {}
    for g in grants:
        by_role[g.role] = (*by_role.get(g.role, ()), g)
    granted = {role: frozenset(p) for role, p in permissions.items()}
    return PolicySnapshot(1, {}, {}, by_role, granted, catalog, Tables(catalog), b"x")


def who(*roles: str, scopes: set[str] | None = None, **claims: str) -> Principal:
    given = {name: (value,) for name, value in claims.items()}
    return Principal(
        "c", "k", frozenset(roles), given, None if scopes is None else frozenset(scopes)
    )


def where(view: View) -> tuple[str, list[Any]]:
    statement = compile_statement(view.select([view.dataset.key]))
    return statement.text.partition("WHERE ")[2], list(statement.arguments())


class Followed(Policy):
    """A policy whose store answers, or does not."""

    def __init__(self, answer: PolicySnapshot) -> None:
        self.now, self.pause, self.fails = 1000.0, 0.0, False
        self.answer = answer
        database = Database("postgresql://nowhere/none")
        self.announcements, self.reads = FakeAnnouncements(), 0
        super().__init__(
            database,
            self.announcements,
            answer.catalog,
            answer.tables,
            lambda: b"x",
            clock=lambda: self.now,
            stale_after=60,
        )

    async def _connected(self) -> Any:
        return None

    async def _read(self, connection: Any) -> None:
        self.reads += 1
        if self.fails:
            raise asyncpg.ConnectionDoesNotExistError("gone")
        self.now += self.pause
        self.adopt(self.answer)


async def test_without_news_for_a_minute_calls_are_refused(catalog: Catalog) -> None:
    policy = Followed(made(catalog))
    with pytest.raises(DatabaseUnavailable):
        policy.newest  # noqa: B018
    await policy.refresh()
    policy.fails = True
    policy.now += 59
    with pytest.raises(DatabaseUnavailable):
        await policy.refresh()
    assert policy.current is policy.answer
    policy.now += 2
    with pytest.raises(PolicyStale):
        policy.current  # noqa: B018
    assert policy.newest is policy.answer
    policy.fails = False
    await policy.refresh()
    assert policy.current is policy.answer


async def test_it_is_read_when_announced_when_that_may_be_lost_and_every_so_often(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Followed(made(catalog))

    async def until_read(count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while policy.reads < count:  # noqa: ASYNC110 - what it waits for sets no event
                await asyncio.sleep(0.01)

    monkeypatch.setattr(snapshot, "POLL_INTERVAL", PATIENCE)
    following = asyncio.create_task(policy.follow())
    await until_read(1)
    policy.announcements.say(POLICY_CHANNEL)
    await until_read(2)
    policy.announcements.lose(POLICY_CHANNEL)
    await until_read(3)
    # Nothing else triggers a read; without announcements it is read all the same.
    policy.announcements.say(LOG_CHANNEL)
    await asyncio.sleep(0)
    assert policy.reads == 3
    monkeypatch.setattr(snapshot, "POLL_INTERVAL", 0.01)
    policy.announcements.say(POLICY_CHANNEL)
    await until_read(6)
    await end_tasks([following])


async def test_news_count_from_when_they_were_asked_for(catalog: Catalog) -> None:
    policy = Followed(made(catalog))
    policy.pause = 50.0
    await policy.refresh()
    policy.now += 11
    with pytest.raises(PolicyStale):
        policy.current  # noqa: B018


#: The places that compare revisions of the policy, which a restored database may give out again,
#: and why that is safe: everything is read again on each new connection; the epoch is compared too.
COMPARING = {
    "policy/snapshot.py": "Policy._known",
    "webhooks/dispatcher.py": "epoch",
    "webhooks/owners.py": "epoch",
}


def test_nothing_else_takes_equal_numbers_for_equal_policies() -> None:
    names = {"revision", "_revision", "policy_revision"}
    root = Path(penstockd.__file__).parent
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare)
        and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops)
        and any(
            isinstance(side, ast.Attribute)
            and side.attr in names
            # a writer's own number for its rows, not a revision of the policy
            and not (isinstance(side.value, ast.Name) and path.parent.name == "store")
            for side in (node.left, *node.comparators)
        )
    }
    assert found == COMPARING.keys()


@pytest.mark.parametrize("last", [3, 2])
async def test_a_stream_of_another_issuers_token_ends_with_the_issuer(
    catalog: Catalog, last: int
) -> None:
    """Even if the database has gone back in time and gives the revision out again."""

    def at(revision: int, *, active: bool) -> PolicySnapshot:
        issuer = Credential("issuer:idp", "", "issuer", b"", None, not active)
        consumer = Consumer("c", True, frozenset({"r"}))
        snapshot = made(catalog, grant("r", READ))
        return replace(
            snapshot,
            revision=revision,
            consumers={"c": consumer},
            credentials={"issuer:idp": issuer},
        )

    policy = Followed(at(1, active=True))
    await policy.refresh()
    caller = replace(who("r"), credential_id="issuer:idp")
    view = policy.current.view(caller, "customers", READ)
    standing = Standing(policy, policy.current, caller, view)
    policy.answer = at(2, active=True)
    await policy.refresh()
    standing.check()
    policy.answer = at(last, active=False)
    policy.close()  # the connection broke
    await policy.refresh()
    with pytest.raises(AccessChanged):
        standing.check()


@pytest.mark.parametrize("ends", [True, False])
async def test_a_stream_ends_when_its_credential_expires(catalog: Catalog, ends: bool) -> None:
    """The policy does not change at that time; without an end the stream continues."""
    end = datetime.now(UTC) + timedelta(seconds=0.2 if ends else 3600)
    key = Credential("key", "c", "API_KEY", b"", end, False)
    consumer = Consumer("c", True, frozenset({"r"}))
    snapshot = made(catalog, grant("r", READ))
    policy = Followed(replace(snapshot, consumers={"c": consumer}, credentials={"key": key}))
    await policy.refresh()
    caller = replace(who("r"), credential_id="key")
    view = policy.current.view(caller, "customers", READ)
    standing = Standing(policy, policy.current, caller, view)
    if not ends:
        standing.check()
        return
    with pytest.raises(AccessRevoked):
        while datetime.now(UTC) < end + timedelta(seconds=30):
            standing.check()


def test_a_view_is_made_of_the_grants_that_allow_the_action(catalog: Catalog) -> None:
    """A caller that reads all rows and updates some cannot update more just because it reads
    all."""
    policy = made(
        catalog,
        grant("reader", READ),
        grant("editor", UPDATE, rows="source = web", masks={"email": Mask.HIDE}),
    )
    both = who("reader", "editor")
    reading, updating = policy.view(both, "customers", READ), policy.view(both, "customers", UPDATE)
    assert where(reading) == ("", [])
    assert where(updating)[1] == ["web"]
    assert {f.path for f in reading.writable} - {f.path for f in updating.writable} == {"email"}
    assert reading.actions == updating.actions == {READ, UPDATE}
    shown = policy.visible(both, "customers")
    assert shown is reading or (shown is not None and where(shown) == ("", []))
    together = policy.view(both, "customers", READ, UPDATE)
    assert where(together)[1] == ["web"]
    assert together.field("email") is None


def test_views_are_shared_by_who_gets_the_same_and_by_nobody_else(catalog: Catalog) -> None:
    policy = made(
        catalog, grant("r", READ, rows="source = claims.org"), grant("o", READ, dataset="orders")
    )

    def view(dataset: str, **claims: str) -> View:
        principal = replace(who("r", "o"), claims={k: (v,) for k, v in claims.items()})
        return policy.view(principal, dataset, READ)

    a, b = view("customers", org="a"), view("customers", org="b")
    assert a is view("customers", org="a", other="x") is not b
    assert (where(a)[1], where(b)[1]) == (["a"], ["b"])
    assert where(a)[0] == where(b)[0], "one prepared statement serves both"
    assert where(view("customers"))[0] == "false"
    assert view("orders", org="a") is view("orders", org="b"), "no rule there uses the claim"


def test_what_is_kept_is_bounded(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_VIEWS", 10)
    policy = made(catalog, grant("r", READ, rows="source = claims.org"))
    first = policy.view(who("r", org="0"), "customers", READ)
    for n in range(50):
        policy.view(who("r", scopes={"customers:read", f"x{n}"}, org=str(n)), "customers", READ)
        assert policy.view(who("r", org="0"), "customers", READ) is first, "it is used"
    assert len(policy.views) <= 10 and len(policy.accesses) <= 10


def test_scopes(catalog: Catalog) -> None:
    policy = made(
        catalog,
        grant("r", READ, UPDATE),
        grant("r", READ, dataset="orders"),
        r={Permission.AUDIT_READ},
    )

    def may(scopes: set[str] | None) -> dict[str, set[Action]]:
        principal = who("r", scopes=scopes)
        views = {d.name: policy.visible(principal, d.name) for d in catalog}
        return {name: set(view.actions) for name, view in views.items() if view is not None}

    everything = {"customers": {READ, UPDATE}, "orders": {READ}}
    assert may(None) == may({"*:*"}) == everything
    assert may({"*:read"}) == {"customers": {READ}, "orders": {READ}}
    assert may({"customers:update"}) == {"customers": {UPDATE}}
    assert may({"customers:*", "orders:delete"}) == {"customers": {READ, UPDATE}}
    assert may(set()) == may({"audit.read"}) == may({"nonsense", "x:y:z", ""}) == {}
    with pytest.raises(PermissionDenied):
        policy.view(who("r", scopes={"customers:update"}), "customers", READ)
    for scopes, expected in (
        (None, True),
        ({"audit.read"}, True),
        ({"*:*"}, False),
        (set(), False),
    ):
        assert policy.permits(who("r", scopes=scopes), Permission.AUDIT_READ) is expected
    assert not policy.permits(who("r"), Permission.ACCESS_READ)
    assert [
        s
        for s in ("audit.read", "access.read", "orders:read", "orders:update", "*:update")
        if policy.grantable(who("r"), s)
    ] == ["audit.read", "orders:read", "*:update"]


def test_a_look_up_costs_microseconds(catalog: Catalog) -> None:
    policy = made(catalog, grant("r", READ, rows="source = claims.org"))
    principal = who("r", scopes={"customers:read"}, org="a")
    policy.view(principal, "customers", READ)
    best = min(_timed(policy, replace(principal)) for _ in range(20))
    assert best < 50e-6 * processor_slowness()


def _timed(policy: PolicySnapshot, principal: Principal) -> float:
    started = time.process_time()
    for _ in range(1000):
        policy.view(principal, "customers", READ)
    return (time.process_time() - started) / 1000
