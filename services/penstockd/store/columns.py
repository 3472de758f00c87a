"""Columns of datasets' tables: their declarations, what the database has, and their values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import Connection, Table, text

from penstockd.catalog import Dataset, Field, Kind
from penstockd.catalog.rules import RowRules
from penstockd.catalog.scalars import ValueRefused
from penstockd.catalog.values import load_json
from penstockd.store.tables import DATA_SCHEMA, column_default, key_ddl, sql_type

#: Rows read, converted and written at one time.
_BATCH = 2_000
#: The most values that a report names.
_NAMED = 5

#: Whether a stored value differs from the value that it was converted from.
Differ = Callable[[Any, Any], bool]

T = TypeVar("T")

#: Converts a stored value to the stored value of another model; raises ValueRefused.
Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class PresentColumn:
    """A column as the database has it."""

    type_name: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class ValueReport:
    """What a conversion does to the values of a column.

    ``named`` holds the keys and reasons of the first few ``refused`` values.
    """

    changed: int = 0
    refused: int = 0
    named: Sequence[tuple[str, str]] = ()

    def reasons(self) -> str:
        """The refused values, for a person."""
        listed = "; ".join(f"{key}: {reason}" for key, reason in self.named)
        more = self.refused - len(self.named)
        return listed + (f"; and {more} more" if more else "")


def quoted_table(dataset: str) -> str:
    """The table of a dataset, as SQL names it."""
    return f'{DATA_SCHEMA}."{dataset}"'


def column_ddl(field: Field) -> str:
    """The declaration of a column."""
    null = "" if field.nullable else " NOT NULL"
    default = column_default(field)
    if default is None and not field.nullable and not field.in_key:
        default = "now()"  # create_time and update_time of rows older than the column
    return f'"{field.column}" {type_name(field)}{collation_clause(field)}{null}' + (
        f" DEFAULT {default}" if default else ""
    )


def table_ddl(dataset: Dataset, table: Table) -> str:
    """CREATE TABLE and its indexes: the key, and every reference."""
    columns = [*map(column_ddl, dataset.fields)]
    if dataset.joins_key:
        columns.append(key_ddl(dataset))
    columns.append(f'PRIMARY KEY ("{dataset.key.column}")')
    sql = [f"CREATE TABLE {table.fullname} (\n\t" + ",\n\t".join(columns) + "\n)"]
    if dataset.joins_key:  # records are listed in the order of these
        order = ", ".join(f'"{f.column}"' for f in dataset.key_fields)
        sql.append(f"CREATE INDEX ON {table.fullname} ({order})")
    for reference in dataset.references.values():
        sql.append(f'CREATE INDEX ON {table.fullname} ("{reference.column}")')
    return ";\n".join(sql)


def collation_clause(field: Field) -> str:
    """The clause that makes text sort by bytes; empty for other types."""
    return ' COLLATE "C"' if type_name(field) == "text" else ""


def type_name(field: Field) -> str:
    """The type of a field's column, as information_schema and DDL both spell it."""
    return sql_type(field).replace(", ", ",")


def read_columns(connection: Connection) -> dict[str, dict[str, PresentColumn]]:
    """The columns of every dataset's table, as the database has them."""
    rows = connection.execute(
        text(
            "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
            " AND NOT a.attisdropped"
            " WHERE n.nspname = :schema AND c.relkind IN ('r', 'p')"
        ),
        {"schema": DATA_SCHEMA},
    )
    present: dict[str, dict[str, PresentColumn]] = {}
    for table, column, name, nullable in rows:
        columns = present.setdefault(table, {})
        if column is not None:
            columns[column] = PresentColumn(name, nullable)
    return present


def has_rows(connection: Connection, dataset: str, condition: str = "true") -> bool:
    """Whether the table of a dataset has a row that meets the condition."""
    sql = f"SELECT EXISTS (SELECT FROM {quoted_table(dataset)} WHERE {condition})"
    return bool(connection.execute(text(sql)).scalar_one())


def judge_values(
    connection: Connection, dataset: str, key: str, column: str, convert: Convert, differ: Differ
) -> ValueReport:
    """What a conversion would do to the values of a column. Nothing is written."""

    async def judge(driver: asyncpg.Connection[Any]) -> ValueReport:
        changed = refused = 0
        named: list[tuple[str, str]] = []
        async for keys, rows in _read_batches(driver, dataset, key, [column]):
            for name, (value,) in zip(keys, rows, strict=True):
                try:
                    changed += differ(value, convert(value))
                except ValueRefused as exc:
                    refused += 1
                    if len(named) < _NAMED:
                        named.append((name, exc.reason))
        return ValueReport(changed, refused, named)

    return _run_on_driver(connection, judge)


