"""What a subscriber requests from the feed, and the blocks that equal requests share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from penstockd.budget import let_others_run
from penstockd.catalog.structs import members_wire
from penstockd.errors import ShapeUnfit
from penstockd.feed.event import Event, EventBatch, FeedOperation
from penstockd.feed.wire import ChangeCodec, receipt_lines
from penstockd.policy.lens import Lens
from penstockd.shapes.lens import ShapedLens
from penstockd.store.cursor import Cursor
from penstockd.store.sequences import Sequences

#: A frame ends when it has reached this many bytes: Envoy accepts 1 MiB as one message.
FRAME_BYTES = 256 * 1024
#: Events in the columns of shapes are cut off, and read again later, where they reach SHAPED_BYTES.
#: Events that share a number cannot be separated; together they may have MAX_TOGETHER bytes.
SHAPED_BYTES, MAX_TOGETHER = 2 << 20, 16 << 20


class FrameEnd(NamedTuple):
    """The number of a change, and that of the last change of its transaction."""

    number: int
    transaction: int


@dataclass(frozen=True, slots=True)
class Frame:
    """Changes that are sent as one message: ``data`` is their encoded list.

    ``lines`` are the receipt's digested lines, ``keys`` the records by dataset. If the ends of
    transactions are to be sent, all changes are of one ``transaction``, and ``ends`` states whether
    they are its last. ``end`` is where its last change ends in the log; None if the next frame
    begins in the same place. ``place`` is a place after these changes that is no checkpoint, from
    which a stream can continue; None if none is known.
    """

    data: bytes
    count: int
    lines: bytes
    keys: Mapping[str, Sequence[str]]
    transaction: int = 0
    ends: bool = False
    end: FrameEnd | None = None
    place: Cursor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A stretch of the log as some View shows it: after ``start``, up to ``cursor``.

    ``checkpoint`` states whether the cursor may be one; ``commit_time`` is that of the last change.
    ``shared`` keeps results that are computed once for all that send the block.
    """

    start: int
    cursor: Cursor
    frames: tuple[Frame, ...]
    checkpoint: bool
    commit_time: datetime | None
    size: int
    shared: dict[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of changes."""
        return sum([f.count for f in self.frames])


@dataclass(frozen=True)
class FeedSource:
    """Lenses by dataset, and the form of their changes.

    Two sources with the same ``identity`` produce the same bytes. ``mixed`` changes are those of
    ``penstock.hub.v1.Changes``; the others are of the one dataset's own type.
    """

    lenses: Mapping[str, Lens]
    sequences: Sequences
    mixed: bool = False
    include_before: bool = False
    operations: frozenset[FeedOperation] = frozenset()
    batch_size: int = 500
    transaction_boundaries: bool = False
    _codecs: dict[str, ChangeCodec] = field(default_factory=dict, compare=False)

    @cached_property
    def identity(self) -> tuple[object, ...]:
        """Equal for sources that produce the same bytes."""
        return (
            tuple(sorted((name, lens.view_id) for name, lens in self.lenses.items())),
            self.mixed,
            self.include_before,
            self.operations,
            self.batch_size,
            self.transaction_boundaries,
        )

    @cached_property
    def shapes(self) -> Mapping[str, ShapedLens]:
        """The lenses that show records in the columns of a shape, by dataset."""
        return {n: lens for n, lens in self.lenses.items() if isinstance(lens, ShapedLens)}

    @property
    def shape_names(self) -> Sequence[str]:
        """The shapes in use, as ``id@version``."""
        return [lens.shape.name for _, lens in sorted(self.shapes.items())]

    @property
    def view(self) -> str:
        """A name for what the subscriber sees."""
        return ".".join(lens.view_id for _, lens in sorted(self.lenses.items()))

    def wants(self, event: Event) -> bool:
        """Whether the subscriber asked for this kind of event."""
        return not self.operations or event.operation in self.operations

    async def shape(self, events: Sequence[Event]) -> Sequence[Event]:
        """The events with the columns of their shapes in place of records, if there are shapes.

        Only the first events if these reach SHAPED_BYTES; events with one number stay together.
        Raises RecordUnreadable, and ShapeUnfit if those exceed MAX_TOGETHER.
        """
        if not self.shapes:
            return events
        shaped: list[Event] = []
        size = 0
        for event in events:
            full = size >= SHAPED_BYTES and shaped[-1].number != event.number
            if full:
                break
            lens = self.shapes.get(event.dataset)
            if lens is not None and self.wants(event):
                event = _shape_event(lens, event, include_before=self.include_before)
                await let_others_run()
            shaped.append(event)
            size += event.size
            if size > MAX_TOGETHER:
                raise ShapeUnfit(
                    f"the changes that one change causes have more than {MAX_TOGETHER >> 20} MiB in"
                    f" the shapes {', '.join(self.shape_names)}"
                )
        return shaped

    def block(self, start: Cursor, batch: EventBatch) -> Block:
        """A batch of events in the source's form."""
        events = [e for e in batch.events if self.wants(e)]
        frames = self.frames(events, batch.cursor.number)
        return Block(
            start=start.number,
            cursor=batch.cursor,
            frames=frames,
            checkpoint=batch.whole,
            commit_time=batch.events[-1].commit_time if batch.events else None,
            size=sum(len(f.data) + len(f.lines) for f in frames) + 256,
        )

    def frames(self, events: Sequence[Event], upto: int = 0) -> tuple[Frame, ...]:
        """Events as messages of at most ``batch_size`` changes, none much larger than FRAME_BYTES.

        ``events`` are complete up to the number ``upto``: a transaction that continues after it has
        not ended.
        """
        frames, pieces, start, size = list[Frame](), list[bytes](), 0, 0
        sequences = self.sequences.each([event.number for event in events])
        for i, event in enumerate(events):
            piece = self._codec(event.dataset).encode(event, sequences[i])
            pieces.append(piece)
            size += len(piece)
            ends = self.transaction_boundaries and (
                event.transaction <= upto
                if i + 1 == len(events)
                else events[i + 1].transaction != event.transaction
            )
            whole = ends or len(pieces) >= self.batch_size or size >= FRAME_BYTES
            if whole or i + 1 == len(events):
                part = slice(start, i + 1)
                frame = self._frame(pieces, events[part], sequences[part], ends=ends)
                if i + 1 < len(events) and events[i + 1].number == event.number:
                    frame = replace(frame, end=None)
                frames.append(frame)
                pieces, start, size = [], i + 1, 0
        return tuple(frames)

    def _codec(self, dataset: str) -> ChangeCodec:
        codec = self._codecs.get(dataset)
        if codec is None:
            name = self.lenses[dataset].dataset.message_type.full_name
            codec = ChangeCodec(
                name,
                self.sequences,
                dataset if self.mixed else "",
                include_before=self.include_before,
                shaped=dataset in self.shapes,
            )
            self._codecs[dataset] = codec
        return codec

    def _frame(
        self,
        pieces: Sequence[bytes],
        events: Sequence[Event],
        sequences: Sequence[int],
        *,
        ends: bool,
    ) -> Frame:
        keys = {
            name: [e.key for e in events if e.dataset == name]
            for name in dict.fromkeys([e.dataset for e in events])
        }
        transaction = self.sequences.transaction(events[0].transaction)
        lines = receipt_lines(events, sequences)
        end = FrameEnd(events[-1].number, events[-1].transaction)
        return Frame(b"".join(pieces), len(events), lines, keys, transaction, ends, end)


def place_frames(
    frames: Sequence[Frame], end: Cursor, marks: Mapping[int, bytes], *, whole: bool
) -> tuple[Frame, ...]:
    """Frames with the places after them. The last ends at ``end``, a checkpoint if it is ``whole``;
    ``marks`` are those of the transactions of the others."""
    placed = [replace(frame, place=_place_after(frame, end, marks)) for frame in frames[:-1]]
    return *placed, replace(frames[-1], place=None if whole else end)


def _place_after(frame: Frame, end: Cursor, marks: Mapping[int, bytes]) -> Cursor | None:
    if frame.end is None or frame.end.transaction not in marks:
        return None
    return replace(end, number=frame.end.number, told=None, mark=marks[frame.end.transaction])


def _shape_event(lens: ShapedLens, event: Event, *, include_before: bool) -> Event:
    """An event with Structs of the shape's columns in place of its records."""

    def columns(image: bytes | None) -> bytes | None:
        return None if image is None else members_wire(lens.values(event.key, image))

    return replace(
        event,
        before=columns(event.before) if include_before else None,
        after=columns(event.after),
        changed=tuple(lens.changed_columns(event.changed)),
    )
