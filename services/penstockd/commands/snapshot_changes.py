"""The records as they are when a stream begins, as changes of their own kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from penstockd.catalog import Dataset
from penstockd.catalog.wire import WireCodec
from penstockd.commands.context import Hub
from penstockd.commands.watching import Wanted
from penstockd.feed.event import Event, Operation
from penstockd.feed.source import Frame, Source
from penstockd.policy.read import Scan
from penstockd.store.snapshots import Held

#: Rows that are read at a time, at first and at the most, and their bytes, as far as those before
#: let expect.
FIRST_ROWS, ROWS, ROWS_BYTES = 20, 1000, 2 * 1024 * 1024


async def snapshot_frames(
    hub: Hub, source: Source, wanted: Wanted, held: Held
) -> AsyncIterator[Frame]:
    """All records that the source's Views show in the state that is held, dataset by dataset.

    Raises DatabaseUnavailable.
    """
    if source.operations and Operation.SNAPSHOT not in source.operations:
        return
    async with hub.database.snapshot() as connection:
        await held.share(connection)
        time = await connection.fetchval("SELECT now()")
        for name in sorted(source.lenses):
            lens = source.lenses[name]
            codec = WireCodec(lens.dataset, lens.fields)
            statement = Scan(lens.view, lens.fields, wanted.filter).statement
            rows = await connection.cursor(statement.text, *statement.arguments())
            step = FIRST_ROWS
            while found := await rows.fetch(step):
                columns = [list(c) for c in zip(*found, strict=True)]
                images = codec.images(columns[1:])
                step = _step(step, images)
                for frame in source.frames(_events(held, lens.dataset, columns[0], images, time)):
                    yield frame


def _step(step: int, images: Sequence[bytes]) -> int:
    """How many rows to read after some."""
    fitting = ROWS_BYTES * len(images) // max(1, sum(map(len, images)))
    return max(1, min(fitting, 10 * step, ROWS))


def _events(
    held: Held, dataset: Dataset, keys: Sequence[str], images: Sequence[bytes], time: datetime
) -> Sequence[Event]:
    number = held.cursor.number
    return [
        Event(number, number, dataset.name, key, Operation.SNAPSHOT, None, image, (), time)
        for key, image in zip(keys, images, strict=True)
    ]
