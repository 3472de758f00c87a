"""A reply that shows records leaves only after their disclosure; the model says which replies
can."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import penstockd
from penstock.api.v1 import customers_service_pb2 as api
from penstock.hub.v1 import access_pb2, changes_pb2, webhooks_pb2
from penstock.model.v1.customers_pb2 import Customer
from penstockd.audit.entry import Entry
from penstockd.calls import Permit
from penstockd.catalog.load import load_catalog
from penstockd.policy.model import Principal
from penstockd.resources import find_descriptors
from penstockd.rpc import datasets
from penstockd.rpc.disclosures import ReplyGuard, Undisclosed
from penstockd.rpc.door import GrpcWire, guard_reply
from penstockd.rpc.exchange import Exchange, Method
from penstockd.rpc.hub import list_hub_routes as hub_routes
from penstockd.rpc.reading import RequestReader

CATALOG = load_catalog(find_descriptors())


def guard_of(message: Any) -> ReplyGuard:
    return ReplyGuard(CATALOG, CATALOG.pool.FindMessageTypeByName(message.DESCRIPTOR.full_name))


CHANGE = api.WatchCustomersResponse()
CHANGE.changes.add().after.name = "x"
MIXED = changes_pb2.WatchChangesResponse()
MIXED.changes.add().before.type_url = "x"
PREVIEW = access_pb2.PreviewRecordsResponse()
PREVIEW.records.add()
PULLED = webhooks_pb2.PullDeliveriesResponse()
PULLED.deliveries.add().body = b"x"
TRIED = webhooks_pb2.Delivery()
TRIED.attempts.add().response_body = b"theirs"


@pytest.mark.parametrize(
    ("reply", "shows"),
    [
        (Customer(), True),
        (api.ListCustomersResponse(next_page_token="t"), False),
        (api.ListCustomersResponse(customers=[Customer()]), True),
        (api.ListCustomerChangesResponse(next_cursor="c"), False),
        (CHANGE, True),
        (MIXED, True),
        (changes_pb2.WatchChangesResponse(heartbeat=changes_pb2.Heartbeat(cursor="c")), False),
        (PREVIEW, True),
        (PULLED, True),
        (TRIED, False),
        (webhooks_pb2.Delivery(body=b"x"), True),
        (webhooks_pb2.Webhook(), False),
    ],
    ids=lambda v: type(v).__name__ if not isinstance(v, bool) else str(v),
)
def test_which_replies_show_records(reply: Any, shows: bool) -> None:
    guard = guard_of(reply)
    assert guard.shows_records(reply) is shows
    assert guard.shows_records(reply.SerializeToString()) is shows


class Hub:
    catalog = CATALOG


def test_every_route_that_can_show_records_is_watched() -> None:
    """Except the hub's own documents: add new ones here after a review."""
    hub: Any = Hub()
    routes = [*hub_routes(), *datasets.list_routes(CATALOG)]
    documents = {r.method.path.rpartition(".")[2] for r in routes if r.documents}
    assert documents == {
        "Auth/IssueToken", "Auth/GetJwks", "Auth/GetMetadata", "Datasets/GetXmlSchema",
        "Audit/ExportEntries", "Usage/ExportUsage", "Access/ReviewAccess",
        "Scorecards/ExportScorecard",
    }  # fmt: skip
    watched = {r.method.name for r in routes if guard_reply(hub, r) is not None}
    for dataset in CATALOG:
        message = dataset.message_type.name
        assert {f"Get{message}", f"Create{message}", f"Update{message}"} <= watched
    assert {"StreamExportCustomers", "ExportCustomers", "WatchCustomers", "ListCustomerChanges",
            "RepairCustomers", "PreviewRecords", "PullChanges", "WatchSubscription",
            "WatchChanges", "ListChanges", "PullDeliveries", "GetDelivery"} <= watched  # fmt: skip


class Context:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    async def write(self, frame: bytes) -> None:
        self.written.append(frame)

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def peer(self) -> str:
        return "test"


class Journal:
    async def record(self, entry: Entry) -> None:
        pass


class Policy:
    class newest:  # an attribute
        revision = 1


class Organs(Hub):
    journal = Journal()
    policy = Policy
    allowance = None


async def test_a_frame_of_records_needs_a_permit() -> None:
    organs: Any = Organs()
    context: Any = Context()
    method = Method("penstock.api.v1.Customers", "WatchCustomers", "customers")
    wire = GrpcWire(RequestReader(api.WatchCustomersRequest, 1000), streams=False)
    exchange = Exchange(organs, method, context, wire, guard=guard_of(CHANGE))
    with pytest.raises(Undisclosed):
        await exchange.send(CHANGE.SerializeToString())
    assert context.written == []
    heartbeat = api.WatchCustomersResponse()
    heartbeat.heartbeat.cursor = "c"
    await exchange.send(heartbeat.SerializeToString())
    policy: Any = Policy.newest
    exchange.admit(policy, Principal("c", "k", frozenset()))
    call = exchange.call
    await exchange.send(CHANGE.SerializeToString(), await call.permit(1))
    assert len(context.written) == 2 and call.disclosed == 1


def test_only_a_call_makes_permits() -> None:
    """Code that could make a permit could send records that nothing has recorded."""
    places = []
    root = Path(penstockd.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == Permit.__name__:
                places.append(path.relative_to(root).as_posix())
    assert places == ["calls.py"]
