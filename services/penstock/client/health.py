"""Whether a hub lives and is ready, and which of its parts are not well. Needs no credentials."""

from __future__ import annotations

import http.client
import urllib.error
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc

from penstock.client.auth import Anonymous, make_opener
from penstock.client.link import Link, parse_url
from penstock.client.tls import Tls

_CHECK = "/grpc.health.v1.Health/Check"
#: HealthCheckResponse with the status SERVING, as it is on the wire.
_SERVING = b"\x08\x01"

#: The parts of a hub that have a health of their own, and what it means if one is not well.
PARTS = {
    "organs": "a background part of a worker fails; see organ_failed in its log",
    "singletons": "no node does some task; see penstock nodes",
    "settings": "this node stands by: its settings differ from the others'",
    "epochs": "the database has gone back in time; see penstock epoch new",
    "disk": "the disk is nearly full; see disk_short in the log",
    "connections": "the database is nearly out of connections; see connections_short in the log",
    "locks": "calls wait long for locks; see locks_short in the log",
}


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a hub: ``problems`` are for people; a hub that is ready may have some."""

    live: bool
    ready: bool
    problems: tuple[str, ...]


def read_health(
    url: str,
    *,
    ca_file: str = "",
    client_cert: str = "",
    client_key: str = "",
    timeout: float = 5.0,
) -> Health:
    """Ask a hub for its health. Raises ValueError if the arguments are wrong."""
    address, tls = parse_url(url), Tls(ca_file, client_cert, client_key)
    try:
        live = _succeeds_at(f"{url.rstrip('/')}/livez", tls, timeout)
        ready = live and _succeeds_at(f"{url.rstrip('/')}/readyz", tls, timeout)
    except (OSError, http.client.HTTPException) as error:
        return Health(False, False, (str(getattr(error, "reason", error)),))
    if not ready:
        return Health(
            live, False, ("no worker serves calls; see its log, or that of the database",)
        )
    link = Link(address, Anonymous(), timeout=timeout, tls=tls)
    try:
        check: Any = link.channel.unary_unary(_CHECK)
        well = {part: _is_well(check, part, timeout) for part in PARTS}
    finally:
        link.close()
    return Health(live, ready, tuple(f"{p}: {PARTS[p]}" for p, fine in well.items() if not fine))


def _succeeds_at(url: str, tls: Tls, timeout: float) -> bool:
    """Whether a GET succeeds. Raises OSError if nothing answers."""
    parts = urlsplit(url)
    context = tls.context() if parts.scheme == "https" else None
    try:
        with make_opener(parts.netloc, context).open(url, timeout=timeout) as reply:
            return int(reply.status) == 200
    except urllib.error.HTTPError as error:
        error.close()
        return False


def _is_well(check: Any, part: str, timeout: float) -> bool:
    """Whether a part is well; one that an earlier version does not know counts as well."""
    name = part.encode()
    try:
        return bool(check(b"\x0a" + bytes([len(name)]) + name, timeout=timeout) == _SERVING)
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.NOT_FOUND
