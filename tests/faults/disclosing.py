"""Calls every method that can show records, about one marked record."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import message_factory

from harness import PATIENCE, RunningHub, eventually
from penstockd.catalog.load import load_catalog
from penstockd.resources import find_descriptors
from penstockd.rpc.door import Route, guard_reply
from security.calls import every_route, method_of

MARK = f"zqmark{uuid.uuid4().hex[:8]}"


class Caller:
    """Calls methods by their routes, with requests made of JSON-like values."""

    def __init__(self, hub: RunningHub, channel: grpc.Channel) -> None:
        self._hub, self._channel = hub, channel

    def call(
        self, route: Route, values: dict[str, Any], request_id: str = "", until: str = MARK
    ) -> tuple[bytes, str]:
        """Everything that arrives until it contains the text, and the final code."""
        method = method_of(route)
        request = message_factory.GetMessageClass(method.input_type)(**values)
        kind = "unary_stream" if method.server_streaming else "unary_unary"
        stub = getattr(self._channel, kind)(
            route.method.path,
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=lambda data: data,
        )
        found = b""
        metadata = [*self._hub.metadata("admin")]
        if request_id:
            metadata.append(("x-request-id", request_id))
        try:
            reply = stub(request, metadata=metadata, timeout=PATIENCE)
            for frame in reply if method.server_streaming else [reply]:
                found += frame
                if until.encode() in found:
                    break
        except grpc.RpcError as error:
            return found, error.code().name
        return found, "OK"


class _Organs:
    """The parts of a hub that the door needs to look at routes."""

    catalog = load_catalog(find_descriptors())


def guarded() -> list[Route]:
    """The routes whose replies can show records of the dataset, or of several."""
    organs: Any = _Organs()
    return [
        route
        for route in every_route()
        if route.method.dataset in (None, "customers") and guard_reply(organs, route) is not None
    ]


class Prepared:
    """The objects that methods need in order to show the marked record."""

    def __init__(self, hub: RunningHub) -> None:
        self._hub = hub
        self.start = hub.get("/v1/customers:changes").json()["nextCursor"]
        options = {"selections": [{"dataset": "customers"}], "kind": "LISTEN"}
        made = hub.request("POST", "/v1/webhooks", consumer="admin", json_body=options)
        assert made.status == 200, made.text
        self.webhook = made.json()["webhook"]["webhookId"]
        path = f"/v1/customers/{MARK}"
        change = {"notes": f"{MARK} {uuid.uuid4().hex[:6]}"}  # another one each time: an event
        done = hub.request("PATCH", path, consumer="admin", json_body=change)
        assert done.status == 200, done.text
        self.delivery = eventually(self._find_delivery)

    def _find_delivery(self) -> str:
        found = self._hub.get(f"/v1/webhooks/{self.webhook}/deliveries").json()
        listed = found.get("deliveries", [])
        return str(listed[0]["deliveryId"]) if listed else ""

    def subscription(self) -> dict[str, Any]:
        """A new subscription that has delivered nothing."""
        name = f"s-{uuid.uuid4().hex[:8]}"
        terms = {"subscriptionId": name, "datasets": ["customers"]}
        body = {"subscription": terms, "start": self.start}
        made = self._hub.request("POST", "/v1/subscriptions", consumer="admin", json_body=body)
        assert made.status == 200, made.text
        return {"subscription_id": name}

    def requests(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """By method, a request whose reply shows the marked record."""
        only = {"filter": f'customer_id = "{MARK}"'}
        webhook = {"webhook_id": self.webhook}
        columns = [{"name": "Id", "field": "customer_id"}]
        shape = {"dataset": "customers", "columns": columns}
        return {
            "GetCustomer": lambda: {"customer_id": MARK},
            "ListCustomers": lambda: only,
            "CreateCustomer": lambda: {
                "customer": {"customer_id": f"{MARK}-{uuid.uuid4().hex[:6]}", "name": "new"}
            },
            "UpdateCustomer": lambda: {
                "customer": {"customer_id": MARK, "name": f"{MARK} {uuid.uuid4().hex[:6]}"},
                "update_mask": {"paths": ["name"]},
            },
            "ExportCustomers": lambda: {**only, "format": "JSON"},
            "StreamExportCustomers": lambda: {**only, "format": "NDJSON"},
            "WatchCustomers": lambda: {**only, "snapshot": True},
            "ListCustomerChanges": lambda: {"cursor": self.start},
            "RepairCustomers": lambda: {**only, "ranges": [{}]},
            "PreviewRecords": lambda: {"dataset": "customers", "consumer_id": "crm", **only},
            "PreviewShape": lambda: {**only, "shape": shape},
            "WatchChanges": lambda: {"cursor": self.start},
            "ListChanges": lambda: {"cursor": self.start},
            "PullChanges": self.subscription,
            "WatchSubscription": self.subscription,
            "PullDeliveries": lambda: {**webhook, "max_deliveries": 100},
            "GetDelivery": lambda: {**webhook, "delivery_id": self.delivery},
        }


#: Methods whose replies could contain a body by their type, but never do: a list only names
#: deliveries.
BODILESS = {"TestWebhook", "ListDeliveries", "ListDeadLetters", "ResendDelivery"}
