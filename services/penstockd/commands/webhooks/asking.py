"""Who may do what with which webhook, and how a change of one is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from penstockd.calls import Call
from penstockd.errors import PermissionDenied, WebhookNotFound
from penstockd.hub import Hub
from penstockd.policy.model import Permission
from penstockd.store.database import Connection
from penstockd.webhooks.endpoints import read_webhook
from penstockd.webhooks.model import Webhook
from penstockd.webhooks.owners import unread_by

T = TypeVar("T")


#: What a caller needs to see webhooks, and to have them: one of these. Everybody's webhooks are
#: open to the second.
TO_READ = (Permission.WEBHOOKS_READ, Permission.ACCESS_WRITE)
TO_WRITE = (Permission.WEBHOOKS_WRITE, Permission.ACCESS_WRITE)


async def found(
    hub: Hub, call: Call, connection: Connection, webhook_id: str, *, lock: bool = False
) -> Webhook:
    """The webhook with an id, if the caller may know of it. Raises WebhookNotFound."""
    call.entry.record_key = f"webhooks/{webhook_id}"
    webhook = await read_webhook(connection, webhook_id, hub.webhooks.seal, lock=lock)
    own = webhook is not None and webhook.consumer_id == call.principal.consumer_id
    if webhook is None or not (own or call.permits(Permission.ACCESS_WRITE)):
        raise WebhookNotFound(f"there is no webhook '{webhook_id}'")
    return webhook


async def touched(
    hub: Hub, call: Call, connection: Connection, webhook_id: str, *, lock: bool = False
) -> Webhook:
    """``found``, for a caller who lets the webhook tell something, or not tell it.

    Raises PermissionDenied unless the caller may itself read all that the webhook tells.
    """
    webhook = await found(hub, call, connection, webhook_id, lock=lock)
    check_reach(hub, call, webhook)
    return webhook


def reads(hub: Hub, call: Call, webhook: Webhook) -> bool:
    """Whether the caller may itself read all that a webhook tells."""
    return not unread_by(call.policy, hub.catalog, call.principal, webhook)


def check_reach(hub: Hub, call: Call, webhook: Webhook) -> None:
    """Raise PermissionDenied unless ``reads``."""
    if dataset := unread_by(call.policy, hub.catalog, call.principal, webhook):
        raise PermissionDenied(f"the webhook shows {dataset}, which your token may not read")


async def changed(
    hub: Hub, call: Call, work: Callable[[Connection], Awaitable[T]], *, rows: int = 1
) -> T:
    """What ``work`` returns, done in one transaction with the audit entry, whoever goes away.

    Raises PermissionDenied unless the caller may have webhooks, and what ``work`` raises.
    """
    call.require(*TO_WRITE)

    async def write() -> T:
        async with call.writing(hub.database.transaction()) as connection:
            result = await work(connection)
            counted = call.entry.row_count
            await call.audit_within(connection, rows if counted is None else counted)
        return result

    return await hub.tasks.run(write())
