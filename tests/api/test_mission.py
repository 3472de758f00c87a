"""The mission's own test cases: data exported by API, and an external system kept in sync."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from http.client import HTTPConnection
from typing import Any

import pytest
from google.protobuf import json_format

from harness import RunningHub, contains, eventually, free_port, new_customer, without_nulls
from penstock.client.webhooks import verify
from penstock.model.v1 import customers_pb2
from posted import Post, Posts, receiving

Record = dict[str, Any]
#: The field of a customer that crm may not see: its class is SENSITIVE.
SENSITIVE = {"taxId", "creditLimit"}
#: bi may not see that field nor PII. Its role shows a part of the e-mail address.
PERSONAL = {"phone", "birthDate"}
PERSONAL_ADDRESS = {"line1", "line2", "postalCode"}
ETERNITY = 3600


@pytest.fixture
def prefix() -> str:
    """A prefix that only the keys of one test's customers have."""
    return f"m-{uuid.uuid4().hex[:8]}-"


def customer(key: str, **values: Any) -> Record:
    """A customer with a value in every writable field."""
    return new_customer(
        customerId=key,
        **{
            "name": "Zoë O'Neill & Söhne",
            "kind": "COMPANY",
            "status": "ACTIVE",
            "email": "zoe@example.com",
            "phone": "+44 20 7946 0000",
            "taxId": "DE123456789",
            "billingAddress": {
                "line1": "1 High Street",
                "line2": "Flat 2",
                "city": "Köln",
                "region": "NRW",
                "postalCode": "50667",
                "countryCode": "DE",
            },
            "currencyCode": "EUR",
            "creditLimit": "12345678901234.5678",
            "lifetimeValue": "0.1000",
            "marketingOptIn": True,
            "tags": ["vip", "naïve"],
            "notes": 'a "quoted" line\nand another',
            "birthDate": "1990-02-28",
            "source": "erp",
            "sourceId": "42",
        }
        | values,
    )


def write(hub: RunningHub, method: str, path: str, body: Record | None = None) -> Record:
    reply = hub.request(method, path, consumer="admin", json_body=body)
    assert reply.status == 200, reply.text
    return dict(reply.json())


def listed(hub: RunningHub, consumer: str, **query: object) -> dict[str, Record]:
    """All customers that a consumer gets, by key, page by page."""
    records: dict[str, Record] = {}
    token = ""
    while True:
        reply = hub.get("/v1/customers", consumer, page_size=200, page_token=token, **query)
        assert reply.status == 200, reply.text
        assert reply.headers["content-type"] == "application/json"
        page = reply.json()
        records |= {r["customerId"]: without_nulls(r) for r in page["customers"]}
        token = page.get("nextPageToken", "")
        if not token:
            return records


def parse(record: Record) -> customers_pb2.Customer:
    """The record as the model's message. null equals absent; an unknown field is an error."""
    return json_format.ParseDict(record, customers_pb2.Customer())


def check_format(record: Record) -> None:
    """Check that every field is in the model and is written as the API documents its type."""
    parsed = parse(record)
    told = json_format.MessageToDict(parsed, always_print_fields_with_no_presence=True)
    times = {"createTime", "updateTime"}
    assert contains(told, without(record, times))
    for name in ("createTime", "updateTime"):
        assert record[name].endswith("Z")
        datetime.fromisoformat(record[name])
    if "birthDate" in record:
        date.fromisoformat(record["birthDate"])
    for name in ("creditLimit", "lifetimeValue"):
        if record.get(name) is not None:
            assert isinstance(record[name], str) and Decimal(record[name]).is_finite()
    names = "|".join(customers_pb2.Customer.Status.keys())
    assert re.fullmatch(names, record.get("status", "STATUS_UNSPECIFIED"))


def without(record: Record, names: set[str]) -> Record:
    return {name: value for name, value in record.items() if name not in names}


def test_a1_a_developer_gets_filtered_customer_data(hub: RunningHub, prefix: str) -> None:
    """A-1: accurate, filtered according to permissions, all fields properly formatted."""
    bought = customer(prefix + "buys")
    left = customer(prefix + "left", status="CHURNED")
    for record in (bought, left):
        write(hub, "POST", "/v1/customers", record)

    everything = listed(hub, "admin")
    for record in (bought, left):  # exactly as written
        assert everything[record["customerId"]].items() >= record.items()

    # The CRM gets every customer, complete except for sensitive fields. A View that hides fields
    # has an etag of its own, which moves with the visible fields.
    told = {k: without(r, {"etag"}) for k, r in listed(hub, "crm").items()}
    assert told == {k: without(r, SENSITIVE | {"etag"}) for k, r in everything.items()}

    # The BI tool gets active customers, and nothing that identifies them.
    seen = listed(hub, "bi")
    assert set(seen) == {k for k, r in everything.items() if r.get("status") == "ACTIVE"}
    assert bought["customerId"] in seen and left["customerId"] not in seen
    assert len(seen) > 100
    for key, record in seen.items():
        own = {"email", "billingAddress", "creditLimit", "etag"}
        assert without(record, own) == without(everything[key], SENSITIVE | PERSONAL | own)
        address = without(everything[key].get("billingAddress", {}), PERSONAL_ADDRESS)
        assert record.get("billingAddress", {}) == address
        assert record.get("creditLimit") is None
        email = everything[key].get("email")
        assert record.get("email") != email or email is None

    for records in (everything, listed(hub, "crm"), seen):
        for record in records.values():
            check_format(record)

    # One record, a filtered list and a whole export agree; the export of such a View has no etag.
    path = f"/v1/customers/{bought['customerId']}"
    assert without_nulls(hub.get(path, "bi").json()) == seen[bought["customerId"]]
    found = listed(hub, "bi", filter=f'customer_id = "{prefix}*"')
    assert found == {bought["customerId"]: seen[bought["customerId"]]}
    export = hub.get("/v1/customers:export", "bi", format="NDJSON")
    exported = [parse(json.loads(line)) for line in export.text.splitlines()]
    assert exported == [parse(without(record, {"etag"})) for record in seen.values()]


