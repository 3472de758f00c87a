"""Schemas that are nasty on purpose, and the tables of Chinook: loaded by import, and compared in
every format, value by value."""

from __future__ import annotations

import base64
import csv
import datetime as dt
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import openpyxl
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from harness import RunningHub, eventually
from penstockd.catalog import Dataset, Field, Kind
from penstockd.catalog.load import load_catalog
from workshops import Workshop

from .test_nasty_model import FORMATS, check_everywhere
from .test_round_trips import SAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.lane("api/models", priority=12)]

CHINOOK = SAMPLES / "chinook" / "csv"
#: The datasets of Chinook, and the files from which they are loaded.
TABLES = {
    "employees": "employees",
    "buyers": "customers",
    "invoices": "orders",
    "tracks": "products",
    "playlist_entries": "playlist_tracks",
    "artists": "artists",
    "albums": "albums",
    "genres": "genres",
    "media_types": "media_types",
    "playlists": "playlists",
    "invoice_lines": "order_items",
}
#: A record by the paths of its fields; None for unset fields.
Row = dict[str, Any]


@pytest.fixture(scope="module")
def hub(modelled: Workshop) -> RunningHub:
    return modelled.hub


@pytest.fixture(scope="module")
def datasets(modelled: Workshop) -> Mapping[str, Dataset]:
    return {d.name: d for d in load_catalog(modelled.tree / "gen/descriptors/hub.binpb")}


def plain(field: Field, value: Any) -> Any:
    """A value of any format as a number, a time or a text; None if it is unset or empty."""
    if value is None or value == "":
        return None
    match field.kind:
        case Kind.DECIMAL | Kind.INT32 | Kind.INT64:
            return Decimal(str(value))
        case Kind.TIMESTAMP:
            moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)
            return moment.replace(tzinfo=moment.tzinfo or dt.UTC).astimezone(dt.UTC)
    return str(value)


def read_file(name: str, data: bytes, fields: Sequence[Field]) -> list[Row]:
    """The records of a file, as other programs read it."""
    if name == "CSV":
        return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    if name in ("JSON", "NDJSON"):
        found = json.loads(data) if name == "JSON" else map(json.loads, data.splitlines())
        return [{f.path: record.get(f.json_path) for f in fields} for record in found]
    if name == "XML":
        return [{f.path: e.findtext(f.path) for f in fields} for e in ET.fromstring(data)]
    if name == "XLSX":
        sheet = openpyxl.load_workbook(io.BytesIO(data), read_only=True).worksheets[0]
        head, *rows = sheet.iter_rows(values_only=True)
        return [dict(zip(map(str, head), row, strict=True)) for row in rows]
    if name == "PARQUET":
        rows_of: list[Row] = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    else:
        rows_of = pyarrow.ipc.open_stream(data).read_all().to_pylist()
    return rows_of


def key_of(fields: Sequence[Field], row: Row) -> tuple[str, ...]:
    return tuple(str(row[f.path]) for f in fields if f.in_key)


@pytest.mark.skipif(not CHINOOK.is_dir(), reason=f"there is no {CHINOOK}")
@pytest.mark.parametrize("name", TABLES)
def test_chinook_has_every_value_in_every_format(
    hub: RunningHub, datasets: Mapping[str, Dataset], name: str
) -> None:
    file = (CHINOOK / f"{TABLES[name]}.csv").read_bytes()
    source = list(csv.DictReader(io.StringIO(file.decode(), newline="")))
    fields = [f for f in datasets[name].fields if f.path in source[0]]
    assert len(fields) == len(source[0]), "every column has a field"
    path = f"/v1/{name}:import?format=CSV&time_zone=UTC"
    loaded = hub.request("POST", path, consumer="admin", body=file).json()
    assert loaded == {"rowCount": str(len(source)), "createdCount": str(len(source))}
    expected = {key_of(fields, r): [plain(f, r[f.path]) or None for f in fields] for r in source}
    for format in (*FORMATS, "XLSX"):
        reply = hub.get(f"/v1/{name}:export", "admin", format=format, omit_receipt="true")
        assert reply.status == 200, reply.text
        found = {
            key_of(fields, row): [plain(f, row[f.path]) or None for f in fields]
            for row in read_file(format, reply.body, fields)
        }
        assert found == expected, format
        again = hub.request(
            "POST", f"/v1/{name}:import?format={format}&time_zone=UTC", consumer="admin",
            body=reply.body,
        )  # fmt: skip
        count = str(len(source))
        assert again.json() == {"rowCount": count, "unchangedCount": count}, (format, again.text)


