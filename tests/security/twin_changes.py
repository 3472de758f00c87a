"""The differences between twin worlds: the hidden values and rows of one of them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import asyncpg

from penstockd.catalog import Catalog, Dataset, Field, FieldClass, Kind

HIDDEN_CLASSES = (FieldClass.PII, FieldClass.SENSITIVE)


async def change_hidden(url: str, catalog: Catalog, chance: random.Random) -> None:
    """Change every hidden value, and remove or add hidden rows."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            # First the rows of hidden customers, then these customers.
            for dataset in sorted(catalog, key=lambda d: d.name == "customers"):
                await _change_dataset(connection, dataset, chance)
    finally:
        await connection.close()


async def _change_dataset(
    connection: asyncpg.Connection[asyncpg.Record], dataset: Dataset, chance: random.Random
) -> None:
    table, key = f'data."{dataset.name}"', dataset.key.path
    hidden_row = {"customers": "t.status <> 'ACTIVE'", "products": "false"}.get(
        dataset.name,
        "NOT EXISTS (SELECT FROM data.customers c"
        " WHERE c.customer_id = t.customer_id AND c.status = 'ACTIVE')",
    )
    rows = await connection.fetch(f"SELECT t.*, ({hidden_row}) AS hidden FROM {table} AS t")
    hidden_fields = [f for f in dataset.fields if f.field_class in HIDDEN_CLASSES]
    for row in rows:
        if not row["hidden"]:
            values = _other_values(dict(row), hidden_fields, chance)
            if hidden_fields:
                values["etag"] = chance.randrange(10**6)  # it counts hidden changes
            if "lines" in row:
                values["lines"] = _other_members(row["lines"], chance)
            await _set(connection, dataset, row[key], values)
            continue
        fate = chance.random()
        if fate < 0.3:
            await connection.execute(f'DELETE FROM {table} WHERE "{key}" = $1', row[key])
        elif fate < 0.7:
            own = [f for f in dataset.fields if _free(dataset, f)]
            await _set(connection, dataset, row[key], _other_values(dict(row), own, chance))
        else:
            columns = ", ".join(f'"{f.path}"' for f in dataset.fields if f is not dataset.key)
            await connection.execute(
                f'INSERT INTO {table} ("{key}", {columns})'
                f" SELECT $1 || '+', {columns} FROM {table} WHERE \"{key}\" = $1",
                row[key],
            )


def _free(dataset: Dataset, field: Field) -> bool:
    """Whether a hidden row may have another value in the field and still be hidden."""
    holds_it = {"customers": "status"}.get(dataset.name, "customer_id")
    return not field.key and field.path not in (holds_it, "etag") and field.kind is not Kind.MAP


def _other_values(
    row: Mapping[str, Any], fields: Sequence[Field], chance: random.Random
) -> dict[str, Any]:
    return {f.path: _other_value(f, row[f.path], chance) for f in fields}


def _other_members(lines: str, chance: random.Random) -> str:
    """An order's lines with other values in the members that are hidden."""
    items = json.loads(lines)
    for item in items:
        item["unitPrice"] = f"{chance.randrange(10**6)}.{chance.randrange(100):02}"
        item.pop("discount", None)
        if chance.random() < 0.5:
            item["discount"] = f"0.{chance.randrange(1, 100):02}"
    return json.dumps(items)


_NO_ADDRESSES = ("+{}", "", "@{}", "{}@", "a b{}@c.example", "{}@@b.example", "é{}@b.example")


def _other_value(field: Field, value: Any, chance: random.Random) -> Any:
    if field.path == "phone":
        # The text is not an e-mail address, but may look like one: the partial mask hides all of
        # it.
        return value and chance.choice(_NO_ADDRESSES).format(chance.randrange(10**6))
    if field.path == "email":
        # The visible parts under the partial mask must stay: the first character, the domain, and
        # its presence.
        if not value:
            return value
        name, _, domain = value.rpartition("@")
        return f"{name[0]}{chance.randrange(10**9)}@{domain}"
    if field.nullable and chance.random() < 0.3:
        return None
    match field.kind:
        case Kind.STRING:
            return "".join(chance.choice("abcxyzé雪 'ß0") for _ in range(chance.randint(1, 12)))
        case Kind.DECIMAL:
            return Decimal(chance.randrange(-(10**6), 10**6)).scaleb(-2)
        case Kind.INT32 | Kind.INT64:
            return chance.randrange(1000)
        case Kind.DOUBLE:
            return chance.random()
        case Kind.BOOL:
            return not value
    return value


async def _set(
    connection: asyncpg.Connection[asyncpg.Record],
    dataset: Dataset,
    key: str,
    values: Mapping[str, Any],
) -> None:
    if values:
        sets = ", ".join(f'"{path}" = ${i}' for i, path in enumerate(values, 2))
        await connection.execute(
            f'UPDATE data."{dataset.name}" SET {sets} WHERE "{dataset.key.path}" = $1',
            key,
            *values.values(),
        )
