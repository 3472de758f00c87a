"""Series: the combinations of consumer, credential, method and so on by which usage is counted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from penstockd.metering.plans_then import PlansThen
from penstockd.store.database import Connection

#: The classes of rules that state none: those of earlier versions, and those that are gone.
UNKNOWN = "unknown"
#: The most rules whose classes are remembered.
_MAX_RULES = 10_000


class Series(NamedTuple):
    """One combination. Empty text means none; ``plan`` is the one that was in force for the
    consumer, and ``classes`` lists the classes of the fields that were
    shown, each with its mask unless that is clear, such as "internal,pii:partial"."""

    consumer_id: str
    credential_id: str
    plan: str
    method: str
    surface: str
    dataset: str
    status: str
    classes: str


COLUMNS = ", ".join(Series._fields)
_ARRAYS = ", ".join(f"${i}::text[]" for i in range(1, len(Series._fields) + 1))
_FIND = f"""
SELECT s.series_id, {", ".join(f"s.{name}" for name in Series._fields)}
FROM hub.usage_series AS s JOIN unnest({_ARRAYS}) AS w ({COLUMNS}) USING ({COLUMNS})
"""
_ADD = f"""
INSERT INTO hub.usage_series ({COLUMNS}) SELECT * FROM unnest({_ARRAYS})
RETURNING series_id, {COLUMNS}
"""


class SeriesMaker:
    """Makes the series of entries from their columns (see ``counting.TRAITS``).

    Only the audit decides: the same entry belongs to the same series at any time.
    """

    def __init__(self) -> None:
        self._classes: OrderedDict[bytes, str] = OrderedDict()
        self._plans = PlansThen()

    async def learn(self, connection: Connection, traits: Iterable[tuple[Any, ...]]) -> None:
        """Read what the columns of entries name, and is not known yet."""
        named = {(each[0], *each[-2:]) for each in traits}
        await self._plans.learn(connection, {(revision, name) for name, revision, _ in named})
        await self._learn_classes(connection, {digest for _, _, digest in named} - {None})

    async def _learn_classes(self, connection: Connection, digests: set[bytes]) -> None:
        wanted = digests - self._classes.keys()
        if not wanted:
            return
        rows = await connection.fetch(
            "SELECT digest, content FROM hub.audit_shown WHERE digest = ANY ($1)", list(wanted)
        )
        self._classes.update(dict.fromkeys(wanted, UNKNOWN))
        self._classes.update({row[0]: _read_classes(row[1]) for row in rows})

    def forget(self) -> None:
        """Forget the rules beyond _MAX_RULES, and revisions of the policy, the earliest first."""
        self._plans.forget()
        while len(self._classes) > _MAX_RULES:
            self._classes.popitem(last=False)

    def make(self, traits: tuple[Any, ...]) -> Series:
        """The series of entries with these columns; their rules have been learned."""
        consumer, credential, method, surface, dataset, outcome, revision, shown = traits
        classes = self._classes[shown] if shown is not None else ""
        plan = self._plans.find(revision, consumer)
        return Series(consumer, credential, plan, method, surface, dataset, outcome, classes)


async def identify_series(
    connection: Connection, wanted: Collection[Series]
) -> Mapping[Series, int]:
    """The ids of series; those that are new are added."""
    if not wanted:
        return {}
    found = {
        Series(*row[1:]): row[0] for row in await connection.fetch(_FIND, *_split_columns(wanted))
    }
    new = [each for each in wanted if each not in found]
    if new:
        rows = await connection.fetch(_ADD, *_split_columns(new))
        found |= {Series(*row[1:]): row[0] for row in rows}
    return found


def _read_classes(content: str) -> str:
    """The classes that a stored rule states."""
    stated: Mapping[str, str] | None = orjson.loads(content).get("classes")
    if stated is None:
        return UNKNOWN
    return ",".join(n if mask == "clear" else f"{n}:{mask}" for n, mask in sorted(stated.items()))


def _split_columns(series: Collection[Series]) -> list[list[str]]:
    return [list(column) for column in zip(*series, strict=True)]
