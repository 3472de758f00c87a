"""The way into a new hub, or back in when locked out: through the database, not the API."""

from __future__ import annotations

from dataclasses import replace

from penstockd.auth.credentials import CLIENT_SECRET, Credentials, Issued
from penstockd.policy.admin import put_consumer, put_role, read_consumer, read_role
from penstockd.policy.checks import check_consumer
from penstockd.policy.history import Author, open_policy_change
from penstockd.policy.model import Consumer, Permission, Role
from penstockd.store.database import Connection, Database

ROLE = "administrator"

#: How many consumers the error about a missing one names.
_NAMED = 10

_PERMISSIONS = frozenset({Permission.ACCESS_READ, Permission.ACCESS_WRITE})


class NoSuchConsumer(Exception):
    """There is no consumer of the name, and none was to be made."""

    def __init__(self, consumer_id: str, known: list[str]) -> None:
        there = f"there are {', '.join(known)}" if known else "there are none yet"
        self.message = f"there is no consumer '{consumer_id}' ({there}); with --create it is made"
        super().__init__(self.message)


async def make_administrator(
    database: Database, credentials: Credentials, consumer_id: str, *, create: bool
) -> Issued:
    """Let a consumer change access; return a new client secret for it.

    ``create`` lets the consumer be made if it is missing.

    It becomes active and gets the role ``administrator``, which allows nothing on datasets. This
    makes a revision of the policy like any other, whose author is the user of the database. Raises
    ValueInvalid if the name is invalid, NoSuchConsumer.
    """
    async with open_policy_change(database, Author("", "", "penstock administrator")) as under_way:
        connection = under_way.connection
        role = await read_role(connection, ROLE) or Role(ROLE, "Administration of access")
        if not role.permissions >= _PERMISSIONS:
            await put_role(connection, replace(role, permissions=role.permissions | _PERMISSIONS))
        stored = await read_consumer(connection, consumer_id)
        if stored is None and not create:
            raise NoSuchConsumer(consumer_id, await _name_consumers(connection))
        consumer = stored.consumer if stored else Consumer(consumer_id, True, frozenset())
        consumer = replace(consumer, active=True, roles=consumer.roles | {ROLE})
        check_consumer(consumer, consumer.roles, plans=(consumer.plan,))
        await put_consumer(connection, consumer)
        return await credentials.issue(connection, consumer_id, CLIENT_SECRET)


async def _name_consumers(connection: Connection) -> list[str]:
    """The first consumers by name, for the error."""
    rows = await connection.fetch(
        "SELECT consumer_id FROM hub.consumer ORDER BY consumer_id LIMIT $1", _NAMED
    )
    return [row["consumer_id"] for row in rows]