@pytest.mark.parametrize("credentials", [{}, {"authorization": "Bearer x"}, {"x-api-key": "x"}])
def test_a1_without_credentials_there_is_no_data(
    hub: RunningHub, credentials: dict[str, str]
) -> None:
    reply = hub.request("GET", "/v1/customers", headers=credentials)
    assert (reply.status, reply.json().get("customers")) == (401, None)


class ExternalSystem:
    """A system that learns of customers only from notifications; it takes each notification
    once."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.customers: dict[str, Record] = {}
        self._revisions: dict[str, int] = {}

    def take(self, posts: list[Post]) -> None:
        """Verify and apply posted notifications: a later revision replaces an earlier one."""
        for post in posts:
            event = verify(post.headers, post.body, self.secret, tolerance=ETERNITY)
            data = event["data"]
            key, revision = data["key"], int(data["revision"])
            if revision <= self._revisions.get(key, -1):
                continue
            self._revisions[key] = revision
            self.customers.pop(key, None)
            if event["type"] != "customer.deleted":
                self.customers[key] = data["record"]


class Integration:
    """A webhook of the CRM for one test's customers, and the system behind it."""

    def __init__(self, hub: RunningHub, url: str, prefix: str) -> None:
        self.hub, self.prefix = hub, prefix
        body = {
            "url": url,
            "selections": [{"dataset": "customers", "filter": f'customer_id = "{prefix}*"'}],
            # Sooner than by default: the second retry would come after five minutes.
            "options": {"retrySeconds": [1] * 5 + [10] * 10},
        }
        reply = hub.request("POST", "/v1/webhooks", consumer="crm", json_body=body)
        assert reply.status == 200, reply.text
        self.path = f"/v1/webhooks/{reply.json()['webhook']['webhookId']}"
        self.system = ExternalSystem(reply.json()["secret"])

    def synchronized(self, posts: Posts) -> bool:
        """Whether the external system has exactly the customers that the CRM may see in the hub."""
        self.system.take(list(posts.taken))
        truth = listed(self.hub, "crm", filter=f'customer_id = "{self.prefix}*"')
        # Only writers to the hub need an etag; notifications of a narrowed View have none.
        known = {k: without(r, {"etag"}) for k, r in self.system.customers.items()}
        return known == {k: without(r, {"etag"}) for k, r in truth.items()}

    def deliveries(self) -> list[Record]:
        reply = self.hub.get(self.path + "/deliveries", "crm")
        assert reply.status == 200, reply.text
        return list(reply.json().get("deliveries", []))

    def change_customers(self) -> None:
        """Create three, update two of them, delete the third."""
        names = [self.prefix + n for n in ("a", "b", "c")]
        for name in names:
            write(self.hub, "POST", "/v1/customers", customer(name))
        write(self.hub, "PATCH", f"/v1/customers/{names[0]}", {"status": "CHURNED"})
        write(self.hub, "PATCH", f"/v1/customers/{names[1]}", {"tags": ["new"], "phone": "1"})
        write(self.hub, "DELETE", f"/v1/customers/{names[2]}")

    def close(self) -> None:
        self.hub.request("DELETE", self.path, consumer="crm")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def integration(hub: RunningHub, prefix: str, port: int) -> Iterator[Integration]:
    made = Integration(hub, f"http://127.0.0.1:{port}/hook", prefix)
    yield made
    made.close()


def test_b1_an_update_is_notified_and_the_external_system_is_in_sync(
    integration: Integration, port: int, prefix: str
) -> None:
    """B-1: a change is notified promptly, the external system receives it and is in sync."""
    with receiving(port) as posts:
        integration.change_customers()
        eventually(lambda: integration.synchronized(posts))
        assert set(integration.system.customers) == {prefix + "a", prefix + "b"}
        assert integration.system.customers[prefix + "a"]["status"] == "CHURNED"
        assert integration.system.customers[prefix + "b"]["tags"] == ["new"]
        # Promptly: nothing had to be sent a second time.
        eventually(lambda: {d["state"] for d in integration.deliveries()} == {"DELIVERED"})
        assert {d.get("attemptCount", 1) for d in integration.deliveries()} == {1}


def test_b1_negative_an_endpoint_that_was_down_comes_to_be_in_sync(
    hub: RunningHub, integration: Integration, port: int
) -> None:
    """B-1's negative twin: the endpoint is down, the hub tries again, and all arrives."""
    with pytest.raises(ConnectionRefusedError):
        HTTPConnection("127.0.0.1", port).connect()
    integration.change_customers()

    def retried() -> bool:
        found = integration.deliveries()
        return len(found) == 6 and all(int(d.get("attemptCount", 0)) >= 2 for d in found)

    eventually(retried)
    for delivery in integration.deliveries():
        assert delivery["state"] in ("PENDING", "SENDING")
        assert delivery["reason"] == "CONNECTION_FAILED"
    assert not integration.system.customers
    with receiving(port) as posts:
        eventually(lambda: integration.synchronized(posts))
        eventually(lambda: {d["state"] for d in integration.deliveries()} == {"DELIVERED"})
        names = {p.headers["webhook-id"] for p in posts.taken}
        assert names == {d["deliveryId"] for d in integration.deliveries()}