def value_for(field: Field, number: int) -> Any:
    """An awkward value of a field, in the JSON of pages."""
    match field.kind:
        case Kind.INT32:
            return (-1) ** number * (2**31 - 1 - number)
        case Kind.UINT32:
            return 2**32 - 1 - number
        case Kind.INT64:
            return str(number - 2**63)
        case Kind.UINT64:
            return str(2**64 - 1 - number)
        case Kind.BOOL:
            return number % 3 == 0
        case Kind.DOUBLE:
            return number / 3
        case Kind.BYTES:
            return ["AA==", "/w==", "JyI="][number % 3]
        case Kind.TIMESTAMP:
            return f"{1900 + number}-02-28T23:59:59.999999Z"
    return ["", "NULL", "'\"\\", "=1+1", "\u00e9\U0001f600", "a,b;c\td", "<&>]]>"][number % 7]


@pytest.mark.parametrize("name", ["words", "wides"])
def test_odd_names_and_many_columns(
    hub: RunningHub, datasets: Mapping[str, Dataset], name: str
) -> None:
    own = [f for f in datasets[name].fields if not f.output_only and f.path != "node_id"]
    (key,) = datasets[name].key_fields
    full = {f.json_path: value_for(f, i) for i, f in enumerate(own)} | {key.json_path: "k/%~"}
    few = {key.json_path: ".k"}
    check_everywhere(hub, f"/v1/{name}", key.json_path, [full, few])
    for index, field in enumerate(
        own
    ):  # use each field by its name: in filters, orders, field lists and masks
        asked = {"fields": field.path}
        if field.kind is not Kind.BYTES:  # filters and orders do not look into these
            asked |= {"order_by": field.path, "filter": f"NOT {field.path}:*"}
        listed = hub.get(f"/v1/{name}", "admin", **asked)
        assert listed.status == 200, (field.path, listed.text)
        if field is not key and index % 10 == 0:
            place = f"/v1/{name}/{quote('.k', safe='')}?update_mask={field.path}"
            body = {field.json_path: full[field.json_path]}
            changed = hub.request("PATCH", place, consumer="admin", json_body=body)
            assert changed.json()[field.json_path] == full[field.json_path], changed.text


def within(depth: int, label: str) -> dict[str, Any]:
    """A tree of that depth."""
    branches = [within(depth - 1, f"{label}{i}") for i in range(2)] if depth else []
    return {"name": label, **({"branches": branches} if branches else {})}


def test_deep_messages_and_references_in_circles(hub: RunningHub) -> None:
    deep = {"three": {"four": {"five": {"six": {"leaf": {"label": "", "numbers": ["-1"]}}}}}}
    noted = {"note": "n"}  # what is beside it is unset, though lists in it have a default
    nodes: list[dict[str, Any]] = [
        {"nodeId": "self", "parentId": "self", "two": deep},
        {"nodeId": "a", "parentId": "b", "wordId": "w", "two": {"three": noted}},
        {"nodeId": "b", "parentId": "a", "trees": [within(4, "t"), {}]},
        {"nodeId": "~", "parentId": "nowhere"},
    ]
    word = {"wordId": "w", "nodeId": "a"}
    assert hub.request("POST", "/v1/words", consumer="admin", json_body=word).status == 200
    filled = {"nodeId": "c", "two": {"three": {"four": {"five": {"six": {"leaves": [{}]}}}}}}
    reply = hub.request("POST", "/v1/nodes", consumer="admin", json_body=filled)
    assert reply.status == 200, reply.text
    assert hub.request("DELETE", "/v1/nodes/c", consumer="admin").status == 200
    check_everywhere(hub, "/v1/nodes", "nodeId", nodes)
    found = hub.get("/v1/nodes", "admin", filter="two.three.four.five.six.leaf.numbers:-1").json()
    assert [r["nodeId"] for r in found["nodes"]] == ["self"]
    hub.request("DELETE", "/v1/words/w", consumer="admin")


