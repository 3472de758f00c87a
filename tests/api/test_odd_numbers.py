"""NaN, the infinities and -0.0 are the same on every way in and out, or refused on every way in.

The fields come from the descriptors of tests/models/measures.proto: to test a new kind of number,
add it there. ``penstockd.floats`` states the rule.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
import sqlite3
import struct
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from xml.sax.saxutils import escape

import grpc
import openpyxl
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from google.protobuf import json_format

from feeds import consumer_with, grant
from harness import Reply, eventually, folder
from penstockd.catalog import Kind
from workshops import DatasetDoor, Workshop

pytestmark = [pytest.mark.slow, pytest.mark.lane("api/models", priority=12)]

# protobuf's type stubs have two incompatible classes of descriptors.
Descriptor = Any
FieldDescriptor = Any

PATH = "/v1/measures"
#: The numbers, by the suffix of their records' keys, in the order in which the hub sorts them.
NUMBERS = {
    "lowest": -math.inf,
    "zero": -0.0,
    "least": 5e-324,
    "one": 1.5,
    "most": 1.7976931348623157e308,
    "highest": math.inf,
    "none": math.nan,
}
#: The same for 32 bits, which have other limits.
NARROW = NUMBERS | {"least": 1.401298464324817e-45, "most": 3.4028234663852886e38}
Records = dict[str, dict[str, Any]]
_SPELLING = r"NaN|-?Infinity|-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?"


def read_json(text: str | bytes) -> Any:
    """Parsed JSON in which -0 keeps its sign, which Python's int would lose."""
    return json.loads(text, parse_int=lambda digits: -0.0 if digits == "-0" else int(digits))


def is_float(fd: FieldDescriptor) -> bool:
    return fd.cpp_type in (fd.CPPTYPE_FLOAT, fd.CPPTYPE_DOUBLE)


def is_map(fd: FieldDescriptor) -> bool:
    return fd.message_type is not None and bool(fd.message_type.GetOptions().map_entry)


def fill(message: Descriptor, name: str) -> dict[str, Any]:
    """A record with the number in each of its floats, in lists, maps and messages too."""
    found: dict[str, Any] = {}
    for fd in message.fields:
        item = fd.message_type.fields_by_name["value"] if is_map(fd) else fd
        if is_float(item):
            value: Any = (NARROW if item.cpp_type == item.CPPTYPE_FLOAT else NUMBERS)[name]
        elif item.message_type is not None and "google" not in item.message_type.full_name:
            value = fill(item.message_type, name)
        else:
            continue
        found[fd.name] = {"k": value} if is_map(fd) else [value, value] if fd.is_repeated else value
    return found


def form(message: Descriptor, data: Mapping[str, Any]) -> dict[str, Any]:
    """The floats in a record as any surface shows it: exact texts by path, without zeros, which
    surfaces may leave out. -0.0 does not count as zero here."""
    found: dict[str, Any] = {}
    for fd in message.fields:
        value = data.get(fd.json_name, data.get(fd.name))
        item = fd.message_type.fields_by_name["value"] if is_map(fd) else fd
        holds = item.message_type is not None and "google" not in item.message_type.full_name
        if value in (None, "", [], {}) or not (is_float(item) or holds):
            continue
        if isinstance(value, str) and (fd.is_repeated or holds):
            value = read_json(value)
        if is_map(fd):
            pairs = value.items() if isinstance(value, Mapping) else value
        else:
            pairs = enumerate(value if fd.is_repeated else [value])
        for at, one in pairs:
            if holds:
                inner = form(item.message_type, one)
                found |= {f"{fd.name}.{at}.{path}": text for path, text in inner.items()}
            elif (text := number_text(item, one)) != "0.0":
                found[f"{fd.name}.{at}"] = text
    return found


def number_text(fd: FieldDescriptor, value: Any) -> str:
    """A float, exactly as its type stores it. Raises ValueError for spellings of no surface."""
    if isinstance(value, str) and not re.fullmatch(_SPELLING, value):
        raise ValueError(f"the hub does not write {value}")
    number = float(value)
    if fd.cpp_type == fd.CPPTYPE_FLOAT:
        number = struct.unpack("<f", struct.pack("<f", number))[0]
    return repr(number)


