"""Opens PostgreSQL sessions in which both ends notice when the network between them is gone.

A network can lose a connection without notifying either end (a partition, a firewall restart). By
default each end then waits for a quarter of an hour or for ever: the hub for an answer, the server
holding the locks of a session that nobody uses any more. A session on a Unix socket cannot be lost
this way.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import asyncpg

#: Seconds of silence after which an end sends a probe, seconds between probes, and how many
#: unanswered probes end the connection.
KEEP_ALIVE = (5, 2, 3)
#: Seconds for which sent data may stay unacknowledged before the hub drops the connection. It also
#: bounds how long a server may accept no data.
UNACKNOWLEDGED = 15
#: The same for the server's end. A transaction whose results are read slowly disables it for
#: itself: see READ_SLOWLY.
UNACKNOWLEDGED_BY_SERVER = 10

#: The server's half, as settings of a session.
SERVER_SETTINGS: Mapping[str, str] = {
    "tcp_keepalives_idle": str(KEEP_ALIVE[0]),
    "tcp_keepalives_interval": str(KEEP_ALIVE[1]),
    "tcp_keepalives_count": str(KEEP_ALIVE[2]),
    "tcp_user_timeout": str(UNACKNOWLEDGED_BY_SERVER * 1000),
    # A query whose client has gone ends, even if it returns no row.
    "client_connection_check_interval": "1s",
}
#: For a transaction whose reader may pause: a full window counts as unacknowledged data.
READ_SLOWLY = "SET LOCAL tcp_user_timeout = 0"


def socket_options() -> dict[tuple[int, int], int]:
    """The hub's half, as TCP socket options, as far as this system has them."""
    idle, interval, count = KEEP_ALIVE
    wanted = {
        "TCP_KEEPIDLE": idle,
        "TCP_KEEPALIVE": idle,  # its name on macOS
        "TCP_KEEPINTVL": interval,
        "TCP_KEEPCNT": count,
        "TCP_USER_TIMEOUT": UNACKNOWLEDGED * 1000,
    }
    tcp = {
        (socket.IPPROTO_TCP, number): value
        for name, value in wanted.items()
        if (number := getattr(socket, name, None)) is not None
    }
    return {(socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1, **tcp}


async def open_session(
    *arguments: Any, server_settings: Mapping[str, str] | None = None, **options: Any
) -> Any:
    """Connect with the keep-alive options set; arguments and errors are those of
    ``asyncpg.connect``."""
    settings = {**SERVER_SETTINGS, **(server_settings or {})}
    connection = await asyncpg.connect(*arguments, server_settings=settings, **options)
    try:
        _set_options(connection)
    except OSError:
        connection.terminate()
        raise
    return connection


def socket_of(connection: Any) -> Any:
    """The socket of a connection, for which the driver has no public name."""
    return connection._transport.get_extra_info("socket")


def _set_options(connection: Any) -> None:
    """Set the options, unless the session is on a Unix socket."""
    found = socket_of(connection)
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for (level, option), value in socket_options().items():
        found.setsockopt(level, option, value)
