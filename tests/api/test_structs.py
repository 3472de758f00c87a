"""google.protobuf.Struct: JSON of any shape is the same on every way in and out, or refused."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import grpc
import openpyxl
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from openpyxl.utils.escape import unescape

from feeds import CLEAR, consumer_with, grant
from penstock.client.canonical import record_digest
from penstock.client.record import read_struct
from workshops import OUTPUT, DatasetDoor, Workshop

pytestmark = [pytest.mark.slow, pytest.mark.lane("api/models", priority=12)]

SEED = int(os.environ.get("PENSTOCK_STRUCT_SEED", random.randrange(10**9)))
PATH = "/v1/gadgets"
LARGEST = 2**53 - 1
TEXTS = ["", "a", "ä", "😀", "null", "1", "true", '"', "'", "\\", "a.b", "<&>]]>", "\t\n\r", ",;=+"]
TEXTS += ["\u2028", "x" * 200, "@type", "__proto__", "0", "-1", "_x000D_", "\x7f", "é"]
NUMBERS = [0, 1, -1, 5, LARGEST, -LARGEST, 0.1, -2.5, 1e-7, 5e-324, 0.1 + 0.2, 4503599627370495.5]


@pytest.fixture(scope="module")
def gadgets(modelled: Workshop) -> DatasetDoor:
    return DatasetDoor(modelled, "gadgets")


def random_data(rng: random.Random, depth: int = 0) -> Any:
    roll = rng.random()
    if depth < 5 and roll < 0.25:
        return {rng.choice(TEXTS): random_data(rng, depth + 1) for _ in range(rng.randrange(4))}
    if depth < 5 and roll < 0.4:
        return [random_data(rng, depth + 1) for _ in range(rng.randrange(4))]
    number = rng.choice([*NUMBERS, rng.randint(-LARGEST, LARGEST), rng.uniform(-1e6, 1e6)])
    return rng.choice([number, rng.choice(TEXTS), True, False, None])


def random_object(rng: random.Random) -> dict[str, Any]:
    return {rng.choice(TEXTS): random_data(rng) for _ in range(rng.choice([0, 1, 2, 5, 12]))}


def is_exactly(one: Any, other: Any) -> bool:
    """Whether two values of JSON are the same: 1 is 1.0, but neither true nor "1"."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_exactly(v, other[k]) for k, v in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_exactly, one, other))
    plain = isinstance(one, int | float) and not isinstance(one, bool)
    return (type(one) is type(other) or (plain and type(other) in (int, float))) and one == other


