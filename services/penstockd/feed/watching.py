"""Shared by streams and polls of changes: the caller's request, and its View."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from penstockd.calls import Call
from penstockd.catalog import Catalog, Dataset
from penstockd.errors import (
    AccessChanged,
    AccessRevoked,
    CursorExpired,
    CursorInvalid,
    StateGone,
    SubscriptionNotFound,
    ValueInvalid,
    ViewChanged,
)
from penstockd.feed.event import FeedOperation, Reconcile
from penstockd.feed.source import FeedSource
from penstockd.policy.lens import Lens
from penstockd.policy.model import Action
from penstockd.policy.snapshot import Policy, PolicySnapshot
from penstockd.policy.standing import Standing
from penstockd.store.places import Places

#: The most changes in one message or page.
MAX_CHANGES = 5000


@dataclass(frozen=True, slots=True)
class Wanted:
    """The changes that a caller requests. A ``batch_size`` of 0 means ``usual``."""

    datasets: Sequence[Dataset]
    mixed: bool = False
    filter: str = ""
    fields: str = ""
    operations: Sequence[int] = ()
    batch_size: int = 0
    include_before: bool = False
    transaction_boundaries: bool = False

    def source(self, catalog: Catalog, places: Places, call: Call, usual: int) -> FeedSource:
        """The source of these changes in the caller's Views.

        Raises PermissionDenied, FieldUnknown, FilterInvalid and ValueInvalid.
        """
        if not 0 <= self.batch_size <= MAX_CHANGES:
            raise ValueInvalid.of("batch_size", f"must be from 1 to {MAX_CHANGES}")
        known = {int(o) for o in FeedOperation}
        if not set(self.operations) <= known:
            raise ValueInvalid.of("operations", "is not an operation")
        call.asked(
            filter=self.filter,
            fields=self.fields,
            datasets=[d.name for d in self.datasets] if self.mixed else [],
        )
        lenses = {
            d.name: Lens(call.view(d, Action.READ), catalog, fields=self.fields, filter=self.filter)
            for d in self.datasets
        }
        return FeedSource(
            lenses,
            places.sequences,
            mixed=self.mixed,
            include_before=self.include_before,
            operations=frozenset(map(FeedOperation, self.operations)),
            batch_size=self.batch_size or usual,
            transaction_boundaries=self.transaction_boundaries,
        )


def reconcile_of(error: BaseException) -> Reconcile:
    """How a client should repair its copy when its stream ends with an error."""
    if isinstance(error, AccessRevoked | SubscriptionNotFound):
        return Reconcile.STOP
    if isinstance(error, AccessChanged | ViewChanged | CursorExpired | CursorInvalid | StateGone):
        return Reconcile.REPAIR
    return Reconcile.RESUME


def list_readable(catalog: Catalog, call: Call, names: Sequence[str]) -> Sequence[Dataset]:
    """The datasets of these names, or all that the caller may read. Raises PermissionDenied."""
    if not names:
        return call.readable(catalog)
    for name in names:
        # The error is the same whether the dataset exists or not.
        call.policy.view(call.principal, name, Action.READ)
    return [catalog[name] for name in dict.fromkeys(names)]


class Narrowing(Protocol):
    """The caller's own narrowing of its View of a dataset."""

    @property
    def filter(self) -> str:
        """Which records (AIP-160)."""

    @property
    def fields(self) -> str:
        """Which fields."""


class Standings:
    """The conditions under which a stream or a poll began, in all its datasets."""

    def __init__(
        self, policy: Policy, catalog: Catalog, call: Call, narrowed: Narrowing, source: FeedSource
    ) -> None:
        self._policy, self._catalog, self._narrowed = policy, catalog, narrowed
        self._standings = [
            (Standing(policy, call.policy, call.principal, lens.view), lens)
            for lens in source.lenses.values()
        ]
        self._looked = call.policy
        self._good_until = self._soonest_end()

    def check(self) -> PolicySnapshot:
        """The current policy, if everything still holds under it.

        Raises AccessRevoked, AccessChanged, ViewChanged or PolicyStale if the caller cannot
        continue.
        """
        now = self._policy.current
        if now is self._looked and time.time() < self._good_until:
            return now
        for standing, lens in self._standings:
            standing.check()
            if standing.view is not lens.view:
                lens_now = Lens(
                    standing.view,
                    self._catalog,
                    fields=self._narrowed.fields,
                    filter=self._narrowed.filter,
                )
                if lens_now.view_id != lens.view_id:
                    raise ViewChanged(f"what you may see of {lens.dataset.name} has changed")
        self._looked = now
        self._good_until = self._soonest_end()
        return now

    def renew(self) -> PolicySnapshot | None:
        """The current policy; None if the caller sees more or less under it than before.

        For calls that wait and then answer once: a caller that calls again is judged again. Raises
        AccessRevoked if nothing visible is left, and PolicyStale.
        """
        try:
            return self.check()
        except AccessRevoked:
            raise
        except (AccessChanged, ViewChanged):
            return None

    def _soonest_end(self) -> float:
        return min((s.good_until for s, _ in self._standings), default=math.inf)