# --- ways in: files as others write them ---


def plain(value: Any) -> Any:
    """A value as proto JSON."""
    if isinstance(value, dict):
        return {name: plain(v) for name, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    names = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    return names.get(repr(value), value) if isinstance(value, float) else value


def flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Cells by column: members of a message have their own columns, lists and maps are JSON."""
    cells: dict[str, Any] = {}
    for name, value in record.items():
        if name == "reading":
            cells |= flatten(value, "reading.")
        elif isinstance(value, dict | list):
            cells[prefix + name] = json.dumps(plain(value))
        else:
            cells[prefix + name] = plain(value)
    return cells


def as_csv(records: Records) -> bytes:
    rows = [flatten(r) for r in records.values()]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_sheet(records: Records) -> bytes:
    rows = [flatten(r) for r in records.values()]
    book = openpyxl.Workbook()
    book.active.append(list(rows[0]))
    for row in rows:  # other writers keep fifteen digits of a number
        exact = [not isinstance(v, float) or float(f"{v:.15g}") == v for v in row.values()]
        cells = [v if e else repr(v) for v, e in zip(row.values(), exact, strict=True)]
        book.active.append(cells)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def element(message: Descriptor, data: Mapping[str, Any]) -> str:
    parts = []
    for name, value in data.items():
        fd = message.fields_by_name[name]
        item = fd.message_type.fields_by_name["value"] if is_map(fd) else fd

        def inner(one: Any, item: FieldDescriptor = item) -> str:
            if isinstance(one, dict):
                return element(item.message_type, one)
            return escape(str(plain(one)))

        if is_map(fd):
            text = "".join(f'<entry key="{k}">{inner(v)}</entry>' for k, v in value.items())
        elif fd.is_repeated:
            text = "".join(f"<item>{inner(v)}</item>" for v in value)
        else:
            text = inner(value)
        parts.append(f"<{name}>{text}</{name}>")
    return "".join(parts)


def as_xml(g: DatasetDoor, records: Records) -> bytes:
    rows = [element(g.record_class.DESCRIPTOR, r) for r in records.values()]
    return f"<measures>{''.join(f'<measure>{r}</measure>' for r in rows)}</measures>".encode()


def arrow_type(fd: FieldDescriptor) -> Any:
    item = fd.message_type.fields_by_name["value"] if is_map(fd) else fd
    kind = pyarrow.float32() if item.cpp_type == item.CPPTYPE_FLOAT else pyarrow.float64()
    if item.message_type is not None:
        members = fill(item.message_type, "one")
        known = item.message_type.fields_by_name
        kind = pyarrow.struct([(name, arrow_type(known[name])) for name in members])
    if is_map(fd):
        return pyarrow.map_(pyarrow.string(), kind)
    return pyarrow.list_(kind) if fd.is_repeated else kind


def as_table(g: DatasetDoor, records: Records) -> pyarrow.Table:
    """A table with the nested types of other tools; members of a message have their own columns."""
    message: Descriptor = g.record_class.DESCRIPTOR
    columns: dict[str, Any] = {}
    for name, value in next(iter(records.values())).items():
        fd = message.fields_by_name[name]
        values = [record[name] for record in records.values()]
        if name == "measure_id":
            columns[name] = values
        elif isinstance(value, dict) and not is_map(fd):
            for inner in value:
                kind = arrow_type(fd.message_type.fields_by_name[inner])
                columns[f"{name}.{inner}"] = pyarrow.array([v[inner] for v in values], kind)
        else:
            columns[name] = pyarrow.array(values, arrow_type(fd))
    return pyarrow.table(columns)


def as_parquet(g: DatasetDoor, records: Records) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(as_table(g, records), out)
    return out.getvalue()


def as_arrow(g: DatasetDoor, records: Records) -> bytes:
    out = io.BytesIO()
    table = as_table(g, records)
    with pyarrow.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()


def as_lines(records: Records) -> bytes:
    return b"".join(json.dumps(plain(r)).encode() + b"\n" for r in records.values())


def as_json(records: Records) -> bytes:
    return json.dumps([plain(r) for r in records.values()]).encode()


def wanted(reply: Reply) -> Reply:
    assert reply.status == 200, reply.text
    return reply


def create_by_grpc(g: DatasetDoor, records: Records) -> None:
    for record in records.values():
        request = g.message("CreateMeasureRequest", measure=plain(record))
        g.call("CreateMeasure", request, "Measure")


def upsert_by_grpc(g: DatasetDoor, records: Records) -> None:
    request = g.message("BatchUpsertMeasuresRequest", measures=plain(list(records.values())))
    g.call("BatchUpsertMeasures", request, "BatchUpsertMeasuresResponse")


def update_by_grpc(g: DatasetDoor, records: Records) -> None:
    for record in records.values():
        values = {"measure": plain(record), "allowMissing": True}
        g.call("UpdateMeasure", g.message("UpdateMeasureRequest", **values), "Measure")


def update(g: DatasetDoor, records: Records) -> None:
    for key, record in records.items():
        paths = ",".join(name for name in record if name != "measure_id")
        query = {"update_mask": paths, "allow_missing": "true"}
        reply = g.hub.request(
            "PATCH", f"{PATH}/{key}", consumer="admin", json_body=plain(record), query=query
        )
        wanted(reply)


def command(g: DatasetDoor, records: Records) -> None:
    for record in records.values():
        g.hub.command("create", "measures", "--data", json.dumps(plain(record)))


#: Every way in, each for records that the hub does not have.
WAYS_IN: dict[str, Callable[[DatasetDoor, Records], object]] = {
    "create": lambda g, r: [wanted(g.post("POST", PATH, plain(x))) for x in r.values()],
    "update": update,
    "batch": lambda g, r: wanted(
        g.post("POST", f"{PATH}:batchUpsert", {"measures": plain(list(r.values()))})
    ),
    "grpc-create": create_by_grpc,
    "grpc-update": update_by_grpc,
    "grpc-batch": upsert_by_grpc,
    "json": lambda g, r: wanted(g.send("JSON", as_json(r))),
    "ndjson": lambda g, r: wanted(g.send("NDJSON", as_lines(r))),
    "csv": lambda g, r: wanted(g.send("CSV", as_csv(r))),
    "xml": lambda g, r: wanted(g.send("XML", as_xml(g, r))),
    "xlsx": lambda g, r: wanted(g.send("XLSX", as_sheet(r))),
    "parquet": lambda g, r: wanted(g.send("PARQUET", as_parquet(g, r))),
    "arrow": lambda g, r: wanted(g.send("ARROW", as_arrow(g, r))),
    "command": command,
}


# --- ways out ---


def exported(g: DatasetDoor, name: str, verb: str = "export", **query: Any) -> bytes:
    options = {"format": name, **query}
    if verb == "exportPage":
        options = {"format": name, "page_size": 1000, **query}
    return wanted(g.hub.get(f"{PATH}:{verb}", "admin", **options)).body


def from_cells(rows: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    for row in rows:
        record: dict[str, Any] = {"reading": {}}
        for path, value in row.items():
            holder = record["reading"] if path.startswith("reading.") else record
            holder[path.rpartition(".")[2]] = value
        yield record


def read_csv(g: DatasetDoor, verb: str) -> Iterable[Mapping[str, Any]]:
    text = exported(g, "CSV", verb).decode()
    return from_cells(csv.DictReader(io.StringIO(text, newline="")))


def read_sheet(g: DatasetDoor, verb: str) -> Iterable[Mapping[str, Any]]:
    book = openpyxl.load_workbook(io.BytesIO(exported(g, "XLSX", verb)))
    head, *rows = book.worksheets[0].values
    return from_cells(dict(zip(map(str, head), row, strict=True)) for row in rows)


def read_element(message: Descriptor, found: ET.Element) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for child in found:
        fd = message.fields_by_name[child.tag]
        item = fd.message_type.fields_by_name["value"] if is_map(fd) else fd

        def inner(one: ET.Element, item: FieldDescriptor = item) -> Any:
            of = item.message_type
            nested = of is not None and "google" not in of.full_name
            return read_element(of, one) if nested else one.text

        if is_map(fd):
            record[child.tag] = {e.attrib["key"]: inner(e) for e in child}
        else:
            record[child.tag] = [inner(e) for e in child] if fd.is_repeated else inner(child)
    return record


def read_xml(g: DatasetDoor, verb: str) -> Iterable[Mapping[str, Any]]:
    root = ET.fromstring(exported(g, "XML", verb))
    return [read_element(g.record_class.DESCRIPTOR, e) for e in root]


def read_parquet(g: DatasetDoor, verb: str) -> Iterable[Mapping[str, Any]]:
    table = pyarrow.parquet.read_table(io.BytesIO(exported(g, "PARQUET", verb)))
    return from_cells(table.to_pylist())


def read_arrow(g: DatasetDoor, verb: str) -> Iterable[Mapping[str, Any]]:
    return from_cells(pyarrow.ipc.open_stream(exported(g, "ARROW", verb)).read_all().to_pylist())


def of_messages(messages: Iterable[Any]) -> Iterable[Mapping[str, Any]]:
    return [json_format.MessageToDict(m, preserving_proto_field_name=True) for m in messages]


def list_by_grpc(g: DatasetDoor) -> Any:
    request = g.message("ListMeasuresRequest", pageSize=1000)
    return g.call("ListMeasures", request, "ListMeasuresResponse").measures


def listed(g: DatasetDoor) -> list[dict[str, Any]]:
    reply = wanted(g.hub.get(PATH, "admin", page_size=1000))
    found: list[dict[str, Any]] = read_json(reply.body)["measures"]
    return found


def got(g: DatasetDoor) -> Iterable[Mapping[str, Any]]:
    keys = [r["measureId"] for r in listed(g)]
    return [read_json(wanted(g.hub.get(f"{PATH}/{key}", "admin")).body) for key in keys]


def changed(g: DatasetDoor) -> Iterable[Mapping[str, Any]]:
    found: dict[str, Any] = {}
    token = ""
    while token or not found:
        answer = wanted(g.hub.get(f"{PATH}:changes", "admin", cursor=token or START[0]))
        reply = read_json(answer.body)
        found |= {c["key"]: c["after"] for c in reply.get("changes", [])}
        token = reply["nextCursor"] if reply.get("changes") else ""
    return list(found.values())


def replicated(g: DatasetDoor) -> Iterable[Mapping[str, Any]]:
    with folder() as made:
        target = f"{made}/replica.db"
        g.hub.command("replica", "measures", "--to", target)
        done = g.hub.command("verify", "measures", "--replica", target, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        with sqlite3.connect(target) as database:
            rows = database.execute("SELECT * FROM measures")
            names = [column[0] for column in rows.description]
            cells = [dict(zip(names, row, strict=True)) for row in rows]
        database.close()
    for row in cells:  # SQLite has no NaN: the replica stores its name as bytes
        for name, value in row.items():
            row[name] = "NaN" if value == b"nan" else value
    return [{k.replace("reading_", "reading.", 1): v for k, v in r.items()} for r in cells]


#: The cursor of the feed before the first write.
START = [""]
WAYS_OUT: dict[str, Callable[[DatasetDoor], Iterable[Mapping[str, Any]]]] = {
    "get": got,
    "list": listed,
    "gRPC list": lambda g: of_messages(list_by_grpc(g)),
    "gRPC get": lambda g: of_messages(
        g.call("GetMeasure", g.message("GetMeasureRequest", measureId=m.measure_id), "Measure")
        for m in list_by_grpc(g)
    ),
    "changes": changed,
    "command": lambda g: [
        read_json(g.hub.command("get", "measures", f"csv-{name}").stdout) for name in NUMBERS
    ],
    **{
        f"{name} {verb}": lambda g, read=read, verb=verb: read(g, verb)  # type: ignore[misc]
        for name, read in {
            "JSON": lambda g, verb: read_json(exported(g, "JSON", verb)),
            "NDJSON": lambda g, verb: map(read_json, exported(g, "NDJSON", verb).splitlines()),
            "CSV": read_csv,
            "XML": read_xml,
            "XLSX": read_sheet,
            "PARQUET": read_parquet,
            "ARROW": read_arrow,
        }.items()
        for verb in ("export", "exportPage")
    },
}


# --- tests ---


@pytest.fixture(scope="module")
def measures(modelled: Workshop) -> DatasetDoor:
    """The hub after each number has come in on every way, into every float; the records' keys are
    the way and the name of the number."""
    door = DatasetDoor(modelled, "measures")
    door.hub.head()
    START[0] = door.hub.get(f"{PATH}:changes", "admin").json()["nextCursor"]
    message = door.record_class.DESCRIPTOR
    for way, write in WAYS_IN.items():
        write(
            door,
            {
                f"{way}-{name}": {"measure_id": f"{way}-{name}", **fill(message, name)}
                for name in NUMBERS
            },
        )
    door.hub.head()
    return door


def expected(door: DatasetDoor, name: str) -> dict[str, Any]:
    message = door.record_class.DESCRIPTOR
    return form(message, fill(message, name)) if name != "zero" else {}


def test_the_walk_reaches_every_float(measures: DatasetDoor) -> None:
    """The control: each field that can hold a float holds one, and the test can see -0.0."""
    floats = (Kind.FLOAT, Kind.DOUBLE)
    every = [
        f.path
        for f in measures.dataset.fields
        for inner in (f, f.element, *f.members)
        if inner is not None and (inner.kind in floats or (inner.element or f).kind in floats)
    ]
    reached = {path.split(".")[0] for path in expected(measures, "one")}
    assert {path.split(".")[0] for path in every} == reached and len(reached) >= 12
    message = measures.record_class.DESCRIPTOR
    assert len(form(message, fill(message, "zero"))) == len(expected(measures, "one"))


@pytest.mark.parametrize("out", WAYS_OUT)
def test_each_way_out_shows_what_came_in(measures: DatasetDoor, out: str) -> None:
    message = measures.record_class.DESCRIPTOR
    found = {r.get("measureId", r.get("measure_id")): r for r in WAYS_OUT[out](measures)}
    ways = ["csv"] if out == "command" else list(WAYS_IN)
    assert found.keys() == {f"{way}-{name}" for way in ways for name in NUMBERS}
    for key, record in found.items():
        shown = form(message, record)
        assert shown == expected(measures, key.rpartition("-")[2]), (out, key)


def test_a_replica_holds_the_same_and_is_proved_equal(measures: DatasetDoor) -> None:
    message = measures.record_class.DESCRIPTOR
    for row in replicated(measures):
        record = next(iter(from_cells([row])))
        name = str(record["measure_id"]).rpartition("-")[2]
        assert form(message, record) == expected(measures, name), record["measure_id"]


def test_the_same_number_is_unchanged_on_every_way_in(measures: DatasetDoor) -> None:
    """Etags and digests agree with the values: writing the same values again changes nothing."""
    etags = {r["measureId"]: r["etag"] for r in listed(measures)}
    digests = measures.hub.get(f"{PATH}:digest", "admin", keys="true").json()["ranges"]
    keys = {f"csv-{name}": name for name in NUMBERS}
    message = measures.record_class.DESCRIPTOR
    records = {key: {"measure_id": key, **fill(message, name)} for key, name in keys.items()}
    for way, write in WAYS_IN.items():
        if "create" not in way and way != "command":
            write(measures, records)
    assert {r["measureId"]: r["etag"] for r in listed(measures)} == etags
    assert measures.hub.get(f"{PATH}:digest", "admin", keys="true").json()["ranges"] == digests
    for format in ("JSON", "NDJSON", "CSV", "XML", "PARQUET", "ARROW"):
        again = wanted(measures.send(format, exported(measures, format))).json()
        count = str(len(etags))
        assert again == {"rowCount": count, "unchangedCount": count}, format


def test_filters_and_orders_agree_with_the_values(measures: DatasetDoor) -> None:
    fields = ("narrow_or_none", "wide_or_none", "sought", "reading.wide", "narrow", "wide")
    asked = {
        "{} = NaN": {"none"},
        "{} != NaN": NUMBERS.keys() - {"none"},
        "{} = Infinity": {"highest"},
        '{} = "-Infinity"': {"lowest"},
        "{} = 0": {"zero"},
        "{} = -0": {"zero"},
        "{} = -0.0": {"zero"},
        "{} < 0": {"lowest"},
        "{} >= Infinity": {"highest", "none"},
        "{} > Infinity": {"none"},
    }
    for field in fields:
        for text, names in asked.items():
            query = {"filter": f'({text.format(field)}) AND measure_id = "xml-*"'}
            found = wanted(measures.hub.get(PATH, "admin", **query)).json().get("measures", [])
            assert {r["measureId"] for r in found} == {f"xml-{n}" for n in names}, (field, text)
        for order, sorted_names in (("", list(NUMBERS)), (" desc", list(NUMBERS)[::-1])):
            query = {"filter": 'measure_id = "xml-*"', "order_by": field + order}
            keys: list[str] = []
            token = ""
            while token or not keys:
                page = wanted(
                    measures.hub.get(PATH, "admin", page_size=2, page_token=token, **query)
                ).json()
                keys += [r["measureId"] for r in page["measures"]]
                token = page.get("nextPageToken", "")
            assert keys == [f"xml-{name}" for name in sorted_names], (field, order)


def test_row_rules_and_the_feed_agree_with_the_values(measures: DatasetDoor) -> None:
    """The rules of rows are evaluated by the database in lists, and by the hub in the feed."""
    for rule, names in (
        ("wide_or_none = NaN", {"none"}),
        ("wide_or_none = -0.0", {"zero"}),
        ("narrow < 0", {"lowest"}),
        ("sought >= Infinity", {"highest", "none"}),
    ):
        with consumer_with(measures.hub, grant("measures", rule)) as made:

            def ask(path: str, key: str = made.key, **query: Any) -> Any:
                headers = {"x-api-key": key.removeprefix("key:")}
                return wanted(
                    measures.hub.request("GET", path, headers=headers, query=query)
                ).json()

            keys = {f"{way}-{name}" for way in WAYS_IN for name in names}
            assert {r["measureId"] for r in ask(PATH, page_size=1000)["measures"]} == keys, rule
            told, cursor = set(), START[0]
            while more := (reply := ask(f"{PATH}:changes", cursor=cursor)).get("changes"):
                told |= {c["key"] for c in more}
                cursor = reply["nextCursor"]
            assert told == keys, rule


def test_webhooks_and_shapes_show_the_same(measures: DatasetDoor) -> None:
    message = measures.record_class.DESCRIPTOR
    columns = [
        {"name": "measure_id", "field": "measure_id"},
        {"name": "wide", "expression": "wide_or_none"},
        {"name": "wide_or_none", "expression": "-wide"},
    ]
    document = {"shapeId": "odd-numbers", "dataset": "measures", "columns": columns}
    wanted(measures.post("POST", "/v1/shapes", document))
    rows = json.loads(exported(measures, "JSON", shape="odd-numbers"))
    for row in rows:  # computed columns have finite results only
        value = NUMBERS[row["measure_id"].rpartition("-")[2]] + 0.0
        finite = value if math.isfinite(value) else None
        assert repr(row["wide"]) in (repr(finite), repr(finite).removesuffix(".0")), row
        negative = None if finite is None else 0.0 - finite
        assert repr(row["wide_or_none"]) in (repr(negative), repr(negative).removesuffix(".0"))
    made = measures.post(
        "POST",
        "/v1/webhooks",
        {"url": "", "kind": "LISTEN", "selections": [{"dataset": "measures"}]},
    )
    place = f"/v1/webhooks/{wanted(made).json()['webhook']['webhookId']}"
    records = {
        f"webhook-{name}": {"measure_id": f"webhook-{name}", **fill(message, name)}
        for name in NUMBERS
    }
    upsert_by_grpc(measures, records)
    told: dict[str, Any] = {}

    def all_told() -> bool:
        reply = measures.post("POST", f"{place}:pull", {"wait": "20s"}).json()
        found = reply.get("deliveries", [])
        for delivery in found:
            data = read_json(base64.b64decode(delivery["body"]))["data"]
            told[data["key"]] = data["record"]
        outcomes = [
            {"deliveryId": d["deliveryId"], "status": 200, "latency": "0.01s"} for d in found
        ]
        if outcomes:
            measures.post("POST", f"{place}:acknowledge", {"outcomes": outcomes})
        return told.keys() >= records.keys()

    eventually(all_told)
    for key, record in told.items():
        assert form(message, record) == expected(measures, key.rpartition("-")[2]), key
    for path in (place, "/v1/shapes/odd-numbers", *(f"{PATH}/{key}" for key in records)):
        wanted(measures.hub.request("DELETE", path, consumer="admin"))


# --- refused: other spellings, and numbers that are no floats ---

#: Spellings of other tools, by the field that must refuse them. JSON itself has no such numbers.
SPELLINGS = ("nan", "inf", "INF", "+Infinity", "infinity", "1e999", "-1e999", "1.#INF", "--0")
#: Numbers that decimals, whole numbers and Structs refuse.
ODD = [math.nan, math.inf, -math.inf]


def files_of(rows: list[dict[str, str]]) -> dict[str, bytes]:
    """Files with records of these texts by path; the first record is ``bad-0``."""
    named = [{"measure_id": f"bad-{n}", **row} for n, row in enumerate(rows)]
    nested: list[dict[str, Any]] = []
    for row in named:
        record: dict[str, Any] = {}
        for path, text in row.items():
            holder, _, name = path.rpartition(".")
            (record.setdefault(holder, {}) if holder else record)[name] = text
        nested.append(record)
    out = io.StringIO(newline="")
    csv.writer(out).writerows([list(named[0]), *(list(row.values()) for row in named)])
    book, sheet = openpyxl.Workbook(), io.BytesIO()
    for cells in ([*named[0]], *(list(row.values()) for row in named)):
        book.active.append(cells)
    book.save(sheet)
    return {
        "JSON": json.dumps(nested).encode(),
        "NDJSON": "\n".join(map(json.dumps, nested)).encode(),
        "CSV": out.getvalue().encode(),
        "XLSX": sheet.getvalue(),
        "XML": f"<measures>{''.join(map(text_element, nested))}</measures>".encode(),
        **binary_of({path: [row[path] for row in named] for path in named[0]}),
    }


def text_element(record: Mapping[str, Any], name: str = "measure") -> str:
    inner = "".join(
        text_element(v, k) if isinstance(v, dict) else f"<{k}>{escape(v)}</{k}>"
        for k, v in record.items()
    )
    return f"<{name}>{inner}</{name}>"


def binary_of(columns: Mapping[str, list[Any]]) -> dict[str, bytes]:
    table = pyarrow.table(dict(columns))
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pyarrow.parquet.write_table(table, parquet)
    with pyarrow.ipc.new_stream(arrow, table.schema) as stream:
        stream.write_table(table)
    return {"PARQUET": parquet.getvalue(), "ARROW": arrow.getvalue()}


def refuses(door: DatasetDoor, files: Mapping[str, bytes], path: str, count: int) -> None:
    """Check that each row of each file is refused, because of the field at ``path``."""
    for name, file in files.items():
        reply = door.send(name, file)
        assert reply.status == 400, (path, name, reply.text)
        fields = [field.rpartition("]")[2].strip(".") for field in reply.violations()]
        if reply.reason == "IMPORT_FORMAT_INVALID":  # the type of the whole column
            assert f"'{path}' is of type double" in reply.text, (path, name, reply.text)
        else:
            assert fields == [path] * count, (path, name, reply.text)
    assert door.hub.get(f"{PATH}/bad-0", "admin").status == 404


def test_other_spellings_are_refused_on_every_way_in(measures: DatasetDoor) -> None:
    for path, more in (("narrow", ["1e39", "-3.5e38"]), ("reading.wide", []), ("wide", [])):
        texts = [*SPELLINGS, *more]
        refuses(measures, files_of([{path: text} for text in texts]), path, len(texts))
    for token in ("NaN", "Infinity", "-Infinity", "1e999"):
        body = b'{"measure_id":"bad-0","wide":%s}' % token.encode()
        headers = {"content-type": "application/json"}
        for file in (body, b"[" + body + b"]"):
            assert measures.send("JSON", file).status == 400, token
        reply = measures.hub.request("POST", PATH, consumer="admin", body=body, headers=headers)
        assert reply.status == 400, reply.text
    assert measures.hub.get(f"{PATH}/bad-0", "admin").status == 404


def test_numbers_that_are_no_floats_are_finite_and_have_one_zero(measures: DatasetDoor) -> None:
    kinds = (Kind.DECIMAL, Kind.INT32, Kind.INT64, Kind.UINT32, Kind.UINT64)
    fields = [f for f in measures.dataset.fields if f.kind in kinds and f.path != "etag"]
    assert {f.kind for f in fields} == set(kinds)
    for field in fields:
        floats: dict[str, list[Any]] = {"measure_id": ["bad-0", "bad-1", "bad-2"], field.path: ODD}
        files = files_of([{field.path: plain(value)} for value in ODD]) | {
            name: file for name, file in binary_of(floats).items()
        }
        refuses(measures, files, field.path, len(ODD))
        if field.kind is Kind.DECIMAL:
            for value in ODD:
                holder: Any = plain(value)
                for step in reversed(field.steps):
                    holder = {step: holder}
                request = measures.message("CreateMeasureRequest", measure=holder)
                request.measure.measure_id = "bad-0"
                with pytest.raises(grpc.RpcError) as error:
                    measures.call("CreateMeasure", request, "Measure")
                assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for within in ({"exacts": ["NaN"]}, {"counts": ["NaN"]}, {"readings": [{"exact": "NaN"}]}):
        reply = measures.post("POST", PATH, {"measureId": "bad-0", **within})
        assert reply.status == 400 and next(iter(within)) in reply.text, reply.text
    zeros = files_of([{field.path: "-0" for field in fields}])
    paths = sorted(field.path for field in fields)
    for name, file in zeros.items():
        reply = measures.send(name, file)
        assert reply.status == 200, (name, reply.text)
        shown = exported(measures, "CSV", filter="measure_id = bad-0", fields=",".join(paths))
        (row,) = csv.DictReader(io.StringIO(shown.decode()))
        assert {float(v) for v in row.values()} == {0.0} and "-" not in "".join(row.values()), name
        wanted(measures.hub.request("DELETE", f"{PATH}/bad-0", consumer="admin"))
    decimals = [field.path for field in fields if field.kind is Kind.DECIMAL]
    for name, file in binary_of({"measure_id": ["bad-0"], **{p: [-0.0] for p in decimals}}).items():
        assert measures.send(name, file).status == 200, name
        assert b"-" not in exported(
            measures, "CSV", filter="measure_id = bad-0", fields=",".join(decimals)
        )
        wanted(measures.hub.request("DELETE", f"{PATH}/bad-0", consumer="admin"))


def test_a_struct_has_one_zero_and_finite_numbers(measures: DatasetDoor) -> None:
    for number in ("NaN", "Infinity", "-Infinity"):
        body = b'{"measure_id":"bad-0","facts":{"n":%s}}' % number.encode()
        assert measures.send("NDJSON", body).status == 400, number
    body = json.dumps({"measure_id": "bad-0", "facts": {"n": -0.0}}).encode()
    wanted(measures.send("NDJSON", body))
    assert b'"n":0}' in exported(measures, "NDJSON", filter="measure_id = bad-0").replace(b" ", b"")
    wanted(measures.hub.request("DELETE", f"{PATH}/bad-0", consumer="admin"))
