"""The plan of ``columns.c``: which columns the kernel lays out for Arrow, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstockd.catalog.model import Field, Kind
from penstockd.native.abi import (
    COLUMN_ANY_WIDTH,
    COLUMN_ONE_BIT,
    ColumnCode,
    ColumnKind,
    ColumnPlan,
)
from penstockd.native.print_plan import lacks_key
from penstockd.native.words import flatten_words, pack_words

#: How the kernel lays out the values of a kind: their code and their width.
COLUMN_CODES: Mapping[Kind, tuple[ColumnCode, int]] = {
    Kind.STRING: (ColumnCode.TEXT, COLUMN_ANY_WIDTH),
    Kind.ENUM: (ColumnCode.TEXT, COLUMN_ANY_WIDTH),
    Kind.BYTES: (ColumnCode.TEXT, COLUMN_ANY_WIDTH),
    Kind.BOOL: (ColumnCode.BOOL, COLUMN_ONE_BIT),
    Kind.INT32: (ColumnCode.INT4, 4),
    Kind.INT64: (ColumnCode.INT8, 8),
    Kind.UINT32: (ColumnCode.UINT4, 4),
    Kind.UINT64: (ColumnCode.UINT8, 8),
    Kind.FLOAT: (ColumnCode.FLOAT4, 4),
    Kind.DOUBLE: (ColumnCode.FLOAT8, 8),
    Kind.LIST: (ColumnCode.JSONB, COLUMN_ANY_WIDTH),
    Kind.MAP: (ColumnCode.JSONB, COLUMN_ANY_WIDTH),
    Kind.STRUCT: (ColumnCode.JSONB, COLUMN_ANY_WIDTH),
    Kind.DECIMAL: (ColumnCode.DECIMAL, 16),
    Kind.DATE: (ColumnCode.DATE, 4),
    Kind.TIMESTAMP: (ColumnCode.TIME, 8),
}


def column_plan(fields: Sequence[Field]) -> bytes:
    """The plan of a column for each field, preceded by the key if they lack it."""
    kinds = [ColumnKind(*COLUMN_CODES[f.kind], f.precision or 38, f.scale) for f in fields]
    if lacks_key(fields):
        kinds.insert(0, ColumnKind(ColumnCode.PASSED, COLUMN_ONE_BIT, 0, 0))
    key = next((i for i, f in enumerate(fields) if f.key), 0)
    return pack_words(flatten_words(ColumnPlan(len(kinds), key), *kinds))
