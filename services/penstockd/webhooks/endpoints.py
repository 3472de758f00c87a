"""Endpoints and their secrets in the store."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from penstockd.errors import CursorExpired
from penstockd.feed.bells import ring_everywhere, webhook_line
from penstockd.keyring import Seal
from penstockd.shapes.using import ChosenShape
from penstockd.store.announcements import WEBHOOK_CHANNEL, Announcements
from penstockd.store.cursor import Cursor, cursor_at
from penstockd.store.database import Connection
from penstockd.store.shapes import find_named
from penstockd.webhooks.errors import WebhookDisabled
from penstockd.webhooks.model import Options, Scheme, Selection, State, Webhook, WebhookKind
from penstockd.webhooks.signing import Secret, Signer, new_secret

#: The ``endpoints_revision`` of a process that has not loaded any.
NOTHING_LOADED = (UUID(int=0), 0)
#: Seconds without a pull after which an endpoint of kind LISTEN expires.
LISTEN_SECONDS = 600

_COLUMNS = """
webhook_id, consumer_id, kind, selections, options, title, url, headers, scopes, claims, state,
reason, failing_time, warned, start_number, replay_number, replay_end, create_time, update_time,
expire_time
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('penstock.webhook-intake'))"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint with its secrets and the signer that uses them."""

    webhook: Webhook
    secrets: tuple[Secret, ...]
    signer: Signer


async def lock_intake(connection: Connection) -> None:
    """Block the intake of events until the transaction ends.

    A new endpoint begins at the end of the log: the intake must not pass that place before it
    sees the endpoint.
    """
    await connection.execute(_LOCK)


async def endpoints_revision(connection: Connection) -> tuple[UUID, int]:
    """Id of the epoch and revision, a pair that every change of an endpoint replaces.

    A database that has gone back in time repeats revisions, but in another epoch.
    """
    row = await connection.fetchrow(
        "SELECT h.id, r.revision FROM hub.epoch_head AS h, hub.webhook_revision AS r"
    )
    assert row is not None, "the migrations have put one row into each"
    return row[0], row[1]


async def load_endpoints(connection: Connection, seal: Seal) -> dict[str, Endpoint]:
    """All endpoints by id."""
    # Read before the secrets: an endpoint that moves to another origin meanwhile appears at its
    # old origin with the new secret, never at the new origin with the old secret.
    webhooks = await connection.fetch(f"SELECT {_COLUMNS} FROM hub.webhook")
    secrets: dict[str, list[Secret]] = {}
    for row in await connection.fetch(
        "SELECT webhook_id, secret_id, scheme, sealed, create_time, expire_time"
        " FROM hub.webhook_secret ORDER BY create_time DESC, secret_id"
    ):
        secrets.setdefault(row[0], []).append(_read_secret(row, seal))
    found = {}
    read = [_read_webhook(row, seal) for row in webhooks]
    for webhook in await resolve_shapes(connection, read):
        own = tuple(secrets.get(webhook.webhook_id, ()))
        found[webhook.webhook_id] = Endpoint(webhook, own, Signer(own))
    return found


async def read_webhook(
    connection: Connection, webhook_id: str, seal: Seal, *, lock: bool = False
) -> Webhook | None:
    """One endpoint; ``lock`` keeps others from changing it until the transaction ends."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM hub.webhook WHERE webhook_id = $1"
        + (" FOR UPDATE" if lock else ""),
        webhook_id,
    )
    if row is None:
        return None
    return (await resolve_shapes(connection, [_read_webhook(row, seal)]))[0]


async def read_webhooks(
    connection: Connection, consumer_id: str | None, after: str, limit: int, seal: Seal
) -> list[Webhook]:
    """The endpoints of a consumer, or of all, in order of id, after the id ``after``."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM hub.webhook WHERE ($1::text IS NULL OR consumer_id = $1)"
        " AND webhook_id > $2 ORDER BY webhook_id LIMIT $3",
        consumer_id,
        after,
        limit,
    )
    return await resolve_shapes(connection, [_read_webhook(row, seal) for row in rows])


