"""Sources of an export's rows: one COPY or several, read by the event loop or by a thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from penstockd.exports.pipeline import Encoder, Gate, Take, pump_beside, pump_pieces
from penstockd.exports.plan import ExportPlan
from penstockd.exports.ranges import read_ranges
from penstockd.store.copyout import CopyOut
from penstockd.store.database import Connection
from penstockd.store.snapshots import Held
from penstockd.store.sql import apply_settings


class RowSource(Protocol):
    """The rows of one export, from connections that are in transactions on its state."""

    async def send_all(self, encoder: Encoder, gate: Gate) -> None:
        """Read all rows, encode them and pass them to a gate.

        Every source produces the same bytes. Raises what the driver, the encoder and the gate
        raise.
        """


class RangesSource:
    """Several connections, each of which reads ranges of keys."""

    def __init__(self, connections: Sequence[Connection], held: Held, plan: ExportPlan) -> None:
        """The plan must be ``splittable``."""
        self._connections, self._held, self._plan = connections, held, plan

    async def send_all(self, encoder: Encoder, gate: Gate) -> None:
        """See ``RowSource``."""

        async def read(take: Take) -> None:
            await read_ranges(self._connections, self._held, self._plan.read, take)

        await pump_pieces(read, encoder, gate)


class ThreadSource:
    """One connection, which a thread of its own reads."""

    def __init__(self, connection: Connection, plan: ExportPlan) -> None:
        """``CopyOut.possible`` must hold for the connection."""
        self._connection, self._plan = connection, plan

    async def send_all(self, encoder: Encoder, gate: Gate) -> None:
        """See ``RowSource``."""
        await apply_settings(self._connection, self._plan.settings)
        await pump_beside(CopyOut(self._connection), self._plan.sql, encoder, gate)


class LoopSource:
    """One connection, which the driver reads on the event loop."""

    def __init__(self, connection: Connection, plan: ExportPlan) -> None:
        self._connection, self._plan = connection, plan

    async def send_all(self, encoder: Encoder, gate: Gate) -> None:
        """See ``RowSource``."""

        async def read(take: Take) -> None:
            await self._connection.copy_from_query(self._plan.sql, output=take, format="binary")

        await apply_settings(self._connection, self._plan.settings)
        await pump_pieces(read, encoder, gate)


def choose_source(connections: Sequence[Connection], held: Held, plan: ExportPlan) -> RowSource:
    """The fastest source of a plan's rows on these connections, of which there is at least one."""
    if len(connections) > 1:
        return RangesSource(connections, held, plan)
    if CopyOut.possible(connections[0]):
        return ThreadSource(connections[0], plan)
    return LoopSource(connections[0], plan)
