"""What each root secret still protects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from penstockd.audit.checkpoint import CheckpointKey
from penstockd.auth.tickets import MOST_SECONDS
from penstockd.config import Settings
from penstockd.installation import open_ring
from penstockd.keyring import CHECKPOINTS, KeyRing
from penstockd.rotation.sealed import SEALED_COLUMNS, count_sealed
from penstockd.store.database import Connection
from penstockd.store.root_secrets import read_root_secrets
from penstockd.store.sharing import LiveNode, read_live_nodes
from penstockd.up import OPERATORS_ERRORS, StartRefused, explain_error, open_store

#: What clients hold for a while: how long it can be opened after its secret has ceased to seal, and
#: of what it is.
_HELD = (
    ("page tokens", timedelta(days=1), "of lists under way"),
    ("stream tickets", timedelta(seconds=MOST_SECONDS), "of browsers that follow a feed"),
)
#: A digest renewed under a later secret counts in place of the first one.
_CREDENTIALS = """
SELECT count(*), min(c.credential_id), max(coalesce(c.expire_time, 'infinity'))
FROM hub.credential AS c LEFT JOIN hub.credential_digest AS d USING (credential_id)
WHERE coalesce(d.root_secret_id, c.root_secret_id) = ANY ($1)
  AND NOT c.revoked AND coalesce(c.expire_time, 'infinity') > now()
"""
_CURSOR_KEYS = """
SELECT root_secret_id, seal_time, lead(seal_time) OVER (ORDER BY number) FROM hub.cursor_key
"""
_CHECKPOINTS = "SELECT count(*) FROM hub.audit_checkpoint WHERE public_key = $1"
_TERMS = "SELECT root_secret_id, seal_time, retire_time FROM hub.root_secret ORDER BY seal_time"


@dataclass(frozen=True, slots=True)
class Protected:
    """Something that a secret protects: how much of it there is, and until when at most; None if no
    time is known. ``holds``: the secret cannot be retired because of it."""

    what: str
    count: int | None
    until: datetime | None = None
    holds: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class SecretStatus:
    """A root secret: "next", "seals", "opens", "retired", or "new", which the store does not know
    yet. ``missing_on`` are the running nodes that do not know it."""

    secret_id: str
    state: str
    known: bool
    seal_time: datetime | None
    end_time: datetime | None
    retire_time: datetime | None
    missing_on: Sequence[str]
    protects: Sequence[Protected]


async def survey_secrets(settings: Settings) -> list[SecretStatus]:
    """Every root secret, with what it still protects. Raises StartRefused."""
    ring = open_ring(settings)
    try:
        async with (
            open_store(settings, "hub.root_secret") as database,
            database.snapshot() as connection,
        ):
            await read_root_secrets(connection, ring)
            return await list_statuses(settings, connection, ring)
    except OPERATORS_ERRORS as exc:
        raise StartRefused(explain_error(settings, exc)) from exc


async def list_statuses(
    settings: Settings, connection: Connection, ring: KeyRing
) -> list[SecretStatus]:
    """Every secret that is known or registered."""
    rows = await connection.fetch(_TERMS)
    nodes = await read_live_nodes(connection)
    now = await connection.fetchval("SELECT now()")
    found = []
    for at, (secret_id, seal_time, retire_time) in enumerate(rows):
        end = rows[at + 1][1] if at + 1 < len(rows) else None
        state = "seals"
        if retire_time is not None:
            state = "retired"
        elif seal_time > now:
            state = "next"
        elif end is not None and end <= now:
            state = "opens"
        protects = (
            []
            if state == "retired"
            else await _find_protected(settings, connection, ring, secret_id, end)
        )
        missing = name_missing(nodes, secret_id) if state != "retired" else []
        found.append(
            SecretStatus(
                secret_id,
                state,
                secret_id in ring.known,
                seal_time,
                end,
                retire_time,
                missing,
                protects,
            )
        )
    registered = {row[0] for row in rows}
    for secret_id in ring.known:
        if secret_id not in registered:
            missing = name_missing(nodes, secret_id)
            found.append(SecretStatus(secret_id, "new", True, None, None, None, missing, []))
    return found


async def _find_protected(
    settings: Settings,
    connection: Connection,
    ring: KeyRing,
    secret_id: str,
    end: datetime | None,
) -> list[Protected]:
    """The content that a secret protects; ``end`` is when it ceases to seal."""
    names = [secret_id, ""] if secret_id == ring.original else [secret_id]
    now = datetime.now(UTC)
    found = []
    for each in SEALED_COLUMNS:
        if count := await count_sealed(connection, ring, each, secret_id):
            found.append(Protected(each.what, count, note="sealed again when it is retired"))
    count, example, last = await connection.fetchrow(_CREDENTIALS, names) or (0, None, None)
    if count:
        note = f"until each is used again, revoked or expired; such as {example}"
        until = last if isinstance(last, datetime) and last.year < 9999 else None
        found.append(Protected("credentials", count, until, holds=True, note=note))
    keys = [row for row in await connection.fetch(_CURSOR_KEYS) if row[0] in names]
    if keys:
        retention = timedelta(hours=settings.log_retention_hours)
        ends = [row[2] for row in keys]
        until = None if None in ends else max(ends) + retention
        if until is None or until > now:
            note = "that clients hold, and leases: as long as the log is kept"
            found.append(Protected("cursors", None, until, holds=True, note=note))
    for what, kept, note in _HELD:
        until = None if end is None else end + kept
        if until is None or until > now:
            found.append(Protected(what, None, until, holds=True, note=note))
    secret = ring.find(secret_id)
    if secret is not None:
        public = CheckpointKey(ring.derive(secret, CHECKPOINTS).key).public
        if count := await connection.fetchval(_CHECKPOINTS, public):
            note = "they stay trusted: the key that follows vouches for them"
            found.append(Protected("signed checkpoints of the audit", count, note=note))
    return found


def name_missing(nodes: Sequence[LiveNode], secret_id: str) -> list[str]:
    """The nodes that do not know a secret."""
    return [f"{n.host} ({n.node_id})" for n in nodes if secret_id not in n.secrets]


def describe_protected(protected: Protected) -> str:
    """The protected content, for people."""
    count = "" if protected.count is None else f"{protected.count:,} "
    until = "" if protected.until is None else f" until {protected.until:%Y-%m-%d %H:%M} UTC"
    note = f" ({protected.note})" if protected.note else ""
    return f"{count}{protected.what}{until}{note}"