def rewrite_values(
    connection: Connection, dataset: Dataset, field: Field, present: str, convert: Convert
) -> None:
    """Convert every value of a column, whose type in the database is ``present``.

    Raises ValueRefused for the first value that cannot be converted. The table is locked first, so
    that nobody writes a value of the old kind meanwhile.
    """
    table, wanted = quoted_table(dataset.name), type_name(field)
    key, target = f'"{dataset.key.column}"', f'"{field.column}"'
    fresh = wanted != present

    async def rewrite(driver: asyncpg.Connection[Any]) -> None:
        await driver.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        written = target
        if fresh:
            written = '"~converted"'
            await driver.execute(
                f"ALTER TABLE {table} ADD {written} {wanted}{collation_clause(field)}"
            )
        array = "text[]" if wanted == "jsonb" else f"{wanted}[]"
        update = (
            f"UPDATE {table} AS t SET {written} = v.value::{wanted}"
            f" FROM unnest($1::text[], $2::{array}) AS v (key, value) WHERE t.{key} = v.key"
        )
        async for keys, rows in _read_batches(
            driver, dataset.name, dataset.key.column, [field.column]
        ):
            pairs = [
                (name, _convert_value(convert, name, value), value)
                for name, (value,) in zip(keys, rows, strict=True)
            ]
            pairs = [p for p in pairs if fresh or p[1] != p[2]]
            if pairs:
                await driver.execute(update, [p[0] for p in pairs], [p[1] for p in pairs])
        if fresh:
            await driver.execute(f"ALTER TABLE {table} DROP COLUMN {target}")
            await driver.execute(f"ALTER TABLE {table} RENAME COLUMN {written} TO {target}")
        await _settle_column(driver, table, field)
        if fresh and field.reference is not None:
            await driver.execute(f"CREATE INDEX ON {table} ({target})")

    _run_on_driver(connection, rewrite)


async def _settle_column(driver: asyncpg.Connection[Any], table: str, field: Field) -> None:
    """Give a column, which has a field's values, the field's default, and NOT NULL if it needs it.

    The default differs even between fields of one type: an enum's is the name of its value 0.
    """
    alter, default = f'ALTER TABLE {table} ALTER "{field.column}"', column_default(field)
    await driver.execute(
        f"{alter} DROP DEFAULT" if default is None else f"{alter} SET DEFAULT {default}"
    )
    if not field.nullable:
        await driver.execute(f"{alter} SET NOT NULL")


def judge_rules(connection: Connection, dataset: Dataset) -> ValueReport:
    """Which records break the rules of the model."""
    fields = [f for f in dataset.fields if not f.output_only]
    rules = RowRules(dataset, fields)
    columns = [f.column for f in fields]

    async def judge(driver: asyncpg.Connection[Any]) -> ValueReport:
        refused = 0
        named: list[tuple[str, str]] = []
        async for keys, batch in _read_batches(driver, dataset.name, dataset.key.column, columns):
            rows = [_canonical_row(fields, row) for row in batch]
            for index, problems in rules.problems(rows).items():
                refused += 1
                if len(named) < _NAMED:
                    path, description = problems[0]
                    named.append((keys[index], f"{path} {description}".strip()))
        return ValueReport(0, refused, named)

    return _run_on_driver(connection, judge)


def _convert_value(convert: Convert, key: Any, value: Any) -> Any:
    try:
        return convert(value)
    except ValueRefused as exc:
        raise ValueRefused(f"of {key} {exc.reason}") from None


def _canonical_row(fields: Sequence[Field], row: Sequence[Any]) -> list[Any]:
    """A row in the form that the rules take."""
    return [
        load_json(v) if f.is_json and v is not None else v for f, v in zip(fields, row, strict=True)
    ]


async def _read_batches(
    driver: asyncpg.Connection[Any], dataset: str, key: str, columns: Sequence[str]
) -> AsyncIterator[tuple[Sequence[str], Sequence[Any]]]:
    """The keys and the rows of a table, in batches. No cursor stays open: it would prevent the
    table from being altered."""
    chosen = "".join(f', "{c}"' for c in columns)
    sql = (
        f'SELECT "{key}"{chosen} FROM {quoted_table(dataset)} WHERE "{key}" > $1'
        f' ORDER BY "{key}" LIMIT {_BATCH}'
    )
    last = ""
    while found := await driver.fetch(sql, last):
        last = found[-1][0]
        yield [row[0] for row in found], [tuple(row)[1:] for row in found]


def _run_on_driver(
    connection: Connection, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]]
) -> T:
    """Run a coroutine on the driver's connection, in the open transaction."""
    adapted: Any = connection.connection.dbapi_connection

    async def run(driver: asyncpg.Connection[Any]) -> T:
        # As text: SQLAlchemy's codec parses it, which loses digits.
        await driver.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=str, decoder=str, format="text"
        )
        return await work(driver)

    result: T = adapted.run_async(run)
    return result


def sql_kind(name: str) -> Kind | None:
    """The kind whose values a column of the type holds; None if unknown or ambiguous."""
    return _KINDS.get(name)


_KINDS: Mapping[str, Kind] = {
    "text": Kind.STRING,
    "boolean": Kind.BOOL,
    "integer": Kind.INT32,
    "bigint": Kind.INT64,
    "numeric(20,0)": Kind.UINT64,
    "numeric": Kind.DECIMAL,
    "real": Kind.FLOAT,
    "double precision": Kind.DOUBLE,
    "bytea": Kind.BYTES,
    "date": Kind.DATE,
    "timestamp with time zone": Kind.TIMESTAMP,
}
