"""Files that cannot be imported: the error names the fault, and nothing is loaded."""

from __future__ import annotations

import hashlib
import json
import socket
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from harness import PATIENCE, RunningHub, eventually, new_customer

from .test_bad_input import import_


@pytest.mark.usefixtures("unchanged")
def test_row_70000_is_named_and_nothing_is_loaded(hub: RunningHub) -> None:
    lines = ["customer_id,name,credit_limit,birth_date"]
    lines += [f"row-{i},Name {i},{i}.50,2000-01-01" for i in range(1, 80_001)]
    assert lines[70_000].startswith("row-70000,")
    lines[70_000] = "row-70000,Name,twelve,2000-01-01"
    reply = import_(hub, "\n".join(lines).encode())
    assert (reply.status, reply.reason) == (400, "IMPORT_ROW_INVALID")
    assert list(reply.violations()) == ["rows[70000].credit_limit"]
    assert "number" in reply.violations()["rows[70000].credit_limit"]
    assert "nothing was loaded" in reply.json()["message"]
    assert reply.json()["details"][0]["metadata"] == {"bad_rows": "1"}


@pytest.mark.usefixtures("unchanged")
def test_of_many_bad_rows_a_hundred_are_named_and_all_are_counted(hub: RunningHub) -> None:
    lines = ["customer_id,credit_limit"] + [f"bad-{i},x" for i in range(12_345)]
    reply = import_(hub, "\n".join(lines).encode())
    assert reply.reason == "IMPORT_ROW_INVALID"
    assert len(reply.violations()) == 100
    assert reply.json()["details"][0]["metadata"] == {"bad_rows": "12345"}


def cut_upload(hub: RunningHub, pieces: list[bytes], *, reset: bool) -> None:
    """Send pieces of a chunked upload but never its end."""
    head = (
        "POST /v1/customers:import?format=CSV HTTP/1.1\r\nhost: hub\r\n"
        f"authorization: Bearer {hub.token('admin')}\r\n"
        "content-type: text/csv\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", hub.port), timeout=PATIENCE) as connection:
        connection.sendall(head.encode())
        for piece in pieces:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        # The hub must have the pieces before the connection ends, or the test shows nothing.
        eventually(lambda: hub.sql(_WRITING)[0][0] > 0)
        if reset:
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


_WRITING = """
SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
"""

_IMPORTS_SINCE = """
SELECT outcome FROM hub.audit_entry WHERE method LIKE '%/ImportCustomers' AND entry_id > $1
"""


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.usefixtures("unchanged")
def test_a_truncated_upload_loads_nothing(hub: RunningHub, reset: bool) -> None:
    """The upload is cut at the end of a row, where the part received looks like a whole file."""
    key = new_customer()["customerId"]
    rows = "".join(f"{key}-{i},Name\n" for i in range(30_000)).encode()
    before = hub.sql("SELECT max(entry_id) FROM hub.audit_entry")[0][0]
    cut_upload(hub, [b"customer_id,name\n", rows], reset=reset)
    outcomes = eventually(lambda: hub.sql(_IMPORTS_SINCE, before))
    eventually(lambda: hub.sql(_WRITING)[0][0] == 0)
    assert len(outcomes) == 1 and outcomes != [("OK",)]
    assert hub.get(f"/v1/customers/{key}-0").status == 404


@pytest.mark.parametrize("wrong", ["byteCount", "sha256"])
@pytest.mark.usefixtures("unchanged")
def test_an_upload_that_differs_from_what_is_said_of_it_loads_nothing(
    hub: RunningHub, wrong: str
) -> None:
    body = b"customer_id,name\nwhole-1,Name\n"
    right = {"byteCount": len(body), "sha256": b64encode(hashlib.sha256(body).digest()).decode()}
    other = {"byteCount": len(body) + 9, "sha256": b64encode(bytes(32)).decode()}
    said = right | {wrong: other[wrong]}
    query: dict[str, Any] = {f"complete.{name}": value for name, value in said.items()}
    reply = import_(hub, body, "CSV", **query)
    assert (reply.status, reply.reason) == (400, "IMPORT_TRUNCATED"), reply.text
    assert "complete" in reply.json()["message"]


