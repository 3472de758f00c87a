"""Opens PostgreSQL sessions in which both ends notice when the network between them is gone.

A network can lose a connection without notifying either end (a partition, a firewall restart). By
default each end then waits for a quarter of an hour or for ever: the hub for an answer, the server
holding the locks of a session that nobody uses any more. A session on a Unix socket cannot be lost
this way.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import asyncpg

from penstockd.errors import DatabaseUnavailable
from penstockd.store.servers import ServerIdentity, identify_server

#: Seconds of silence after which an end sends a probe, seconds between probes, and how many
#: unanswered probes end the connection.
KEEP_ALIVE = (5, 2, 3)
#: Seconds for which sent data may stay unacknowledged before the hub drops the connection. It also
#: bounds how long a server may accept no data.
UNACKNOWLEDGED = 15
#: The same for the server's end. A transaction whose results are read slowly disables it for
#: itself: see READ_SLOWLY.
UNACKNOWLEDGED_BY_SERVER = 10

#: What the hub sets in every session, whatever the server, the database or the role sets: the
#: server's half, how values are written, and limits, which a lane replaces by its own.
SERVER_SETTINGS: Mapping[str, str] = {
    "application_name": "penstock",
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "iso_8601",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    # The sequencer relies on it.
    "default_transaction_isolation": "read committed",
    "jit": "off",
    "lock_timeout": "0",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "tcp_keepalives_idle": str(KEEP_ALIVE[0]),
    "tcp_keepalives_interval": str(KEEP_ALIVE[1]),
    "tcp_keepalives_count": str(KEEP_ALIVE[2]),
    "tcp_user_timeout": str(UNACKNOWLEDGED_BY_SERVER * 1000),
    # A query whose client has gone ends, even if it returns no row.
    "client_connection_check_interval": "1s",
}
#: Errors for which another host is tried.
_UNUSABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TargetServerAttributeNotMatched,
    DatabaseUnavailable,  # a server that was replaced
)
#: How long the hosts may take to tell which server each of them is, in seconds.
SURVEY_TIMEOUT = 1.0
#: By URL the place of the host that was usable last, or after a failure of the next one.
_chosen: dict[str, int] = {}
#: A limit that servers have from this version on, and that earlier ones do not know.
_TRANSACTION_LIMIT = (17, "SET transaction_timeout = 0")
#: Acknowledged writes are on disk, whatever the server, the database or the role sets; a stricter
#: setting stays.
_DURABLE = """
SELECT set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit')
    IN ('on', 'remote_apply') THEN current_setting('synchronous_commit') ELSE 'on' END, false)
"""
#: Makes a new session ready, or refuses its server.
Prepare = Callable[[Any], Awaitable[None]]
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
    *arguments: Any,
    server_settings: Mapping[str, str] | None = None,
    prepare: Prepare | None = None,
    **options: Any,
) -> Any:
    """Connect to a URL with the keep-alive options set; options and errors are those of
    ``asyncpg.connect``, and those of ``prepare``, which makes each new session ready.

    If the URL names several hosts, it connects to the first one that takes writes and that
    ``prepare`` accepts. It begins with the one that did so last, and at first with the newest
    server of all. ``timeout`` counts for each of them.
    """
    (dsn,) = arguments
    options["server_settings"] = {**SERVER_SETTINGS, **(server_settings or {})}
    hosts = read_hosts(dsn)
    if len(hosts) > 1 or "target_session_attrs" in dsn:
        # Not read-write: a lane for reads alone would be refused everywhere.
        options["target_session_attrs"] = "primary"
    if len(hosts) == 1:
        return await _connect_host(dsn, options, prepare)
    if dsn not in _chosen:
        _chosen[dsn] = 0  # if this is cut short
        _chosen[dsn] = _find_newest(await identify_hosts(dsn))
    first = _chosen[dsn]
    error: Exception | None = None
    for index in (*range(first, len(hosts)), *range(first)):
        # If this attempt fails, or its caller gives up meanwhile, the next begins elsewhere.
        _chosen[dsn] = (index + 1) % len(hosts)
        host, port = hosts[index]
        try:
            found = await _connect_host(dsn, {**options, "host": host, "port": port}, prepare)
        except _UNUSABLE as exc:
            error = exc
            continue
        _chosen[dsn] = index
        return found
    assert error is not None, "there are hosts"
    raise error


async def identify_hosts(dsn: str) -> Sequence[ServerIdentity | None]:
    """The servers of the hosts that a URL names; None for one that takes no writes or does not
    report it in time."""
    return await asyncio.gather(*(_identify_host(dsn, *place) for place in read_hosts(dsn)))


async def _identify_host(dsn: str, host: str | None, port: int | None) -> ServerIdentity | None:
    options = {"server_settings": SERVER_SETTINGS, "target_session_attrs": "primary"}
    try:
        async with asyncio.timeout(SURVEY_TIMEOUT):
            connection = await _connect_host(dsn, {**options, "host": host, "port": port}, None)
            try:
                return (await identify_server(connection))[0]
            finally:
                connection.terminate()
    except (*_UNUSABLE, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None  # whoever needs the host meets the error again


def _find_newest(servers: Sequence[ServerIdentity | None]) -> int:
    """The place of the newest server; 0 if none is known."""
    newest, place = None, 0
    for index, server in enumerate(servers):
        if server is not None and (newest is None or newest.precedes(server)):
            newest, place = server, index
    return place


def read_hosts(dsn: str) -> Sequence[tuple[str | None, int | None]]:
    """The hosts of a URL with their ports; None where the URL leaves one out."""
    parts = urlsplit(dsn)
    query = dict(parse_qsl(parts.query))
    if "host" in query:
        ports = query.get("port", "").split(",")
        hosts = query["host"].split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        return [(h or None, int(p) if p else None) for h, p in zip(hosts, ports, strict=True)]
    given = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
    return [(host.hostname, host.port) for host in given]


async def _connect_host(dsn: str, options: Mapping[str, Any], prepare: Prepare | None) -> Any:
    connection = await asyncpg.connect(dsn, **options)
    try:
        _set_options(connection)
        version, statement = _TRANSACTION_LIMIT
        limited = connection.get_server_version() >= (version,)
        await connection.execute(f"{statement};{_DURABLE}" if limited else _DURABLE)
        if prepare is not None:
            await prepare(connection)
    except BaseException:
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
