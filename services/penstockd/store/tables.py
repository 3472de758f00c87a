"""One typed table per dataset, derived from the catalog. Only the View and the writer use them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    Column,
    Computed,
    Date,
    DateTime,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from penstockd.catalog import Catalog, Dataset, Field, Kind
from penstockd.catalog.keys import JOINER
from penstockd.catalog.model import KEY_COLUMN

#: The schema that holds the datasets' tables; the hub's own tables are in HUB_SCHEMA.
DATA_SCHEMA = "data"
HUB_SCHEMA = "hub"

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it bare
#: Strings sort by bytes, so that key order is the same in every database and every client.
_TEXT = Text(collation="C")

_TYPES: Mapping[Kind, TypeEngine[Any]] = {
    Kind.STRING: _TEXT,
    Kind.BOOL: Boolean(),
    Kind.INT32: Integer(),
    Kind.INT64: BigInteger(),
    Kind.UINT32: BigInteger(),
    Kind.UINT64: Numeric(20, 0),
    Kind.FLOAT: REAL(),
    Kind.DOUBLE: Double(),
    Kind.BYTES: LargeBinary(),
    Kind.ENUM: _TEXT,
    Kind.DECIMAL: Numeric(),
    Kind.DATE: Date(),
    Kind.TIMESTAMP: DateTime(timezone=True),
    Kind.LIST: JSONB(),
    Kind.MAP: JSONB(),
    Kind.STRUCT: JSONB(),
}

#: The value of a column in rows written before it existed.
_DEFAULTS: Mapping[Kind, str] = {
    Kind.STRING: "''",
    Kind.BOOL: "false",
    Kind.INT32: "0",
    Kind.INT64: "0",
    Kind.UINT32: "0",
    Kind.UINT64: "0",
    Kind.FLOAT: "0",
    Kind.DOUBLE: "0",
    Kind.BYTES: "''",
    Kind.DECIMAL: "0",
    Kind.LIST: "'[]'",
    Kind.MAP: "'{}'",
}

#: The length of a value, for kinds whose values may be long.
_LENGTHS: Mapping[Kind, str] = {
    Kind.STRING: "octet_length({})",
    Kind.BYTES: "octet_length({})",
    Kind.LIST: "octet_length({}::text)",
    Kind.MAP: "octet_length({}::text)",
    Kind.STRUCT: "octet_length({}::text)",
}


def column_type(field: Field) -> TypeEngine[Any]:
    """The SQL type of a field's column. An etag is a number in the store and text in the API."""
    return BigInteger() if field.is_etag else _TYPES[field.kind]


def sql_type(field: Field) -> str:
    """The name of that type."""
    return column_type(field).compile(dialect=_DIALECT).split(" COLLATE")[0].lower()


def column_default(field: Field) -> str | None:
    """The SQL default of a column that cannot be NULL; None if it has no default."""
    if field.nullable or field.in_key or field.kind is Kind.TIMESTAMP:
        return None
    return empty_value(field)


def empty_value(field: Field) -> str | None:
    """SQL for the value of an unset field without presence; None if there is none, as for times."""
    if field.is_etag:
        return "0"
    if field.kind is Kind.ENUM:
        assert field.enum_values is not None
        first = next(name for name, number in field.enum_values.items() if number == 0)
        return "'" + first.replace("'", "''") + "'"
    return _DEFAULTS.get(field.kind)


def key_text(dataset: Dataset) -> str:
    """SQL for the text of a key from its fields, as ``catalog.keys.join_key`` spells it."""
    fields = dataset.key_fields
    if len(fields) == 1:
        return f'"{fields[0].column}"::text'
    return f" || '{JOINER}' || ".join(map(_key_part, fields))


def _key_part(field: Field) -> str:
    if field.kind is not Kind.STRING:
        return f'"{field.column}"::text'
    return f"""replace(replace("{field.column}", '%', '%25'), '{JOINER}', '%7E')"""


def key_ddl(dataset: Dataset) -> str:
    """The declaration of the column that holds the key as text, which PostgreSQL fills."""
    return f'"{KEY_COLUMN}" text COLLATE "C" GENERATED ALWAYS AS ({key_text(dataset)}) STORED'


def row_size(fields: Iterable[Field]) -> str:
    """SQL for the size in bytes of a row's values of some fields; kinds that are never large count
    0. The length of a text stored out of line is known without fetching it."""
    # An etag is stored as a number.
    long = [f for f in fields if f.kind in _LENGTHS and not f.is_etag]
    lengths = [_LENGTHS[f.kind].format(f'"{f.column}"') for f in long]
    return " + ".join(f"coalesce({length}, 0)" for length in lengths) or "0"


class Tables:
    """The tables of a catalog's datasets."""

    def __init__(self, catalog: Catalog) -> None:
        self.metadata = MetaData(schema=DATA_SCHEMA)
        self._tables = {d.name: self._table(d) for d in catalog}

    def __getitem__(self, dataset: str) -> Table:
        return self._tables[dataset]

    def _table(self, dataset: Dataset) -> Table:
        return Table(dataset.name, self.metadata, *self._columns(dataset))

    @staticmethod
    def _columns(dataset: Dataset) -> Iterator[Column[object]]:
        for field in dataset.fields:
            yield Column(
                field.column,
                column_type(field),
                key=field.path,
                primary_key=field.key,
                nullable=field.nullable,
                quote=True,
            )
        if dataset.joins_key:
            made = Computed(key_text(dataset), persisted=True)
            yield Column(KEY_COLUMN, _TEXT, made, primary_key=True, quote=True)
