"""Commands of reviews of access and of the scorecard."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from fake_organs import NOBODY, FakeHub, HubLike, administrator, fake_hub
from penstockd.access.review import ReviewQuestion
from penstockd.catalog import Catalog, FieldClass
from penstockd.commands.access.review_access import review_access
from penstockd.commands.scorecard import get_scorecard as getting
from penstockd.commands.scorecard.export_scorecard import export_scorecard
from penstockd.commands.scorecard.get_scorecard import get_scorecard
from penstockd.errors import PermissionDenied, RecordNotFound, ValueInvalid
from penstockd.metering.access_uses import AccessUse
from penstockd.metering.scorecard import Scorecard
from penstockd.policy.model import Action, Consumer, Grant, Mask, Permission, Role
from penstockd.store.tables import Tables

NOW = dt.datetime(2026, 3, 31, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
ALL = ReviewQuestion()


def grant(role: str, dataset: str, *actions: Action, **masks: Mask) -> Grant:
    classes = {FieldClass[name]: mask for name, mask in masks.items()}
    return Grant(role, dataset, frozenset(actions), classes, {})


def use(dataset: str, method: str, days: int, **values: Any) -> AccessUse:
    time = NOW - days * DAY
    known = {"credential_id": "k1", "surface": "REST", "classes": "", "received": None, **values}
    return AccessUse(
        "crm",
        method=f"/penstock.api.v1.X/{method}",
        dataset=dataset,
        first=time,
        last=time,
        **known,
    )


@pytest.fixture
def hub(catalog: Catalog) -> FakeHub:
    reads = Role("reads", "", (
        grant("reads", "customers", Action.READ, PUBLIC=Mask.CLEAR, PII=Mask.HASH),
        grant("reads", "orders", Action.READ, Action.CREATE, Action.UPDATE, PUBLIC=Mask.CLEAR),
    ))  # fmt: skip
    crm = Consumer("crm", True, frozenset({"reads"}))
    return fake_hub(catalog, Tables(catalog), administrator(), reads, crm=crm)


class Pieces:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.data = b""

    async def take(self, piece: bytes) -> None:
        self.data += piece


@pytest.fixture
def stored(hub: HubLike) -> HubLike:
    """The hub with a consumer in its store, and one that was deleted."""
    listed = use("customers", "List", 3, classes="pii", received=NOW - 3 * DAY)
    stated = {"title": "CRM", "active": True, "claims": {}, "roles": ["reads"]}
    hub.give({
        "FROM hub.usage_level": [("minute", None), ("hour", None), ("day", None)],
        "now()": [(NOW, NOW)],
        "FROM hub.consumer AS c": lambda *given: (
            [("crm", json.dumps(stated), NOW)] if given[0] in ("", ["crm"]) else []
        ),
        "SELECT DISTINCT consumer_id": [("gone",)],
        "received_time\nFROM hub.access_use": lambda names: [
            listed._replace(consumer_id=name) for name in names if name != "nobody-ever"
        ],
    })  # fmt: skip
    return hub


async def review(hub: HubLike, question: ReviewQuestion = ALL, **caller: Any) -> Any:
    call, pieces = hub.call(**caller), Pieces()
    call.recorded = True
    await review_access(hub, call, question, "JSON", pieces.take)
    return json.loads(pieces.data)


async def test_review_access(stored: HubLike) -> None:
    found = {each["consumer"]: each for each in (await review(stored))["consumers"]}
    assert (found["crm"]["state"], found["gone"]["state"]) == ("ACTIVE", "DELETED")
    (customers, orders) = found["crm"]["datasets"]
    assert customers["maySee"] == ["pii:hash", "public"] and customers["received"] == ["pii"]
    assert customers["noLonger"] == ["pii"] and customers["surfaces"] == ["REST"]
    assert orders["received"] == [] and orders["actions"] == ["read", "create", "update"]
    assert found["gone"]["datasets"][0]["maySee"] == []
    ended = stored.journal.entries[-1]
    assert (ended.phase, ended.outcome, ended.row_count) == ("END", "OK", 2)
    only = await review(stored, ReviewQuestion("gone", 3, 4))
    assert [each["consumer"] for each in only["consumers"]] == ["gone"]
    assert only["startTime"] == "2026-03-29T00:00:00Z"
    with pytest.raises(RecordNotFound, match="nobody-ever"):
        await review(stored, ReviewQuestion("nobody-ever"))
    for wrong in (ReviewQuestion(days=-1), ReviewQuestion(unused_days=3661)):
        with pytest.raises(ValueInvalid, match="days"):
            await review(stored, wrong)


async def test_review_access_needs_both_permissions(catalog: Catalog, stored: HubLike) -> None:
    for missing in (Permission.ACCESS_READ, Permission.AUDIT_READ):
        role = Role("some", "", (), frozenset(Permission) - {missing})
        hub: HubLike = fake_hub(catalog, Tables(catalog), role)
        with pytest.raises(PermissionDenied, match=missing.value.replace(".", r"\.")):
            await review(hub)
        scopes = frozenset(p.value for p in Permission if p is not missing)
        with pytest.raises(PermissionDenied):
            await review(stored, scopes=scopes)
    # Whether a consumer exists is not told.
    for name in ("crm", "nobody-ever"):
        with pytest.raises(PermissionDenied):
            await review(stored, ReviewQuestion(name), caller=NOBODY)
    assert not stored.asked("hub.access_use")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The days of which scorecards are read; they are without metrics."""
    asked: list[int] = []

    async def read(_: Any, days: int) -> Scorecard:
        asked.append(days)
        return Scorecard([], NOW - 2 * DAY, NOW - DAY, NOW)

    monkeypatch.setattr(getting, "read_scorecard", read)
    return asked


async def test_get_scorecard(hub: HubLike, scored: list[int]) -> None:
    assert (await get_scorecard(hub, hub.call(), 7)).end == NOW
    with pytest.raises(PermissionDenied, match=r"usage\.read"):
        await get_scorecard(hub, hub.call(caller=NOBODY), 7)
    assert scored == [7]


async def test_export_scorecard(hub: HubLike, scored: list[int]) -> None:
    call, pieces = hub.call(), Pieces()
    call.recorded = True
    await export_scorecard(hub, call, 7, "JSON", pieces.take)
    assert json.loads(pieces.data)["metrics"] == []
    ended = hub.journal.entries[-1]
    assert (ended.phase, ended.outcome) == ("END", "OK")
    nothing = Pieces()
    with pytest.raises(PermissionDenied):
        await export_scorecard(hub, hub.call(caller=NOBODY), 7, "JSON", nothing.take)
    assert scored == [7] and not nothing.data
