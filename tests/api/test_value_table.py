"""One table of kinds of fields and inputs: what is accepted reads back as what was sent, and the
rest is refused, over every way in.

JSON, XML and messages are strict; cells of CSV and of columns of text take the spellings of other
tools as well. To test a new kind of field, add it to tests/models/samples.proto.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import grpc
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from workshops import DatasetDoor, Workshop

pytestmark = [pytest.mark.slow, pytest.mark.lane("api/models", priority=12)]

NO = object()  # refused
NOON = "2024-02-29T12:00:00"
SIX = f"{NOON}.123456Z"


class Case(NamedTuple):
    """A value in a field as it is written, and as it reads back in JSON."""

    field: str
    written: str
    reads: Any


#: By field: literals of JSON. What reads back is compared as parsed JSON.
JSON: dict[str, list[tuple[str, Any]]] = {
    "text": [('"a\\tb"', "a\tb"), ('""', ""), ('"a\\u0000"', NO), ('"\\ud800"', NO), ("7", NO)],
    "flag": [("true", True), ("false", False), ('"true"', NO), ("1", NO), ("0", NO)],
    "small": [
        ("2147483647", 2147483647), ("-2147483648", -2147483648), ('"5"', 5), ("-0", 0),
        ("2147483648", NO), ("1.0", NO), ("1e2", NO), ("1.5", NO), ('""', NO), ("true", NO),
    ],
    "large": [
        ("9007199254740993", "9007199254740993"), ('"9223372036854775807"', "9223372036854775807"),
        ("9223372036854775808", NO), ("9007199254740993.0", NO), ("1e3", NO), ('"1.0"', NO),
    ],
    "count": [("4294967295", 4294967295), ("4294967296", NO), ("-1", NO), ('"+1"', NO)],
    "total": [
        ("18446744073709551615", "18446744073709551615"), ("18446744073709551616", NO), ("-1", NO),
    ],
    "wide": [
        ("9007199254740992", 9007199254740992), ("9007199254740993", NO),
        ("9007199254740993.0", NO), ("90071992547409930e-1", NO), ('"9007199254740993"', NO),
        ("123456789012345680000", 1.2345678901234568e20), ("1e23", 1e23), ("0.1", 0.1),
        ("0.1000000000000000055511151231257827", 0.1), ("-0.0", 0), ("0e-999", 0),
        ("5e-324", 5e-324), ("1e-400", NO), ("-1e-400", NO), ('"1e-400"', NO), ("1e400", NO),
        ('"NaN"', "NaN"), ('"-Infinity"', "-Infinity"), ('"inf"', NO), ('""', NO), ("true", NO),
    ],
    "narrow": [
        ("16777216", 16777216), ("16777217", NO), ("16777217.0", NO), ("-16777217", NO),
        ("0.1", 0.1), ("1e-45", 1e-45), ("1e-50", NO), ("1e39", NO), ('"NaN"', "NaN"),
    ],
    "raw": [
        ('"QQ=="', "QQ=="), ('"QQ"', "QQ=="), ('"-_8="', "+/8="), ('""', ""), ('"QR=="', NO),
        ('"QUI="', "QUI="), ('"QUJ="', NO), ('"QUJ"', NO), ('"Q"', NO), ('"Q Q="', NO), ("7", NO),
    ],
    "price": [
        ('"1.50"', "1.50"), ("1.50", "1.50"), ("1e2", "100"), ('"-0.0"', "0.0"), ("7", "7"),
        ('"1e2"', NO), ("0.00001", NO), ('"1,5"', NO), ('"NaN"', NO), ("1234567", NO),
    ],
    "day": [('"2024-02-29"', "2024-02-29"), ('"2023-02-29"', NO), ('"2024-2-9"', NO), ("7", NO)],
    "at": [
        (f'"{SIX}"', SIX), (f'"{NOON}Z"', f"{NOON}.000000Z"), (f'"{SIX[:-1]}000Z"', SIX),
        (f'"{SIX[:-1]}000000000000Z"', SIX), ('"2024-02-29t14:00:00+02:00"', f"{NOON}.000000Z"),
        (f'"{SIX[:-1]}7Z"', NO), (f'"{SIX[:-1]}000000001Z"', NO), ('"2024-02-29T11:59:60Z"', NO),
        ('"2024-02-29T24:00:00Z"', NO), ('"2023-02-29T12:00:00Z"', NO), (f'"{NOON}"', NO),
        ("1709208000", NO), ('""', NO),
    ],
    "color": [('"RED"', "RED"), ("1", "RED"), ('"red"', NO), ("9", NO), ('""', NO), ("1.0", NO)],
    "part": [
        (f'{{"at": "{NOON}Z"}}', {"at": f"{NOON}.000000Z", "size": 0, "raw": ""}),
        (f'{{"at": "{SIX[:-1]}7Z"}}', NO), ('{"size": 9007199254740993}', NO),
        ('{"raw": "QR=="}', NO), ('{"sise": 1}', NO), ("[]", NO),
    ],
    "parts": [
        ('[{"size": 1}]', [{"raw": "", "size": 1}]), (f'[{{"at": "{SIX[:-1]}7Z"}}]', NO),
        ('[{"size": 1e-400}]', NO), ('[{"raw": "QR=="}]', NO), ("[null]", NO), ("{}", NO),
    ],
    "times": [(f'["{NOON}Z"]', [f"{NOON}.000000Z"]), (f'["{SIX[:-1]}7Z"]', NO), ("[7]", NO)],
    "sizes": [("[1, 0.5]", [1, 0.5]), ("[9007199254740993]", NO), ("[null]", NO), ("1", NO)],
    "scores": [('{"a": 1}', {"a": "1"}), ('{"a": 1.5}', NO), ('{"a": null}', NO), ("[]", NO)],
    "facts": [
        ('{"a": 1.0, "b": null}', {"a": 1, "b": None}), ('{"a": 9007199254740993}', NO),
        ('{"a": 1e-400}', NO), ("[]", NO), ('"a"', NO),
    ],
}  # fmt: skip

#: By field: texts of elements and cells.
TEXTS: dict[str, list[tuple[str, Any]]] = {
    "text": [("a b", "a b"), ("7", "7"), ("\ufffe", NO)],
    "flag": [("true", True), ("false", False), ("yes", NO), ("1", NO)],
    "small": [("-2147483648", -2147483648), ("2147483648", NO), ("1.0", NO), ("1e2", NO)],
    "large": [("9007199254740993", "9007199254740993"), ("9223372036854775808", NO)],
    "count": [("4294967295", 4294967295), ("-1", NO)],
    "total": [("18446744073709551615", "18446744073709551615"), ("18446744073709551616", NO)],
    "wide": [
        ("9007199254740992", 9007199254740992), ("9007199254740993", NO), ("1e23", 1e23),
        ("9007199254740993.0", NO), ("1e-400", NO), ("1e400", NO), ("0.1", 0.1), ("-0", 0),
        ("NaN", "NaN"), ("nan", NO), ("0x10", NO),
    ],
    "narrow": [
        ("16777216", 16777216), ("16777217", NO), ("16777217.0", NO), ("0.1", 0.1), ("1e-50", NO),
    ],
    "raw": [("QQ==", "QQ=="), ("QQ", "QQ=="), ("QR==", NO), ("QUJ=", NO), ("Q", NO)],
    "price": [("1.50", "1.50"), ("-0.0", "0.0"), ("1e2", NO), ("0.00001", NO)],
    "day": [("2024-02-29", "2024-02-29"), ("2023-02-29", NO), ("29.02.2024", NO)],
    "at": [
        (SIX, SIX), (f"{SIX[:-1]}000Z", SIX), (f"{SIX[:-1]}000000000000Z", SIX),
        (f"{SIX[:-1]}7Z", NO), (f"{SIX[:-1]}000000001Z", NO), ("2024-02-29T11:59:60Z", NO),
        ("2024-02-29T14:00:00+02:00", f"{NOON}.000000Z"), (NOON, NO), ("1709208000", NO),
    ],
    "color": [("RED", "RED"), ("1", "RED"), ("red", NO), ("9", NO)],
}  # fmt: skip

#: What cells take in addition: spellings of PostgreSQL, polars and pandas, and JSON in a cell.
CELLS: dict[str, list[tuple[str, Any]]] = {
    "flag": [("t", True), ("f", False), ("True", True)],
    "at": [
        ("2024-02-29 12:00:00.123456+00", SIX), (f"{SIX[:-1]}+0000", SIX),
        ("2024-02-29 12:00:00.1234567+00", NO),
    ],
    "parts": [('[{"size": 9007199254740993}]', NO), (f'[{{"at": "{SIX[:-1]}7Z"}}]', NO)],
    "times": [(f'["{NOON}Z"]', [f"{NOON}.000000Z"]), (f'["{SIX[:-1]}7Z"]', NO)],
    "sizes": [("[0.5]", [0.5]), ("[9007199254740993]", NO)],
    "facts": [('{"a": 1}', {"a": 1}), ('{"a": 9007199254740993}', NO)],
}  # fmt: skip

#: Protobuf: fields and their values in a message, with seconds and nanos for times.
MESSAGES: list[tuple[dict[str, Any], Any]] = [
    ({"at": (1709208000, 123456000)}, SIX),
    ({"at": (1709208000, 123456789)}, NO),
    ({"at": (1709208000, -1)}, NO),
    ({"at": (1709208000, 1_000_000_000)}, NO),
    ({"at": (253402300800, 0)}, NO),
    ({"times": [(1709208000, 123456000)]}, [SIX]),
    ({"times": [(1709208000, 1)]}, NO),
    ({"times": [(253402300800, 0)]}, NO),
    ({"part": {"at": (1709208000, 1)}}, NO),
    ({"parts": [{"at": (1709208000, 1)}]}, NO),
    ({"parts": [{"at": (1709208000, -1)}]}, NO),
    ({"wide": 9007199254740992.0}, 9007199254740992),
    ({"large": 9007199254740993}, "9007199254740993"),
    ({"raw": b"A"}, "QQ=="),
    ({"price": "1e2"}, NO),
    ({"day": "2023-02-29"}, NO),
    ({"color": 9}, NO),
    ({"facts": {"a": 9007199254740992.0}}, NO),
]


def cases(table: Mapping[str, list[tuple[str, Any]]]) -> list[Case]:
    return [Case(field, *case) for field, found in table.items() for case in found]


@pytest.fixture(scope="module")
def samples(modelled: Workshop) -> DatasetDoor:
    return DatasetDoor(modelled, "samples")


def stored(samples: DatasetDoor, prefix: str, tried: Iterable[Case]) -> list[Any]:
    """What reads back of each case, NO for those without a record. All have keys of a prefix."""
    found: list[Any] = []
    for i, case in enumerate(tried):
        reply = samples.hub.get(f"{samples.path}/{prefix}{i}", "admin")
        found.append(reply.json()[case.field] if reply.status == 200 else NO)
        assert reply.status in (200, 404), reply.text
    return found


def check(samples: DatasetDoor, prefix: str, tried: list[Case]) -> None:
    """Check all cases at once, so that a failure shows all that are wrong."""
    pairs = zip(tried, stored(samples, prefix, tried), strict=True)
    assert [(c, found) for c, found in pairs if not same(found, c.reads)] == []


def same(found: Any, wanted: Any) -> bool:
    """Whether parsed JSON is what is wanted; 1 is not true."""
    return bool(found == wanted) and (type(found) is bool) == (type(wanted) is bool)


def test_json_over_rest(samples: DatasetDoor) -> None:
    tried = cases(JSON)
    for i, case in enumerate(tried):
        body = f'{{"sampleId": "rest{i}", "{case.field}": {case.written}}}'
        reply = samples.hub.request("POST", samples.path, consumer="admin", body=body.encode())
        assert reply.status == (400 if case.reads is NO else 200), (case, reply.text)
        if case.reads is NO:
            assert list(reply.violations()) or "not JSON" in reply.text, (case, reply.text)
    check(samples, "rest", tried)


def test_lines_of_json(samples: DatasetDoor) -> None:
    tried = cases(JSON)
    lines = [f'{{"sampleId": "line{i}", "{c.field}": {c.written}}}' for i, c in enumerate(tried)]
    imported(samples, "NDJSON", "\n".join(lines).encode(), tried)
    check(samples, "line", tried)


def imported(samples: DatasetDoor, name: str, file: bytes, tried: list[Case]) -> None:
    """Import the rows that are good, and check that the others are reported with a reason."""
    reply = samples.send(name, file, partial="true")
    assert reply.status == 200, reply.text
    bad = {int(e["row"]): e for e in reply.json().get("rowErrors", [])}
    wanted = {i for i, case in enumerate(tried, 1) if case.reads is NO}
    assert {tried[i - 1] for i in bad.keys() ^ wanted} == set()
    assert all(e["description"] for e in bad.values())


def test_xml(samples: DatasetDoor) -> None:
    tried = [c for c in cases(TEXTS) if "\ufffe" not in c.written]
    rows = "".join(
        f"<sample><sample_id>xml{i}</sample_id><{c.field}>{escape(c.written)}</{c.field}></sample>"
        for i, c in enumerate(tried)
    )
    imported(samples, "XML", f"<samples>{rows}</samples>".encode(), tried)
    check(samples, "xml", tried)


@pytest.mark.parametrize("spare", [0, 1], ids=["one by one", "by the kernel"])
def test_csv(samples: DatasetDoor, spare: int) -> None:
    """A file for each field, so that each cell stands alone. With many good rows beside them, the
    kernel reads those that it can."""
    for field in dict.fromkeys([*TEXTS, *CELLS]):
        tried = [c for table in (TEXTS, CELLS) for c in cases(table) if c.field == field]
        prefix = f"csv{spare}{field}"
        rows = [
            f'{prefix}{i},"{c.written.replace(chr(34), chr(34) * 2)}"' for i, c in enumerate(tried)
        ]
        rows += [f"more{n}," for n in range(300 * spare)]
        imported(samples, "CSV", "\n".join([f"sample_id,{field}", *rows]).encode(), tried)
        check(samples, prefix, tried)


@pytest.mark.parametrize("name", ["PARQUET", "ARROW"])
def test_columns_of_text(samples: DatasetDoor, name: str) -> None:
    for field in dict.fromkeys([*TEXTS, *CELLS]):
        tried = [c for table in (TEXTS, CELLS) for c in cases(table) if c.field == field]
        if field == "raw":
            continue  # text in a column is base64 only in CSV: see test_columns_of_values
        keys = [f"{name}{field}{i}" for i in range(len(tried))]
        file = columns(name, sample_id=keys, **{field: [c.written for c in tried]})
        imported(samples, name, file, tried)
        check(samples, f"{name}{field}", tried)


def columns(name: str, **values: Any) -> bytes:
    table, out = pyarrow.table(values), io.BytesIO()
    if name == "PARQUET":
        pyarrow.parquet.write_table(table, out)
        return out.getvalue()
    with pyarrow.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()


NANOS = [1709208000123456000, 1709208000123456789, -1, None]
#: Columns of other tools' types, and what reads back.
COLUMNS = {
    "at": (pyarrow.array(NANOS, pyarrow.timestamp("ns", "UTC")), [SIX, NO, NO, None]),
    "times": (
        pyarrow.array([[n] for n in NANOS[:3]], pyarrow.list_(pyarrow.timestamp("ns", "UTC"))),
        [[SIX], NO, NO],
    ),
    "wide": (
        pyarrow.array([9007199254740992, 9007199254740993], pyarrow.int64()),
        [9007199254740992, NO],
    ),
    "narrow": (
        pyarrow.array([16777216.0, 16777217.0, 0.1, 1e-50], pyarrow.float64()),
        [16777216, NO, 0.1, NO],
    ),
    "large": (pyarrow.array([1.0, 9007199254740992.0], pyarrow.float64()), None),
    "raw": (pyarrow.array([b"A", b"QR=="], pyarrow.binary()), ["QQ==", "UVI9PQ=="]),
}


@pytest.mark.parametrize("name", ["PARQUET", "ARROW"])
@pytest.mark.parametrize("field", COLUMNS)
def test_columns_of_values(samples: DatasetDoor, name: str, field: str) -> None:
    column, reads = COLUMNS[field]
    prefix = f"{name}values{field}"
    file = columns(name, sample_id=[f"{prefix}{i}" for i in range(len(column))], **{field: column})
    if reads is None:
        reply = samples.send(name, file, partial="true")
        assert (reply.status, reply.reason) == (400, "IMPORT_FORMAT_INVALID"), reply.text
        return
    tried = [Case(field, f"value {i}", r) for i, r in enumerate(reads)]
    imported(samples, name, file, tried)
    check(samples, prefix, tried)


def fill(message: Any, values: Mapping[str, Any]) -> None:
    """Set fields of a message: pairs are seconds and nanos."""
    for name, value in values.items():
        kind = message.DESCRIPTOR.fields_by_name[name]
        if isinstance(value, tuple):
            held = getattr(message, name)
            held.seconds, held.nanos = value
        elif isinstance(value, dict) and kind.message_type.name == "Struct":
            getattr(message, name).update(value)
        elif isinstance(value, dict):
            fill(getattr(message, name), value)
        elif isinstance(value, list):
            for one in value:
                item = getattr(message, name).add()
                if isinstance(one, tuple):
                    item.seconds, item.nanos = one
                else:
                    fill(item, one)
        else:
            setattr(message, name, value)


@pytest.mark.parametrize("many", [False, True], ids=["create", "batch"])
def test_messages(samples: DatasetDoor, many: bool) -> None:
    prefix = f"message{many}"
    tried = [Case(next(iter(values)), "", reads) for values, reads in MESSAGES]
    for i, (values, reads) in enumerate(MESSAGES):
        record = samples.record_class(sample_id=f"{prefix}{i}")
        fill(record, values)
        if many:  # so many that the kernel reads them
            request = samples.message("BatchUpsertSamplesRequest")
            request.samples.extend([samples.record_class(sample_id=f"m{n}") for n in range(150)])
            request.samples.append(record)
            call = ("BatchUpsertSamples", request, "BatchUpsertSamplesResponse")
        else:
            request = samples.message("CreateSampleRequest")
            request.sample.CopyFrom(record)
            call = ("CreateSample", request, "Sample")
        if reads is NO:
            with pytest.raises(grpc.RpcError) as refused:
                samples.call(*call)
            error: Any = refused.value
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, (values, error)
        else:
            samples.call(*call)
    check(samples, prefix, tried)


# --- time_precision ---

FINE = f"{SIX[:-1]}789Z"


def test_rest_cuts_times_on_request(samples: DatasetDoor) -> None:
    record = {"at": FINE, "times": [FINE], "parts": [{"at": FINE}]}
    paths = [samples.path, f"{samples.path}/cut", f"{samples.path}:batchUpsert"]
    bodies = [record | {"sampleId": "cut"}, record, {"samples": [record | {"sampleId": "cut"}]}]
    for verb, path, body in zip(("POST", "PATCH", "POST"), paths, bodies, strict=True):
        for said, status in (("", 400), ("cut", 400), ("Truncate", 200)):
            query = {"time_precision": said} if said else {}
            reply = samples.hub.request(verb, path, consumer="admin", json_body=body, query=query)
            assert reply.status == status, (verb, said, reply.text)
        got = samples.hub.get(f"{samples.path}/cut", "admin").json()
        assert (got["at"], got["times"], got["parts"][0]["at"]) == (SIX, [SIX], SIX)
    body = {"samples": [record | {"sampleId": "cut2"}], "timePrecision": "TRUNCATE"}
    assert samples.post("POST", f"{samples.path}:batchUpsert", body).status == 200


def test_grpc_cuts_times_on_request(samples: DatasetDoor) -> None:
    record = samples.record_class(sample_id="gcut")
    fill(record, {"at": (1709208000, 123456789), "times": [(1709208000, 123456789)]})
    fill(record, {"parts": [{"at": (1709208000, 123456789)}]})
    for name in ("Create", "Update", "BatchUpsert"):
        kind = "Samples" if name == "BatchUpsert" else "Sample"
        request = samples.message(f"{name}{kind}Request", timePrecision="TRUNCATE")
        if name == "BatchUpsert":
            request.samples.append(record)
        else:
            request.sample.CopyFrom(record)
        reply = f"{name}{kind}Response" if name == "BatchUpsert" else "Sample"
        samples.call(f"{name}{kind}", request, reply)
        got = samples.hub.get(f"{samples.path}/gcut", "admin").json()
        assert (got["at"], got["times"], got["parts"][0]["at"]) == (SIX, [SIX], SIX)


def test_imports_cut_times_on_request(samples: DatasetDoor) -> None:
    nanos = pyarrow.array([NANOS[1]], pyarrow.timestamp("ns", "UTC"))
    local = pyarrow.array([NANOS[1]], pyarrow.timestamp("ns"))
    xml = f"<at>{FINE}</at>"
    files = {
        "NDJSON": json.dumps({"sampleId": "f0", "at": FINE, "times": [FINE]}).encode(),
        "XML": f"<samples><sample><sample_id>f1</sample_id>{xml}</sample></samples>".encode(),
        "CSV": f'sample_id,at,times\nf2,{FINE},"[""{FINE}""]"\n'.encode(),
        "PARQUET": columns("PARQUET", sample_id=["f3"], at=nanos),
        "ARROW": columns("ARROW", sample_id=["f4"], at=local),
    }
    for i, (name, file) in enumerate(files.items()):
        zone = {"time_zone": "UTC"} if name == "ARROW" else {}
        assert samples.send(name, file, **zone).status == 400
        assert samples.send(name, file, time_precision="rounded", **zone).status == 400
        reply = samples.send(name, file, time_precision="truncate", **zone)
        assert reply.status == 200, (name, reply.text)
        got = samples.hub.get(f"{samples.path}/f{i}", "admin").json()
        assert got["at"] == SIX and got["times"] in ([], [SIX])