@pytest.mark.usefixtures("unchanged")
def test_an_upload_that_is_as_it_is_said_to_be_is_taken(hub: RunningHub) -> None:
    body = b"customer_id,name\nwhole-1,Name\n"
    digest = b64encode(hashlib.sha256(body).digest()).decode()
    said: dict[str, Any] = {"complete.byteCount": len(body), "complete.sha256": digest}
    reply = import_(hub, body, "CSV", validate_only="true", **said)
    assert reply.status == 200 and reply.json()["createdCount"] == "1", reply.text


@pytest.mark.parametrize(
    ("body", "name", "reason", "text"),
    [
        (b"", "CSV", "IMPORT_FORMAT_INVALID", "empty"),
        (b"name\nx\n", "CSV", "IMPORT_FORMAT_INVALID", "lacks the key column 'customer_id'"),
        (b"customer_id,nothing\nx,y\n", "CSV", "IMPORT_FORMAT_INVALID", "unknown column 'nothing'"),
        (b"customer_id,name,name\nx,y,z\n", "CSV", "IMPORT_FORMAT_INVALID", "'name' twice"),
        (b'customer_id,name\nx,"y\n', "CSV", "IMPORT_TRUNCATED", "row 1"),
        (b'customer_id,name\nx,y"z\n', "CSV", "IMPORT_FORMAT_INVALID", "row 1"),
        (b"customer_id\n" + b"x" * (2 << 20), "CSV", "IMPORT_FORMAT_INVALID", "longer than 1 MiB"),
        (b"\x00\x01\x02", "CSV", "IMPORT_FORMAT_INVALID", "column"),
        (b"\xff\xfec\x00", "CSV", "IMPORT_FORMAT_INVALID", "unknown column 'c'"),
        (b"\xff\xfec", "CSV", "IMPORT_TRUNCATED", "UTF-16"),
        (b"\xff\xfe\x00\xdcc\x00", "CSV", "IMPORT_FORMAT_INVALID", "UTF-16"),
        (b"\xffc", "CSV", "IMPORT_FORMAT_INVALID", "UTF-8"),
        (b"[", "JSON", "IMPORT_TRUNCATED", "end"),
        (b'[{"customerId": "x"}', "JSON", "IMPORT_TRUNCATED", "end"),
        (b'{"customerId": "x"}', "JSON", "IMPORT_FORMAT_INVALID", "array"),
        (b'[{"customerId": "x"}] x', "JSON", "IMPORT_FORMAT_INVALID", "follows"),
        (b",".join([b"customer_id"] + [b"c%d" % i for i in range(20_000)]) + b"\n", "CSV",
         "IMPORT_FORMAT_INVALID", "more than 10000 columns"),
    ],
    ids=lambda v: str(v)[:30],
)  # fmt: skip
@pytest.mark.usefixtures("unchanged")
def test_a_file_that_cannot_be_read(
    hub: RunningHub, body: bytes, name: str, reason: str, text: str
) -> None:
    reply = import_(hub, body, name)
    assert (reply.status, reply.reason) == (400, reason), reply.text
    assert text in reply.json()["message"]


@pytest.mark.parametrize(
    ("row", "name", "field"),
    [
        (b"{key}", "CSV", ""),
        (b"{key},x,y,z", "CSV", ""),
        (b"{key},\xff,", "CSV", ".name"),
        (b"{key},a\x00b,", "CSV", ".name"),
        (b"{key},a\x1db\x1e\x1f,", "CSV", ".name"),
        (b"{key},x,NaN", "CSV", ".credit_limit"),
        (b"{key},x,1e5", "CSV", ".credit_limit"),
        (b"..,x,", "CSV", ".customer_id"),
        (b",x,", "CSV", ".customer_id"),
        (b'{"customerId": "{key}", "nothing": 1}', "NDJSON", ".nothing"),
        (b'{"customerId": "{key}", "name": "\\ud800"}', "NDJSON", ""),
        (b'{"customerId": "{key}", "name": "a\\u0000b"}', "NDJSON", ".name"),
        (b'{"customerId": "{key}", "name": {"a": 1}}', "NDJSON", ".name"),
        (b'{"customerId": "{key}", "creditLimit": NaN}', "NDJSON", ""),
        (b'{"customerId": "{key}", "creditLimit": 1e999}', "NDJSON", ""),
        (b'{"customerId": "{key}", "birthDate": 7}', "NDJSON", ".birth_date"),
        (b'{"customerId": "{key}"', "NDJSON", ""),
        (b'["{key}"]', "NDJSON", ""),
        (b'{"name": "x"}', "NDJSON", ".customer_id"),
        (b'{"customerId": null}', "NDJSON", ".customer_id"),
        (b"[" * 100_000, "NDJSON", ""),
        (b'{"customerId": "{key}", "tags": ' + b"[" * 100_000 + b"]" * 100_000, "NDJSON", None),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "NDJSON", None),
        (b'{"customerId": "{key}", "creditLimit": ' + b"9" * 500_000 + b"}", "NDJSON", None),
    ],
    ids=lambda v: str(v)[:40],
)  # fmt: skip
@pytest.mark.usefixtures("unchanged")
def test_a_poisoned_row_is_named(hub: RunningHub, row: bytes, name: str, field: str | None) -> None:
    key = new_customer()["customerId"].encode()
    if name == "CSV":
        body = b"customer_id,name,credit_limit\n" + key + b"-1,fine,1\n"
    else:
        body = json.dumps({"customerId": f"{key.decode()}-1", "name": "fine"}).encode() + b"\n"
    body += row.replace(b"{key}", key + b"-2") + b"\n"
    reply = import_(hub, body, name)
    assert (reply.status, reply.reason) == (400, "IMPORT_ROW_INVALID"), reply.text[:300]
    found = next(iter(reply.violations()))
    assert found.startswith("rows[2]") if field is None else found == f"rows[2]{field}"
    assert len(reply.body) < 3000
    assert hub.request("GET", "/healthz").status == 200


