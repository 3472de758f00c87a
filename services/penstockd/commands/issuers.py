"""Issuers outside the hub: checked, stored, in force at once on the worker that stored them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from penstockd.auth.issuer_checks import check_issuer
from penstockd.auth.issuers import Issuer
from penstockd.auth.trust import delete_issuer, load_issuers, lock_issuers, put_issuer
from penstockd.calls import Call
from penstockd.commands.access.reach import check_gives, roles_of
from penstockd.errors import RecordExists, RecordNotFound
from penstockd.hub import Hub
from penstockd.policy.history import policy_now
from penstockd.policy.model import Permission
from penstockd.store.database import Connection


async def list_issuers(hub: Hub, call: Call) -> list[Issuer]:
    """All issuers by id. Raises PermissionDenied without access.read."""
    call.require(Permission.ACCESS_READ)
    async with hub.database.connection() as connection:
        found = await load_issuers(connection)
    call.entry.row_count = len(found)
    return found


async def get_issuer(hub: Hub, call: Call, issuer_id: str) -> Issuer:
    """One issuer. Raises PermissionDenied without access.read, RecordNotFound."""
    call.require(Permission.ACCESS_READ)
    call.entry.record_key = issuer_id
    async with hub.database.connection() as connection:
        return await _found(connection, issuer_id)


async def create_issuer(hub: Hub, call: Call, issuer: Issuer) -> Issuer:
    """A new issuer. Raises PermissionDenied without access.write, ValueInvalid, RecordExists."""

    async def write(connection: Connection) -> Issuer:
        stored = await load_issuers(connection)
        if any(issuer.issuer_id == s.issuer_id or issuer.issuer == s.issuer for s in stored):
            raise RecordExists(
                f"an issuer '{issuer.issuer_id}' or '{issuer.issuer}' exists already"
            )
        _check(hub, call, issuer)
        await _check_reach(call, connection, issuer)
        await put_issuer(connection, issuer)
        return issuer

    return await _change(hub, call, issuer.issuer_id, write)


async def update_issuer(
    hub: Hub, call: Call, issuer_id: str, change: Callable[[Issuer], Issuer]
) -> Issuer:
    """What ``change`` makes of an issuer; its id stays.

    Raises PermissionDenied without access.write, RecordNotFound, ValueInvalid, RecordExists.
    """

    async def write(connection: Connection) -> Issuer:
        issuer = change(await _found(connection, issuer_id))
        for other in await load_issuers(connection):
            if other.issuer == issuer.issuer and other.issuer_id != issuer_id:
                raise RecordExists(f"'{issuer.issuer}' is the issuer '{other.issuer_id}' already")
        _check(hub, call, issuer)
        await _check_reach(call, connection, issuer)
        await put_issuer(connection, issuer)
        return issuer

    return await _change(hub, call, issuer_id, write)


async def remove_issuer(hub: Hub, call: Call, issuer_id: str) -> None:
    """Delete an issuer. Raises PermissionDenied without access.write, RecordNotFound."""

    async def write(connection: Connection) -> Issuer:
        issuer = await _found(connection, issuer_id)
        await delete_issuer(connection, issuer_id)
        return issuer

    await _change(hub, call, issuer_id, write)


async def _change(
    hub: Hub, call: Call, issuer_id: str, write: Callable[[Connection], Awaitable[Issuer]]
) -> Issuer:
    """Write under a lock, with the audit entry, to the end; then follow the change here."""
    call.require(Permission.ACCESS_WRITE)
    call.entry.record_key = issuer_id

    async def run() -> Issuer:
        async with call.writing(hub.database.transaction()) as connection:
            await lock_issuers(connection)
            issuer = await write(connection)
            await call.audit_within(connection, 1)
        await hub.policy.refresh()
        return issuer

    return await hub.tasks.run(run())


async def _found(connection: Connection, issuer_id: str) -> Issuer:
    found = await load_issuers(connection, issuer_id)
    if not found:
        raise RecordNotFound(f"issuer '{issuer_id}' does not exist")
    return found[0]


async def _check_reach(call: Call, connection: Connection, issuer: Issuer) -> None:
    """Raise PermissionDenied if tokens of the issuer may do what the caller's scopes do not leave:
    what a consumer may that it can speak for."""
    document = await policy_now(connection)
    named = {issuer.consumer_id, *issuer.consumers.values()}
    for name, consumer in document.consumers.items():
        if issuer.consumers_by_claim or name in named:
            check_gives(call, roles_of(document, consumer))


def _check(hub: Hub, call: Call, issuer: Issuer) -> None:
    check_issuer(
        issuer,
        consumers=call.policy.consumers,
        own_issuer=hub.tokens.issuer,
        origins=hub.issuers.origins,
    )
