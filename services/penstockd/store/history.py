"""Records as they stood at a place in the log.

The state of a record at number n is the before-image of its first change after n; if there is none,
it is the row in its table. Changes that are visible but have no number yet come after all numbers.
All queries about one place must run in one transaction that sees a single state.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from functools import cache

from penstockd.catalog import Dataset, Field
from penstockd.catalog.wire import WireCodec
from penstockd.store.database import Connection
from penstockd.store.log import STRETCH_BYTES
from penstockd.store.tables import DATA_SCHEMA, row_size, sql_type

#: A record's key and a number of the log.
Place = tuple[str, int]
#: Leads from records to those that refer to them: a dataset, and its referring field.
Step = tuple[Dataset, str]

_NO_BOUND = 1 << 62
#: Bytes that a record counts for in addition to its image.
_OVERHEAD = 100

# Selects all lengths, which octet_length knows without fetching the images, but only the first
# images, as many as stay within the bound.
_AFTER = """
SELECT place, number, length, behind < $4 AS given, CASE WHEN behind < $4 THEN before END
FROM (
    SELECT w.place, x.number, x.before, octet_length(x.before) AS length,
           coalesce(sum(octet_length(x.before)) OVER (
               ORDER BY w.place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS behind
    FROM unnest($2::text[], $3::bigint[]) WITH ORDINALITY AS w (key, number, place)
    CROSS JOIN LATERAL (
        SELECT t.first_number + c.ordinal AS number, c.before
        FROM hub.change AS c
        LEFT JOIN hub.log_transaction AS t ON t.revision = c.revision
        LEFT JOIN hub.pending AS p ON t.revision IS NULL AND p.revision = c.revision
        WHERE c.dataset = $1 AND c.key = w.key
        AND (t.first_number + c.ordinal > w.number OR p.revision IS NOT NULL)
        ORDER BY t.first_number + c.ordinal NULLS LAST, p.seq, c.ordinal
        LIMIT 1
    ) AS x
) AS s
"""


@dataclass(slots=True)
class PastState:
    """A record at a place; ``image`` is None if it did not exist. It stayed so up to the change
    ``until``, None if that has no number yet or the record has not changed since."""

    image: bytes | None
    until: int | None
    length: int = 0
    given: bool = True


async def read_states(
    connection: Connection,
    dataset: Dataset,
    places: Iterable[Place],
    fields: Sequence[Field] | None = None,
    size: int = STRETCH_BYTES,
) -> AsyncGenerator[Mapping[Place, PastState], None]:
    """The serialised records at the places, with ``fields`` or all fields.

    They come in pieces, in the order of the places: each has images of less than ``size`` bytes
    (with all fields), plus one more image. About three pieces are in memory at a time.
    """
    wanted = list(dict.fromkeys(places))
    logged = await _read_logged(connection, dataset, wanted, size)
    keys = list(dict.fromkeys(p[0] for p in wanted if p not in logged))
    present = await _read_present(connection, dataset, keys, fields, size)
    slim = _make_slimming(dataset, tuple(fields)) if fields is not None else None
    for group in _group_places(wanted, logged, present, size):
        more = [p for p in group if p in logged and not logged[p].given]
        logged |= await _read_logged(connection, dataset, more, _NO_BOUND)
        absent = [p[0] for p in group if p[0] in present and not present[p[0]].given]
        present |= await _read_present(connection, dataset, absent, fields, _NO_BOUND)
        piece = {}
        for place in group:
            state = logged.pop(place, None)
            if state is None:
                state = present.get(place[0]) or PastState(None, None)
            elif slim is not None and state.image is not None:
                state.image = slim(state.image)
            piece[place] = state
        # Several places of one record share its table row.
        for key in {p[0] for p in group} & present.keys():
            present[key] = PastState(None, None, present[key].length, given=False)
        yield piece


def _group_places(
    places: Sequence[Place],
    logged: Mapping[Place, PastState],
    present: Mapping[str, PastState],
    size: int,
) -> Iterator[Sequence[Place]]:
    """The places in groups, each ending with the image that brings it to the size."""
    group: list[Place] = []
    weight = 0
    for place in places:
        state = logged.get(place) or present.get(place[0])
        group.append(place)
        weight += _OVERHEAD + (state.length if state is not None else 0)
        if weight >= size:
            yield group
            group, weight = [], 0
    if group:
        yield group


async def _read_logged(
    connection: Connection, dataset: Dataset, places: Sequence[Place], size: int
) -> dict[Place, PastState]:
    """The states at those places after which the log has a change of the record."""
    if not places:
        return {}
    keys, numbers = [key for key, _ in places], [number for _, number in places]
    rows = await connection.fetch(_AFTER, dataset.name, keys, numbers, size)
    return {
        places[place - 1]: PastState(image, number, length or 0, given)
        for place, number, length, given, image in rows
    }


async def _read_present(
    connection: Connection,
    dataset: Dataset,
    keys: Collection[str],
    fields: Sequence[Field] | None,
    size: int,
) -> dict[str, PastState]:
    """The records that the dataset's table holds."""
    if not keys:
        return {}
    chosen = tuple(dataset.fields if fields is None else fields)
    rows = await connection.fetch(_rows_sql(dataset, chosen), list(keys), size)
    given = [row for row in rows if row[2]]
    columns = [list(c) for c in zip(*given, strict=True)][3:]
    images = iter(WireCodec(dataset, chosen).images(columns) if columns else [b""] * len(given))
    return {
        row[0]: PastState(next(images) if row[2] else None, None, row[1], given=row[2])
        for row in rows
    }


async def find_referring(
    connection: Connection,
    routes: Sequence[tuple[Sequence[Step], Collection[str] | None]],
    transaction: int,
    *,
    after: str,
    upto: str | None,
    limit: int,
) -> Sequence[str]:
    """Keys of the records from which any route leads to any of its targets, now or at any place
    that the log still has; ascending, at most ``limit``, after ``after`` and up to ``upto``.

    A route is the steps from the records on, and keys of the dataset that the last step leads to;
    None stands for all its records changed by the transaction whose last number is ``transaction``.
    """
    arguments: list[object] = [after, upto, limit]
    parts: list[str] = []
    first: list[str] = []
    for steps, targets in routes:
        if targets is None:
            arguments += [transaction, _step_target(steps[-1])]
            keys = f"ARRAY({_CHANGED.format(len(arguments) - 1, len(arguments))})"
        else:
            arguments.append(list(targets))
            keys = f"${len(arguments)}::text[]"
        for step in reversed(steps):
            parts.append(f"r{len(parts)} AS MATERIALIZED ({_referring_sql(step, keys)})")
            keys = f"ARRAY(SELECT key FROM r{len(parts) - 1})"
        first.append(f"SELECT key FROM r{len(parts) - 1}")
    rows = await connection.fetch(
        f"WITH {', '.join(parts)} SELECT key FROM ({' UNION '.join(first)}) AS r"
        " WHERE key > $1::text AND ($2::text IS NULL OR key <= $2) ORDER BY key LIMIT $3",
        *arguments,
    )
    return [row[0] for row in rows]


_CHANGED = (
    "SELECT e.key FROM hub.log_transaction AS t JOIN hub.change AS e ON e.revision = t.revision"
    " AND e.day = t.day WHERE t.last_number = ${} AND e.dataset = ${}"
)


def _step_target(step: Step) -> str:
    """The dataset that a step leads to."""
    dataset, path = step
    reference = dataset.by_path[path].reference
    assert reference is not None, "steps are references"
    return reference.dataset


def _referring_sql(step: Step, keys: str) -> str:
    """SQL for the keys of all records whose field in the step holds, or held, one of ``keys``."""
    dataset, field = step
    column, kind = dataset.by_path[field].column, sql_type(dataset.by_path[field])
    values = keys if kind == "text" else f"ARRAY(SELECT k::{kind} FROM unnest({keys}) AS k)"
    return (
        f'SELECT "{dataset.key.column}" AS key FROM {DATA_SCHEMA}."{dataset.name}"'
        f' WHERE "{column}" = ANY ({values})'
        " UNION SELECT key FROM hub.lost_reference"
        f" WHERE dataset = '{dataset.name}' AND field = '{column}' AND target = ANY ({keys})"
    )


@cache
def _rows_sql(dataset: Dataset, fields: tuple[Field, ...]) -> str:
    """SQL for keys and sizes, and the fields of as many rows as stay within a bound."""
    key, table = f'"{dataset.key.column}"', f'{DATA_SCHEMA}."{dataset.name}"'
    columns = "".join(f', t."{f.column}"' for f in fields)
    size = row_size(fields)
    return (
        f"SELECT s.key, s.size, t.{key} IS NOT NULL{columns} FROM ("
        f" SELECT {key} AS key, {size} AS size, coalesce(sum({size}) OVER ("
        f" ORDER BY {key} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS behind"
        f" FROM {table} WHERE {key} = ANY ($1::text[])"
        f") AS s LEFT JOIN {table} AS t ON t.{key} = s.key AND s.behind < $2"
    )


@cache
def _make_slimming(dataset: Dataset, fields: tuple[Field, ...]) -> Callable[[bytes], bytes]:
    """Returns a function that strips an image to the top-level fields that contain ``fields``."""
    kept = {f.steps[0] for f in fields}
    dropped = [fd.name for fd in dataset.message_type.fields if fd.name not in kept]
    parse = dataset.message_class.FromString

    def slim(image: bytes) -> bytes:
        record = parse(image)
        record.DiscardUnknownFields()
        for name in dropped:
            record.ClearField(name)
        return record.SerializeToString()

    return slim
