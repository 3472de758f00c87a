"""The answers of gRPC's health service: about the worker's calls, and about the needs of its
node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from penstockd.errors import Refused
from penstockd.hub import Hub
from penstockd.rpc.server import Server
from penstockd.store.epochs import Undeclared
from penstockd.store.nodes import NODE_STATE
from penstockd.store.shortages import Shortages
from penstockd.store.singleton_rows import SINGLETONS, read_singletons
from penstockd.store.vacancies import Vacancies

#: How often a worker checks that the database answers, in seconds.
PULSE = 1.0
#: How often it retries a database that did not answer, in seconds: callers are waiting.
RETRY = 0.2
#: Pings in a row without an answer after which calls in progress are abandoned.
SILENT_PINGS = 2
#: How often a worker checks the state of the whole node, in seconds.
NODE_PULSE = 2.0

_log = structlog.get_logger(__name__)


async def report_health(hub: Hub, server: Server) -> None:
    """Report SERVING while the database answers.

    When it goes silent, end the calls that wait for it.
    """
    silent = 0
    while True:
        try:
            await hub.database.ping()
            if silent:
                _log.info("healthy_again")
            silent = 0
            await server.set_serving(True)
            await asyncio.sleep(PULSE)
        except Refused as exc:
            if not silent:
                _log.warning("unhealthy", error=str(exc))
            silent += 1
            await server.set_serving(False)
            if silent >= SILENT_PINGS:
                hub.database.abandon()
            await asyncio.sleep(RETRY)


async def report_node_health(
    hub: Hub,
    server: Server,
    node: str,
    failing: Callable[[], Mapping[str, str]],
    shortages: Shortages,
) -> None:
    """Report the health of the worker and of its node.

    That is whether the worker's organs work, each singleton has a holder that does not fail at it,
    the node has the same settings as the others and an id of its own, each return of the database
    to an earlier state was declared, the worker holds no old state of the data, and nothing runs
    short. None of them decides whether the worker serves calls. ``failing`` returns the failing
    organs of this process.
    """
    vacancies, undeclared = Vacancies(SINGLETONS), Undeclared()
    while True:
        await server.set_health("organs", not failing())
        async with hub.database.connection() as connection:
            rows = await read_singletons(connection)
            state = await connection.fetchrow(NODE_STATE, node)
            enough = await shortages.look(connection)
            declared = await undeclared.look(connection, hub.database.memory)
        for name, well in enough.items():
            await server.set_health(name, well)
        done = vacancies.look(rows)
        for name, well in done.items():
            await server.set_health(f"singletons/{name}", well)
        await server.set_health("singletons", all(done.values()))
        assert state is not None, "an aggregate has a row"
        stands_by, twin = state
        await server.set_health("settings", not stands_by)
        await server.set_health("node-id", not twin)
        await server.set_health("epochs", declared)
        await server.set_health("snapshots", not hub.snapshots.any_old)
        await asyncio.sleep(NODE_PULSE)