async def resolve_shapes(connection: Connection, webhooks: Sequence[Webhook]) -> list[Webhook]:
    """The endpoints with the versions of shapes that their selections stand for now."""
    named = {(w.consumer_id, s.shape) for w in webhooks for s in w.selections if s.shape}
    known = await find_named(connection, sorted(named)) if named else {}

    def resolved(webhook: Webhook, selection: Selection) -> Selection:
        found = known.get((webhook.consumer_id, selection.shape))
        if found is None:
            return selection
        owner, document = webhook.consumer_id, found.definition
        chosen = ChosenShape(owner, found.shape_id, found.version, document)
        return replace(selection, chosen=chosen)

    return [
        replace(w, selections=tuple(resolved(w, s) for s in w.selections))
        if any(s.shape for s in w.selections)
        else w
        for w in webhooks
    ]


async def count_webhooks(connection: Connection, consumer_id: str) -> int:
    """How many endpoints a consumer has."""
    return int(
        await connection.fetchval(
            "SELECT count(*) FROM hub.webhook WHERE consumer_id = $1", consumer_id
        )
    )


async def put_webhook(connection: Connection, webhook: Webhook, seal: Seal) -> None:
    """Create an endpoint, or update the parts that its owner sets."""
    headers = None
    if webhook.headers:
        headers = seal.close(orjson.dumps(dict(webhook.headers)), f"headers/{webhook.webhook_id}")
    await connection.execute(
        "INSERT INTO hub.webhook (webhook_id, consumer_id, kind, selections, options, title, url,"
        " headers, scopes, claims, state, reason, start_number, expire_time)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
        " ON CONFLICT (webhook_id) DO UPDATE SET selections = excluded.selections,"
        " options = excluded.options, title = excluded.title, url = excluded.url,"
        " headers = excluded.headers, update_time = clock_timestamp()",
        webhook.webhook_id,
        webhook.consumer_id,
        webhook.kind.value,
        orjson.dumps([s.document() for s in webhook.selections]).decode(),
        orjson.dumps(webhook.options.document()).decode(),
        webhook.title,
        webhook.url,
        headers,
        sorted(webhook.scopes) if webhook.scopes is not None else None,
        orjson.dumps({name: list(values) for name, values in webhook.claims.items()}).decode(),
        webhook.state.value,
        webhook.reason,
        webhook.start_number,
        webhook.expire_time,
    )


def check_enabled(webhook: Webhook) -> None:
    """Raise WebhookDisabled for an endpoint that has failed for too long."""
    if webhook.state is State.DISABLED:
        raise WebhookDisabled(f"the webhook is disabled: {webhook.reason}; resume it first")


async def delete_webhook(connection: Connection, webhook_id: str) -> None:
    """Delete an endpoint with its past and waiting deliveries."""
    await connection.execute("DELETE FROM hub.webhook WHERE webhook_id = $1", webhook_id)


async def set_replay(connection: Connection, webhook_id: str, start: int, end: int) -> None:
    """Send an endpoint the changes between two numbers of the log again."""
    await connection.execute(
        "UPDATE hub.webhook SET replay_number = $2, replay_end = $3 WHERE webhook_id = $1",
        webhook_id,
        start,
        end,
    )


async def set_expiry(connection: Connection, webhook_id: str, at: datetime) -> None:
    """Set when an endpoint of kind LISTEN expires unless it is pulled from."""
    await connection.execute(
        "UPDATE hub.webhook SET expire_time = $2 WHERE webhook_id = $1", webhook_id, at
    )


async def set_state(connection: Connection, webhook_id: str, state: State, reason: str) -> None:
    """Turn an endpoint on or off. Turning it on clears its failures."""
    await connection.execute(
        "UPDATE hub.webhook SET state = $2, reason = $3, update_time = clock_timestamp(),"
        " failing_time = CASE WHEN $2 = 'ACTIVE' THEN NULL ELSE failing_time END,"
        " warned = CASE WHEN $2 = 'ACTIVE' THEN 0 ELSE warned END WHERE webhook_id = $1",
        webhook_id,
        state.value,
        reason,
    )


async def set_failing(
    connection: Connection, webhook_id: str, since: datetime | None, warned: int
) -> None:
    """Store the time since which every attempt has failed, and how often the owner was warned."""
    await connection.execute(
        "UPDATE hub.webhook SET failing_time = $2, warned = $3 WHERE webhook_id = $1",
        webhook_id,
        since,
        warned,
    )


async def read_secrets(connection: Connection, webhook_id: str, seal: Seal) -> list[Secret]:
    """The secrets of an endpoint, newest first."""
    rows = await connection.fetch(
        "SELECT webhook_id, secret_id, scheme, sealed, create_time, expire_time"
        " FROM hub.webhook_secret WHERE webhook_id = $1 ORDER BY create_time DESC, secret_id",
        webhook_id,
    )
    return [_read_secret(row, seal) for row in rows]


