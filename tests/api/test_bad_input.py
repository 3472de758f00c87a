"""Bad input gets a clear error, and nothing is lost or left half done."""

from __future__ import annotations

import json
import random
from typing import Any
from urllib.parse import urlencode

import pytest

from chance import SEED
from harness import Reply, RunningHub, in_json, new_customer

UNKNOWN = 400, "FIELD_UNKNOWN"


def import_(
    hub: RunningHub, body: bytes, name: str = "CSV", dataset: str = "customers", **query: Any
) -> Reply:
    headers = {"content-type": "application/octet-stream"}
    path = f"/v1/{dataset}:import?{urlencode({'format': name, **query})}"
    return hub.request("POST", path, consumer="admin", body=body, headers=headers)


def create(hub: RunningHub, dataset: str = "customers", **values: Any) -> Reply:
    record = new_customer(**values) if dataset == "customers" else values
    return hub.request("POST", f"/v1/{dataset}", consumer="admin", json_body=record)


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
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    pieces = ["name", "status", "tags", "birth_date", "credit_limit", "billing_address", "=", "!=",
              "<", ":", "AND", "OR", "NOT", "-", "(", ")", '"x"', "'", '"', "*", "1", "-1e9", "\\",
              "ACTIVE", "true", ".", ",", "\t", "é", "$1", "%s", ":p", ";--", "9" * 40]  # fmt: skip
    outcomes = set()
    whole = ['name = "x"', "status = ACTIVE", 'tags:"x"', "-kind = PERSON", "(credit_limit > 1)"]
    for i in range(150):
        # Every third query is valid but for at most one random piece.
        text = " ".join(chance.choices(pieces, k=chance.randint(1, 7)))
        if i % 3 == 0:
            ends = chance.choice(["", "", chance.choice(pieces)])
            text = f"{chance.choice(whole)} AND {chance.choice(whole)} {ends}"
        reply = hub.get("/v1/customers", filter=text, page_size=1)
        assert reply.status in (200, 400), (text, reply.text)
        outcomes.add(reply.status)
    assert outcomes == {200, 400}


@pytest.fixture(scope="module")
def token(hub: RunningHub) -> str:
    page = hub.get("/v1/customers", page_size=2, filter="status = ACTIVE")
    return str(page.json()["nextPageToken"])


def test_a_page_token_is_good_for_its_query_alone(hub: RunningHub, token: str) -> None:
    query: dict[str, Any] = {"page_size": 2, "filter": "status = ACTIVE"}
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
        hub.get("/v1/customers", page_token="é\x01", **query),
        hub.get("/v1/customers:exportPage", page_token=token, page_size=2),
    ]
    for reply in replies:
        assert (reply.status, reply.reason) == (400, "PAGE_TOKEN_INVALID"), reply.text
        assert "customers" not in reply.json()


@pytest.mark.parametrize("path", [":export", ":exportPage"])
def test_an_unknown_format_lists_those_there_are(hub: RunningHub, path: str) -> None:
    reply = hub.get(f"/v1/customers{path}", format="YAML")
    assert (reply.status, reply.reason) == (400, "FORMAT_UNKNOWN")
    message = "unknown format 'YAML': choose one of JSON, NDJSON, CSV, XML, PARQUET, ARROW, XLSX"
    assert reply.json()["message"] == message


@pytest.mark.parametrize("name", ["YAML", "ODS"])
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
        ({"customerId": "a\u2028b"}, "customer_id"),
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
    assert list(reply.violations()) == [in_json(field)]
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
        made = create(hub, "products", productId=key, name="n", unitsInStock=str(value))
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
