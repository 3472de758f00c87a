"""Who may do what with which webhook, and how a change of one is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from penstockd.calls import Call
from penstockd.errors import PermissionDenied, WebhookNotFound
from penstockd.hub import Hub
from penstockd.policy.model import Permission, Principal
from penstockd.store.database import Connection
from penstockd.webhooks.endpoints import read_webhook
from penstockd.webhooks.model import Webhook
from penstockd.webhooks.owners import unread_by

T = TypeVar("T")


def reader(call: Call) -> Principal:
    """The caller. Raises PermissionDenied unless it may see webhooks."""
    return _permitted(call, Permission.WEBHOOKS_READ)


def writer(call: Call) -> Principal:
    """The caller. Raises PermissionDenied unless it may have webhooks."""
    return _permitted(call, Permission.WEBHOOKS_WRITE)


def administers(call: Call) -> bool:
    """Whether everybody's webhooks are open to the caller."""
    assert call.principal is not None, "the auth interceptor lets nobody in without one"
    return call.policy.permits(call.principal, Permission.ACCESS_WRITE)


async def found(
    hub: Hub, call: Call, connection: Connection, webhook_id: str, *, lock: bool = False
) -> Webhook:
    """The webhook with an id, if the caller may know of it. Raises WebhookNotFound."""
    call.entry.record_key = f"webhooks/{webhook_id}"
    webhook = await read_webhook(connection, webhook_id, hub.webhooks.seal, lock=lock)
    assert call.principal is not None
    own = webhook is not None and webhook.consumer_id == call.principal.consumer_id
    if webhook is None or not (own or administers(call)):
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
    assert call.principal is not None, "the auth interceptor lets nobody in without one"
    return not unread_by(call.policy, hub.catalog, call.principal, webhook)


def check_reach(hub: Hub, call: Call, webhook: Webhook) -> None:
    """Raise PermissionDenied unless ``reads``."""
    assert call.principal is not None, "the auth interceptor lets nobody in without one"
    if dataset := unread_by(call.policy, hub.catalog, call.principal, webhook):
        raise PermissionDenied(f"the webhook shows {dataset}, which your token may not read")


async def changed(
    hub: Hub, call: Call, work: Callable[[Connection], Awaitable[T]], *, rows: int = 1
) -> T:
    """What ``work`` returns, done in one transaction with the audit entry, whoever goes away.

    Raises PermissionDenied unless the caller may have webhooks, and what ``work`` raises.
    """
    writer(call)

    async def write() -> T:
        async with call.writing(hub.database.transaction()) as connection:
            result = await work(connection)
            counted = call.entry.row_count
            await call.audit_within(connection, rows if counted is None else counted)
        return result

    return await hub.tasks.run(write())


def _permitted(call: Call, permission: Permission) -> Principal:
    assert call.principal is not None, "the auth interceptor lets nobody in without one"
    if not administers(call):
        call.policy.require(call.principal, permission)
    return call.principal