def test_a_message_is_present_only_if_something_in_it_is(hub: RunningHub) -> None:
    path = "/v1/nodes/nested"
    deep = {"four": {"five": {"six": {"leaf": {"label": "x", "numbers": []}, "leaves": []}}}}
    body = {"nodeId": "nested", "two": {"three": deep}}
    made = hub.request("POST", "/v1/nodes", consumer="admin", json_body=body)
    assert made.json()["two"] == {"three": {**deep, "note": None}}, made.text
    steps: list[tuple[dict[str, Any], Any]] = [
        ({"three": {"note": "n"}}, {"three": {**deep, "note": "n"}}),
        ({"three": {"four": None}}, {"three": {"four": None, "note": "n"}}),
        (
            {"three": {"four": {"five": {"six": {"leaves": [{"label": "y"}]}}}}},
            {"three": {"four": {"five": {"six": {
                "leaf": None, "leaves": [{"label": "y", "numbers": []}]}}}, "note": "n"}},
        ),
        ({"three": {"four": {"five": {"six": None}}}}, {"three": {"four": None, "note": "n"}}),
        ({"three": None}, None),
        ({"three": {"note": "z"}}, {"three": {"four": None, "note": "z"}}),
    ]  # fmt: skip
    for two, expected in steps:
        patched = hub.request("PATCH", path, consumer="admin", json_body={"two": two})
        assert patched.status == 200, patched.text
        assert patched.json()["two"] == hub.get(path, "admin").json()["two"] == expected, two
    files = {f: hub.get("/v1/nodes:export", "admin", format=f).body for f in FORMATS}
    assert hub.request("DELETE", path, consumer="admin").status == 200
    for name, file in files.items():
        target = f"/v1/nodes:import?format={name}"
        loaded = hub.request("POST", target, consumer="admin", body=file).json()
        assert loaded.get("createdCount") == "1", (name, loaded)
        assert hub.get(path, "admin").json()["two"] == expected, name
        assert hub.request("DELETE", path, consumer="admin").status == 200


@pytest.mark.parametrize("name", ["tokens", "playlist_entries"])
def test_an_empty_table_and_one_of_keys_alone(hub: RunningHub, name: str) -> None:
    for format in (*FORMATS, "XLSX"):
        asked = {"format": format, "omit_receipt": "true", "filter": 'source = "none"'}
        empty = hub.get(f"/v1/{name}:export", "admin", **asked)
        assert empty.status == 200, (format, empty.text)
        path = f"/v1/{name}:import?format={format}&time_zone=UTC"
        again = hub.request("POST", path, consumer="admin", body=empty.body)
        assert again.json() == {}, (format, again.text)
    if name == "tokens":
        keys = ["0", "01", "a b", "\u00fc", "%41", "A", "a", "x" * 512]
        check_everywhere(hub, "/v1/tokens", "tokenId", [{"tokenId": key} for key in keys])


STRUCT = {
    "a": {"b": [1, 2.5, None, "x"]},
    "": {},
    "null": None,
    "true": True,
    "\u00e4": "\U0001f600",
}
MAPPING = """
[[datasets]]
dataset = "gadgets"
file = "things.csv"
[datasets.fields]
gadget_id = "code"
attributes = "facts"
[[datasets]]
dataset = "stops"
file = "calls.csv"
[datasets.fields]
voyage_id = "trip"
harbour = "port"
call = "nr"
fee = {column = "price", null_if = ["-"]}
"""


