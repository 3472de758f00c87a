"""GetPolicyRevision: the whole policy at a revision."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.history import PolicyDocument, Revision, read_revision
from penstockd.policy.model import Permission


async def get_revision(hub: Hub, call: Call, revision: int) -> tuple[Revision, PolicyDocument]:
    """One revision with its document; 0 is the one in force. Raises RecordNotFound."""
    call.require(Permission.ACCESS_READ)
    call.entry.record_key = f"revisions/{revision}"
    async with hub.database.connection() as connection:
        return await read_revision(connection, revision)