@pytest.mark.parametrize("apart", [1, 15_000])
@pytest.mark.usefixtures("unchanged")
def test_a_key_twice_in_a_file_is_refused(hub: RunningHub, apart: int) -> None:
    """Both within one batch of the merge and across two."""
    key = new_customer()["customerId"]
    rows = [f"{key}-{i},x" for i in range(apart)]
    body = "\n".join(["customer_id,name", *rows, f"{key}-0,y", f"{key}-z,z"])
    reply = import_(hub, body.encode())
    assert (reply.status, reply.reason) == (400, "IMPORT_ROW_INVALID"), reply.text
    assert list(reply.violations()) == [f"rows[{apart + 1}].customer_id"]
    assert "twice" in reply.text


def make_csv(key: str, mark: bytes) -> bytes:
    return mark + f"customer_id,name\r\n{key},Naïve\r\n".encode()


def make_ndjson(key: str, mark: bytes) -> bytes:
    return mark + json.dumps({"customerId": key, "name": "Naïve"}).encode()


@pytest.mark.parametrize(("name", "make"), [("CSV", make_csv), ("NDJSON", make_ndjson)])
def test_a_byte_order_mark_is_no_part_of_the_data(
    hub: RunningHub, name: str, make: Callable[[str, bytes], bytes]
) -> None:
    key = new_customer()["customerId"]
    reply = import_(hub, make(key, b"\xef\xbb\xbf"), name)
    assert reply.json() == {"rowCount": "1", "createdCount": "1"}, reply.text
    assert hub.get(f"/v1/customers/{key}").json()["name"] == "Naïve"


def test_files_that_look_odd_and_are_right(hub: RunningHub) -> None:
    key = new_customer()["customerId"]
    body = f'name,"customer_id",etag,notes\r\n\r\n"a\n""b""",{key},999,\r\n" ",{key}-2,,""'
    assert import_(hub, body.encode()).json() == {"rowCount": "2", "createdCount": "2"}
    first, second = (hub.get(f"/v1/customers/{k}").json() for k in (key, f"{key}-2"))
    assert first["name"] == 'a\n"b"' and first["notes"] is None and first["etag"] != "999"
    assert second["notes"] == "" and second["name"] == " "
    assert import_(hub, b"customer_id,name\n").json() == {}
    assert import_(hub, b"[]", "JSON").json() == {}
    assert import_(hub, b"\n\n", "NDJSON").json() == {}


def test_a_long_value_within_the_limits_is_kept_whole(hub: RunningHub) -> None:
    long = "ä" * 400_000
    record = new_customer(notes=long)
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    assert reply.status == 200, reply.text[:300]
    path = f"/v1/customers/{record['customerId']}"
    assert hub.get(path).json()["notes"] == long
    query = {"filter": f'customer_id = "{record["customerId"]}"', "format": "NDJSON"}
    exported = hub.get("/v1/customers:export", **query)
    assert json.loads(exported.body)["notes"] == long
    assert import_(hub, exported.body, "NDJSON").json() == {"rowCount": "1", "unchangedCount": "1"}
    assert hub.request("DELETE", path, consumer="admin").status == 200
