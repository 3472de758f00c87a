"""Stored shapes: the definitions of a consumer's projections, in versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from penstockd.errors import ShapeExists, ShapeInUse, ShapeNotFound, TooManyShapes
from penstockd.store.database import Connection

#: The most shapes of a consumer, versions of a shape, and bytes of all definitions of a consumer.
MAX_SHAPES, MAX_VERSIONS, MAX_DEFINITIONS = 100, 100, 2 << 20
#: The most users of a shape that an error names.
MAX_NAMED = 20

_BY_REFERENCE = """
SELECT n.consumer_id, n.reference, s.shape_id, s.version, s.definition, s.create_time
FROM unnest($1::text[], $2::text[]) AS n (consumer_id, reference) CROSS JOIN LATERAL (
    SELECT * FROM hub.shape AS s
    WHERE s.consumer_id = n.consumer_id AND s.shape_id = split_part(n.reference, '@', 1)
    AND split_part(n.reference, '@', 2) IN ('', s.version::text)
    ORDER BY s.version DESC LIMIT 1
) AS s
"""
_NAMED = """EXISTS (
    SELECT FROM jsonb_array_elements(w.selections::jsonb) AS s
    WHERE split_part(s->>'shape', '@', 1) = $2)"""
_USERS = f"""
SELECT 'subscription ' || subscription_id FROM hub.subscription
WHERE consumer_id = $1
AND EXISTS (SELECT FROM unnest(shapes) AS s WHERE split_part(s, '@', 1) = $2)
UNION ALL
SELECT 'webhook ' || w.webhook_id FROM hub.webhook AS w WHERE w.consumer_id = $1 AND {_NAMED}
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class StoredShape:
    """One version of a shape. ``definition`` is its JSON."""

    shape_id: str
    version: int
    definition: str
    create_time: datetime


async def insert_shape(
    connection: Connection, consumer_id: str, shape_id: str, definition: str
) -> StoredShape:
    """Store version 1. Raises ShapeExists and TooManyShapes."""
    await _lock_shapes(connection, consumer_id)
    found = await connection.fetch(
        "SELECT DISTINCT shape_id FROM hub.shape WHERE consumer_id = $1", consumer_id
    )
    known = {row[0] for row in found}
    if shape_id in known:
        raise ShapeExists(f"there is a shape '{shape_id}' already")
    if len(known) >= MAX_SHAPES:
        raise TooManyShapes(f"you have {MAX_SHAPES} shapes already; delete some")
    return await _insert_version(connection, consumer_id, shape_id, 1, definition)


async def insert_version(
    connection: Connection, consumer_id: str, shape_id: str, definition: str
) -> StoredShape:
    """Store the next version, which webhooks use from now on; the latest again if it is the same.
    Raises ShapeNotFound and TooManyShapes."""
    await _lock_shapes(connection, consumer_id)
    latest = await find_shape(connection, consumer_id, shape_id)
    if latest.definition == definition:
        return latest
    if latest.version >= MAX_VERSIONS:
        raise TooManyShapes(
            f"'{shape_id}' has {MAX_VERSIONS} versions already; save it under another id"
        )
    await _note_version(connection, consumer_id, shape_id)
    return await _insert_version(connection, consumer_id, shape_id, latest.version + 1, definition)


async def find_shape(
    connection: Connection, consumer_id: str, shape_id: str, version: int = 0
) -> StoredShape:
    """A version of a shape, the latest if 0. Raises ShapeNotFound."""
    row = await connection.fetchrow(
        "SELECT shape_id, version, definition, create_time FROM hub.shape"
        " WHERE consumer_id = $1 AND shape_id = $2 AND ($3 = 0 OR version = $3)"
        " ORDER BY version DESC LIMIT 1",
        consumer_id,
        shape_id,
        version,
    )
    if row is None:
        raise shape_absent(shape_id, version)
    return StoredShape(*row)


