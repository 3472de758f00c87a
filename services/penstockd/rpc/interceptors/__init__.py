"""The interceptors around every call, outermost first.

1. ``request_id``: everything after it, log lines and errors included, carries the id.
2. ``telemetry``: its span sees the status that the client gets.
3. ``errors``: turns what comes out of the rest into a status; nothing inside aborts by itself.
4. ``audit``: outside ``auth``, because denied calls are audited too.
5. ``auth``: nothing behind it runs without a principal.

Each is a function around the whole call, the iteration of streams included: it takes the exchange
and the rest of the call, and returns the reply.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from penstockd.rpc.exchange import Exchange, Proceed
from penstockd.rpc.interceptors.audit import audit
from penstockd.rpc.interceptors.auth import auth
from penstockd.rpc.interceptors.errors import errors
from penstockd.rpc.interceptors.request_id import request_id
from penstockd.rpc.interceptors.telemetry import telemetry

Interceptor = Callable[[Exchange, Proceed], Awaitable[Any]]

ORDER: tuple[Interceptor, ...] = (request_id, telemetry, errors, audit, auth)


def around(answer: Proceed, interceptors: Sequence[Interceptor] = ORDER) -> Proceed:
    """``answer`` within all interceptors. They are joined once for a method, not for each call."""
    for interceptor in reversed(interceptors):
        answer = _within(interceptor, answer)
    return answer


def _within(interceptor: Interceptor, inner: Proceed) -> Proceed:
    return lambda exchange: interceptor(exchange, inner)
