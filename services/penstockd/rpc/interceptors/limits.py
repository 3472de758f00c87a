"""Keeps calls within the limits of their consumers."""

from __future__ import annotations

from functools import partial
from typing import Any

from penstockd.metering.admission import Admission
from penstockd.metering.call_limits import AskedCall
from penstockd.metering.exempt import RAISING, TELLING
from penstockd.policy.model import Permission
from penstockd.policy.snapshot import PolicySnapshot
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
    call = exchange.call
    call.meter = partial(_meter_call, exchange)
    call.adopt_terms(call.policy)
    if exchange.admission is not None:
        await exchange.admission.enter(call.entry)
        if exchange.admission.over_rate:
            call.asked(over_rate=exchange.admission.over_rate)
    return await proceed(exchange)


def _meter_call(exchange: Exchange, policy: PolicySnapshot) -> Admission | None:
    """What limits the call under a policy: as it begins, and if it changes while it is under way.

    A call that was not limited before is charged for what it uses from now on.
    """
    terms = policy.terms(exchange.call.principal.consumer_id)
    if exchange.admission is not None:
        exchange.admission.renew(terms)
    elif terms is not None and not terms.limits.names_nothing:
        exchange.admission = Admission(exchange.hub.limiter, terms, _describe_call(exchange))
        exchange.admission.begin_at(*exchange.call.sent)
    return exchange.admission


def _describe_call(exchange: Exchange) -> AskedCall:
    call, method = exchange.call, exchange.method
    exempt = method.path == TELLING or (
        method.path in RAISING and call.permits(Permission.PLANS_WRITE)
    )
    return AskedCall(
        call.principal.consumer_id,
        method.path,
        method.dataset or "",
        _find_kind(method),
        exempt=exempt,
    )


def _find_kind(method: Method) -> str:
    """What a call counts as while it is under way: calls, streams or exports."""
    if method.sends_file:
        return "exports"
    return "streams" if method.streams else "calls"
