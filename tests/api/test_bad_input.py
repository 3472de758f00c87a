"""Bad input gets a clear error, and nothing is lost or half done."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest

from harness import Reply, RunningHub, eventually, new_customer

UNKNOWN = 400, "FIELD_UNKNOWN"


def import_(hub: RunningHub, body: bytes, name: str = "CSV", dataset: str = "customers") -> Reply:
    headers = {"content-type": "application/octet-stream"}
    path = f"/v1/{dataset}:import?format={name}"
    return hub.request("POST", path, consumer="admin", body=body, headers=headers)


def create(hub: RunningHub, dataset: str = "customers", **values: Any) -> Reply:
    record = new_customer(**values) if dataset == "customers" else values
    return hub.request("POST", f"/v1/{dataset}", consumer="admin", json_body=record)


def count(hub: RunningHub, dataset: str = "customers") -> int:
    return int(hub.sql(f"SELECT count(*) FROM data.{dataset}")[0][0])


@pytest.fixture
def unchanged(hub: RunningHub) -> Any:
    """Nothing is loaded and nothing logged by what the test does."""
    before = count(hub), hub.head()
    yield
    assert (count(hub), hub.head()) == before


# --- queries ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query", [{"filter": 'nothing = "x"'}, {"order_by": "nothing"}, {"fields": "nothing"}]
)
@pytest.mark.parametrize(
    "path", ["/v1/customers", "/v1/customers:export", "/v1/customers:exportPage"]
)
def test_an_unknown_field(hub: RunningHub, path: str, query: dict[str, str]) -> None:
    reply = hub.get(path, **query)
    assert (reply.status, reply.reason) == UNKNOWN
    assert "unknown field 'nothing' (at character 1)" in reply.json()["message"]


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("name =", 7),
        ("name = 'x", 8),
        ('name = "x" AND', 15),
        ('(name = "x"', 12),
        ("status = NOTHING", 10),
        ("credit_limit > one", 16),
        ("credit_limit > NaN", 16),
        ('birth_date = "2001-02-29"', 14),
        ('tags = "x"', 1),
        ('fun("x")', 1),
        ('name = "x" ) ', 12),
        ("marketing_opt_in > true", 1),
        ("a." * 2000 + 'b = "x"', None),
        ("(" * 100 + 'name = "x"' + ")" * 100, None),
        ('name = "' + "x" * 5000 + '"', None),
    ],
)  # fmt: skip
def test_a_malformed_filter_says_why_and_where(
    hub: RunningHub, text: str, position: int | None
) -> None:
    reply = hub.get("/v1/customers", filter=text)
    assert reply.status == 400
    assert reply.reason in ("FILTER_INVALID", "FIELD_UNKNOWN")
    if position is not None:
        assert f"(at character {position})" in reply.json()["message"]
    again = hub.get("/v1/customers:export", filter=text)
    assert (again.status, again.json()["message"]) == (400, reply.json()["message"])


def test_no_filter_makes_the_hub_fail(hub: RunningHub) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    pieces = ["name", "status", "tags", "birth_date", "credit_limit", "billing_address", "=", "!=",
              "<", ":", "AND", "OR", "NOT", "-", "(", ")", '"x"', "'", '"', "*", "1", "-1e9", "\\",
              "ACTIVE", "true", ".", ",", "\t", "é", "$1", "%s", ":p", ";--", "9" * 40]  # fmt: skip
    outcomes = set()
    for _ in range(150):
        text = " ".join(chance.choices(pieces, k=chance.randint(1, 7)))
        reply = hub.get("/v1/customers", filter=text, page_size=1)
        assert reply.status in (200, 400), (text, reply.text)
        outcomes.add(reply.status)
    assert outcomes == {200, 400}


@pytest.fixture(scope="module")
def token(hub: RunningHub) -> str:
    page = hub.get("/v1/customers", page_size=2, filter="status = ACTIVE")
    return str(page.json()["nextPageToken"])


def test_a_page_token_is_good_for_its_query_alone(hub: RunningHub, token: str) -> None:
    query = {"page_size": 2, "filter": "status = ACTIVE"}
    assert hub.get("/v1/customers", page_token=token, **query).status == 200
    assert hub.get("/v1/customers", page_token=token, **{**query, "page_size": 3}).status == 200
    flipped = token[:-3] + ("A" if token[-3] != "A" else "B") + token[-2:]
    replies = [
        hub.get("/v1/customers", page_token=token, page_size=2),
        hub.get("/v1/customers", page_token=token, **{**query, "order_by": "name"}),
        hub.get("/v1/customers", page_token=token, **{**query, "fields": "name"}),
        hub.get("/v1/contacts", page_token=token, page_size=2),
        hub.get("/v1/customers", "crm", page_token=token, **query),
        hub.get("/v1/customers", "bi", page_token=token, **query),
        hub.get("/v1/customers", page_token=flipped, **query),
        hub.get("/v1/customers", page_token=token[:-1], **query),
        hub.get("/v1/customers", page_token=token + "A", **query),
        hub.get("/v1/customers", page_token="x" * 5000, **query),
        hub.get("/v1/customers", page_token="é\x00", **query),
        hub.get("/v1/customers:exportPage", page_token=token, page_size=2),
    ]
    for reply in replies:
        assert (reply.status, reply.reason) == (400, "PAGE_TOKEN_INVALID"), reply.text
        assert "customers" not in reply.json()


@pytest.mark.parametrize("path", [":export", ":exportPage"])
def test_an_unknown_format_lists_those_there_are(hub: RunningHub, path: str) -> None:
    reply = hub.get(f"/v1/customers{path}", format="YAML")
    assert (reply.status, reply.reason) == (400, "FORMAT_UNKNOWN")
    message = "unknown format 'YAML': choose one of JSON, NDJSON, CSV, XML"
    assert reply.json()["message"] == message


@pytest.mark.parametrize("name", ["YAML", "XML"])
@pytest.mark.usefixtures("unchanged")
def test_an_unknown_format_of_an_import(hub: RunningHub, name: str) -> None:
    reply = import_(hub, b"customer_id\nx\n", name)
    assert (reply.status, reply.reason) == (400, "FORMAT_UNKNOWN")
    assert "choose one of JSON, NDJSON, CSV" in reply.json()["message"]


def test_missing_credentials_whatever_is_asked(hub: RunningHub) -> None:
    for method, path in [
        ("GET", "/v1/customers"),
        ("GET", "/v1/customers/c00000001"),
        ("GET", "/v1/customers:export"),
        ("GET", "/v1/datasets"),
        ("DELETE", "/v1/customers/c00000001"),
    ]:
        reply = hub.request(method, path)
        assert (reply.status, reply.reason) == (401, "UNAUTHENTICATED")
        assert "a bearer token or an API key" in reply.json()["message"]
    assert hub.get("/v1/customers/c00000001").status == 200


def test_a_limit_that_is_none(hub: RunningHub) -> None:
    assert hub.get("/v1/customers:export", limit=-1).reason == "VALUE_INVALID"
    for value in ("one", 2**63, 1.5):
        assert hub.get("/v1/customers:export", limit=value).status == 400
    for value in ("one", 2**31, "-"):
        assert hub.get("/v1/customers", page_size=value).status == 400


# --- values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"creditLimit": "NaN"}, "credit_limit"),
        ({"creditLimit": "Infinity"}, "credit_limit"),
        ({"creditLimit": "1e3"}, "credit_limit"),
        ({"creditLimit": ""}, "credit_limit"),
        ({"creditLimit": "1.00001"}, "credit_limit"),
        ({"creditLimit": "1234567890123456789"}, "credit_limit"),
        ({"creditLimit": "9" * 100_000}, "credit_limit"),
        ({"creditLimit": "١٢"}, "credit_limit"),
        ({"birthDate": "2001-02-29"}, "birth_date"),
        ({"birthDate": "01/02/2001"}, "birth_date"),
        ({"birthDate": "0000-01-01"}, "birth_date"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "a\x01b"}, "name"),
        ({"name": "\x7f\x1b[31m"}, "name"),
        ({"tags": ["fine", "\x02"]}, "tags"),
        ({"billingAddress": {"city": "\x03"}}, "billing_address.city"),
        ({"kind": 77}, "kind"),
        ({"customerId": "a/b"}, "customer_id"),
        ({"customerId": ""}, "customer_id"),
        ({"customerId": "."}, "customer_id"),
        ({"customerId": ".."}, "customer_id"),
        ({"customerId": "a\nb"}, "customer_id"),
        ({"customerId": "k" * 513}, "customer_id"),
        ({"customerId": "é" * 257}, "customer_id"),
    ],
    ids=lambda v: str(v)[:40],
)
@pytest.mark.usefixtures("unchanged")
def test_a_value_that_its_field_does_not_take(
    hub: RunningHub, values: dict[str, Any], field: str
) -> None:
    reply = create(hub, **values)
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID"), reply.text
    assert list(reply.violations()) == [field]
    assert len(reply.body) < 2000
    line = json.dumps(new_customer(**values)).encode()
    reply = import_(hub, line, "NDJSON")
    assert (reply.status, reply.reason) == (400, "IMPORT_ROW_INVALID"), reply.text
    assert list(reply.violations()) == [f"rows[1].{field}"]


@pytest.mark.parametrize("values", [{"kind": "NOTHING"}, {"name": 7}, {"billingAddress": 1}])
@pytest.mark.usefixtures("unchanged")
def test_json_of_another_type(hub: RunningHub, values: dict[str, Any]) -> None:
    assert create(hub, **values).status == 400
    reply = import_(hub, json.dumps(new_customer(**values)).encode(), "NDJSON")
    assert (reply.status, reply.reason) == (400, "IMPORT_ROW_INVALID")


@pytest.mark.parametrize(
    "value", [2**63, "-9223372036854775809", "9223372036854775808", 1.5, "NaN", 1e300]
)
def test_whole_numbers_beyond_64_bits(hub: RunningHub, value: Any) -> None:
    key = new_customer()["customerId"]
    assert create(hub, "products", productId=key, unitsInStock=value).status == 400
    line = json.dumps({"productId": key, "unitsInStock": value}).encode()
    reply = import_(hub, line, "NDJSON", "products")
    assert list(reply.violations()) == ["rows[1].units_in_stock"]
    table = f"product_id,units_in_stock\n{key},{value}\n".encode()
    reply = import_(hub, table, "CSV", "products")
    assert list(reply.violations()) == ["rows[1].units_in_stock"]
    assert hub.get(f"/v1/products/{key}").status == 404


def test_whole_numbers_at_the_limits_of_64_bits(hub: RunningHub) -> None:
    for value in (2**63 - 1, -(2**63), 2**53 + 1):
        key = new_customer()["customerId"]
        made = create(hub, "products", productId=key, unitsInStock=str(value))
        assert made.json()["unitsInStock"] == str(value)


def test_a_key_may_hold_what_a_path_has_to_escape(hub: RunningHub) -> None:
    for key in ("a b", "ü?&=#%", "...", "a:b", "50%25", "a+b", "~'\"<>"):
        assert create(hub, customerId=key).status in (200, 409)
        escaped = "".join(f"%{byte:02X}" for byte in key.encode())
        reply = hub.get(f"/v1/customers/{escaped}")
        assert reply.status == 200, (key, reply.text)
        assert reply.json()["customerId"] == key
        assert hub.request("DELETE", f"/v1/customers/{escaped}", consumer="admin").status == 200


def test_a_key_with_a_slash_is_not_found(hub: RunningHub) -> None:
    for key in ("a%2Fb", "a%2fb", "%2F", "a%00b"):
        reply = hub.get(f"/v1/customers/{key}")
        assert reply.status in (400, 404), reply.text


# --- imports ----------------------------------------------------------------------------


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
    """Send pieces of a chunked upload whose end never comes."""
    head = (
        "POST /v1/customers:import?format=CSV HTTP/1.1\r\nhost: hub\r\n"
        f"authorization: Bearer {hub.token('admin')}\r\n"
        "content-type: text/csv\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", hub.port), timeout=30) as connection:
        connection.sendall(head.encode())
        for piece in pieces:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        # The hub must have the pieces before the connection ends, or nothing is shown.
        eventually(lambda: hub.sql(_WRITING)[0][0] > 0)
        if reset:
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


_WRITING = """
SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
"""

_LAST_IMPORT = """
SELECT outcome FROM hub.audit_entry WHERE method LIKE '%/ImportCustomers'
ORDER BY entry_id DESC LIMIT 1
"""


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.usefixtures("unchanged")
def test_a_truncated_upload_loads_nothing(hub: RunningHub, reset: bool) -> None:
    """Cut at the end of a row, where what has come looks like a whole file."""
    key = new_customer()["customerId"]
    rows = "".join(f"{key}-{i},Name\n" for i in range(30_000)).encode()
    cut_upload(hub, [b"customer_id,name\n", rows], reset=reset)
    eventually(lambda: hub.sql(_WRITING)[0][0] == 0)
    outcome = hub.sql(_LAST_IMPORT)[0][0]
    assert outcome != "OK"
    assert hub.get(f"/v1/customers/{key}-0").status == 404


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
        (b"\xff\xfec\x00", "CSV", "IMPORT_FORMAT_INVALID", "UTF-8"),
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
        (b"a/b,x,", "CSV", ".customer_id"),
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
        body = json.dumps({"customerId": f"{key.decode()}-1"}).encode() + b"\n"
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
    """In one batch of the merge and in two."""
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
    body = f'name,"customer_id",etag,notes\r\n\r\n"a\n""b""",{key},999,\r\n"",{key}-2,,""'
    assert import_(hub, body.encode()).json() == {"rowCount": "2", "createdCount": "2"}
    first, second = (hub.get(f"/v1/customers/{k}").json() for k in (key, f"{key}-2"))
    assert first["name"] == 'a\n"b"' and "notes" not in first and first["etag"] != "999"
    assert second["notes"] == "" and "name" not in second
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
