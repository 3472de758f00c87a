"""A caller that loses access while it waits gets nothing, from any method that waits."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, message_factory

from feeds import Made, consumer_with, credentials, grant, put
from harness import ATTEMPTS, PATIENCE, RunningHub

from .test_access_admin import methods

#: A text in the record that is written while the calls wait.
SECRET = "zqwaits"
#: Of the methods that all datasets have, one dataset's are enough.
SERVICES = ("penstock.hub.", "penstock.api.v1.Customers")


def waiting() -> dict[str, Any]:
    """Every method whose callers may state how long they wait."""
    return {
        m.full_name: m
        for m in methods()
        if "wait" in m.input_type.fields_by_name
        and m.containing_service.full_name.startswith(SERVICES)
    }


@dataclass(frozen=True)
class Answer:
    """A call's status, reason and bytes."""

    code: str
    text: bytes


@dataclass(frozen=True)
class Waiter:
    """A consumer that may wait with all of these methods, and its objects."""

    made: Made
    webhook: str
    cursor: str

    def ask(self, method: Any) -> Answer:
        """One call, which waits until there is data."""
        values = {
            "webhookId": self.webhook,
            "subscriptionId": "waits",
            "cursor": self.cursor,
            "datasets": ["customers"],
            "wait": "15s",
        }
        known = {f.json_name for f in method.input_type.fields}
        request = message_factory.GetMessageClass(method.input_type)()
        json_format.ParseDict({n: v for n, v in values.items() if n in known}, request)
        path = f"/{method.containing_service.full_name}/{method.name}"
        with grpc.insecure_channel(f"127.0.0.1:{self.made.hub.port}") as channel:
            call = channel.unary_unary(path, type(request).SerializeToString, bytes)
            metadata = credentials(self.made.hub, self.made.key)
            try:
                return Answer("OK", call(request, metadata=metadata, timeout=PATIENCE))
            except grpc.RpcError as error:
                refused: Any = error
                told = (refused.details(), refused.trailing_metadata())
                return Answer(refused.code().name, repr(told).encode())


@contextlib.contextmanager
def waiter(hub: RunningHub) -> Iterator[Waiter]:
    with consumer_with(hub, grant("customers")) as made:
        own = {"permissions": ["webhooks.read", "webhooks.write"]}
        made.administer("PATCH", f"/roles/{made.name}", own, update_mask="permissions")
        hub.settle()
        headers = dict(credentials(hub, made.key))

        def call(verb: str, path: str, body: Any = None) -> Any:
            reply = hub.request(verb, path, json_body=body, headers=headers)
            assert reply.status == 200, reply.text
            return reply.json()

        listen = {"kind": "LISTEN", "selections": [{"dataset": "customers"}]}
        webhook = call("POST", "/v1/webhooks", listen)["webhook"]["webhookId"]
        subscription = {"subscriptionId": "waits", "datasets": ["customers"]}
        call("POST", "/v1/subscriptions", {"subscription": subscription})
        yield Waiter(made, webhook, call("GET", "/v1/customers:changes")["nextCursor"])


def answers(hub: RunningHub, change: Callable[[Made], object]) -> dict[str, Answer]:
    """The answer of each waiting method if access changes meanwhile and a record is written
    afterwards."""
    found = waiting()
    with waiter(hub) as one, ThreadPoolExecutor(len(found)) as pool:
        asked = {name: pool.submit(one.ask, method) for name, method in found.items()}
        change(one.made)
        hub.settle()
        put(hub, "customers", {"customerId": f"zq-{uuid.uuid4().hex[:12]}", "name": SECRET})
        return {name: each.result() for name, each in asked.items()}


CHANGES: dict[str, Callable[[Made], object]] = {
    "revoked": lambda m: m.administer(
        "POST", f"/consumers/{m.name}/credentials/{m.credential}:revoke"
    ),
    "disabled": lambda m: m.administer(
        "PATCH", f"/consumers/{m.name}", {"active": False}, update_mask="active"
    ),
    "may not read": lambda m: m.regrant(),
}


#: Pulling from a webhook needs a permission on the hub, and returns nothing to a caller that reads
#: nothing.
GOES_ON = {("may not read", "penstock.hub.v1.Webhooks.PullDeliveries")}


@pytest.mark.parametrize("name", CHANGES)
def test_access_that_ends_while_a_call_waits_ends_the_call(hub: RunningHub, name: str) -> None:
    for _ in range(ATTEMPTS):
        given = answers(hub, CHANGES[name])
        assert len(given) >= 4
        told = [method for method, answer in given.items() if SECRET.encode() in answer.text]
        assert not told
        # A call that ended before the change, or began after it, shows nothing about waiting.
        wrong = {
            method: answer
            for method, answer in given.items()
            if (name, method) not in GOES_ON
            and (answer.code != "PERMISSION_DENIED" or b"ACCESS_CHANGED" not in answer.text)
        }
        if not wrong:
            return
    pytest.fail(f"not ended: {wrong}")


def test_calls_that_wait_are_told_what_is_theirs(hub: RunningHub) -> None:
    """Negative control: if somebody else's access changes, each of them gets the record."""

    def grant_to_another(_: Made) -> None:
        with consumer_with(hub, grant("customers")):
            hub.settle()

    for _ in range(ATTEMPTS):  # the record may arrive after the waiting time
        given = answers(hub, grant_to_another)
        missing = [name for name, answer in given.items() if SECRET.encode() not in answer.text]
        if not missing:
            return
    pytest.fail(f"not told by {missing}")
