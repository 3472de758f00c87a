"""GetLimits: what a consumer may use, and has used."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import RecordNotFound
from penstockd.hub import Hub
from penstockd.metering.standing import LimitStanding, read_standing
from penstockd.policy.model import Permission
from penstockd.policy.plans import Terms


async def get_limits(
    hub: Hub, call: Call, consumer_id: str
) -> tuple[str, Terms | None, list[LimitStanding]]:
    """A consumer, its terms, and where it stands; the caller itself by default.

    Raises PermissionDenied and RecordNotFound for others.
    """
    own = call.principal.consumer_id
    name = consumer_id or own
    call.asked(consumer=consumer_id)
    if name != own:
        call.require(Permission.PLANS_READ)
        if name not in call.policy.consumers:
            raise RecordNotFound(f"consumer '{name}' does not exist")
    terms = call.policy.terms(name)
    if terms is None:
        return name, None, []
    return name, terms, await read_standing(hub.limiter, name, terms)
