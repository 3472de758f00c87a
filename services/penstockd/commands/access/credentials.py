"""Credentials: list, issue, rotate, revoke. A secret is in one reply and nowhere else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from penstockd.auth.credentials import (
    KINDS,
    StoredCredential,
    end_credential,
    read_credential,
    read_credentials,
)
from penstockd.calls import Call
from penstockd.commands.access.change import Terms, changed
from penstockd.commands.access.consumers import found_consumer
from penstockd.commands.access.pages import Paging
from penstockd.commands.access.reach import check_gives, roles_of
from penstockd.errors import CredentialEnded, RecordNotFound, ValueInvalid, Violation
from penstockd.hub import Hub
from penstockd.policy.history import Change, policy_now
from penstockd.policy.model import Permission
from penstockd.store.database import Connection

MAX_OVERLAP = timedelta(days=30)

#: A credential, and its secret if it is new.
Issued = tuple[StoredCredential, str]


async def list_credentials(
    hub: Hub, call: Call, consumer_id: str, page_size: int, page_token: str
) -> tuple[list[StoredCredential], str]:
    """A page of a consumer's credentials, newest first, and the token of the next."""
    call.require(Permission.ACCESS_READ)
    call.entry.record_key = f"consumers/{consumer_id}"
    paging = Paging(hub, call, f"consumers/{consumer_id}/credentials", page_size, page_token)
    after = (paging.position[0], paging.position[1]) if paging.position else None
    async with hub.database.connection() as connection:
        await found_consumer(connection, consumer_id)
        found = await read_credentials(connection, consumer_id, after, paging.limit)
    return paging.cut(found, lambda c: (c.create_time, c.credential_id))


async def issue_credential(
    hub: Hub, call: Call, consumer_id: str, kind: str, expire_time: datetime | None, terms: Terms
) -> Issued:
    """A new credential.

    Raises RecordNotFound, ValueInvalid for an end that is past, and PermissionDenied also for a
    token whose scopes leave less than the consumer may.
    """
    call.require(Permission.ACCESS_WRITE)
    if kind not in KINDS:
        raise _invalid("kind", "is required: CLIENT_SECRET or API_KEY")
    _check_end(expire_time)

    async def issue(under_way: Change) -> Issued:
        await found_consumer(under_way.connection, consumer_id)
        await _check_reach(call, under_way, consumer_id)
        issued = await _issue(hub, under_way, consumer_id, kind, expire_time)
        under_way.told["change"] = [f"consumer {consumer_id}: {_named(issued[0])} issued"]
        return issued[0], "" if terms.validate_only else issued[1]

    return (await changed(hub, call, f"consumers/{consumer_id}", terms, issue))[0]


async def rotate_credential(
    hub: Hub,
    call: Call,
    consumer_id: str,
    credential_id: str,
    overlap: timedelta,
    expire_time: datetime | None,
    terms: Terms,
) -> Issued:
    """A new credential of the same kind; the old one ends after ``overlap``.

    Raises RecordNotFound, CredentialEnded, and ValueInvalid for times that make no sense.
    """
    call.require(Permission.ACCESS_WRITE)
    if not timedelta() <= overlap <= MAX_OVERLAP:
        raise _invalid("overlap", f"must be between 0 and {MAX_OVERLAP.days} days")
    _check_end(expire_time)

    async def rotate(under_way: Change) -> Issued:
        old = await _found(under_way.connection, consumer_id, credential_id)
        if old.ended:
            raise CredentialEnded(f"credential '{credential_id}' has ended")
        await _check_reach(call, under_way, consumer_id)
        issued = await _issue(hub, under_way, consumer_id, old.kind, expire_time)
        at = datetime.now(UTC) + overlap if overlap else None
        await end_credential(under_way.connection, credential_id, at)
        under_way.told["change"] = [
            f"consumer {consumer_id}: {_named(old)} rotated to {_named(issued[0])}"
            + (f", ends at {at:%Y-%m-%dT%H:%M:%SZ}" if at is not None else ", revoked")
        ]
        return issued[0], "" if terms.validate_only else issued[1]

    key = f"consumers/{consumer_id}/credentials/{credential_id}"
    return (await changed(hub, call, key, terms, rotate))[0]


async def revoke_credential(
    hub: Hub, call: Call, consumer_id: str, credential_id: str, terms: Terms
) -> StoredCredential:
    """End a credential for ever; one that has ended stays so. Raises RecordNotFound."""

    async def revoke(under_way: Change) -> StoredCredential:
        found = await _found(under_way.connection, consumer_id, credential_id)
        await end_credential(under_way.connection, credential_id)
        under_way.told["change"] = [f"consumer {consumer_id}: {_named(found)} revoked"]
        return await _found(under_way.connection, consumer_id, credential_id)

    key = f"consumers/{consumer_id}/credentials/{credential_id}"
    return (await changed(hub, call, key, terms, revoke))[0]


async def _check_reach(call: Call, under_way: Change, consumer_id: str) -> None:
    """Raise PermissionDenied if the consumer may do what the caller's scopes do not leave: who
    gets a credential may do all that its consumer may."""
    document = await policy_now(under_way.connection)
    check_gives(call, roles_of(document, document.consumers[consumer_id]))


async def _issue(
    hub: Hub, under_way: Change, consumer_id: str, kind: str, expire_time: datetime | None
) -> Issued:
    issued = await hub.credentials.issue(under_way.connection, consumer_id, kind, expire_time)
    return await _found(under_way.connection, consumer_id, issued.credential_id), issued.secret


async def _found(connection: Connection, consumer_id: str, credential_id: str) -> StoredCredential:
    found = await read_credential(connection, consumer_id, credential_id)
    if found is None:
        raise RecordNotFound(f"consumer '{consumer_id}' has no credential '{credential_id}'")
    return found


def _named(credential: StoredCredential) -> str:
    return f"{credential.kind} {credential.credential_id}"


def _check_end(expire_time: datetime | None) -> None:
    if expire_time is not None and expire_time <= datetime.now(UTC):
        raise _invalid("expire_time", "is past")


def _invalid(field: str, description: str) -> ValueInvalid:
    return ValueInvalid(f"{field} {description}", violations=[Violation(field, description)])
