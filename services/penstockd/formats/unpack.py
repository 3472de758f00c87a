"""Parquet and Arrow IPC in: a file becomes cells of text, in its own process.

``columnar_reader`` runs this file as a script, with the file as standard input and a request as its
argument; ``row_frames`` says what it writes.
"""

from __future__ import annotations

import base64
import functools
import json
import math
import mmap
import struct
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstockd.arrow_types import find_family, find_plain_type, is_bytes, is_text, takes_type
from penstockd.floats import name_odd_float
from penstockd.native.abi import CELL, NULL_CELL, REFUSED, ROW
from penstockd.row_frames import (
    COLUMN_LIMIT,
    HEADER,
    ROW_LIMIT,
    ROWS,
    SUSPECT,
    FileUnreadable,
    Frames,
    run_unpacker,
)

_NULL, _ROW, _CELL = bytes([NULL_CELL]), bytes([ROW]), bytes([CELL])
#: Maps the separators to a control character that is also refused but separates no cells.
_REFUSED = bytes.maketrans(_NULL + _ROW + _CELL, bytes([REFUSED]) * 3)
_ALLOWED = bytes({*range(0x20, 256), *b"\t\n\r"})
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"

_BATCH_ROWS, _BATCH_BYTES = 4096, 4 << 20
_FRAME_BYTES = 4 << 20  # bytes of a frame, unless a single row takes more
#: Seconds since 1970 of the years 1 to 9999.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


