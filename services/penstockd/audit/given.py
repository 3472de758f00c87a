"""Records that leave the hub: their dataset, the rule that shows them, which and how many."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from penstockd.audit.keys import page_keys, stream_keys


@dataclass(frozen=True, slots=True)
class GivenRecords:
    """Some records of one dataset that are being sent.

    ``rule`` is the digest of what is shown of each (see ``shown``). ``keys`` encodes their keys
    (see ``keys``), which all lie between ``low_key`` and ``high_key``, inclusive; these are None if
    unknown.
    """

    dataset: str
    rule: bytes
    count: int
    keys: bytes | None
    low_key: str | None = None
    high_key: str | None = None


def given_records(dataset: str, rule: bytes, keys: Collection[str]) -> GivenRecords:
    """Records by their keys."""
    if not keys:
        return GivenRecords(dataset, rule, 0, None)
    ordered = sorted(keys)
    return GivenRecords(dataset, rule, len(keys), page_keys(ordered), ordered[0], ordered[-1])


def given_set(dataset: str, rule: bytes, count: int, encoded: bytes) -> GivenRecords:
    """Records of a stream, by the encoded set of their keys."""
    return GivenRecords(dataset, rule, count, stream_keys(encoded))
