"""The service Callers: who calls."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.hub.v1 import caller_pb2 as api
from penstockd.commands.get_caller import get_caller
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.routes import routes_of

_SERVICE = api.DESCRIPTOR.services_by_name["Callers"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(_SERVICE, {"GetCaller": _get_caller})


async def _get_caller(request: api.GetCallerRequest, call: ServedCall) -> api.Caller:
    caller = call.principal
    consumer = call.policy.consumers[caller.consumer_id]
    return api.Caller(
        consumer_id=caller.consumer_id,
        roles=sorted(caller.roles),
        permissions=get_caller(call),
        plan=consumer.plan,
        policy_revision=call.policy.revision,
    )