def main() -> None:
    """Read standard input as requested and write frames."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    errors = (pa.ArrowException, OSError, ValueError, RecursionError, OverflowError)
    run_unpacker(_read_input, errors)


def _read_input(request: dict[str, Any]) -> Frames:
    given = pa.py_buffer(mmap.mmap(0, 0, access=mmap.ACCESS_READ))
    return make_frames(given, request["format"], request["kinds"], zoned=request["zoned"])


def make_frames(data: Any, name: str, kinds: dict[str, str], *, zoned: bool = False) -> Frames:
    """The frames of ``data``, the buffer of a file in the format ``name``.

    ``kinds`` are the kinds of the fields to read, by path; other columns become NULL. ``zoned``
    says that times without a zone are taken. Raises FileUnreadable and what Arrow raises.
    """
    batches = _read_parquet(data, kinds) if name == "PARQUET" else _read_arrow(data)
    schema = _flat_schema(next(batches))
    if len(schema) > COLUMN_LIMIT:
        raise FileUnreadable(f"the file has more than {COLUMN_LIMIT} columns")
    yield HEADER, _CELL.join(n.encode(errors="replace").translate(_REFUSED) for n in schema.names)
    for field in schema:
        if field.name in kinds:
            _check_type(field.name, kinds[field.name], field.type, zoned=zoned)
    rows = 0
    for batch in batches:
        batch.validate(full=False)
        flat = flatten_table(batch)
        for cells, count, suspect in _make_cells(flat, schema.names, kinds, rows):
            yield SUSPECT if suspect else ROWS, cells
            rows += count


# --- files as batches: the schema first ---


def _read_parquet(data: Any, kinds: dict[str, str]) -> Iterator[Any]:
    tail = data.slice(max(data.size - 4, 0)).to_pybytes()
    if tail != b"PAR1":
        if data.slice(0, min(data.size, 4)).to_pybytes() == b"PAR1":
            raise FileUnreadable("the file ends before its footer", truncated=True)
        raise FileUnreadable("the file is not Parquet")
    file = pq.ParquetFile(
        pa.BufferReader(data),
        pre_buffer=False,
        thrift_string_size_limit=16 << 20,
        thrift_container_size_limit=1_000_000,
    )
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    yield file.schema_arrow
    columns = [name for name in _flat_schema(file.schema_arrow).names if name in kinds]
    for i, group in enumerate(groups):
        rows = _batch_rows(group.num_rows, group.total_byte_size)
        yield from file.iter_batches(rows, row_groups=[i], columns=columns, use_threads=False)


def _read_arrow(data: Any) -> Iterator[Any]:
    options = pa.ipc.IpcReadOptions(use_threads=False)
    if data.slice(0, min(data.size, 6)).to_pybytes() == b"ARROW1":
        if data.slice(max(data.size - 6, 0)).to_pybytes() != b"ARROW1":
            raise FileUnreadable("the file ends before its footer", truncated=True)
        file = pa.ipc.open_file(data, options=options)
        yield file.schema
        for i in range(file.num_record_batches):
            yield from _slice_batch(file.get_batch(i))
        return
    if data.slice(max(data.size - 8, 0)).to_pybytes() != _END_OF_STREAM:
        stream = pa.ipc.open_stream(data, options=options)  # raises if it is no stream at all
        raise FileUnreadable(
            f"the stream of {len(stream.schema)} columns ends early", truncated=True
        )
    stream = pa.ipc.open_stream(data, options=options)
    yield stream.schema
    for batch in stream:
        yield from _slice_batch(batch)


def _slice_batch(batch: Any) -> Iterator[Any]:
    batch.validate(full=False)
    step = _batch_rows(batch.num_rows, batch.nbytes)
    for at in range(0, batch.num_rows, step):
        yield batch.slice(at, step)


def _batch_rows(rows: int, size: int) -> int:
    """The number of rows to take at once, if ``rows`` rows take ``size`` bytes."""
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // max(size, 1)))


def _flat_schema(schema: Any) -> Any:
    return flatten_table(schema.empty_table()).schema if _has_structs(schema) else schema


def flatten_table(table: Any) -> Any:
    """A table with the members of structs in columns of their own, at every level."""
    for _ in range(100):
        if not _has_structs(table.schema):
            return table
        if isinstance(table, pa.RecordBatch):
            table = pa.Table.from_batches([table])
        table = table.flatten()
    raise FileUnreadable("messages are nested too deeply")


def _has_structs(schema: Any) -> bool:
    return any(pa.types.is_struct(f.type) for f in schema)


def _make_cells(
    table: Any, names: Sequence[str], kinds: dict[str, str], before: int
) -> Iterator[tuple[bytes, int, bool]]:
    """The rows of a batch as cells of the columns ``names``, their number, and whether they contain
    control characters."""
    columns, suspect = [], False
    held = dict(zip(table.schema.names, table.columns, strict=True))
    for name in names:
        if name not in kinds:
            columns.append(pa.nulls(table.num_rows, pa.binary()))
            continue
        column = held[name]
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        text = _column_text(kinds[name], column)
        odd = bytes(_column_data(text)).translate(None, _ALLOWED)
        if odd:
            suspect = True
            values = [None if v is None else v.translate(_REFUSED) for v in text.to_pylist()]
            text = pa.array(values, pa.binary())
        columns.append(text)
    rows = pc.binary_join_element_wise(
        *columns, _CELL, null_handling="replace", null_replacement=_NULL
    )
    rows = pc.binary_join_element_wise(rows, b"", _ROW)
    ends = struct.unpack_from(f"<{len(rows) + 1}i", rows.buffers()[1], 4 * rows.offset)
    data, start = memoryview(rows.buffers()[2]), 0
    for i in range(len(rows)):
        if ends[i + 1] - ends[i] > ROW_LIMIT:
            raise FileUnreadable("is longer than 1 MiB", before + i + 1)
        if i + 1 == len(rows) or ends[i + 2] - ends[start] > _FRAME_BYTES:
            yield bytes(data[ends[start] : ends[i + 1]]), i + 1 - start, suspect
            start = i + 1


def _column_data(column: Any) -> Any:
    """The bytes of all values of a binary column."""
    ends = struct.unpack_from("<i", column.buffers()[1], 4 * column.offset)
    ends += struct.unpack_from("<i", column.buffers()[1], 4 * (column.offset + len(column)))
    return memoryview(column.buffers()[2])[ends[0] : ends[1]] if column.buffers()[2] else b""


def _check_type(name: str, kind: str, found: Any, *, zoned: bool) -> None:
    if not takes_type(kind, find_plain_type(found), zoned=zoned):
        raise FileUnreadable(
            f"the column '{name}' is of type {found}, which does not fit {kind.lower()}"
        )


def _column_text(kind: str, column: Any) -> Any:
    """A column as the text that CSV would contain, in binary: the reader checks that it is
    UTF-8."""
    t = column.type
    if isinstance(t, pa.BaseExtensionType):
        return _column_text(kind, column.storage)
    if isinstance(t, pa.DictionaryType):
        column.validate(full=False)
        column.indices.validate(full=True)
        _check_indices(column)
        return _column_text(kind, column.dictionary).take(column.indices)
    if isinstance(t, pa.RunEndEncodedType):
        column.validate(full=True)
        return _column_text(kind, pc.run_end_decode(column))
    if pa.types.is_null(t):
        return pa.nulls(len(column), pa.binary())
    if is_text(t) or is_bytes(t):
        text = _column_binary(column)
        if kind == "BYTES" and is_bytes(t):
            return _map_values(text, base64.b64encode)
        return text
    column.validate(full=True)
    return _TEXTS[find_family(t)](kind, column).cast(pa.binary())


def _check_indices(column: Any) -> None:
    size = len(column.dictionary)
    found = pc.min_max(column.indices)
    if found["max"].is_valid and not 0 <= found["min"].as_py() <= found["max"].as_py() < size:
        raise FileUnreadable("a dictionary lacks a value that is used")


def _column_binary(column: Any) -> Any:
    """A column of any binary or text type as binary, validated except for being UTF-8."""
    t = column.type
    if pa.types.is_string(t) or pa.types.is_large_string(t):
        to = pa.binary() if pa.types.is_string(t) else pa.large_binary()
        buffers = column.buffers()
        column = pa.Array.from_buffers(to, len(column), buffers, column.null_count, column.offset)
    if pa.types.is_string_view(t):
        column = column.view(pa.binary_view())
    column.validate(full=True)
    return column.cast(pa.binary())


def _map_values(column: Any, form: Any) -> Any:
    """A column with ``form`` applied to each value."""
    return pa.array([None if v is None else form(v) for v in column.to_pylist()], pa.binary())


def _as_it_is(kind: str, column: Any) -> Any:
    return column.cast(pa.utf8())


def _float_text(kind: str, column: Any) -> Any:
    if kind == "DECIMAL":
        # The shortest text that reads back as the same number, as tools print it: 12.34 is 12.34.
        # A sum such as 0.30000000000000004 has too many digits, and is refused.
        column = column.cast(pa.float32()) if column.type.bit_width < 32 else column
        return _map_values(column.cast(pa.utf8()), _format_digits)
    column = column.cast(pa.float32() if kind == "FLOAT" and column.type.bit_width < 64
                         else pa.float64())  # fmt: skip
    text = column.cast(pa.utf8())
    text = pc.if_else(pc.is_nan(column), "NaN", text)
    infinite = pc.if_else(pc.greater(column, pa.scalar(0.0, column.type)), "Infinity", "-Infinity")
    return pc.if_else(pc.is_inf(column), infinite, text)


def _format_digits(text: str) -> bytes:
    value = Decimal(text)
    plain = value.is_finite() and abs(value) < Decimal("1e40")
    return (_without_zeros(format(value, "f")) if plain else text).encode()


def _decimal_text(kind: str, column: Any) -> Any:
    """Decimals without the trailing zeros that a fixed scale adds."""
    text = column.cast(pa.utf8())
    scientific = pc.match_substring(text, "E")
    if pc.any(scientific).as_py():
        return _map_values(column, lambda v: _without_zeros(format(v, "f")).encode())
    if column.type.scale <= 0:
        return text
    return pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time_text(kind: str, column: Any) -> Any:
    """RFC 3339 with the digits that a time needs: in UTC, or without a zone if it names none."""
    unit, zone = column.type.unit, "Z" if column.type.tz is not None else ""
    column = column.view(pa.timestamp(unit))  # the same moments, without looking up a time zone
    if unit == "ns":
        micros = pc.floor_temporal(column, unit="microsecond").cast(pa.timestamp("us"))
        exact = pc.equal(micros.cast(pa.timestamp("ns")), column)
        if pc.all(exact).as_py() is False:
            # Nine digits; the years of nanoseconds need no look.
            text = pc.if_else(exact, micros.cast(pa.utf8()), column.cast(pa.utf8()))
            return _join_time(text, zone)
        column, unit = micros, "us"
    per = {"s": 1, "ms": 1000, "us": 1_000_000}[unit]
    number = column.cast(pa.int64())
    known = pc.and_(
        pc.greater_equal(number, _FIRST_SECOND * per), pc.less(number, (_LAST_SECOND + 1) * per)
    )
    moments = pc.if_else(known, number, pa.scalar(0, pa.int64())).cast(pa.timestamp(unit))
    text = moments.cast(pa.timestamp("us")).cast(pa.utf8())
    text = _join_time(text, zone)
    return text if pc.all(known).as_py() is not False else pc.if_else(
        known, text, number.cast(pa.utf8())
    )  # fmt: skip


def _join_time(text: Any, zone: str) -> Any:
    """Times as Arrow prints them, with a T and their zone."""
    text = pc.binary_join_element_wise(
        pc.utf8_slice_codeunits(text, 0, 10), pc.utf8_slice_codeunits(text, 11), "T"
    )
    return pc.binary_join_element_wise(text, "", zone)


def _list_text(kind: str, column: Any) -> Any:
    """Lists, maps and their contents as JSON."""
    encode = functools.partial(json.dumps, default=_plain_value, ensure_ascii=False)
    plain = functools.partial(_dict_members, t=column.type)
    bare = _count_nanos(column.type)
    if not bare.equals(column.type):
        column = column.cast(bare)
    return _map_values(column, lambda v: encode(plain(v)).encode(errors="surrogatepass"))


def _count_nanos(t: Any) -> Any:
    """A type with whole numbers for times in nanoseconds, which Python's own do not hold."""
    if pa.types.is_timestamp(t) and t.unit == "ns":
        return pa.int64()
    if pa.types.is_struct(t):
        return pa.struct([f.with_type(_count_nanos(f.type)) for f in t])
    if pa.types.is_map(t):
        item = t.item_field.with_type(_count_nanos(t.item_type))
        return pa.map_(t.key_field, item, t.keys_sorted)
    for known, make in _LISTS:
        if known(t):
            return make(t.value_field.with_type(_count_nanos(t.value_type)))
    return t


