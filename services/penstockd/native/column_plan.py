"""The plan of ``columns.c``: which columns the kernel lays out for Arrow, and how."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from penstockd.catalog.model import Field, Kind
from penstockd.native.print_plan import lacks_key

_PASSED = (12, -1)
#: The kernel's code of a kind, and the bytes of a value: 0 for any number, -1 for one bit.
COLUMN_CODES: Mapping[Kind, tuple[int, int]] = {
    Kind.STRING: (0, 0),
    Kind.ENUM: (0, 0),
    Kind.BYTES: (0, 0),
    Kind.BOOL: (1, -1),
    Kind.INT32: (2, 4),
    Kind.INT64: (3, 8),
    Kind.UINT32: (4, 4),
    Kind.UINT64: (5, 8),
    Kind.FLOAT: (6, 4),
    Kind.DOUBLE: (7, 8),
    Kind.LIST: (8, 0),
    Kind.MAP: (8, 0),
    Kind.DECIMAL: (9, 16),
    Kind.DATE: (10, 4),
    Kind.TIMESTAMP: (11, 8),
}


def column_plan(fields: Sequence[Field]) -> bytes:
    """What the kernel is told: a column for each field, after the key if they lack it."""
    words = []
    if lacks_key(fields):
        words += [*_PASSED, 0, 0]
    key = next((i for i, f in enumerate(fields) if f.key), 0)
    for f in fields:
        words += [*COLUMN_CODES[f.kind], f.precision or 38, f.scale]
    return struct.pack(f"<{len(words) + 2}i", len(words) // 4, key, *words)
