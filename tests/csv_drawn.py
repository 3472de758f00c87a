"""Random CSV files: cells as exports write them, as others write them, and invalid ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from penstockd.catalog import values
from penstockd.catalog.model import Dataset, Field, Kind
from rows_drawn import row

#: Valid, but not as our own exports write them.
ODD: dict[Kind, list[str]] = {
    Kind.STRING: ["\t", "a\nb", "é\r\n", "\u2028", "\x7f", "\U0010ffff"],
    Kind.ENUM: ["0", "1", "2"],
    Kind.BOOL: ["TRUE", "False"],
    Kind.INT32: ["-0", "007", "-0012", "00000000000000000000001"],
    Kind.INT64: ["-0", "007", "-9223372036854775808"],
    Kind.UINT32: ["-0", "007", "4294967295"],
    Kind.UINT64: ["00", "18446744073709551615"],
    Kind.FLOAT: ["-0", "1e3", "NaN", "Infinity", "-0.0", "007.5", "16777217", "0.1", "0.30000001"],
    Kind.DOUBLE: ["-0", "1E-3", "NaN", "-Infinity", "0.1", "123456789012345", "9007199254740993"],
    Kind.DECIMAL: ["-0", "-0.000", "007.50", "0.10", "10000", "100000000.0001", "0.0001", "-12.5"],
    Kind.DATE: ["0001-01-01", "9999-12-31", "2000-02-29", "1900-02-28"],
    Kind.TIMESTAMP: [
        "2024-02-29T12:00:00Z", "2024-02-29t12:00:00.5z", "2024-02-29T12:00:00+02:00",
        "2024-02-29 12:00:00.123456789Z", "1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z",
        "0001-01-01T00:00:00.000001Z", "9999-12-31T23:59:59.999998Z",
    ],
    Kind.BYTES: ["AA", "_-8=", "AAA="],
    Kind.LIST: ["[]", "[ ]", "[ ]\n"],
    Kind.MAP: ["{}", "{ }"],
    Kind.STRUCT: ['{ "a" : 1.0 }', '{"a":1e2,"b":[null,-0.0,true]}', '{"\\u00e9":"\\/"}', "{ }"],
}  # fmt: skip
LABELS = [
    '["a","b"]', '["a", "b"]', '["\\u00e9"]', '["\\"\\\\\\/\\n\\t\\r"]', '["日本",""]', '["",""]',
    '["' + "x" * 130 + '"]',
]  # fmt: skip
#: Kinds of which the kernel takes few values.
SCARCE = (Kind.BYTES, Kind.MAP, Kind.LIST, Kind.STRUCT)
#: Invalid in most kinds of columns.
WRONG = [
    "", "x", "-", ".", "1.", ".5", "--1", "1.2.3", "99999999999999999999", "2147483648", "-1",
    "-9223372036854775809", "4294967296", "18446744073709551616", "1.1234567890123", "1e5",
    "1" * 60, "2023-02-29", "2024-13-01", "2024-00-10", "2024-1-01", "0000-01-01", "1900-02-29",
    "2024-02-29T24:00:00Z", "2024-02-29T12:60:00Z", "2024-02-29T12:00:60Z", "2024-02-29T12:00:00",
    "2024-02-29T12:00:00.Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "RED ", "red",
    "true ", "t", "[", '["a"', '["a]', '["a\\"]', '["a",]', '[,"a"]', "[1]", '["a"]]', '["\\x"]',
    '["\t"]', '["\\u0000"]', "null", "\x00", "a\x1cb", "\x1d", "\x1e", "\x1f", "\ufffe", "a\uffff",
]  # fmt: skip
KEYS = ["a/b", ".", "..", "é", "x" * 512, "x" * 513, "a b", "\u2028", "a\tb", "\x7f", ""]


def quoted(text: str, always: bool) -> bytes:
    """A cell with a text; an empty text is quoted, since a bare empty cell is NULL."""
    if always or not text or any(c in text for c in '",\n\r'):
        text = '"' + text.replace('"', '""') + '"'
    return text.encode("utf-8", "surrogatepass")


def odd(field: Field) -> st.SearchStrategy[str]:
    """A valid text of a field that exports may not print."""
    return st.sampled_from(LABELS if field.path == "labels" else ODD[field.kind])


@st.composite
def files(
    draw: st.DrawFn, dataset: Dataset, *, wrong: bool = False, keys: int = 30, rows: int = 6
) -> bytes:
    """A file with some columns; ``wrong``: cells, keys, bytes and rows may be invalid."""
    # Few columns, or hardly any row would be free of odd cells.
    others = st.lists(st.sampled_from([f for f in dataset.fields if not f.key]), unique=True)
    columns = draw(st.permutations([dataset.key, *draw(others)]))
    writable = tuple(f for f in dataset.fields if not f.output_only)
    eol = draw(st.sampled_from([b"\n", b"\r\n"]))
    lines = [",".join(f.path for f in columns).encode()]
    chosen = draw(st.lists(st.integers(0, keys), unique=not wrong, max_size=rows))
    for number in chosen:
        values_of = dict(zip(writable, draw(row(dataset, writable)), strict=True))
        cells = [_cell(draw, f, values_of.get(f), f"k{number}", wrong) for f in columns]
        if wrong and draw(st.integers(0, 30)) == 0:
            cells = cells[:-1] if draw(st.booleans()) else []
        lines.append(b",".join(cells))
    # At least one row that is plain.
    bare = [b"bare" if f.key else b"7" if f.output_only else b"" for f in columns]
    lines.insert(draw(st.integers(1, len(lines))), b",".join(bare))
    data = eol.join([*lines, b""])
    if wrong and draw(st.integers(0, 8)) == 0:
        at = draw(st.integers(len(lines[0]) + 2, max(len(lines[0]) + 2, len(data))))
        data = data[:at] + draw(st.binary(min_size=1, max_size=3)) + data[at:]
    return data


def _cell(draw: st.DrawFn, field: Field, value: Any, key: str, wrong: bool) -> bytes:
    chance = draw(st.integers(0, 60))
    if field.output_only:
        return b"7"
    if wrong and chance == 0:
        return quoted(draw(st.sampled_from(KEYS if field.key else WRONG)), chance == 1)
    if field.key:
        return quoted(key, chance < 5)
    if chance > 20 and field.kind in (Kind.FLOAT, Kind.DOUBLE):
        return draw(st.sampled_from([b"0", b"-0.5", b"1234.5678", b"0.1", b""]))
    if chance > 9 and field.kind in SCARCE and field.path != "labels":
        return b""  # the kernel takes few of these
    if chance < (8 if wrong else 2):
        return quoted(draw(odd(field)), chance == 7)
    if value is None or (chance == 8 and field.kind is not Kind.DATE):
        return b""
    return quoted(values.to_text(field, value), chance < 20)


def lines_of(fields: Sequence[Field], cells: Sequence[dict[str, str]]) -> bytes:
    """A file with given cells by path; other cells are NULL."""
    head = ",".join(f.path for f in fields).encode()
    rows = [
        b",".join(quoted(r[f.path], False) if f.path in r else b"" for f in fields) for r in cells
    ]
    return b"\n".join([head, *rows, b""])


#: The time and the author of writes by test files.
TIME = datetime.fromisoformat("2024-02-29T23:59:59.999999+00:00")
REVISION = 12345
