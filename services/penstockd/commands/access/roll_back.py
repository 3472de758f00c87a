"""RollbackPolicy: restores an earlier policy."""

from __future__ import annotations

from penstockd.access.changes import ChangeTerms, change_policy, put_diff
from penstockd.access.rehearsing import draft_policy
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.history import (
    PolicyChange,
    PolicyDocument,
    Revision,
    read_revision,
    write_document,
)


async def roll_back(
    hub: Hub, call: Call, revision: int, terms: ChangeTerms
) -> tuple[Revision | None, PolicyDocument, int]:
    """Restore the policy of an earlier revision (see ``rolled_back``) as a new revision.

    The new revision is None if the change was only validated. Raises RecordNotFound,
    RollbackImpossible.
    """
    key = f"revisions/{revision}"

    async def write(under_way: PolicyChange) -> PolicyDocument:
        connection = under_way.connection
        now, wanted = await draft_policy(connection, hub.catalog, call, None, revision)
        await write_document(connection, now, wanted)
        put_diff(under_way, now, wanted)
        return wanted

    wanted, made = await change_policy(hub.database, hub.policy, call, key, terms, write)
    if terms.validate_only:
        return None, wanted, made
    async with hub.database.connection() as connection:
        return (await read_revision(connection, made))[0], wanted, made
