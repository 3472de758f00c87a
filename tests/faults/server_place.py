"""A database server on a port, behind which servers change."""

from __future__ import annotations

from pathlib import Path

from clusters import Cluster
from faults.state import marks_at, table_at
from faults.validator import State
from feeds import CATALOG
from harness import free_port


class ServerPlace:
    """A port behind which servers change; ``here`` is the current one."""

    def __init__(self, data: Path) -> None:
        self.data, self.port, self._count = data, free_port(), 0
        self.here = Cluster.create(self.fresh())
        self.here.start(self.port)
        self.here.create_database()

    def fresh(self) -> Path:
        """A folder that does not exist yet."""
        self._count += 1
        return self.data / f"pg{self._count}"

    def table(self) -> State:
        """All records in the database."""
        return table_at(self.here.url, CATALOG)

    def marks(self) -> dict[int, bytes]:
        """The marks of the log."""
        return marks_at(self.here.url)
