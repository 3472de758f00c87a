"""The interceptors around every call, outermost first.

1. ``request_id``: everything after it, log lines and errors included, carries the id.
2. ``trace_call``: its span sees the status that the client gets.
3. ``answer_errors``: turns errors of the rest into a status; nothing inside aborts by itself.
4. ``measure_call``: counts the call by its reason, not by its answer.
5. ``settle_limits``: releases what a call held of its limits once its entry is written.
6. ``audit_call``: outside ``authenticate_call``, because denied calls are audited too.
7. ``authenticate_call``: nothing behind it runs without a principal.
8. ``admit_call``: nothing behind it runs beyond the limits of the principal.

Each is a function around the whole call, the iteration of streams included: it takes the exchange
and the rest of the call, and returns the reply.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from penstockd.rpc.exchange import Exchange, Proceed
from penstockd.rpc.interceptors.audit import audit_call
from penstockd.rpc.interceptors.auth import authenticate_call
from penstockd.rpc.interceptors.errors import answer_errors
from penstockd.rpc.interceptors.limits import admit_call, settle_limits
from penstockd.rpc.interceptors.metrics import measure_call
from penstockd.rpc.interceptors.request_id import request_id
from penstockd.rpc.interceptors.telemetry import trace_call

Interceptor = Callable[[Exchange, Proceed], Awaitable[Any]]

ORDER: tuple[Interceptor, ...] = (
    request_id,
    trace_call,
    answer_errors,
    measure_call,
    settle_limits,
    audit_call,
    authenticate_call,
    admit_call,
)


def wrap_answer(answer: Proceed, interceptors: Sequence[Interceptor] = ORDER) -> Proceed:
    """``answer`` within all interceptors. They are joined once for each method, not for each
    call."""
    for interceptor in reversed(interceptors):
        answer = _wrap_once(interceptor, answer)
    return answer


def _wrap_once(interceptor: Interceptor, inner: Proceed) -> Proceed:
    return lambda exchange: interceptor(exchange, inner)
