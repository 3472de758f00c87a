"""Which errors of a transaction are the fault of the entries that it writes."""

from __future__ import annotations

from penstockd.errors import DatabaseUnavailable, OutcomeUnknown, ShareExhausted, StorageFull
from penstockd.store.fences import LeaseOver

#: Errors of the database and of the hub: the same entry may well be written later.
_OTHERS = (DatabaseUnavailable, LeaseOver, OutcomeUnknown, ShareExhausted, StorageFull)


def blames_entry(error: Exception) -> bool:
    """Whether the store refuses the entry itself, such as by a trigger of its operator: then only
    a reduced entry can be written."""
    return not isinstance(error, _OTHERS)