def test_a_mapping_fills_structs_and_keys_of_several_parts(hub: RunningHub, tmp_path: Path) -> None:
    with open(tmp_path / "things.csv", "w", encoding="utf-8", newline="") as file:
        rows = [["code", "facts"], ["mapped", json.dumps(STRUCT)], ["bare", ""]]
        csv.writer(file).writerows(rows)
    (tmp_path / "calls.csv").write_text("trip,port,nr,price\n-5,a~b,7,1.5\n-5,a~b,8,-\n")
    (tmp_path / "map.toml").write_text(MAPPING)
    command = ("import", "--mapping", str(tmp_path / "map.toml"), str(tmp_path))
    done = hub.command(*command)
    assert b"gadgets: 2 rows: 2 created" in done.stdout, done.stdout
    assert b"stops: 2 rows: 2 created" in done.stdout, done.stdout
    assert hub.get("/v1/gadgets/mapped").json()["attributes"] == STRUCT
    assert hub.get("/v1/gadgets/bare").json()["attributes"] is None
    keys = ["-5~a%7Eb~7", "-5~a%7Eb~8"]
    found = [hub.get(f"/v1/stops/{quote(key, safe='')}").json() for key in keys]
    assert [(r["call"], r.get("fee")) for r in found] == [("7", "1.5"), ("8", None)]
    (tmp_path / "things.csv").write_text("code,facts\nbad,[1]\n")
    refused = hub.command(
        "import", "--mapping", str(tmp_path / "map.toml"), str(tmp_path), check=False
    )
    assert refused.returncode == 1 and b"attributes" in refused.stderr, refused.stderr
    for path in ("gadgets/mapped", "gadgets/bare", *(f"stops/{quote(k, safe='')}" for k in keys)):
        assert hub.request("DELETE", f"/v1/{path}", consumer="admin").status == 200


def test_webhooks_tell_structs(hub: RunningHub) -> None:
    document = {"url": "", "kind": "LISTEN", "selections": [{"dataset": "gadgets"}]}
    made = hub.request("POST", "/v1/webhooks", consumer="admin", json_body=document)
    place = f"/v1/webhooks/{made.json()['webhook']['webhookId']}"
    changed: dict[str, Any] = {**STRUCT, "a": {"b": []}}
    for verb, path, body in (
        ("POST", "/v1/gadgets", {"gadgetId": "told", "attributes": STRUCT}),
        ("PATCH", "/v1/gadgets/told?update_mask=attributes", {"attributes": changed}),
        ("DELETE", "/v1/gadgets/told", None),
    ):
        reply = hub.request(verb, path, consumer="admin", json_body=body)
        assert reply.status == 200, reply.text
    told: list[Any] = []

    def all_told() -> bool:
        asked = {"wait": "20s"}
        reply = hub.request("POST", f"{place}:pull", consumer="admin", json_body=asked)
        found = reply.json().get("deliveries", [])
        told.extend(json.loads(base64.b64decode(d["body"])) for d in found)
        outcomes = [
            {"deliveryId": d["deliveryId"], "status": 200, "latency": "0.01s"} for d in found
        ]
        if outcomes:
            body = {"outcomes": outcomes}
            hub.request("POST", f"{place}:acknowledge", consumer="admin", json_body=body)
        return len({e["type"] for e in told}) >= 3

    eventually(all_told)
    hub.request("DELETE", place, consumer="admin")
    by_type = {e["type"]: e["data"] for e in told}
    assert by_type["gadget.created"]["record"]["attributes"] == STRUCT
    assert by_type["gadget.updated"]["record"]["attributes"] == changed
    assert by_type["gadget.updated"]["changed"] == ["attributes", "update_time", "etag"]
