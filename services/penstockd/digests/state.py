"""The state of the data for a comparison, and the token that names it in later calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstockd.errors import StateGone, ValueInvalid
from penstockd.query import PageTokens, query_digest
from penstockd.query.errors import PageTokenError
from penstockd.store.cursor import Cursor
from penstockd.store.snapshots import Held, SnapshotGone
from penstockd.store.states import StateName, States

_GONE = "the state is no longer kept; start again without one"


@asynccontextmanager
async def held_state(
    states: States, tokens: PageTokens, owner: str, token: str
) -> AsyncIterator[tuple[Held, str]]:
    """Hold the state of a token, or the current one, during the block; yields it with its new
    token.

    ``owner`` is the consumer. Raises ValueInvalid for a token of another consumer, StateGone and
    DatabaseUnavailable.
    """
    bound = _bind_token(owner)
    try:
        name = _read_token(tokens, token, bound) if token else None
        async with states.use(owner, name) as (held, named):
            position = (named.origin, named.name, named.cursor.stored, named.taken)
            yield held, tokens.issue(bound, position)
    except SnapshotGone as exc:
        raise StateGone(_GONE) from exc


def check_state(tokens: PageTokens, owner: str, token: str) -> None:
    """Raise ValueInvalid for a token of another consumer, and StateGone for one of an earlier
    version; nothing is held, so that the state may end at any time."""
    try:
        _ = _read_token(tokens, token, _bind_token(owner)) if token else None
    except SnapshotGone as exc:
        raise StateGone(_GONE) from exc


def _bind_token(owner: str) -> bytes:
    # The state covers all datasets, since a client may follow several of them with one cursor.
    return query_digest(dataset="", filter="", order_by="state", fields="", scope=owner)


def _read_token(tokens: PageTokens, token: str, bound: bytes) -> StateName:
    try:
        position = tokens.read(token, bound)
    except PageTokenError:
        raise ValueInvalid.of("state", "is not a state of this query") from None
    if len(position) != 4:  # the token comes from an earlier version of the hub
        raise SnapshotGone
    origin, name, cursor, taken = position
    return StateName(origin, name, Cursor.parse(cursor), taken)
