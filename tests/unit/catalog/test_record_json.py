"""One record, one JSON: what Python writes of a row and of a message is what exports write.

Random Views show random records of every kind of field. PENSTOCK_FUZZ_CASES sets the number of
Views of each dataset, PENSTOCK_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from penstock.client.record_data import to_dict
from penstockd.catalog import Catalog, Dataset, Field, FieldClass, Kind
from penstockd.catalog import values as canonical
from penstockd.catalog.oneofs import oneofs_of
from penstockd.catalog.record import Codec
from penstockd.catalog.record_json import RecordJson
from penstockd.floats import settle_float
from penstockd.formats import open_writer, record_xml
from penstockd.formats.record_xml import RecordXml
from penstockd.policy import rendering
from penstockd.policy.lens import Lens
from penstockd.policy.model import Action, Grant, Mask
from penstockd.policy.read import ExportQuery
from penstockd.policy.view import View
from penstockd.rpc.rest.problems import Problems
from penstockd.rpc.rest.records import RecordBodies
from penstockd.rpc.rest.xml_bodies import XmlRecords
from seen_worlds import World, open_world
from worlds import cases, random_rows, random_selection

CASES = int(os.environ.get("PENSTOCK_FUZZ_CASES", "6"))
SEED = int(os.environ.get("PENSTOCK_FUZZ_SEED", str(random.randrange(2**32))))
MODELS = Path(__file__).parents[2] / "models"
#: Datasets with kinds of fields that things lack.
NAMES = ("measures", "gadgets", "nodes", "words", "films", "parties", "wides")

_TEXTS = ['"', "\\", "\n", "\r", "\t", "\x7f", "é" * 20, "\u2028", "\U0010ffff", "</>&", "a" * 300]

#: Kinds that lists and maps are filled with here.
_DRAWN = (Kind.DOUBLE, Kind.FLOAT, Kind.STRING)


# --- records --------------------------------------------------------------------------------


def draw_double(rng: random.Random) -> float:
    """Any double, often one at which a printer changes its layout."""
    at_edges = rng.choice([1e14, 1e15, 1e16, 1e17, 1e22, 1e-4, 1e-5, 1e-7, 5e-324, 2.0**53])
    any_bits = struct.unpack("<d", rng.randbytes(8))[0]
    return settle_float(rng.choice([at_edges, at_edges * rng.random(), -at_edges, any_bits]))


def draw_single(rng: random.Random) -> float:
    """The same for the floats of 32 bits."""
    edge = struct.unpack("<f", struct.pack("<f", draw_double(rng) % 1e38))[0]
    single = struct.unpack("<f", rng.randbytes(4))[0]
    return settle_float(rng.choice([edge, single, 0.10000000149011612, 3.4028234663852886e38]))


def draw_value(field: Field, rng: random.Random) -> Any:
    """A value of a kind that has many layouts; None for other kinds."""
    match field.kind:
        case Kind.DOUBLE:
            return draw_double(rng)
        case Kind.FLOAT:
            return draw_single(rng)
        case Kind.STRING if not field.key and not field.is_etag and not field.unique:
            return "".join(rng.choices(_TEXTS, k=rng.randrange(3)))
        case Kind.TIMESTAMP:
            return datetime(1, 1, 2, tzinfo=UTC) + timedelta(seconds=rng.randrange(315 * 10**9))
        case Kind.DECIMAL:
            digits = tuple(map(int, str(rng.randrange(10 ** (field.precision or 38)))))
            return Decimal((0, digits, -rng.randint(0, field.scale)))
        case Kind.LIST if field.element and field.element.kind in _DRAWN:
            items = [draw_value(field.element, rng) for _ in range(rng.randrange(4))]
            return stored(field, [canonical.to_json(field.element, v) for v in items])
        case Kind.MAP if field.element and field.element.kind in _DRAWN:
            named = {key: draw_value(field.element, rng) for key in draw_keys(rng)}
            return stored(field, {k: canonical.to_json(field.element, v) for k, v in named.items()})
        case Kind.STRUCT:
            numbers = [
                round(rng.uniform(-9, 9), rng.randrange(9)),
                rng.randrange(2**53),
                1e-7,
                None,
            ]
            return stored(field, {k: rng.choice([numbers, *numbers]) for k in draw_keys(rng)})
    return None


def draw_keys(rng: random.Random) -> list[str]:
    return rng.sample(["", "b", "é", "aa", "a.b", "\u2028", '"', "<\n\t&"], rng.randrange(6))


def stored(field: Field, data: Any) -> str:
    return orjson.dumps(canonical.check_value(field, data)).decode()


def draw_rows(catalog: Catalog, dataset: Dataset, rng: random.Random) -> list[list[Any]]:
    """Random rows, with values in every layout, of which each sets one member of a oneof."""
    rows = random_rows(catalog, dataset, rng)
    for row in rows:
        for i, field in enumerate(dataset.fields):
            drawn = draw_value(field, rng) if rng.random() < 0.3 else None
            row[i] = row[i] if drawn is None or row[i] is None else drawn
            if isinstance(row[i], float):
                row[i] = settle_float(row[i])
        for oneof in oneofs_of(dataset):
            places = oneof.places(dataset.fields)
            kept = rng.randrange(len(places))
            for i in (i for n, places in enumerate(places) if n != kept for i in places):
                row[i] = None
    return rows


@pytest.fixture(scope="module")
def world(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    models = [MODELS / f"{name}.proto" for name in NAMES]
    folder = tmp_path_factory.mktemp("model")
    with open_world(module_url, folder, SEED, models, draw_rows) as made:
        yield made


# --- the surfaces -----------------------------------------------------------------------------


def exported(world: World, view: View, fields: Sequence[Field], name: str) -> list[bytes]:
    """The records of an export, in order of key."""
    writer = open_writer(name, view.dataset, fields)
    column = view.json_column if writer.shows_nulls else view.column
    columns = [writer.sql(f, column(f)) for f in writer.selected]
    text, settings = ExportQuery(view, columns, filter="", order_by="").copy(0)
    document = bytearray(writer.head())

    async def take(data: bytes) -> None:
        document.extend(writer.feed(data))

    async def read() -> None:
        async with world.connection.transaction():
            for setting, value in settings.items():
                await world.connection.execute("SELECT set_config($1, $2, true)", setting, value)
            await world.connection.copy_from_query(text, output=take, format="binary")

    world.runner.run(read())
    document.extend(writer.tail())
    if name != "XML":
        return bytes(document).splitlines()
    end = f"</{view.dataset.singular}>".encode()  # texts hold line ends
    _, _, records = bytes(document).partition(f"<{view.dataset.name}>\n".encode())
    return [record + end for record in records.split(end + b"\n")[:-1]]


def of_each_surface(world: World, view: View, selection: str) -> Mapping[str, list[bytes]]:
    """The View's records, in order of key, as each way writes them."""
    lens = Lens(view, world.catalog, fields=selection)
    fields, writer = lens.fields, rendering.record_json(view, lens.fields)
    rows = [row for _, row in sorted(world.rows(view, fields, "").items())]
    codec, parse = Codec(view.dataset, fields), view.dataset.message_class.FromString
    images = sorted(world.images[view.dataset.name].items())
    seen = [lens.see(image, world.find) for _, image in images]
    array = exported(world, view, fields, "JSON")[1:-1]
    return {
        "NDJSON": exported(world, view, fields, "NDJSON"),
        "JSON": [line.removesuffix(b",") for line in array],
        "row": [writer.encode_row(row) for row in rows],
        "message": [writer.encode(codec.message(row)) for row in rows],
        "feed": [writer.encode(parse(image)) for image in seen if image is not None],
    }


