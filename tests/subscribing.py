"""One named subscription as its workers use it, over REST."""

from __future__ import annotations

import uuid
from typing import Any

from harness import Reply, RunningHub, new_customer


class Subscribed:
    """A subscription with a name of its own, to the test's own customers: those named ``mark``."""

    def __init__(self, hub: RunningHub, consumer: str = "admin", **terms: Any) -> None:
        self.hub, self.consumer = hub, consumer
        self.name = self.mark = f"s-{uuid.uuid4().hex[:12]}"
        filter = f'name = "{self.mark}"'
        start = terms.pop("start", "now")
        asked = {"subscriptionId": self.name, "datasets": ["customers"], "filter": filter, **terms}
        body = {"subscription": asked, "start": start}
        self.made = hub.request("POST", "/v1/subscriptions", consumer=consumer, json_body=body)
        assert self.made.status == 200, self.made.text

    def call(self, verb: str, consumer: str = "", **body: Any) -> Reply:
        """Call a method of the subscription, such as "pull", once the hub can answer."""
        path = f"/v1/subscriptions/{self.name}:{verb}"
        return self.hub.insist("POST", path, consumer=consumer or self.consumer, json_body=body)

    def pull(self, wait: str = "25s", **body: Any) -> dict[str, Any]:
        """The next stretch; {} if there is none within the time. Unless asked for, its lease does
        not end within a test, however slow the machine."""
        reply = self.call("pull", wait=wait, **{"ackSeconds": 3600, **body})
        assert reply.status == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found if "lease" in found else {}

    def acknowledge(self, pulled: dict[str, Any]) -> str:
        """Acknowledge what was pulled; returns the place up to which everything is acknowledged."""
        reply = self.call("acknowledge", leaseId=pulled["lease"]["leaseId"])
        assert reply.status == 200, reply.text
        return str(reply.json()["cursor"])

    def found(self) -> dict[str, Any]:
        """The current subscription."""
        reply = self.hub.get(f"/v1/subscriptions/{self.name}", self.consumer)
        assert reply.status == 200, reply.text
        return dict(reply.json())

    def write(self, count: int, **values: Any) -> list[str]:
        """Write that many customers, each in a transaction of its own, and wait for their numbers;
        returns their keys in order."""
        keys = []
        for _ in range(count):
            customer = new_customer(name=self.mark, **values)
            path = "/v1/customers:batchUpsert"
            body = {"customers": [customer]}
            reply = self.hub.insist("POST", path, consumer="admin", json_body=body)
            assert reply.status == 200, reply.text
            keys.append(customer["customerId"])
        self.hub.head()
        return keys


def keys_of(pulled: dict[str, Any]) -> list[str]:
    """The records that were pulled."""
    return [change["key"] for change in pulled.get("changes", [])]
