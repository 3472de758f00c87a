"""What an export states about itself: in headers, in trailers, in the file, and by its id."""

from __future__ import annotations

import hashlib
import json
import socket
import xml.etree.ElementTree as ET
from datetime import datetime
from typing import Any

import grpc
import pytest

from harness import PATIENCE, Reply, RunningHub
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from penstock.hub.v1 import receipts_pb2
from penstockd.formats import WRITERS
from places import PLACES


def export(hub: RunningHub, consumer: str = "admin", **query: object) -> Reply:
    reply = hub.get("/v1/customers:export", consumer, **query)
    assert reply.status == 200, reply.text
    return reply


def receipt(hub: RunningHub, reply: Reply, consumer: str = "admin") -> Any:
    found = hub.get(f"/v1/receipts/{reply.headers['penstock-receipt']}", consumer)
    assert found.status == 200, found.text
    return found.json()


@pytest.mark.parametrize("consumer", ["admin", "crm", "bi"])
@pytest.mark.parametrize("name", ["CSV", "JSON", "NDJSON", "XML"])
def test_the_receipt_is_that_of_the_file(hub: RunningHub, name: str, consumer: str) -> None:
    reply = export(hub, consumer, format=name)
    found = receipt(hub, reply, consumer)
    rows = len(export(hub, consumer, format="CSV", fields="customer_id").body.splitlines()) - 1
    assert found["sha256"] == hashlib.sha256(reply.body).hexdigest()
    assert (found["byteCount"], found["rowCount"]) == (str(len(reply.body)), str(rows))
    assert (found["state"], found["consumerId"], found["format"]) == ("COMPLETE", consumer, name)
    assert (found["dataset"], found["requestId"]) == ("customers", reply.request_id)
    assert found["startTime"] <= found["finishTime"]
    PLACES.open(found["cursor"])
    (revision,) = hub.sql("SELECT revision FROM hub.policy")[0]
    assert found["policyRevision"] == str(revision)


def test_ndjson_and_xml_end_with_it(hub: RunningHub) -> None:
    for name in ("NDJSON", "XML"):
        reply = export(hub, format=name, limit=3, receipt="inline")
        whole = export(hub, format=name, limit=3).body
        body, tail = reply.body[: len(whole)], reply.body[len(whole) :]
        assert body == whole
        if name == "NDJSON":
            document = json.loads(tail)["@receipt"]
        else:
            assert len(ET.fromstring(reply.body)) == 3  # well-formed, and not a record
            text = tail.decode().strip()
            assert text.startswith("<!-- penstock-receipt ") and text.endswith(" -->")
            document = json.loads(text[len("<!-- penstock-receipt ") : -len(" -->")])
        found = receipt(hub, reply)
        assert document.items() <= found.items()
        assert document.keys() >= {"sha256", "rowCount", "byteCount", "cursor", "state"}
        assert found["sha256"] == hashlib.sha256(whole).hexdigest()


def test_a_file_holds_records_only_unless_it_is_asked_for_its_receipt(hub: RunningHub) -> None:
    plain = export(hub, format="NDJSON", limit=3).body
    assert len(plain.splitlines()) == 3 and b"@receipt" not in plain
    # Deprecated: the parameter asks for the default.
    assert export(hub, format="NDJSON", limit=3, omit_receipt="true").body == plain
    refused = hub.get("/v1/customers:export", format="NDJSON", receipt="outline")
    assert (refused.status, refused.violations()) == (
        400,
        {"receipt": "must be inline, or left out"},
    )


def test_csv_for_spreadsheets_begins_with_the_mark_of_utf_8(hub: RunningHub) -> None:
    def begins(**query: str) -> bool:
        for path in ("/v1/customers:export", "/v1/customers:exportPage"):
            reply = hub.get(path, format="CSV", fields="name", **query)
            assert reply.status == 200, reply.text
            found.add(reply.body.startswith(b"\xef\xbb\xbf"))
        (both,) = found
        found.clear()
        return both

    found = set[bool]()
    assert not begins()
    assert begins(bom="true")
    assert begins(spreadsheet_safe="true")
    assert not begins(spreadsheet_safe="true", bom="false")
    reply = hub.get("/v1/customers:export", format="NDJSON", bom="true")
    assert reply.violations() == {"bom": "is for CSV alone"}
    # Such a file can be imported.
    marked = hub.get("/v1/customers:export", format="CSV", bom="true", limit=2).body
    sent = {"content-type": "text/csv"}
    done = hub.request("POST", "/v1/customers:import", consumer="admin", body=marked, headers=sent)
    assert done.status == 200 and done.json()["unchangedCount"] == "2", done.text