def spoil(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The same but for one difference that a careless surface might make."""
    ways: list[Callable[[], dict[str, Any]]] = [lambda: {**value, "new": None}]
    for name, v in value.items():
        rest = {k: x for k, x in value.items() if k != name}
        ways.append(lambda rest=rest: rest)  # type: ignore[misc]  # bound at once
        other = {True: 1, False: 0}.get(v, str(v)) if isinstance(v, bool) else [v]
        ways.append(lambda rest=rest, name=name, other=other: {**rest, name: other})  # type: ignore[misc]
    return rng.choice(ways)()


Records = dict[str, dict[str, Any]]
FIELDS = {
    "attributes": ("attributes",),
    "maker.facts": ("maker", "facts"),
    "wrapping_facts": ("wrappingFacts",),
}


def random_records(rng: random.Random, count: int) -> Records:
    records: Records = {}
    for i in range(count):
        record: dict[str, Any] = {"gadgetId": f"g{i:03}"}
        if rng.random() < 0.9:
            record["attributes"] = random_object(rng)
        if rng.random() < 0.5:
            record["maker"] = {"facts": random_object(rng)} | rng.choice([{}, {"name": "m"}])
        if rng.random() < 0.5:
            record["wrappingFacts"] = random_object(rng)
        records[record["gadgetId"]] = record
    return records


def struct_at(record: Mapping[str, Any], path: str) -> Any:
    found: Any = record
    for step in FIELDS[path]:
        found = (found or {}).get(step)
    return found


def as_cells(records: Records) -> tuple[list[str], list[list[str | None]]]:
    """The records as a table whose Structs are JSON text."""
    head = ["gadget_id", "maker.name", *FIELDS]
    rows = []
    for key, record in records.items():
        found = [struct_at(record, path) for path in FIELDS]
        cells = [None if v is None else json.dumps(v) for v in found]
        rows.append([key, (record.get("maker") or {}).get("name"), *cells])
    return head, rows


def as_csv(records: Records) -> bytes:
    head, rows = as_cells(records)
    file = io.StringIO(newline="")
    csv.writer(file).writerows([head, *[[c or "" for c in row] for row in rows]])
    return file.getvalue().encode()


def as_xml(records: Records) -> bytes:
    def element(name: str, value: Any) -> str:
        return "" if value is None else f"<{name}>{escape(json.dumps(value))}</{name}>"

    parts = []
    for key, record in records.items():
        maker = record.get("maker")
        inner = f"<gadget_id>{key}</gadget_id>{element('attributes', record.get('attributes'))}"
        if maker is not None:
            name = f"<name>{maker['name']}</name>" if "name" in maker else ""
            inner += f"<maker>{name}{element('facts', maker['facts'])}</maker>"
        inner += element("wrapping_facts", record.get("wrappingFacts"))
        parts.append(f"<gadget>{inner}</gadget>")
    return f"<gadgets>{''.join(parts)}</gadgets>".encode()


def as_table(records: Records) -> pyarrow.Table:
    head, rows = as_cells(records)
    columns = [pyarrow.array(c, pyarrow.utf8()) for c in zip(*rows, strict=True)]
    return pyarrow.table(dict(zip(head, columns, strict=True)))


def as_parquet(records: Records) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(as_table(records), sink)
    return bytes(sink.getvalue())


def as_arrow(records: Records) -> bytes:
    sink, table = pyarrow.BufferOutputStream(), as_table(records)
    with pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def as_lines(records: Records) -> bytes:
    return "\n".join(map(json.dumps, records.values())).encode()


def wanted(reply: Any) -> Any:
    assert reply.status == 200, reply.text
    return reply


def patch(g: DatasetDoor, records: Records) -> None:
    for key, record in records.items():
        body = {k: v for k, v in record.items() if k != "gadgetId"}
        query = "update_mask=attributes,maker,wrapping_facts&allow_missing=true"
        wanted(g.post("PATCH", f"{PATH}/{key}?{query}", body))


#: Every way in, each for records that the hub does not have.
WAYS_IN: dict[str, Callable[[DatasetDoor, Records], object]] = {
    "create": lambda g, r: [wanted(g.post("POST", PATH, x)) for x in r.values()],
    "update": patch,
    "batch": lambda g, r: wanted(
        g.post("POST", f"{PATH}:batchUpsert", {"gadgets": list(r.values())})
    ),
    "gRPC create": lambda g, r: [
        g.call("CreateGadget", g.message("CreateGadgetRequest", gadget=x), "Gadget")
        for x in r.values()
    ],
    "gRPC batch": lambda g, r: g.call(
        "BatchUpsertGadgets",
        g.message("BatchUpsertGadgetsRequest", gadgets=list(r.values())),
        "BatchUpsertGadgetsResponse",
    ),
    "NDJSON": lambda g, r: wanted(g.send("NDJSON", as_lines(r))),
    "JSON": lambda g, r: wanted(g.send("JSON", json.dumps(list(r.values())).encode())),
    "CSV": lambda g, r: wanted(g.send("CSV", as_csv(r))),
    "XML": lambda g, r: wanted(g.send("XML", as_xml(r))),
    "PARQUET": lambda g, r: wanted(g.send("PARQUET", as_parquet(r))),
    "ARROW": lambda g, r: wanted(g.send("ARROW", as_arrow(r))),
    "command": lambda g, r: g.hub.command(
        "import", "gadgets", "-", "--format", "ndjson", input=as_lines(r)
    ),
}


def from_cells(rows: Iterator[Mapping[str, Any]]) -> Records:
    found: Records = {}
    for row in rows:
        record: dict[str, Any] = {"gadgetId": row["gadget_id"]}
        texts = {path: row[path] for path in FIELDS}
        for path, text in texts.items():
            if text:
                holder = record
                for step in FIELDS[path][:-1]:
                    holder = holder.setdefault(step, {})
                holder[FIELDS[path][-1]] = json.loads(text)
        if row["maker.name"]:
            record.setdefault("maker", {})["name"] = row["maker.name"]
        found[row["gadget_id"]] = record
    return found


def trim(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it was sent: without what the hub writes and without what is not set."""
    found = {k: v for k, v in record.items() if k not in OUTPUT and v not in (None, "")}
    if "maker" in found:
        maker = {k: v for k, v in found["maker"].items() if v not in (None, "")}
        found["maker"] = maker
    return found


def of_messages(messages: Any) -> Records:
    found: Records = {}
    for m in messages:
        record: dict[str, Any] = {"gadgetId": m.gadget_id}
        if m.HasField("attributes"):
            record["attributes"] = read_struct(m.attributes)
        if m.HasField("maker"):
            record["maker"] = {"facts": read_struct(m.maker.facts)}
            record["maker"] |= {"name": m.maker.name} if m.maker.name else {}
        if m.HasField("wrapping_facts"):
            record["wrappingFacts"] = read_struct(m.wrapping_facts)
        found[m.gadget_id] = record
    return found


def exported(g: DatasetDoor, name: str) -> bytes:
    reply = g.hub.get(f"{PATH}:export", "admin", format=name)
    wanted(reply)
    return reply.body


def read_xml(g: DatasetDoor) -> Records:
    rows = []
    for e in ET.fromstring(exported(g, "XML")):
        paths = {p: e.findtext(p.replace(".", "/")) for p in ("gadget_id", "maker.name", *FIELDS)}
        rows.append(paths)
    return from_cells(iter(rows))


def read_sheet(g: DatasetDoor) -> Records:
    sheet = openpyxl.load_workbook(io.BytesIO(exported(g, "XLSX"))).worksheets[0]
    texts = [[unescape(c) if isinstance(c, str) else c for c in row] for row in sheet.values]
    head, *rows = texts
    return from_cells(dict(zip(head, row, strict=True)) for row in rows)


def read_arrow(g: DatasetDoor, name: str) -> Records:
    source = pyarrow.BufferReader(exported(g, name))
    table = (
        pyarrow.parquet.read_table(source)
        if name == "PARQUET"
        else pyarrow.ipc.open_stream(source).read_all()
    )
    return from_cells(iter(table.to_pylist()))


def by_key(records: Any) -> Records:
    return {r["gadgetId"]: trim(r) for r in records}


def list_messages(g: DatasetDoor) -> Any:
    request = g.message("ListGadgetsRequest", pageSize=1000)
    return g.call("ListGadgets", request, "ListGadgetsResponse").gadgets


#: Every way out, each of all records.
WAYS_OUT: dict[str, Callable[[DatasetDoor], Records]] = {
    "list": lambda g: by_key(g.hub.get(PATH, "admin", page_size=1000).json()["gadgets"]),
    "get": lambda g: by_key(
        g.hub.get(f"{PATH}/{m.gadget_id}", "admin").json() for m in list_messages(g)
    ),
    "gRPC list": lambda g: of_messages(list_messages(g)),
    "NDJSON": lambda g: by_key(map(json.loads, exported(g, "NDJSON").splitlines())),
    "JSON": lambda g: by_key(json.loads(exported(g, "JSON"))),
    "CSV": lambda g: from_cells(
        csv.DictReader(io.StringIO(exported(g, "CSV").decode(), newline=""))
    ),
    "XML": read_xml,
    "PARQUET": lambda g: read_arrow(g, "PARQUET"),
    "ARROW": lambda g: read_arrow(g, "ARROW"),
    "XLSX": read_sheet,
}


def clear(g: DatasetDoor) -> str:
    """Delete all records; a place in the log behind that."""
    for m in list_messages(g):
        wanted(g.hub.request("DELETE", f"{PATH}/{m.gadget_id}", consumer="admin"))
    g.hub.head()
    return str(g.hub.get(f"{PATH}:changes", "admin").json()["nextCursor"])


def told_since(g: DatasetDoor, place: str, count: int) -> Records:
    """The records after the next ``count`` changes."""
    g.hub.head()
    told: list[Any] = []
    while len(told) < count:
        reply = g.hub.get(f"{PATH}:changes", "admin", cursor=place, wait="30s").json()
        told += reply.get("changes", [])
        place = reply["nextCursor"]
    return by_key(c["after"] for c in told)


def check_digests(g: DatasetDoor) -> None:
    """Whether the hub's digests are those of its messages."""
    reply = g.hub.get(f"{PATH}:digest", "admin", keys="true").json()
    told = {r["key"]: r["sha256"] for part in reply["ranges"] for r in part.get("records", [])}
    assert told == {m.gadget_id: record_digest(m).hex() for m in list_messages(g)}


@pytest.mark.parametrize("way", WAYS_IN)
def test_whatever_comes_in_is_told_by_the_feed_as_it_is(gadgets: DatasetDoor, way: str) -> None:
    print(f"PENSTOCK_STRUCT_SEED={SEED}")
    records = random_records(random.Random(f"{SEED} {way}"), 12)
    place = clear(gadgets)
    WAYS_IN[way](gadgets, records)
    for found in (
        of_messages(list_messages(gadgets)),
        told_since(gadgets, place, len(records)),
    ):
        assert found.keys() == records.keys()
        for key, record in records.items():
            assert is_exactly(found[key], record), (way, key)
    check_digests(gadgets)


def test_every_way_out_tells_the_same(gadgets: DatasetDoor) -> None:
    print(f"PENSTOCK_STRUCT_SEED={SEED}")
    rng = random.Random(SEED)
    records = random_records(rng, 40)
    clear(gadgets)
    WAYS_IN["NDJSON"](gadgets, records)
    for name, read in WAYS_OUT.items():
        found = read(gadgets)
        assert found.keys() == records.keys(), name
        for key, record in records.items():
            assert is_exactly(found[key], record), (name, key)
    for name in ("NDJSON", "JSON", "CSV", "XML", "PARQUET", "ARROW", "XLSX"):
        again = gadgets.send(name, exported(gadgets, name)).json()
        assert again == {"rowCount": "40", "unchangedCount": "40"}, (name, again)
    told = 0
    for record in records.values():  # the control: a difference is seen, and written as a change
        if "attributes" in record:
            changed = {**record, "attributes": spoil(record["attributes"], rng)}
            assert not is_exactly(changed, record)
            reply = gadgets.send("NDJSON", json.dumps(changed).encode()).json()
            assert reply == {"rowCount": "1", "updatedCount": "1"}, (record, changed)
            told += 1
            if told == 5:
                break
    assert told == 5


#: What no Struct holds: JSON, and what the refusal says.
REFUSED: dict[str, tuple[str, str]] = {
    "an integer that doubles round": (
        '{"a":[{"n":9007199254740993}]}',
        ".a[0].n: is 9007199254740",
    ),
    "the first such": ('{"n":9007199254740992}', ".n: is 9007199254740992"),
    "the least": ('{"n":-9007199254740993}', ".n: is -900719925474099"),
    "a large integer": ('{"a.b":18446744073709551615}', "['a.b']: is 1"),
    "a number of 40 digits": ('{"n":%s}' % ("9" * 40), ".n: is "),
    "a large number": ('{"n":1e300}', ".n: is 1"),
    "U+0000": ('{"n":"\\u0000"}', "U+0000"),
    "U+0000 in a name": ('{"\\u0000":1}', "U+0000"),
    "another control character": ('{"n":"\\u0001"}', "U+0001"),
    "too many levels": ('{"a":' * 25 + "1" + "}" * 25, "is nested deeper than 24 levels"),
    "too many bytes": ('{"a":[%s1]}' % ('"xxxxxxxx",' * 25_000), ""),
    "small numbers of many digits": ('{"a":[%s1]}' % ("5e-324," * 2000), "256 KiB"),
}
#: What only texts can say; messages are made by libraries and the sidecar, which refuse or round.
REFUSED_AS_TEXT = {
    "digits that doubles lose": ('{"n":0.12345678901234567890}', ".n: is 0.1234567890123456"),
    "a number that doubles lose": ('{"n":1e-400}', ".n: is 1E-400"),
    "a member twice": ('{"a":{"b":1,"b":1}}', "has the member 'b' twice"),
    "a number beyond doubles": ('{"n":1e400}', "JSON"),
    "NaN": ('{"n":NaN}', "JSON"),
    "an infinity": ('{"n":Infinity}', "JSON"),
    "a lone surrogate": ('{"n":"\\ud800"}', "JSON"),
    "a list": ("[1]", "must be an object, not an array"),
    "a text": ('"{}"', "must be an object, not a string"),
    "no JSON": ("{", "JSON"),
}


def texts_in(text: str) -> dict[str, bytes]:
    """Files with one record that holds the JSON text."""
    table = pyarrow.table({"gadget_id": ["bad"], "attributes": [text]})
    sink, parquet = pyarrow.BufferOutputStream(), pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    pyarrow.parquet.write_table(table, parquet)
    cell = '"' + text.replace('"', '""') + '"'
    inner = f"<gadget_id>bad</gadget_id><attributes>{escape(text)}</attributes>"
    return {
        "CSV": f"gadget_id,attributes\nbad,{cell}\n".encode(),
        "NDJSON": f'{{"gadgetId":"bad","attributes":{text}}}'.encode(),
        "JSON": f'[{{"gadgetId":"bad","attributes":{text}}}]'.encode(),
        "XML": f"<gadgets><gadget>{inner}</gadget></gadgets>".encode(),
        "PARQUET": bytes(parquet.getvalue()),
        "ARROW": bytes(sink.getvalue()),
    }


@pytest.mark.parametrize("what", [*REFUSED, *REFUSED_AS_TEXT])
def test_what_a_struct_cannot_hold_is_refused_on_every_way_in(
    gadgets: DatasetDoor, what: str
) -> None:
    text, said = (REFUSED | REFUSED_AS_TEXT)[what]
    for name, file in texts_in(text).items():
        if name == "JSON" and what == "no JSON":
            continue  # the array itself is broken
        reply = gadgets.send(name, file)
        assert reply.status == 400 and said in reply.text, (name, reply.text[:500])
        assert name == "JSON" or reply.violations() or what == "no JSON", (name, reply.text)
    body = f'{{"gadgetId":"bad","attributes":{text}}}'.encode()
    many = b'{"gadgets":[%s]}' % body
    bodies = {PATH: body, f"{PATH}:batchUpsert": many}
    lossy = what in ("digits that doubles lose", "a number that doubles lose")
    for path, sent in {} if lossy else bodies.items():
        headers = {"content-type": "application/json"}
        reply = gadgets.hub.request("POST", path, consumer="admin", body=sent, headers=headers)
        assert reply.status == 400, (path, reply.text)
        assert what in REFUSED_AS_TEXT or said in reply.text, (path, reply.text[:500])
    assert gadgets.hub.get(f"{PATH}/bad", "admin").status == 404


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf"), 2.0**53, -(2.0**60)])
def test_messages_hold_no_odd_numbers(gadgets: DatasetDoor, odd: float) -> None:
    request = gadgets.message("CreateGadgetRequest", gadget={"gadgetId": "bad"})
    request.gadget.attributes.fields["a"].list_value.values.add().number_value = odd
    for verb in ("CreateGadget", "BatchUpsertGadgets"):
        if verb == "BatchUpsertGadgets":
            record = request.gadget
            request = gadgets.message("BatchUpsertGadgetsRequest")
            request.gadgets.append(record)
        with pytest.raises(grpc.RpcError) as raised:
            gadgets.call(verb, request, "Gadget")
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert ".a[0]: is " in str(raised.value.details())


def test_a_value_without_a_kind_and_a_negative_zero(gadgets: DatasetDoor) -> None:
    request = gadgets.message("CreateGadgetRequest", gadget={"gadgetId": "bad"})
    request.gadget.attributes.fields["a"].SetInParent()
    with pytest.raises(grpc.RpcError) as raised:
        gadgets.call("CreateGadget", request, "Gadget")
    assert ".a: holds a Value of no kind" in str(raised.value.details())
    for name, file in texts_in('{"a":-0.0,"b":[-0]}').items():
        wanted(gadgets.send(name, file))
        [made] = gadgets.hub.sql(
            "SELECT attributes::text FROM data.gadgets WHERE gadget_id = 'bad'"
        )
        assert made == ('{"a": 0, "b": [0]}',), name
        wanted(gadgets.hub.request("DELETE", f"{PATH}/bad", consumer="admin"))


ASKED: list[dict[str, Any]] = [
    {
        "gadgetId": "f1",
        "attributes": {
            "color": "red", "n": 5, "on": True, "o": {"p": {"q": "deep"}, "a.b": "dot"},
            "l": ["vip", 3, True, None, {"x": 1}], "nil": None, "0": "zero", "it's": 1, 'q"': 2,
        },
        "secrets": {"k": 1},
    },
    {"gadgetId": "f2", "attributes": {"color": 5, "n": "5", "on": "true", "o": "p", "l": "vip"}},
    {"gadgetId": "f3", "attributes": {"color": "blue", "n": -1.5, "on": False, "l": []}},
    {"gadgetId": "f4", "attributes": {}},
    {"gadgetId": "f5", "maker": {"facts": {"a": 1}}},
    {"gadgetId": "f6", "attributes": {"color": "redder", "n": 10, "zip": "00123"}},
]  # fmt: skip
FILTERS: dict[str, str] = {
    'attributes.color = "red"': "f1",
    "attributes.color = red": "f1",
    "attributes.color = 5": "f2",
    'attributes.color = "5"': "",
    'attributes.color != "red"': "f2 f3 f6",
    'NOT attributes.color = "red"': "f2 f3 f4 f5 f6",
    'attributes.color = "red*"': "f1 f6",
    'attributes.color != "red*"': "f2 f3",
    "attributes.color > blue": "f1 f6",
    "attributes.color = (red OR 5)": "f1 f2",
    "attributes.n = 5": "f1",
    "attributes.n = 5.0": "f1",
    'attributes.n = "5"': "f2",
    "attributes.n >= 5": "f1 f6",
    'attributes.n < "6"': "f2",
    "attributes.n < 0": "f3",
    "attributes.zip = 00123": "f6",
    "attributes.zip = 123": "",
    "attributes.on = true": "f1",
    'attributes.on = "true"': "f2",
    "attributes.on != true": "f2 f3",
    "attributes.o.p.q = deep": "f1",
    'attributes.o."a.b" = dot': "f1",
    "attributes.o.a.b = dot": "",
    "attributes.o:p": "f1 f2",
    "attributes.l:vip": "f1 f2",
    "attributes.l:3": "f1",
    "attributes.l:true": "f1",
    "attributes.l.0 = vip": "",
    "attributes.0 = zero": "f1",
    'attributes."it\'s" = 1': "f1",
    'attributes."q\\"" = 2': "f1",
    "attributes:*": "f1 f2 f3 f4 f6",
    "attributes:color": "f1 f2 f3 f6",
    "attributes.color:*": "f1 f2 f3 f6",
    "attributes.nil:*": "",
    "attributes:nil": "",
    "maker.facts.a = 1": "f5",
    "maker.facts:a": "f5",
    "secrets.k = 1": "f1",
}
BAD_FILTERS = {
    "attributes = 5": "is a Struct",
    "attributes.nil = null": "null is not a value",
    "attributes.on < true": "no order",
    "attributes.n = 1e999": "out of range",
    "attributes.n > 1e-999": "out of range",
    'attributes.l:"v*"': "wildcard",
    "attributes:c*": "wildcard",
    "colour.a = 1": "unknown field",
}


def test_filters_look_into_structs(gadgets: DatasetDoor) -> None:
    clear(gadgets)
    wanted(gadgets.post("POST", f"{PATH}:batchUpsert", {"gadgets": ASKED}))
    for text, keys in FILTERS.items():
        reply = gadgets.hub.get(PATH, "admin", filter=text, fields="gadget_id")
        assert reply.status == 200, (text, reply.text)
        found = [r["gadgetId"] for r in reply.json().get("gadgets", [])]
        assert found == keys.split(), text
        options = {"format": "CSV", "fields": "gadget_id"}
        file = gadgets.hub.get(f"{PATH}:export", "admin", filter=text, **options)
        assert file.text.split()[1:] == keys.split(), text
    for text, said in BAD_FILTERS.items():
        reply = gadgets.hub.get(PATH, "admin", filter=text)
        assert (reply.status, said in reply.text) == (400, True), (text, reply.text)


def test_structs_are_named_as_a_whole(gadgets: DatasetDoor) -> None:
    clear(gadgets)
    wanted(gadgets.post("POST", PATH, {"gadgetId": "u", "attributes": {"a": 1, "b": None}}))
    path = f"{PATH}/u"
    refused = gadgets.post("PATCH", f"{path}?update_mask=attributes.a", {"attributes": {"a": 2}})
    assert refused.status == 400 and "'attributes' is a Struct" in refused.text
    for asked in ({"fields": "attributes.a"}, {"order_by": "attributes.a"}):
        reply = gadgets.hub.get(PATH, "admin", **asked)
        assert reply.status == 400 and "Struct" in reply.text, reply.text
    assert "no order" in gadgets.hub.get(PATH, "admin", order_by="attributes").text
    for body, query in (
        ({"attributes": {"c": 3}}, "?update_mask=attributes"),
        ({"attributes": {}}, "?update_mask=attributes"),
        ({"attributes": {"c": True}}, "?update_mask=attributes"),
        ({}, "?update_mask=attributes"),
    ):
        reply = gadgets.post("PATCH", path + query, body)
        wanted(reply)
        assert is_exactly(trim(reply.json()), {"gadgetId": "u", **body})
    found: dict[str, Any]
    unset, empty = b"gadget_id,attributes\nu,\n", b"gadget_id,attributes\nu,{}\n"
    for file, found in ((empty, {"attributes": {}}), (unset, {})):
        wanted(gadgets.send("CSV", file))
        assert trim(gadgets.hub.get(path, "admin").json()) == {"gadgetId": "u", **found}


def test_what_is_hidden_is_unknown_in_filters_too(gadgets: DatasetDoor) -> None:
    clear(gadgets)
    wanted(gadgets.post("POST", f"{PATH}:batchUpsert", {"gadgets": ASKED}))
    public = {"PUBLIC": "clear"}
    rows = grant("gadgets", 'attributes.color = "red*" AND secrets:*', CLEAR)
    with (
        consumer_with(gadgets.hub, grant("gadgets", "", public)) as blind,
        consumer_with(gadgets.hub, grant("gadgets", "", CLEAR, secrets="null")) as masked,
        consumer_with(gadgets.hub, rows) as few,
    ):

        def ask(who: Any, **query: Any) -> Any:
            headers = {"x-api-key": who.key.removeprefix("key:")}
            return gadgets.hub.request("GET", PATH, headers=headers, query=query)

        reply = ask(blind, filter="secrets.k = 1")
        assert (reply.status, reply.reason) == (400, "FIELD_UNKNOWN"), reply.text
        assert (
            reply.text.partition("requestId")[0]
            == ask(blind, filter="secretz.k = 1")
            .text.replace("secretz", "secrets")
            .partition("requestId")[0]
        )
        assert "secrets" not in ask(blind).text
        assert ask(masked, filter="secrets.k = 1").json() == {"gadgets": []}
        assert {r["secrets"] for r in ask(masked).json()["gadgets"]} == {None}
        assert any(r["attributes"] for r in ask(masked).json()["gadgets"])
        assert [r["gadgetId"] for r in ask(few).json()["gadgets"]] == ["f1"]


def test_replicas_and_commands(gadgets: DatasetDoor, tmp_path: Path) -> None:
    clear(gadgets)
    records = random_records(random.Random(SEED), 20)
    WAYS_IN["NDJSON"](gadgets, records)
    target = str(tmp_path / "r.db")
    gadgets.hub.command("replica", "gadgets", "--to", target)
    gadgets.hub.command("verify", "gadgets", "--replica", target)
    for key in list(records)[:3]:
        shown = json.loads(gadgets.hub.command("get", "gadgets", key).stdout)
        assert is_exactly(shown.get("attributes"), records[key].get("attributes"))
    schema = gadgets.hub.get("/v1/datasets/gadgets/schema.xsd", "admin").text
    assert 'name="attributes" minOccurs="0" nillable="true" type="xs:string"' in schema
    told = gadgets.hub.get("/v1/datasets", "admin").json()["datasets"]
    fields = next(d["fields"] for d in told if d["name"] == "gadgets")
    assert {f["type"] for f in fields if f["path"] in FIELDS} == {"STRUCT"}
