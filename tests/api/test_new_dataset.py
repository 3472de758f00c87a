"""A dataset is added by one message file and ``scripts/generate``, without any Python."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from digesting import Form
from harness import Reply, RunningHub, folder
from workshops import OUTPUT, Workshop

pytestmark = [pytest.mark.slow, pytest.mark.lane(priority=8)]

TICKETS = """\
syntax = "proto3";

package penstock.model.v1;

import "buf/validate/validate.proto";
import "google/protobuf/timestamp.proto";
import "penstock/options/v1/options.proto";

// A request for help.
message Ticket {
  option (penstock.options.v1.dataset) = {title: "Tickets"};

  // How urgent it is.
  enum Priority {
    // Not said.
    PRIORITY_UNSPECIFIED = 0;
    // Can wait.
    LOW = 1;
    // Cannot.
    HIGH = 2;
  }

  // Who looks after it.
  message Desk {
    // Its name.
    string name = 1;
    // Its floor.
    optional int32 floor = 2;
    // Its door code.
    optional string code = 3 [(penstock.options.v1.field).class = SENSITIVE];
  }

  // What was done.
  message Step {
    // What.
    string action = 1 [(buf.validate.field).string.pattern = "^[a-z]*$"];
    // How long, in minutes.
    int64 minutes = 2;
    // What it cost.
    optional string cost = 3 [(penstock.options.v1.field).decimal = {
      precision: 10
      scale: 2
    }];
  }

  // The key.
  string ticket_id = 1 [(penstock.options.v1.field) = {
    key: true
    class: PUBLIC
  }];
  // Who asks.
  string customer_id = 2 [(penstock.options.v1.field) = {
    class: PUBLIC
    reference: {dataset: "customers"}
  }];
  // What for.
  string subject = 3 [
    (penstock.options.v1.field).class = PUBLIC,
    (buf.validate.field).string.max_len = 80
  ];
  // How urgent it is.
  Priority priority = 4 [(penstock.options.v1.field).class = PUBLIC];
  // Whether it is open.
  bool open = 5 [(penstock.options.v1.field).class = PUBLIC];
  // Small whole numbers.
  int32 i32 = 6;
  // Whole numbers.
  int64 i64 = 7;
  // Small counts.
  uint32 u32 = 8;
  // Counts.
  uint64 u64 = 9;
  // Single precision.
  float single = 10;
  // Double precision.
  optional double double = 11;
  // Bytes.
  bytes blob = 12;
  // Exact.
  optional string fee = 13 [(penstock.options.v1.field).decimal = {
    precision: 20
    scale: 6
  }];
  // A day.
  optional string due_date = 14 [(penstock.options.v1.field).date = true];
  // A moment.
  google.protobuf.Timestamp due_time = 15;
  // Where it is.
  Desk desk = 16 [(penstock.options.v1.field).class = PUBLIC];
  // What was done.
  repeated Step steps = 17;
  // Labels.
  repeated string labels = 18 [(penstock.options.v1.field).class = PUBLIC];
  // Past priorities.
  repeated Priority past = 19;
  // Numbers.
  repeated int64 numbers = 20;
  // Properties.
  map<string, string> properties = 21;
  // Counters.
  map<string, int64> counters = 22;
  // Who complained.
  optional string complainant = 23 [(penstock.options.v1.field).class = PII];

  // The system the record came from.
  string source = 90 [(penstock.options.v1.field).class = PUBLIC];
  // The record's identifier in that system.
  string source_id = 91 [(penstock.options.v1.field).class = PUBLIC];
  // When the record was first written.
  google.protobuf.Timestamp create_time = 92 [(penstock.options.v1.field) = {
    output_only: true
    class: PUBLIC
  }];
  // When the record last changed.
  google.protobuf.Timestamp update_time = 93 [(penstock.options.v1.field) = {
    output_only: true
    class: PUBLIC
  }];
  // Changes with every change of the record.
  string etag = 94 [(penstock.options.v1.field) = {
    output_only: true
    class: PUBLIC
  }];
}
"""

FULL: dict[str, Any] = {
    "ticketId": "t1",
    "customerId": "c00000001",
    "subject": 'Ünïcode 山 "quoted", <&>\nline',
    "priority": "HIGH",
    "open": True,
    "i32": -(2**31),
    "i64": str(2**63 - 1),
    "u32": 2**32 - 1,
    "u64": str(2**64 - 1),
    "single": 0.1,
    "double": 1e-300,
    "blob": "AP8Q",
    "fee": "12345678901234.567890",
    "dueDate": "2024-02-29",
    "dueTime": "2024-02-29T12:00:00.123456Z",
    "desk": {"name": "First", "floor": -1, "code": "4711"},
    "steps": [
        {"action": "call", "minutes": "9007199254740993", "cost": "0.50"},
        {"action": "wait", "minutes": "1"},
    ],
    "labels": ["b", "a"],
    "past": ["LOW", "HIGH"],
    "numbers": ["-1", "9007199254740993"],
    "properties": {"k": "v", "ü": ""},
    "counters": {"n": "9007199254740993"},
    "complainant": "Someone",
    "source": "test",
    "sourceId": "1",
}


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    """A hub that has run on the old model, and now runs on the one with tickets."""
    with folder() as tree, folder() as data:
        made = Workshop(tree / "model", data / "hub")
        try:
            made.hub.start()
            assert made.hub.get("/v1/tickets").status == 404
            made.hub.stop()
            made.generate({"tickets": TICKETS})
            made.hub.start()
            yield made
        finally:
            made.hub.stop()


@pytest.fixture(scope="module")
def tickets(workshop: Workshop) -> RunningHub:
    hub = workshop.hub
    created = hub.request("POST", "/v1/tickets", consumer="admin", json_body=FULL)
    assert created.status == 200, created.text
    assert FULL.items() <= created.json().items()
    empty = hub.request("POST", "/v1/tickets", consumer="admin", json_body={"ticketId": "t2"})
    assert Form.of(hub, "tickets", "admin").given(empty.json()).keys() == {
        "ticketId",
        *OUTPUT,
    }
    return hub


def export(hub: RunningHub, name: str) -> bytes:
    reply = hub.get("/v1/tickets:export", format=name)
    assert reply.status == 200, reply.text
    return reply.body


def import_(hub: RunningHub, name: str, body: bytes, consumer: str = "admin") -> Reply:
    path = f"/v1/tickets:import?format={name}"
    return hub.request("POST", path, consumer=consumer, body=body)


def test_it_has_its_table_and_its_rest_paths(tickets: RunningHub) -> None:
    columns = tickets.sql(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'data' AND table_name = 'tickets'"
    )
    assert {("ticket_id",), ("desk.floor",), ("steps",), ("u64",)} <= set(columns)
    assert FULL.items() <= tickets.get("/v1/tickets/t1").json().items()
    listed = tickets.get("/v1/tickets", order_by="i64 desc", fields="ticket_id,desk.name").json()
    assert listed["tickets"] == [
        {"ticketId": "t1", "desk": {"name": "First"}},
        {"ticketId": "t2", "desk": None},
    ]
    for text in (
        "u64 = 18446744073709551615",
        "fee > 12345678901234.56",
        'steps.action:"wait"',
        "counters:n",
        'properties.k = "v"',
        'due_time < "2024-02-29T13:00:00Z" AND priority = HIGH',
        'due_date = "2024-02-29"',
        "numbers:-1",
    ):
        found = tickets.get("/v1/tickets", filter=text, fields="ticket_id").json()
        assert found == {"tickets": [{"ticketId": "t1"}]}, text
    path = "/v1/tickets/t2"
    changed = tickets.request("PATCH", path, consumer="admin", json_body={"desk": {"floor": 3}})
    assert changed.json()["desk"]["floor"] == 3
    cleared = tickets.request("PATCH", f"{path}?update_mask=desk", consumer="admin", json_body={})
    assert cleared.json()["desk"] is None
    batch = {"tickets": [{"ticketId": "t3"}]}
    reply = tickets.request("POST", "/v1/tickets:batchUpsert", consumer="admin", json_body=batch)
    assert reply.json() == {"createdCount": "1"}
    assert tickets.request("DELETE", "/v1/tickets/t3", consumer="admin").status == 200


@pytest.mark.parametrize("name", ["CSV", "NDJSON", "JSON"])
def test_what_it_exports_it_imports(tickets: RunningHub, name: str) -> None:
    body = export(tickets, name)
    reply = import_(tickets, name, body)
    assert reply.json() == {"rowCount": "2", "unchangedCount": "2"}, reply.text
    try:
        tickets.request("DELETE", "/v1/tickets/t1", consumer="admin")
        assert import_(tickets, name, body).json()["createdCount"] == "1"
        assert FULL.items() <= tickets.get("/v1/tickets/t1").json().items()
    finally:
        import_(tickets, "NDJSON", json.dumps(FULL).encode())


def test_every_format_holds_every_value(tickets: RunningHub) -> None:
    by_json = {r["ticketId"]: r for r in json.loads(export(tickets, "JSON"))}
    assert {k: v for k, v in by_json["t1"].items() if k not in OUTPUT} == {
        **FULL,
    }
    assert by_json["t2"]["desk"] is None and by_json["t2"]["labels"] == []
    lines = [json.loads(line) for line in export(tickets, "NDJSON").splitlines()]
    assert lines == list(by_json.values())
    text = export(tickets, "CSV").decode()
    row = next(csv.DictReader(io.StringIO(text, newline="")))
    assert (row["u64"], row["i32"], row["fee"]) == (FULL["u64"], str(FULL["i32"]), FULL["fee"])
    assert (row["desk.code"], row["blob"], row["open"]) == ("4711", "AP8Q", "true")
    assert json.loads(row["counters"]) == FULL["counters"]
    assert row["subject"] == FULL["subject"]
    record = ET.fromstring(export(tickets, "XML"))[0]
    assert record.tag == "ticket"
    assert record.findtext("desk/code") == "4711"
    minutes = [e.findtext("minutes") for e in record.findall("steps/item")]
    assert minutes == ["9007199254740993", "1"]
    properties = {e.get("key"): e.text or "" for e in record.findall("properties/entry")}
    assert properties == FULL["properties"]
    assert record.findtext("subject") == FULL["subject"]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"subject": "é" * 81}, "subject"),
        ({"steps": [{"action": "call"}, {"action": "Call"}]}, "steps[1].action"),
    ],
)
def test_its_rules_hold(tickets: RunningHub, values: dict[str, Any], field: str) -> None:
    record = {"ticketId": "t9", **values}
    created = tickets.request("POST", "/v1/tickets", consumer="admin", json_body=record)
    assert (created.status, list(created.violations())) == (400, [field])
    changed = tickets.request("PATCH", "/v1/tickets/t2", consumer="admin", json_body=values)
    assert list(changed.violations()) == [field]
    batch = {"tickets": [{"ticketId": "t8"}, record]}
    reply = tickets.request("POST", "/v1/tickets:batchUpsert", consumer="admin", json_body=batch)
    assert list(reply.violations()) == [f"tickets[1].{field}"]
    imported = import_(tickets, "NDJSON", json.dumps(record).encode())
    assert list(imported.violations()) == [f"rows[1].{field}"]
    if field == "subject":
        file = f"ticket_id,subject\nt8,fine\nt9,{values['subject']}\n".encode()
        assert list(import_(tickets, "CSV", file).violations()) == ["rows[2].subject"]
    assert tickets.get("/v1/tickets/t9").status == tickets.get("/v1/tickets/t8").status == 404


def test_the_command_line_and_grpc_know_it(tickets: RunningHub) -> None:
    got = json.loads(tickets.command("get", "tickets", "t1").stdout)
    assert (got["u64"], got["desk"]["code"]) == (FULL["u64"], "4711")
    exported = tickets.command("export", "tickets", "--format", "ndjson").stdout
    assert exported == export(tickets, "NDJSON")
    again = tickets.command("import", "tickets", "-", "--format", "ndjson", input=exported)
    assert b"2 unchanged" in again.stdout
    shown = tickets.command("datasets").stdout.decode()
    assert "tickets" in shown and "Tickets" in shown
    with grpc.insecure_channel(f"127.0.0.1:{tickets.port}") as channel:
        call: Any = channel.unary_unary("/penstock.api.v1.Tickets/GetTicket")
        # ticket_id = 1 and fields = 2, as in every Get.
        raw = call(b"\n\x02t1\x12\x07subject", metadata=tickets.metadata("admin"))
    assert FULL["subject"].encode() in raw


@pytest.mark.parametrize("consumer", ["crm", "bi"])
def test_who_has_no_grant_gets_nothing_of_it(tickets: RunningHub, consumer: str) -> None:
    for reply in (
        tickets.get("/v1/tickets", consumer),
        tickets.get("/v1/tickets/t1", consumer),
        tickets.get("/v1/tickets/absent", consumer),
        tickets.get("/v1/tickets:export", consumer, format="CSV"),
        tickets.get("/v1/tickets:exportPage", consumer, filter="nothing"),
        tickets.request("DELETE", "/v1/tickets/t1", consumer=consumer),
        import_(tickets, "CSV", b"ticket_id\nt9\n", consumer),
    ):
        assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED"), reply.text
    seen = tickets.get("/v1/datasets", consumer).json()["datasets"]
    assert "tickets" not in {d["name"] for d in seen}


def test_its_model_changes(workshop: Workshop, tickets: RunningHub) -> None:
    """New fields are added automatically; a change that could lose values needs a command."""
    tickets.stop()
    place = "  // The system the record came from."
    added = "  // Later.\n  optional string remark = 24;\n  // Too.\n  bool urgent = 25;\n\n"
    more = TICKETS.replace(place, added + place)
    workshop.generate({"tickets": more})
    tickets.start()
    assert FULL.items() <= tickets.get("/v1/tickets/t1").json().items()
    changed = tickets.request(
        "PATCH", "/v1/tickets/t1", consumer="admin", json_body={"remark": "r", "urgent": True}
    )
    assert (changed.json()["remark"], changed.json()["urgent"]) == ("r", True)
    before = export(tickets, "NDJSON")
    place = tickets.get("/v1/tickets:changes", consumer="admin").json()["nextCursor"]
    tickets.request("PATCH", "/v1/tickets/t1", consumer="admin", json_body={"remark": "s"})
    tickets.request("PATCH", "/v1/tickets/t1", consumer="admin", json_body={"remark": "r"})
    # While the hub runs.
    assert "as the model wants it" in tickets.command("migrate").stdout.decode()
    tickets.stop()

    other = more.replace("  int32 i32 = 6;", "  string i32 = 6;")
    workshop.generate({"tickets": other})
    said = workshop.refused()
    assert "penstock migrate" in said and "tickets.i32" in said
    assert "Traceback" not in said
    shown = tickets.command("migrate").stdout.decode()
    assert "caution" in shown
    assert "tickets.i32 changes from int32 to string: 2 values are converted" in shown
    assert "the change log up to now is closed" in shown
    assert "nothing was changed; apply with: penstock migrate --apply" in shown
    applied = tickets.command("migrate", "--apply").stdout.decode()
    assert "2 changes applied" in applied
    tickets.start()
    after = [json.loads(line) for line in export(tickets, "NDJSON").splitlines()]
    expected = [json.loads(line) for line in before.splitlines()]
    for record in expected:
        record["i32"] = str(record["i32"])
    assert [without_version(r) for r in after] == [without_version(r) for r in expected]
    # Feeds report it: old images cannot be read with the current model.
    gone = tickets.get("/v1/tickets:changes", consumer="admin", cursor=place)
    assert (gone.status, gone.reason) == (400, "CURSOR_EXPIRED"), gone.text
    tickets.head()  # so that nothing written so far comes after the cursor
    now = tickets.get("/v1/tickets:changes", consumer="admin").json()["nextCursor"]
    tickets.request("PATCH", "/v1/tickets/t1", consumer="admin", json_body={"i32": "ten"})
    # The log returns a write once it has a number: a poll without a wait may come too early.
    told = tickets.get("/v1/tickets:changes", consumer="admin", cursor=now, wait="30s")
    [change] = told.json()["changes"]
    assert change["after"]["i32"] == "ten", change


def without_version(record: dict[str, Any]) -> dict[str, Any]:
    """A record without the fields that every write changes."""
    return {name: value for name, value in record.items() if name not in ("updateTime", "etag")}
