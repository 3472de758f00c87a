"""A webhook as its owner is shown it: with its secrets and its replay."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstockd.errors import CursorExpired
from penstockd.store.cursor import Cursor, cursor_at
from penstockd.store.database import Connection
from penstockd.webhooks.endpoints import read_secrets
from penstockd.webhooks.model import Webhook
from penstockd.webhooks.signing import Seal, Secret


@dataclass(frozen=True, slots=True)
class Stored:
    """A webhook with its secrets, the newest first; of a replay that is under way, how far it has
    come and where it ends; why selections bring no events, by dataset; and whether the caller may
    see webhooks at all, and not only have them."""

    webhook: Webhook
    secrets: Sequence[Secret]
    replay: tuple[Cursor, Cursor] | None
    problems: Mapping[str, str]
    readable: bool


async def read_stored(
    connection: Connection,
    seal: Seal,
    webhook: Webhook,
    problems: Mapping[str, str],
    *,
    readable: bool,
) -> Stored:
    """A webhook with its secrets, its replay and what is wrong with its selections."""
    secrets = await read_secrets(connection, webhook.webhook_id, seal)
    replay = None
    if webhook.replay_number is not None and webhook.replay_end is not None:
        with contextlib.suppress(CursorExpired):  # then it is about to be ended
            replay = (
                await cursor_at(connection, webhook.replay_number),
                await cursor_at(connection, webhook.replay_end),
            )
    return Stored(webhook, secrets, replay, problems, readable)
