"""The limits of consumers, and what is left of them."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.hub.v1 import plans_pb2 as api
from penstockd.commands.plans.get_limits import get_limits
from penstockd.metering.standing import LimitStanding
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.routes import routes_of

_SERVICE = api.DESCRIPTOR.services_by_name["Limits"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(_SERVICE, {"GetLimits": _get_limits})


async def _get_limits(request: api.GetLimitsRequest, call: ServedCall) -> api.GetLimitsResponse:
    name, terms, found = await get_limits(call.hub, call, request.consumer)
    return api.GetLimitsResponse(
        consumer_id=name,
        plan=terms.plan.plan_id if terms is not None else "",
        time_zone=(terms.plan.time_zone if terms is not None else "") or "UTC",
        limits=map(_status_message, found),
    )


def _status_message(limit: LimitStanding) -> api.LimitStatus:
    return api.LimitStatus(
        name=limit.name,
        what=limit.what,
        limit=limit.limit,
        used=limit.used,
        remaining=limit.remaining,
        soft=limit.soft,
        per_second=limit.per_second,
        per=limit.per,
        start_time=limit.start,
        reset_time=limit.end,
        exhausted_time=limit.exhausted,
    )
