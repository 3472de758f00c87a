"""List and get webhooks."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from penstockd.calls import Call
from penstockd.commands.access.pages import Paging
from penstockd.commands.webhooks.asking import TO_READ, found
from penstockd.errors import CursorExpired
from penstockd.hub import Hub
from penstockd.policy.model import Permission
from penstockd.store.cursor import Cursor, cursor_at
from penstockd.store.database import Connection
from penstockd.webhooks.endpoints import read_secrets, read_webhooks
from penstockd.webhooks.model import Webhook
from penstockd.webhooks.signing import Secret


@dataclass(frozen=True, slots=True)
class Stored:
    """A webhook with its secrets, the newest first; and of a replay that is under way, how far it
    has come and where it ends."""

    webhook: Webhook
    secrets: Sequence[Secret]
    replay: tuple[Cursor, Cursor] | None = None


async def list_webhooks(
    hub: Hub, call: Call, page_size: int, page_token: str, *, everybody: bool
) -> tuple[list[Stored], str]:
    """A page of webhooks, the caller's or everybody's, and the token of the next.

    Raises PermissionDenied.
    """
    call.require(*TO_READ)
    if everybody:
        call.require(Permission.ACCESS_WRITE)
    paging = Paging(hub, call, f"webhooks/{everybody}", page_size, page_token)
    after = paging.position[0] if paging.position else ""
    owner = None if everybody else call.principal.consumer_id
    async with hub.database.connection() as connection:
        page, token = paging.cut(
            await read_webhooks(connection, owner, after, paging.limit, hub.webhooks.seal),
            lambda w: w.webhook_id,
        )
        return [await stored(hub, connection, w) for w in page], token


async def get_webhook(hub: Hub, call: Call, webhook_id: str) -> Stored:
    """One webhook. Raises PermissionDenied, WebhookNotFound."""
    call.require(*TO_READ)
    async with hub.database.connection() as connection:
        webhook = await found(hub, call, connection, webhook_id)
        call.entry.row_count = 1
        return await stored(hub, connection, webhook)


async def stored(hub: Hub, connection: Connection, webhook: Webhook) -> Stored:
    """A webhook with its secrets and its replay."""
    secrets = await read_secrets(connection, webhook.webhook_id, hub.webhooks.seal)
    replay = None
    if webhook.replay_number is not None and webhook.replay_end is not None:
        with contextlib.suppress(CursorExpired):  # then it is about to be ended
            replay = (
                await cursor_at(connection, webhook.replay_number),
                await cursor_at(connection, webhook.replay_end),
            )
    return Stored(webhook, secrets, replay)