_LISTS = ((pa.types.is_list, pa.list_), (pa.types.is_large_list, pa.large_list))


def _nano_text(value: int, zone: str | None) -> str:
    """A time in nanoseconds since 1970."""
    seconds, nanos = divmod(value, 10**9)
    moment = datetime(1970, 1, 1) + timedelta(seconds=seconds)
    return f"{moment.isoformat()}.{nanos:09}{'' if zone is None else 'Z'}"


def _dict_members(value: Any, t: Any) -> Any:
    """A value of ``to_pylist`` with maps as dicts."""
    if value is None:
        return None
    if type(value) is int and pa.types.is_timestamp(t):
        return _nano_text(value, t.tz)
    if pa.types.is_map(t):
        keys = [str(k).lower() if isinstance(k, bool) else str(k) for k, _ in value]
        members = {k: _dict_members(v, t.item_type) for k, (_, v) in zip(keys, value, strict=True)}
        if len(members) < len(value):
            raise FileUnreadable("a map has a key twice")
        return members
    if pa.types.is_struct(t):
        return {f.name: _dict_members(value[f.name], f.type) for f in t}
    if isinstance(value, list):
        return [_dict_members(v, t.value_type) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return name_odd_float(value)
    return value


def _plain_value(value: Any) -> str:
    """A value that JSON lacks, in the form of proto JSON."""
    if isinstance(value, Decimal):
        return _without_zeros(format(value, "f"))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise FileUnreadable(f"a value of type {type(value).__name__} cannot stand in a list")


_TEXTS = {
    "boolean": _as_it_is,
    "integer": _as_it_is,
    "floating": _float_text,
    "decimal": _decimal_text,
    "date": _as_it_is,
    "timestamp": _time_text,
    "nested": _list_text,
}


if __name__ == "__main__":
    main()
