"""One record has one JSON: its bytes are equal wherever the hub shows it over HTTP, and its values
in the command line and in a replica."""

from __future__ import annotations

import base64
import functools
import json
import sqlite3
import uuid
from pathlib import Path
from typing import Any

from feeds import here, rest
from harness import RunningHub, eventually, new_customer

#: Every kind of field; names that JSON escapes; what is empty, false and unset.
RECORD: dict[str, Any] = {
    "name": 'Ada "<&>" é \\ \u2028 \U0001f469\u200d\U0001f4bb',
    "kind": "PERSON",
    "tags": ["b", "a\n", ""],
    "creditLimit": "1234567.10",
    "birthDate": "2000-02-29",
    "marketingOptIn": False,
    "notes": "",
    "billingAddress": {"line1": "1 <Main> St", "city": "", "countryCode": "LV"},
}


def call(hub: RunningHub, verb: str, path: str, body: Any = None, **query: Any) -> bytes:
    """The body of a reply."""
    reply = hub.request(verb, path, consumer="admin", json_body=body, query=query)
    assert reply.status == 200, reply.text
    return reply.body


def shown(hub: RunningHub, key: str, place: str) -> dict[str, bytes]:
    """What each surface says of a record, whose last change comes next after ``place``."""
    only = f'customer_id = "{key}"'
    found = {
        "get": call(hub, "GET", f"/v1/customers/{key}"),
        "list": call(hub, "GET", "/v1/customers", filter=only),
        "poll": call(hub, "GET", "/v1/customers:changes", cursor=place, filter=only),
        "poll of all": call(hub, "GET", "/v1/changes", cursor=place, datasets="customers"),
    }
    for name in ("JSON", "NDJSON"):
        found[f"page as {name}"] = call(
            hub, "GET", "/v1/customers:exportPage", filter=only, format=name
        )
        found[f"export as {name}"] = call(
            hub, "GET", "/v1/customers:export", filter=only, format=name
        )
    for name, kind in (("NDJSON", "application/x-ndjson"), ("SSE", "text/event-stream")):
        for start in ({"cursor": place}, {"snapshot": "true"}):
            query: dict[str, Any] = {"filter": only, **start}
            with rest(hub, "/v1/customers:watch", accept=kind, **query) as stream:
                lines = iter(stream.readline, b"")
                found[f"watch as {name} {start}"] = next(n for n in lines if key.encode() in n)
    return found


def holds(said: bytes, record: bytes, surface: str) -> bool:
    """Whether a surface shows a record; changes of several datasets name its type before it."""
    if surface in ("poll of all", "pull"):
        record = b'{"@type":"type.googleapis.com/penstock.model.v1.Customer",' + record[1:]
    return record in said


def test_its_bytes_are_equal_on_every_surface(hub: RunningHub) -> None:
    key = f"one-{uuid.uuid4().hex[:8]}"
    name, only = f"one-{key}", f'customer_id = "{key}"'
    line = {"subscriptionId": name, "datasets": ["customers"], "filter": only}
    call(hub, "POST", "/v1/subscriptions", {"subscription": line, "start": "now"})
    document = {"url": "", "kind": "LISTEN"}
    selections = [{"dataset": "customers", "filter": only}]
    made = json.loads(call(hub, "POST", "/v1/webhooks", document | {"selections": selections}))
    webhook = f"/v1/webhooks/{made['webhook']['webhookId']}"

    def delivered(record: bytes) -> bool:
        """Whether a message to the webhook has the record in its data."""
        told = json.loads(call(hub, "POST", f"{webhook}:pull", {"wait": "5s"}))["deliveries"]
        done = [{"deliveryId": d["deliveryId"], "status": 200, "latency": "0.01s"} for d in told]
        if done:
            call(hub, "POST", f"{webhook}:acknowledge", {"outcomes": done})
        return any(b'"record":' + record in base64.b64decode(d["body"]) for d in told)

    try:
        place = here(hub)
        created = call(hub, "POST", "/v1/customers", {"customerId": key, **RECORD})
        for verb, body in (("create", None), ("update", {"name": "Bob", "billingAddress": None})):
            written = created
            if body is not None:
                place = here(hub)
                written = call(hub, "PATCH", f"/v1/customers/{key}", body)
            surfaces = shown(hub, key, place)
            assert surfaces["get"] == written, f"the reply to {verb}"
            surfaces["pull"] = call(hub, "POST", f"/v1/subscriptions/{name}:pull", {"wait": "10s"})
            others = {at: said for at, said in surfaces.items() if not holds(said, written, at)}
            assert not others, (written, others)
            lease = {"leaseId": json.loads(surfaces["pull"])["lease"]["leaseId"]}
            call(hub, "POST", f"/v1/subscriptions/{name}:acknowledge", lease)
            eventually(functools.partial(delivered, written))
    finally:
        for path in (f"/v1/subscriptions/{name}", webhook, f"/v1/customers/{key}"):
            hub.request("DELETE", path, consumer="admin")


def test_its_values_are_equal_in_the_command_line_and_in_a_replica(
    hub: RunningHub, tmp_path: Path
) -> None:
    record = new_customer(**RECORD)
    key = record["customerId"]
    wanted = json.loads(call(hub, "POST", "/v1/customers", record))
    said = json.loads(hub.command("get", "customers", key, "--format", "json").stdout)
    assert by_model(wanted) == by_model(said)
    target = tmp_path / "copy.db"
    hub.command("replica", "customers", "--to", str(target), "--filter", f'customer_id = "{key}"')
    with sqlite3.connect(target) as connection:
        connection.row_factory = sqlite3.Row
        (row,) = connection.execute("SELECT * FROM customers").fetchall()
    for name, value in wanted.items():
        assert of_json(row[snake(name)], value) == value, name
    hub.request("DELETE", f"/v1/customers/{key}", consumer="admin")


def by_model(value: Any) -> Any:
    """Data by the names of the model: the command line has these."""
    if not isinstance(value, dict):
        return value
    return {snake(name): by_model(held) for name, held in value.items()}


def snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def of_json(held: Any, value: Any) -> Any:
    """A value of a column of SQLite as JSON has it; messages and lists are JSON there."""
    if isinstance(value, dict | list):
        return json.loads(held)
    return bool(held) if isinstance(value, bool) else held
