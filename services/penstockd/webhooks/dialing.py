"""Resolves names and makes sockets for the aiohttp connector of deliveries, with the egress guard.

This is apart from the guard because aiohttp takes long to load, and most processes only check
addresses.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from aiohttp import abc

from penstockd.egress import NOWHERE, AddressRefused, EgressGuard, address_of

#: Look-ups of names at one time: one that hangs must not delay the others.
_LOOKUPS = 64

_log = structlog.get_logger(__name__)


class Resolver(abc.AbstractResolver):
    """Looks names up, and leaves out the addresses that the guard refuses."""

    def __init__(self, guard: EgressGuard, *, secure: bool) -> None:
        self._guard, self._secure = guard, secure
        self._pool = ThreadPoolExecutor(_LOOKUPS, "webhook-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[abc.ResolveResult]:
        """The addresses of a name that may be dialled.

        Raises AddressRefused if there are none, always with the same message: see NOWHERE.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._pool, self._look_up, host, port, family)
        except (socket.gaierror, UnicodeError) as exc:
            _log.info("name_not_resolved", host=host, error=str(exc))
            raise AddressRefused(NOWHERE) from None
        usable: list[abc.ResolveResult] = []
        for kind, _, _, _, place in found:
            try:
                self._guard.check(address_of(str(place[0])), secure=self._secure)
            except AddressRefused as exc:
                _log.info("address_refused", host=host, why=str(exc))
                continue
            usable.append(
                abc.ResolveResult(
                    hostname=host,
                    host=str(place[0]),
                    port=port,
                    family=kind,
                    proto=0,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        if not usable:
            raise AddressRefused(NOWHERE)
        return usable

    def _look_up(self, host: str, port: int, family: int) -> Sequence[Any]:
        return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)

    async def close(self) -> None:
        """Release the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def guarded_socket(guard: EgressGuard, *, secure: bool) -> Any:
    """A factory of sockets for ``aiohttp.TCPConnector`` that checks each address a last time."""

    def make(info: Any) -> socket.socket:
        family, kind, proto, _, place = info
        guard.check(address_of(str(place[0])), secure=secure)
        made = socket.socket(family, kind, proto)
        made.setblocking(False)
        return made

    return make