async def put_secret(connection: Connection, webhook_id: str, secret: Secret, seal: Seal) -> None:
    """Store a new secret of an endpoint."""
    await connection.execute(
        "INSERT INTO hub.webhook_secret (webhook_id, secret_id, scheme, sealed, create_time,"
        " expire_time) VALUES ($1, $2, $3, $4, $5, $6)",
        webhook_id,
        secret.secret_id,
        secret.scheme.value,
        seal.close(secret.key, f"secret/{webhook_id}/{secret.secret_id}"),
        secret.create_time,
        secret.expire_time,
    )


async def expire_secrets(connection: Connection, webhook_id: str, at: datetime) -> None:
    """Let the existing secrets expire at a time, unless they expire sooner."""
    await connection.execute(
        "UPDATE hub.webhook_secret SET expire_time = least(expire_time, $2) WHERE webhook_id = $1",
        webhook_id,
        at,
    )


async def replace_secrets(
    connection: Connection, webhook_id: str, at: datetime, seal: Seal
) -> Secret:
    """Replace all secrets by a new one of the newest one's scheme; returns it."""
    known = await read_secrets(connection, webhook_id, seal)
    secret = new_secret(known[0].scheme if known else Scheme.HMAC, at)
    await connection.execute("DELETE FROM hub.webhook_secret WHERE webhook_id = $1", webhook_id)
    await put_secret(connection, webhook_id, secret, seal)
    return secret


async def lock_known(connection: Connection, names: Sequence[str]) -> set[str]:
    """The existing ones of these endpoints; none can be deleted before the transaction ends."""
    rows = await connection.fetch(
        "SELECT webhook_id FROM hub.webhook WHERE webhook_id = ANY ($1) FOR KEY SHARE", names
    )
    return {row[0] for row in rows}


async def announce_due(announcements: Announcements, connection: Connection) -> None:
    """Notify the keeper, when the transaction commits, that something is due."""
    await announcements.announce(connection, WEBHOOK_CHANNEL)
    await ring_everywhere(announcements, connection, webhook_line(""))


def _read_webhook(row: Any, seal: Seal) -> Webhook:
    headers: dict[str, str] = {}
    if row["headers"] is not None:
        headers = orjson.loads(seal.open(row["headers"], f"headers/{row['webhook_id']}"))
    selections: Sequence[Any] = orjson.loads(row["selections"])
    return Webhook(
        webhook_id=row["webhook_id"],
        consumer_id=row["consumer_id"],
        kind=WebhookKind(row["kind"]),
        selections=tuple(map(Selection.parse, selections)),
        options=Options.parse(orjson.loads(row["options"])),
        title=row["title"],
        url=row["url"],
        headers=headers,
        scopes=frozenset(row["scopes"]) if row["scopes"] is not None else None,
        claims={name: tuple(found) for name, found in orjson.loads(row["claims"]).items()},
        state=State(row["state"]),
        reason=row["reason"],
        failing_time=row["failing_time"],
        warned=row["warned"],
        start_number=row["start_number"],
        replay_number=row["replay_number"],
        replay_end=row["replay_end"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        expire_time=row["expire_time"],
    )


def _read_secret(row: Any, seal: Seal) -> Secret:
    key = seal.open(row["sealed"], f"secret/{row['webhook_id']}/{row['secret_id']}")
    return Secret(
        row["secret_id"], Scheme(row["scheme"]), key, row["create_time"], row["expire_time"]
    )


@dataclass(frozen=True, slots=True)
class Stored:
    """A webhook with its secrets, newest first, and its state.

    ``replay``: the place of a running replay, and its end. ``problems``: the reasons why selections
    bring no events, by dataset. ``readable``: whether the caller may see webhooks, not only own
    them.
    """

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
    """A webhook with its secrets, its replay and the problems of its selections."""
    secrets = await read_secrets(connection, webhook.webhook_id, seal)
    replay = None
    if webhook.replay_number is not None and webhook.replay_end is not None:
        with contextlib.suppress(CursorExpired):  # then it is about to be ended
            replay = (
                await cursor_at(connection, webhook.replay_number),
                await cursor_at(connection, webhook.replay_end),
            )
    return Stored(webhook, secrets, replay, problems, readable)
