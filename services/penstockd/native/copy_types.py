"""The SQL types in which COPY sends the values that the kernel reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from penstockd.catalog.model import Kind

#: The type in which a kind is read. PostgreSQL prints floats, as the shortest text that reads back
#: as the same number.
COPY_TYPES: Mapping[Kind, tuple[str, sa.types.TypeEngine[Any]]] = {
    Kind.STRING: ("text", sa.Text()),
    Kind.ENUM: ("text", sa.Text()),
    Kind.BOOL: ("boolean", sa.Boolean()),
    Kind.INT32: ("integer", sa.Integer()),
    Kind.INT64: ("bigint", sa.BigInteger()),
    Kind.UINT32: ("bigint", sa.BigInteger()),
    Kind.UINT64: ("numeric", sa.Numeric()),
    Kind.FLOAT: ("text", sa.Text()),
    Kind.DOUBLE: ("text", sa.Text()),
    Kind.BYTES: ("bytea", postgresql.BYTEA()),
    Kind.DECIMAL: ("numeric", sa.Numeric()),
    Kind.DATE: ("date", sa.Date()),
    Kind.TIMESTAMP: ("timestamptz", sa.DateTime(timezone=True)),
    Kind.LIST: ("jsonb", postgresql.JSONB()),
    Kind.MAP: ("jsonb", postgresql.JSONB()),
    Kind.STRUCT: ("jsonb", postgresql.JSONB()),
}
