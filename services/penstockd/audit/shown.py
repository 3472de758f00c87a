"""What a caller is shown of a record: which fields under which masks, and by which rule.

An entry names it by its digest; ``hub.audit_shown`` holds it once. It records the decision at the
time of the call, so that no later change of roles or of the model alters the answer.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from penstockd.catalog import FieldClass
from penstockd.policy.model import Mask
from penstockd.policy.view import View
from penstockd.query import parse_fields
from penstockd.store.database import Connection

DIGEST_BYTES = 16
#: The most digests that are remembered as stored: callers create rules by the fields they ask for.
MAX_KNOWN = 4096


class Shown:
    """What a View shows of the fields that ``fields`` selects. Made by ``View.prepared``.

    ``content`` is JSON with sorted keys: dataset, fields (path -> mask; the members of repeated
    messages and maps too), classes (those of the fields, see ``describe_classes``), roles (those
    that decided on any of the fields), row_filters (of all grants; empty if one shows all rows).
    """

    def __init__(self, view: View, fields: str = "") -> None:
        selected = parse_fields(fields, view)
        every = [f for top in selected for f in top.walk() if view.mask(f) is not Mask.HIDE]
        deciding = {g.role for f in every for g in view.decision(f).deciding}
        filters = {g.row_filter for g in view.grants}
        self.content = orjson.dumps(
            {
                "dataset": view.dataset.name,
                "fields": {f.path: view.mask(f).value for f in every},
                "classes": describe_classes((f.field_class, view.mask(f).value) for f in every),
                "roles": sorted(deciding),
                "row_filters": [] if "" in filters else sorted(filters),
            },
            option=orjson.OPT_SORT_KEYS,
        ).decode()
        self.digest = digest_of(self.content)


@dataclass(frozen=True, slots=True)
class StoredShown:
    """A ``Shown`` read from the store."""

    dataset: str
    fields: dict[str, str]
    roles: list[str]
    row_filters: list[str]

    @classmethod
    def parse(cls, content: str) -> StoredShown:
        """Parse a stored content."""
        found = orjson.loads(content)
        return cls(found["dataset"], found["fields"], found["roles"], found["row_filters"])


def describe_classes(fields: Iterable[tuple[FieldClass, str]]) -> dict[str, str]:
    """The classes of which something is shown, by name, each with the least strict of the masks of
    its fields."""
    found: dict[str, Mask] = {}
    for field_class, mask in fields:
        name, given = field_class.name.lower(), Mask(mask)
        if given in (Mask.NULL, Mask.HIDE):
            continue
        found[name] = min(found.get(name, given), given, key=lambda m: m.strictness)
    return {name: mask.value for name, mask in found.items()}


def digest_of(content: str) -> bytes:
    """The digest of a content: the first 16 bytes of its SHA-256."""
    return hashlib.sha256(content.encode()).digest()[:DIGEST_BYTES]


async def insert_shown(connection: Connection, shown: Sequence[Shown]) -> None:
    """Store those that are not stored yet."""
    await connection.execute(
        "INSERT INTO hub.audit_shown (digest, content)"
        " SELECT * FROM unnest($1::bytea[], $2::text[]) ON CONFLICT DO NOTHING",
        [s.digest for s in shown],
        [s.content for s in shown],
    )


class KnownDigests:
    """The digests of rules known to be stored, the latest MAX_KNOWN of them."""

    def __init__(self, most: int = MAX_KNOWN) -> None:
        self._most = most
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        if digest not in self._digests:
            return False
        self._digests.move_to_end(digest)
        return True

    def __len__(self) -> int:
        return len(self._digests)

    def clear(self) -> None:
        """Forget all, since the database may have gone back in time."""
        self._digests.clear()

    def add(self, digest: bytes) -> None:
        """Note that a rule is stored; forgets the least recently used one beyond the limit."""
        self._digests[digest] = None
        self._digests.move_to_end(digest)
        if len(self._digests) > self._most:
            self._digests.popitem(last=False)
