"""Shared by streams and polls of changes: the caller's request, and its View."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from penstockd.calls import Call
from penstockd.catalog import Catalog, Dataset
from penstockd.errors import (
    AccessChanged,
    AccessRevoked,
    CursorExpired,
    CursorInvalid,
    ShapeNotFound,
    StateGone,
    SubscriptionNotFound,
    TokenExpired,
    ValueInvalid,
    ViewChanged,
)
from penstockd.feed.bells import shapes_line
from penstockd.feed.event import FeedOperation, Reconcile
from penstockd.feed.organs import FeedOrgans
from penstockd.feed.source import FeedSource
from penstockd.policy.lens import Lens
from penstockd.policy.model import Action
from penstockd.policy.snapshot import Policy, PolicySnapshot
from penstockd.policy.standing import Standing
from penstockd.policy.view import View
from penstockd.shapes.lens import ShapedLens
from penstockd.shapes.using import ChosenShape, choose_shapes
from penstockd.store.cursor import REPAIR, Cursor, leave_snapshot, scope_of
from penstockd.store.shapes import find_shape

#: The most changes in one message or page.
MAX_CHANGES = 5000


async def check_cursor(organs: FeedOrgans, source: FeedSource, cursor: str) -> None:
    """Raise CursorInvalid or CursorExpired if a poll cannot go on from a cursor; "" always can."""
    if cursor:
        place = organs.places.open(cursor)
        await organs.feed.read(source, place, place.number)


async def open_start(organs: FeedOrgans, source: FeedSource, cursor: str) -> Cursor:
    """The place where a stream goes on, also inside a snapshot.

    Raises CursorExpired, and CursorInvalid also if the snapshot has other datasets than the source:
    what it had not sent of them, or of those that are new, would never come.
    """
    start = organs.places.open_start(cursor)
    if start.last is not None and start.scope != scope_of(source.lenses):
        raise CursorInvalid(
            "the cursor is in a snapshot of other datasets than this stream has, which are"
            f" {', '.join(sorted(source.lenses))}: begin with a new snapshot",
            metadata=REPAIR,
        )
    await organs.feed.read(source, leave_snapshot(start), start.number)
    return start


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
    shape_names: Sequence[str] = ()

    async def open_source(self, organs: FeedOrgans, call: Call, usual: int) -> FeedSource:
        """The source of these changes in the caller's Views.

        Raises PermissionDenied, FieldUnknown, FilterInvalid, ValueInvalid and ShapeNotFound.
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
        if self.shape_names and self.fields:
            raise ValueInvalid.of(
                "fields", "cannot be combined with a shape, which has its own columns"
            )
        views = [call.view(d, Action.READ) for d in self.datasets]
        shapes = await choose_shapes(organs, call, self.datasets, self.shape_names)
        lenses = {
            view.dataset.name: self._lens(organs.catalog, view, shapes.get(view.dataset.name))
            for view in views
        }
        return FeedSource(
            lenses,
            organs.places.sequences,
            mixed=self.mixed,
            include_before=self.include_before,
            operations=frozenset(map(FeedOperation, self.operations)),
            batch_size=self.batch_size or usual,
            transaction_boundaries=self.transaction_boundaries,
        )

    def _lens(self, catalog: Catalog, view: View, shape: ChosenShape | None) -> Lens:
        if shape is not None:
            return ShapedLens(view, catalog, shape, self.filter)
        return Lens(view, catalog, fields=self.fields, filter=self.filter)


def reconcile_of(error: BaseException) -> Reconcile:
    """How a client should repair its copy when its stream ends with an error."""
    if isinstance(error, AccessRevoked | SubscriptionNotFound | ShapeNotFound):
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


class Standings:
    """The conditions under which a stream or a poll began, in all its datasets."""

    def __init__(
        self, policy: Policy, call: Call, source: FeedSource, ends: float = math.inf
    ) -> None:
        """``ends`` is when the token of a stream expires. Polls are short: they go on."""
        self._policy, self._call, self._ends = policy, call, ends
        self._standings = [
            (Standing(policy, call.policy, call.principal, lens.view), lens)
            for lens in source.lenses.values()
        ]
        self._looked = call.policy
        self._good_until = self._soonest_end()

    def check(self) -> PolicySnapshot:
        """The current policy, if everything still holds under it.

        Raises AccessRevoked, AccessChanged, ViewChanged, PolicyStale or TokenExpired if the caller
        cannot continue.
        """
        now = self._policy.current
        if now is self._looked and time.time() < self._good_until:
            return now
        if time.time() >= self._ends:
            raise TokenExpired("the credentials have expired: continue with new ones")
        for standing, lens in self._standings:
            standing.check()
            moved = standing.view is not lens.view
            if moved and lens.in_view(standing.view).view_id != lens.view_id:
                raise ViewChanged(f"what you may see of {lens.dataset.name} has changed")
        self._call.adopt_terms(now)
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
        return min([self._ends, *(s.good_until for s, _ in self._standings)])


class ShapesInUse:
    """The shapes with which a stream began. Any node may delete them while the stream runs."""

    def __init__(self, organs: FeedOrgans, call: Call, source: FeedSource) -> None:
        self._database, self._source = organs.database, source
        self._line = organs.feed.tail.bells.line(shapes_line(call.principal.consumer_id))
        self._rung = -1  # a shape may have been deleted before this line existed

    async def check(self) -> None:
        """Raise ShapeNotFound if one of them has been deleted since the last check."""
        if not self._source.shapes or self._rung == self._line.rung:
            return
        self._rung = self._line.rung
        async with self._database.connection() as connection:
            for lens in self._source.shapes.values():
                shape = lens.shape
                try:
                    found = await find_shape(connection, shape.owner, shape.shape_id, shape.version)
                except ShapeNotFound:
                    found = None
                if found is None or found.definition != shape.document:
                    raise ShapeNotFound(f"the shape '{shape.name}' was deleted")
