"""No command does anything for a caller without a role: every command, with all its arguments."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import Message

from fake_organs import NOBODY
from penstock.model.v1 import customers_pb2
from penstockd import commands
from penstockd.access.changes import ChangeTerms
from penstockd.access.plan_rehearsing import RehearsalRange
from penstockd.access.review import ReviewQuestion
from penstockd.access.subject import Subject
from penstockd.audit.disclosure import DisclosureQuestion
from penstockd.audit.search import Span
from penstockd.auth.issuers import Issuer
from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.digests.parts import Asked
from penstockd.digests.repair import Repair
from penstockd.errors import PermissionDenied, Refused, SubscriptionNotFound, ValueInvalid
from penstockd.exports.plan import ExportRequest
from penstockd.feed.stream import Watch
from penstockd.feed.watching import Wanted
from penstockd.hub import Hub
from penstockd.metering.report import UsageQuestion
from penstockd.policy.checks import RoleDraft
from penstockd.policy.model import Consumer, Permission
from penstockd.policy.pages import Query
from penstockd.policy.plan_checks import LimitsDraft, PlanDraft
from penstockd.shapes.model import ShapeColumn, ShapeDefinition
from penstockd.store.subscriptions import SubscriptionTerms
from penstockd.subscriptions.stream import Flow
from penstockd.webhooks.model import Scheme, Selection, Webhook, WebhookKind
from penstockd.webhooks.search import Filter
from penstockd.writes.arrival import ImportLimits
from penstockd.writes.idempotency import Request
from penstockd.writes.uploads import FileForm

ROOT = Path(commands.__file__).parents[1]
NAMES = [
    ".".join(("penstockd", *p.relative_to(ROOT).with_suffix("").parts))
    for p in sorted((ROOT / "commands").rglob("*.py"))
    if p.name != "__init__.py"
]
#: The caller of this command is not known yet: it presents a secret.
PUBLIC = {"issue_token"}
#: They report what the caller may do, here nothing.
EMPTY = {"get_caller", "list_datasets"}
#: It looks for what the caller itself has left, which needs no role.
OWN = {"get_receipt"}

CONSUMER = Consumer("x", True, frozenset())
ISSUER = Issuer("x", "https://x.example", "", (), ("RS256",), ("at+jwt",), 3600)
WEBHOOK = Webhook("", "", WebhookKind.HTTP, (Selection("customers"),), url="https://x.example/")
COLUMN = ShapeColumn("Name", field="name")
#: The arguments of commands, by type; protocols get an object that nobody may use.
VALUES: dict[Any, Any] = {
    str: "x", int: 1, float: 0.0, bool: False, datetime: None, timedelta: timedelta(),
    ChangeTerms: ChangeTerms("because"), RoleDraft: RoleDraft("x"), Consumer: CONSUMER,
    PlanDraft: PlanDraft("x"), LimitsDraft: LimitsDraft(),
    RehearsalRange: RehearsalRange(1, (), False),
    Issuer: ISSUER, Subject: Subject("x"), Query: Query(), Request: Request(),
    ExportRequest: ExportRequest("CSV"),
    Asked: Asked(), Repair: Repair([]), Watch: Watch(), Flow: Flow(), Span: Span(),
    DisclosureQuestion: DisclosureQuestion("customers", "x"), Filter: Filter(),
    Webhook: WEBHOOK, Scheme: Scheme.HMAC,
    SubscriptionTerms: SubscriptionTerms(["customers"]),
    Message: customers_pb2.Customer(customer_id="x"), ImportLimits: ImportLimits(),
    # Its own usage is shown to everybody.
    UsageQuestion: UsageQuestion(only={"consumer": "another"}),
    ReviewQuestion: ReviewQuestion(),
    FileForm: FileForm(), ShapeDefinition: ShapeDefinition("customers", [COLUMN]),
}  # fmt: skip


def value(annotation: Any, dataset: Dataset) -> Any:
    """A value of the type."""
    options = [a for a in typing.get_args(annotation) if a is not type(None)]
    origin = typing.get_origin(annotation)
    if origin in (Sequence, list):
        return []
    if origin is Callable:
        return lambda given: given
    if options and origin is not None:
        annotation = options[0]
    if annotation is Dataset:
        return dataset
    if annotation is Wanted:
        return Wanted([dataset])
    if getattr(annotation, "_is_protocol", False):
        return SimpleNamespace()
    if annotation.__name__ == "Pull":
        return annotation()
    return VALUES[annotation]


def arguments(command: Any, hub: Any, call: Call, dataset: Dataset) -> dict[str, Any]:
    """A command's arguments, by name."""
    hints = typing.get_type_hints(command)
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue  # they have defaults
        kind = hints[name]
        given[name] = hub if kind is Hub else call if kind is Call else value(kind, dataset)
    if "lease_id" in given and "cursor" in given:
        given["cursor"] = ""
    return given


async def faults(command: Any, hub: Any) -> list[str]:
    """What a command does, other than refuse, for a caller without a role."""
    call = hub.call(caller=NOBODY)
    given = arguments(command, hub, call, hub.catalog["customers"])
    found = []
    try:
        made = command(**given)
        made = await made if inspect.isawaitable(made) else made
    except Refused as error:
        own = command.__name__ in OWN and "NotFound" in type(error).__name__
        if not isinstance(error, PermissionDenied) and not own:
            found.append(f"looks further before it refuses: {error!r}")
    else:
        if command.__name__ not in EMPTY or made:
            found.append(f"gives {made!r}")
    if command.__name__ not in OWN:  # what it finds must not decide what the caller is told
        found += [text for text, _ in hub.database.connected.statements]
    if hub.database.committed or call.recorded or call.disclosed:
        found.append("leaves something")
    return found


@pytest.mark.parametrize("name", [n for n in NAMES if n.rpartition(".")[2] not in PUBLIC])
async def test_a_caller_without_a_role_gets_nothing_done(name: str, make_hub: Any) -> None:
    command = getattr(importlib.import_module(name), name.rpartition(".")[2])
    assert await faults(command, make_hub()) == []


async def gives(hub: Hub, call: Call, key: str) -> str:
    """A command that does not check the caller."""
    return key


async def writes(hub: Hub, call: Call) -> None:
    """A command that checks the caller too late."""
    async with hub.database.transaction() as connection:
        await connection.execute("DELETE FROM hub.role")
    call.require(Permission.ACCESS_WRITE)


async def looks(hub: Hub, call: Call, page_size: int) -> None:
    """A command that checks its arguments before the caller."""
    raise ValueInvalid.of("page_size", "is negative")


async def finds(hub: Hub, call: Call, key: str) -> None:
    """One that tells who may do nothing what there is."""
    async with hub.database.connection() as connection:
        if not await connection.fetch(
            "SELECT FROM hub.subscription WHERE subscription_id = $1", key
        ):
            raise SubscriptionNotFound(f"there is no subscription '{key}'")
    call.require(Permission.ACCESS_READ)


@pytest.mark.parametrize("careless", [gives, writes, looks, finds])
async def test_the_walk_sees_a_careless_command(careless: Any, make_hub: Any) -> None:
    assert await faults(careless, make_hub()) != []