def in_xml(world: World, view: View, selection: str) -> Iterator[tuple[bytes, bytes]]:
    """The View's records as feeds write them in XML, each beside that of an export."""
    fields = Lens(view, world.catalog, fields=selection).fields
    writer = RecordXml(view.dataset, fields)
    lines = of_each_surface(world, view, selection)["feed"]
    made = (writer.encode(line).encode() for line in lines)
    return zip(made, exported(world, view, fields, "XML"), strict=True)


def test_xml_is_that_of_exports(world: World) -> None:
    for text, view, selection in drawn(world, max(CASES // 2, 2)):
        for line, expected in in_xml(world, view, selection):
            assert line == expected, f"{text}\n{expected!r}\n{line!r}"


def test_xml_is_read_as_json_is(world: World, whole_views: list[View]) -> None:
    """A record that a reply shows in XML can be sent back: it is the record of the JSON."""
    read = 0
    for view in whole_views:
        bodies, documents = RecordBodies(view), XmlRecords(view)
        writer = RecordXml(view.dataset, view.fields())
        for line in of_each_surface(world, view, "")["NDJSON"]:
            of_xml, of_json = Problems(), Problems()
            sent = documents.read_one(writer.encode(line).encode(), of_xml)
            of_xml.raise_any()
            found = bodies.read(sent, of_xml, "").message
            expected = bodies.read(canonical.load_json(line), of_json, "").message
            assert found == expected, f"seed {SEED}\n{line!r}"
            # Some values are beyond the digits of their fields.
            assert of_xml.count == of_json.count
            read += found is not None
    assert read


@pytest.fixture(scope="module")
def whole_views(world: World) -> list[View]:
    """Views that show all of every dataset in the clear."""
    classes = dict.fromkeys(FieldClass, Mask.CLEAR)
    views = []
    for dataset in world.catalog:
        grant = Grant("all", dataset.name, frozenset({Action.READ}), classes, {}, "")
        made = View(dataset, world.catalog, world.tables, [grant], revision=1, mask_key=b"k")
        views.append(made)
    return views


def test_clients_have_the_same_values(world: World, whole_views: list[View]) -> None:
    """What the command line and the SDK make of a message that shows all of a record."""
    for view in whole_views:
        name, parse = view.dataset.name, view.dataset.message_class.FromString
        for line in of_each_surface(world, view, "")["NDJSON"]:
            expected = orjson.loads(line)
            data = to_dict(parse(world.images[name][expected[view.dataset.key.json_path]]))
            assert is_same(data, expected), f"seed {SEED}\n{data}\n{expected}"
            assert list(data) == list(expected)


def is_same(one: Any, other: Any) -> bool:
    """Whether JSON data is the same; floats of 32 bits may have other digits."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(v, other[k]) for k, v in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, float) and one != other:
        return struct.pack("<f", one) == struct.pack("<f", other)
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def drawn(world: World, count: int) -> Iterator[tuple[str, View, str]]:
    for dataset in world.catalog:
        for number, rng in cases(SEED, count * (6 if dataset.name == "things" else 1)):
            view = world.view(dataset, rng)
            if not view.fields():
                continue
            selection = random_selection(view.fields(), rng)
            yield f"seed {SEED}, case {number} of {dataset.name}: {selection!r}", view, selection


def test_every_surface_writes_the_same_bytes(world: World) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED} PENSTOCK_FUZZ_CASES={CASES}")
    records = nulls = hidden = 0
    for text, view, selection in drawn(world, CASES):
        found = of_each_surface(world, view, selection)
        for surface, lines in found.items():
            for line, expected in zip(lines, found["NDJSON"], strict=True):
                assert line == expected, f"{text}, {surface}\n{expected!r}\n{line!r}"
        records += len(found["NDJSON"])
        nulls += len(view.nulls)
        hidden += len(view.hidden)
    assert records > 20 * CASES and nulls > CASES and hidden > CASES


def test_what_is_shown_is_always_there(world: World) -> None:
    """The members of a record are those that the View shows, whatever their values."""
    for text, view, selection in drawn(world, max(CASES // 4, 2)):
        fields = Lens(view, world.catalog, fields=selection).fields
        for line in of_each_surface(world, view, selection)["row"]:
            check_members(orjson.loads(line), fields, 0, view, text)


def check_members(record: Any, fields: Sequence[Field], depth: int, view: View, text: str) -> None:
    names = list(dict.fromkeys(f.json_steps[depth] for f in fields))
    assert list(record) == names, text
    for name in names:
        below = [f for f in fields if f.json_steps[depth] == name]
        if len(below[0].json_steps) == depth + 1:
            (field,) = below
            assert record[name] is None or view.mask(field) is not Mask.NULL, text
            if field.members and not field.recursive and record[name] is not None:
                check_elements(record[name], field, view, text)
        elif record[name] is not None:
            check_members(record[name], below, depth + 1, view, text)


def check_elements(value: Any, field: Field, view: View, text: str) -> None:
    """Members that are masked to null are there, hidden ones are not; others may be unset."""
    depth = len(field.json_steps)
    masks: dict[str, set[Mask]] = {}
    for member in field.members:
        masks.setdefault(member.json_steps[depth], set()).add(view.mask(member))
    for item in value.values() if field.kind is Kind.MAP else value:
        for name, found in masks.items():
            assert name not in item or found != {Mask.HIDE}, text
            if Mask.NULL in found and found <= {Mask.NULL, Mask.HIDE}:
                assert item[name] is None, text


# --- negative controls ------------------------------------------------------------------------


def compact(items: Any) -> bytes:
    return b",".join(items)


def with_nulls(self: Any, values: Sequence[Any]) -> dict[str, Any]:
    """A nested message without values as an object of nulls."""
    made: list[Any] = []
    at = self._start
    for start, end, inner in self._nested:
        made += [*values[at:start], inner.build(values)]
        at = end
    return dict(zip(self._names, [*made, *values[at : self._end]], strict=True))


def with_unset(name: str, write: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    return lambda message: write(getattr(message, name))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("record_json._RowShape.build", with_nulls),
        ("record_json._write_number", lambda value, single: value),
        ("record_json._show_null", lambda message: ""),
        ("record_json.find_null_items", lambda field, nulls, hidden: None),
        ("record_json.struct_text", lambda message: b"{}"),
        ("element_json.order_of", lambda name: name),
        ("element_json._make_optional", with_unset),
        ("element_json._Messages._hides", lambda self, fd, path: False),
        ("element_json.double_text", lambda value: repr(value).encode()),
    ],
)
def test_a_wrong_writer_is_caught(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, wrong: Callable[..., Any]
) -> None:
    monkeypatch.setattr(f"penstockd.catalog.{name}", wrong)
    for _, view, selection in drawn(world, 40):
        found = of_each_surface(world, view, selection)
        if any(lines != found["NDJSON"] for lines in found.values()):
            return
    pytest.fail(f"nothing differs, seed {SEED}")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_IN_ITEM", {}),
        ("_IN_KEY", {}),
        ("_struct_text", lambda value: orjson.dumps(value).decode()),
        ("_make_map_writer", lambda item: lambda held: ""),
    ],
)
def test_wrong_xml_is_caught(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, wrong: Any
) -> None:
    monkeypatch.setattr(record_xml, name, wrong)
    for _, view, selection in drawn(world, 40):
        if any(line != expected for line, expected in in_xml(world, view, selection)):
            return
    pytest.fail(f"nothing differs, seed {SEED}")


# --- exact bytes ------------------------------------------------------------------------------


def written(dataset: Dataset, paths: Sequence[str], **members: Any) -> str:
    writer = RecordJson(dataset, [dataset.by_path[p] for p in paths])
    return writer.encode(dataset.message_class(**members)).decode()


def test_the_bytes_of_one_record(world: World) -> None:
    measures = world.catalog["measures"]
    paths = ["narrow", "narrow_or_none", "wide", "large", "large_count", "narrows", "facts"]
    assert written(measures, paths, narrow=0.1, narrow_or_none=float("nan"), wide=1e22) == (
        '{"narrow":0.1,"narrowOrNone":"NaN","wide":1e+22,"large":"0","largeCount":null,'
        '"narrows":[],"facts":null}'
    )
    nodes = world.catalog["nodes"]
    deep = ["node_id", "two.three.four.five.six.leaf.label", "two.three.note", "trees"]
    assert written(nodes, deep, node_id="a") == '{"nodeId":"a","two":null,"trees":[]}'
    assert written(nodes, deep, node_id="a", two={"three": {"note": ""}}) == (
        '{"nodeId":"a","two":{"three":{"four":null,"note":""}},"trees":[]}'
    )
