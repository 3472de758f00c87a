"""The database server that a process is connected to, and the end of connections to an earlier one.

A name or an address can be pointed to another server while the earlier one still lives: open
connections stay with it, and would continue to write data that is then lost. So every new
connection determines its server. As soon as one leads to a newer server, the connections to earlier
ones are cut.

An earlier server is never trusted again by itself: the newer one may only be out of reach, and
everything written to the earlier one is then lost. If its data was put back on purpose, an operator
declares so (``penstock epoch new``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import structlog

from penstockd.errors import DatabaseUnavailable

#: How often a process opens a connection to learn where it leads, in seconds.
LOOK = 5.0

#: The timeline is NULL if the server is in recovery.
_IDENTIFY = """
SELECT (SELECT system_identifier FROM pg_control_system())::text,
       CASE WHEN NOT pg_is_in_recovery()
            THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
       (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
"""

_log = structlog.get_logger(__name__)


class ServerIdentity(NamedTuple):
    """A server: its cluster, and the timeline that it writes. A promotion begins a timeline."""

    system_identifier: str
    timeline: str

    def precedes(self, other: ServerIdentity) -> bool:
        """Whether the other server was promoted from this one, or from an equal one."""
        same = self.system_identifier == other.system_identifier
        return same and self.timeline < other.timeline


class ServerSession(NamedTuple):
    """A session as its server knows it: the process id there, and when it began. Servers reuse
    process ids, and two servers may use the same one."""

    pid: int
    start: datetime


async def identify_server(connection: Any) -> tuple[ServerIdentity, ServerSession]:
    """The server of a connection, and the session there. Raises DatabaseUnavailable if it is a
    standby."""
    identifier, timeline, start = await connection.fetchrow(_IDENTIFY)
    if timeline is None:
        raise DatabaseUnavailable("the database takes no writes: it is a standby")
    session = ServerSession(connection.get_server_pid(), start)
    return ServerIdentity(identifier, timeline), session


@dataclass(slots=True)
class NewestServer:
    """The newest server that a process has seen."""

    server: ServerIdentity | None = None
    clock: Callable[[], float] = time.monotonic
    _logged: float = -LOOK
    _cut: list[Callable[[], None]] = field(default_factory=list)

    def when_replaced(self, cut: Callable[[], None]) -> None:
        """Call ``cut`` as soon as a newer server is seen."""
        self._cut.append(cut)

    def forget(self, cut: Callable[[], None]) -> None:
        """No longer call ``cut``."""
        if cut in self._cut:
            self._cut.remove(cut)

    def was_replaced(self, server: ServerIdentity) -> bool:
        """Whether a server is earlier than the newest one seen."""
        return self.server is not None and server.precedes(self.server)

    def hear(self, servers: Iterable[ServerIdentity | None]) -> None:
        """These servers take writes now; the newest of them counts."""
        for server in servers:
            if server is not None and (self.server is None or self.server.precedes(server)):
                self.note(server)

    def note(self, server: ServerIdentity, *, declared: bool = False) -> None:
        """A new connection leads to a server. With ``declared``, an operator has declared that the
        data of an earlier time was put back.

        Otherwise raises DatabaseUnavailable if the server is earlier than the newest one seen:
        everything written there is lost.
        """
        known = self.server
        if known is not None and server.precedes(known) and not declared:
            self._log_refusal(server, known)
            raise DatabaseUnavailable("the database is an earlier server, which was replaced")
        self.server = server
        if known is not None and server != known:
            _log.warning("database_server_replaced", earlier=known, newest=server)
            for cut in list(self._cut):
                cut()

    def _log_refusal(self, server: ServerIdentity, known: ServerIdentity) -> None:
        """Log it, but not for each of many connections."""
        if self.clock() - self._logged >= LOOK:
            self._logged = self.clock()
            _log.error(
                "earlier_database_server",
                timeline=server.timeline,
                newest=known.timeline,
                advice="if its data was put back on purpose: penstock epoch new --because restore",
            )

    def leads_to(self, server: ServerIdentity | None) -> bool:
        """Whether a connection to a server, if it is known, leads to the newest one."""
        return server is None or self.server is None or server == self.server
