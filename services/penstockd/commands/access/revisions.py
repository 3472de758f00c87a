"""The policy's history: list, get, compare, roll back."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.commands.access.change import Terms, changed, tell
from penstockd.commands.access.pages import Paging
from penstockd.hub import Hub
from penstockd.policy.difference import Difference, differences
from penstockd.policy.history import (
    Change,
    PolicyDocument,
    Revision,
    check_document,
    policy_now,
    read_revision,
    read_revisions,
    rolled_back,
    write_document,
)
from penstockd.policy.model import Permission


async def list_revisions(
    hub: Hub, call: Call, page_size: int, page_token: str
) -> tuple[list[Revision], str]:
    """A page of the history, newest first, and the token of the next."""
    call.require(Permission.ACCESS_READ)
    paging = Paging(hub, call, "revisions", page_size, page_token)
    before = paging.position[0] if paging.position else 0
    async with hub.database.connection() as connection:
        found = await read_revisions(connection, before, paging.limit)
    return paging.cut(found, lambda r: r.revision)


async def get_revision(hub: Hub, call: Call, revision: int) -> tuple[Revision, PolicyDocument]:
    """One revision with its document; 0 is the one in force. Raises RecordNotFound."""
    call.require(Permission.ACCESS_READ)
    call.entry.record_key = f"revisions/{revision}"
    async with hub.database.connection() as connection:
        return await read_revision(connection, revision)


async def compare_revisions(hub: Hub, call: Call, before: int, after: int) -> list[Difference]:
    """What differs between two revisions; 0 is the one in force. Raises RecordNotFound."""
    call.require(Permission.ACCESS_READ)
    call.asked(from_revision=before, to_revision=after)
    async with hub.database.connection() as connection:
        _, old = await read_revision(connection, before)
        _, new = await read_revision(connection, after)
    return differences(old, new)


async def roll_back(
    hub: Hub, call: Call, revision: int, terms: Terms
) -> tuple[Revision | None, PolicyDocument, int]:
    """Bring the policy of an earlier revision back (see ``rolled_back``) as a new one.

    The new revision is None if the change was only validated. Raises RecordNotFound,
    RollbackImpossible.
    """

    async def write(under_way: Change) -> PolicyDocument:
        _, then = await read_revision(under_way.connection, revision)
        now = await policy_now(under_way.connection)
        wanted = rolled_back(now, then)
        check_document(wanted, revision, hub.catalog, call.policy.tables)
        await write_document(under_way.connection, now, wanted)
        tell(under_way, now, wanted)
        return wanted

    wanted, made = await changed(hub, call, f"revisions/{revision}", terms, write)
    if terms.validate_only:
        return None, wanted, made
    async with hub.database.connection() as connection:
        return (await read_revision(connection, made))[0], wanted, made