async def read_shapes(
    connection: Connection, consumer_id: str, after: str, limit: int
) -> Sequence[StoredShape]:
    """The latest versions of the first of a consumer's shapes after an id, by id."""
    rows = await connection.fetch(
        "SELECT DISTINCT ON (shape_id) shape_id, version, definition, create_time FROM hub.shape"
        " WHERE consumer_id = $1 AND shape_id > $2 ORDER BY shape_id, version DESC LIMIT $3",
        consumer_id,
        after,
        limit,
    )
    return [StoredShape(*row) for row in rows]


async def hold_shapes(
    connection: Connection, consumer_id: str, references: Sequence[str]
) -> Mapping[str, StoredShape]:
    """The shapes of a consumer that the transaction will name by ``id`` or ``id@version``. Nobody
    can delete them before it ends. Raises ShapeNotFound."""
    if not references:
        return {}
    await _lock_shapes(connection, consumer_id)
    found = {}
    for reference in references:
        shape_id, _, version = reference.partition("@")
        found[reference] = await find_shape(connection, consumer_id, shape_id, int(version or 0))
    return found


async def find_named(
    connection: Connection, references: Sequence[tuple[str, str]]
) -> Mapping[tuple[str, str], StoredShape]:
    """The versions that references stand for, by consumer and ``id`` or ``id@version``."""
    rows = await connection.fetch(
        _BY_REFERENCE, [consumer for consumer, _ in references], [text for _, text in references]
    )
    return {(row[0], row[1]): StoredShape(*row[2:]) for row in rows}


async def list_users(connection: Connection, consumer_id: str, shape_id: str) -> Sequence[str]:
    """The subscriptions and webhooks that name a shape of their owner, in any version."""
    rows = await connection.fetch(_USERS, consumer_id, shape_id)
    return [row[0] for row in rows]


async def _note_version(connection: Connection, consumer_id: str, shape_id: str) -> None:
    """Make the processes that send to webhooks load the webhooks of a shape again, once the
    transaction is committed."""
    await connection.execute(
        "UPDATE hub.webhook_revision SET revision = revision + 1"
        f" WHERE EXISTS (SELECT FROM hub.webhook AS w WHERE w.consumer_id = $1 AND {_NAMED})",
        consumer_id,
        shape_id,
    )


async def delete_shape_rows(connection: Connection, consumer_id: str, shape_id: str) -> None:
    """Delete a shape with all versions. Raises ShapeNotFound and ShapeInUse."""
    await _lock_shapes(connection, consumer_id)
    if users := await list_users(connection, consumer_id, shape_id):
        more = f" and {len(users) - MAX_NAMED} more" if len(users) > MAX_NAMED else ""
        raise ShapeInUse(
            f"the shape '{shape_id}' is used by: {', '.join(users[:MAX_NAMED])}{more}; change or"
            " delete them first"
        )
    done = await connection.execute(
        "DELETE FROM hub.shape WHERE consumer_id = $1 AND shape_id = $2", consumer_id, shape_id
    )
    if done == "DELETE 0":
        raise shape_absent(shape_id)


def shape_absent(shape_id: str, version: int = 0) -> ShapeNotFound:
    """The error for a shape, or a version of one, that does not exist."""
    which = f"version {version} of shape" if version else "shape"
    return ShapeNotFound(f"there is no {which} '{shape_id[:63]}'")


async def _lock_shapes(connection: Connection, consumer_id: str) -> None:
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('shapes of ' || $1, 0))", consumer_id
    )


async def _insert_version(
    connection: Connection, consumer_id: str, shape_id: str, version: int, definition: str
) -> StoredShape:
    held = await connection.fetchval(
        "SELECT coalesce(sum(octet_length(definition)), 0)::bigint FROM hub.shape"
        " WHERE consumer_id = $1",
        consumer_id,
    )
    if (held or 0) + len(definition.encode()) > MAX_DEFINITIONS:
        raise TooManyShapes("your shapes have 2 MiB of definitions already; delete some")
    row = await connection.fetchrow(
        "INSERT INTO hub.shape (consumer_id, shape_id, version, definition)"
        " VALUES ($1, $2, $3, $4) RETURNING create_time",
        consumer_id,
        shape_id,
        version,
        definition,
    )
    assert row is not None, "an insert returns its row"
    return StoredShape(shape_id, version, definition, row[0])