def test_trailers_of_grpc(hub: RunningHub) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        stub = CustomersStub(channel)
        request = api.StreamExportCustomersRequest(format="CSV", limit=7)
        call = stub.StreamExportCustomers(request, metadata=hub.metadata("bi"))
        data = b"".join(body.data for body in call)
        headers, trailers = dict(call.initial_metadata()), dict(call.trailing_metadata())
    serialized: Any = trailers["penstock-receipt-bin"]
    found = receipts_pb2.Receipt.FromString(serialized)
    assert headers["penstock-receipt"] == found.receipt_id
    assert found.state == receipts_pb2.Receipt.COMPLETE
    assert (found.row_count, found.byte_count) == (7, len(data))
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    readable = {n: trailers[f"penstock-receipt-{n}"] for n in ("state", "rows", "bytes", "sha256")}
    assert readable == {
        "state": "COMPLETE",
        "rows": "7",
        "bytes": str(len(data)),
        "sha256": found.sha256,
    }
    assert trailers["penstock-receipt-cursor"] == found.cursor


def test_trailers_of_http_1(hub: RunningHub) -> None:
    request = (
        "GET /v1/customers:export?format=CSV&limit=2 HTTP/1.1\r\nhost: hub\r\nte: trailers\r\n"
        f"connection: close\r\nauthorization: Bearer {hub.token('crm')}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", hub.port), timeout=PATIENCE) as connection:
        connection.sendall(request.encode())
        text = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
    trailers = dict(
        line.split(": ", 1) for line in text.rpartition("\r\n0\r\n")[2].split("\r\n")[:-2]
    )
    assert trailers["penstock-receipt-state"] == "COMPLETE"
    assert trailers["penstock-receipt-rows"] == "2"
    assert len(trailers["penstock-receipt-sha256"]) == 64


def test_a_page_has_its_digest_in_the_headers(hub: RunningHub) -> None:
    reply = hub.get("/v1/customers:exportPage", "bi", format="CSV", page_size=5)
    assert reply.headers["penstock-receipt-rows"] == "5"
    assert reply.headers["penstock-receipt-bytes"] == str(len(reply.body))
    assert reply.headers["penstock-receipt-sha256"] == hashlib.sha256(reply.body).hexdigest()


def test_a_receipt_is_for_who_made_the_export_and_for_auditors(hub: RunningHub) -> None:
    reply = export(hub, "crm", limit=1)
    identifier = reply.headers["penstock-receipt"]
    assert receipt(hub, reply, "crm") == receipt(hub, reply, "admin")
    foreign = hub.get(f"/v1/receipts/{identifier}", "bi")
    absent = hub.get("/v1/receipts/r0", "bi")
    for refused, name in ((foreign, identifier), (absent, "r0")):
        assert (refused.status, refused.reason) == (404, "RECEIPT_NOT_FOUND")
        assert refused.json()["message"] == f"there is no receipt '{name}'"
    assert hub.request("GET", f"/v1/receipts/{identifier}").status == 401
    # A query parameter cannot name another export.
    other = hub.get(f"/v1/receipts/{identifier}", "bi", receipt_id="r0")
    assert (other.status, list(other.violations())) == (400, ["receipt_id"])


def test_an_empty_export_has_a_receipt_too(hub: RunningHub) -> None:
    for name in ("CSV", "NDJSON", "JSON", "XML"):
        reply = export(hub, format=name, filter='name = "nobody"')
        found = receipt(hub, reply)
        assert found["state"] == "COMPLETE" and "rowCount" not in found
        assert found["sha256"] == hashlib.sha256(reply.body).hexdigest()
        full = export(hub, format=name, limit=1)
        assert reply.headers["content-type"] == full.headers["content-type"]


def test_what_is_refused_at_once_leaves_no_receipt(hub: RunningHub) -> None:
    for query in ({"filter": "name ="}, {"format": "PDF"}, {"resume_receipt": "r0"}):
        reply = hub.get("/v1/customers:export", "bi", **query)
        assert reply.status in (400, 404) and "penstock-receipt" not in reply.headers
        assert hub.sql("SELECT FROM hub.receipt WHERE request_id = $1", reply.request_id) == []


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_receipt_says_what_the_format_cannot_hold(hub: RunningHub, name: str) -> None:
    found = receipt(hub, export(hub, format=name, limit=1))
    assert ("binary numbers of days" in found.get("loss", "")) == (name == "XLSX")


def test_a_receipt_counts_the_cells_that_do_not_hold_their_values(hub: RunningHub) -> None:
    query: dict[str, Any] = {"fields": "customer_id,create_time", "limit": 20}
    lines = export(hub, format="CSV", **query).body.decode().splitlines()[1:]
    times = [datetime.fromisoformat(line.partition(",")[2]) for line in lines]
    count = sum(t.microsecond % 1000 != 0 for t in times)
    for name in ("XLSX", "CSV"):  # CSV is the control: it holds all of a time
        wanted = [{"name": "create_time", "cellCount": str(count)}] if count else []
        found = receipt(hub, export(hub, format=name, **query))
        assert found.get("lossyColumns", []) == (wanted if name == "XLSX" else [])
