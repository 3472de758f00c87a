"""Keeps calls within the limits of their consumers."""

from __future__ import annotations

from typing import Any

from penstockd.metering.admission import Admission, AskedCall
from penstockd.rpc.exchange import Exchange, Method, Proceed


async def settle_limits(exchange: Exchange, proceed: Proceed) -> Any:
    """Release what the call held, once its entry is written."""
    error: BaseException | None = None
    try:
        return await proceed(exchange)
    except BaseException as exc:
        error = exc
        raise
    finally:
        if exchange.admission is not None:
            exchange.admission.end(error)


async def admit_call(exchange: Exchange, proceed: Proceed) -> Any:
    """Admit the call of a known caller within its limits, or refuse it."""
    if exchange.method.public:
        return await proceed(exchange)
    call, method = exchange.call, exchange.method
    terms = call.policy.terms(call.principal.consumer_id)
    if terms is None or terms.limits.names_nothing:
        return await proceed(exchange)
    kind = _find_kind(method)
    asked = AskedCall(call.principal.consumer_id, method.path, method.dataset or "", kind)
    exchange.admission = call.gauge = Admission(exchange.hub.limiter, terms, asked)
    await exchange.admission.enter(call.entry)
    if exchange.admission.over_rate:
        call.asked(over_rate=exchange.admission.over_rate)
    return await proceed(exchange)


def _find_kind(method: Method) -> str:
    """What a call counts as while it is under way: calls, streams or exports."""
    if method.sends_file:
        return "exports"
    return "streams" if method.streams else "calls"
