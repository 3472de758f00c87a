"""The alarm for tasks that one node should do, and that no node does or that fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog

from penstockd.store.fences import elapsed_seconds
from penstockd.store.singleton_rows import Singleton

#: Seconds without a holder after which a process raises the alarm; a change of holders takes less.
ALARM = 4.0

_log = structlog.get_logger(__name__)


class Vacancies:
    """Tracks which singletons nobody holds and which fail, as one process sees it. Logs when the
    former has lasted for ALARM, when the latter begins, and when either ends."""

    def __init__(self, names: Sequence[str], clock: Callable[[], float] = elapsed_seconds) -> None:
        self._names, self._clock = names, clock
        self._since: dict[str, float] = {}
        self._told: set[str] = set()
        self._failing: set[str] = set()

    def look(self, rows: Sequence[Singleton]) -> Mapping[str, bool]:
        """Update from rows just read; returns for each name whether it raises no alarm."""
        now = self._clock()
        held = {row.name for row in rows if not row.free}
        for name in self._names:
            if name in held:
                self._since.pop(name, None)
                if name in self._told:
                    self._told.discard(name)
                    _log.info("singleton_held_again", singleton=name)
            elif now - self._since.setdefault(name, now) > ALARM and name not in self._told:
                self._told.add(name)
                _log.error("singleton_unheld", singleton=name, seconds=now - self._since[name])
        for row in rows:
            self._look_for_failure(row)
        return {name: name not in self._told | self._failing for name in self._names}

    def _look_for_failure(self, row: Singleton) -> None:
        if row.fail_time is None:
            if row.name in self._failing:
                self._failing.discard(row.name)
                _log.info("singleton_works_again", singleton=row.name)
        elif row.name not in self._failing:
            self._failing.add(row.name)
            since = row.fail_time.isoformat(timespec="seconds")
            _log.error(
                "singleton_fails", singleton=row.name, since=since, node=row.host, error=row.failure
            )
