"""Issuers outside the hub: how they are changed, and which tokens may change them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from penstockd.access.reach import check_gives, roles_of
from penstockd.auth.issuer_checks import check_issuer
from penstockd.auth.issuers import Issuer, Issuers
from penstockd.auth.tokens import Tokens
from penstockd.auth.trust import lock_issuers, put_issuer
from penstockd.calls import Call
from penstockd.policy.history import policy_now
from penstockd.policy.model import Permission
from penstockd.policy.snapshot import Policy
from penstockd.store.database import Connection, Database


class IssuerOrgans(Protocol):
    """The organs with which issuers are changed."""

    @property
    def database(self) -> Database:
        """Stores issuers."""

    @property
    def policy(self) -> Policy:
        """Follows a change at once."""

    @property
    def tokens(self) -> Tokens:
        """Knows the hub's own name as an issuer."""

    @property
    def issuers(self) -> Issuers:
        """Knows from which origins key sets may be fetched."""


async def change_issuer(
    organs: IssuerOrgans,
    call: Call,
    issuer_id: str,
    work: Callable[[Connection], Awaitable[Issuer]],
) -> Issuer:
    """Run ``work`` with the audit entry while nobody else writes issuers, and return its result.
    On return, this process applies the change.

    Raises PermissionDenied without access.write, and what ``work`` raises.
    """
    call.require(Permission.ACCESS_WRITE)
    call.entry.record_key = issuer_id

    async def write(connection: Connection) -> Issuer:
        await lock_issuers(connection)
        return await work(connection)

    transaction = organs.database.transaction()
    return await call.write(transaction, write, then=organs.policy.refresh)


async def store_issuer(
    organs: IssuerOrgans, call: Call, connection: Connection, issuer: Issuer
) -> Issuer:
    """Check an issuer and store it. Raises ValueInvalid, and PermissionDenied if a consumer that
    its tokens can stand for may do more than the caller's scopes allow."""
    check_issuer(
        issuer,
        consumers=call.policy.consumers,
        own_issuers=organs.tokens.own_issuers,
        origins=organs.issuers.origins,
    )
    document = await policy_now(connection)
    named = {issuer.consumer_id, *issuer.consumers.values()}
    for name, consumer in document.consumers.items():
        if issuer.consumers_by_claim or name in named:
            check_gives(call, roles_of(document, consumer))
    await put_issuer(connection, issuer)
    return issuer
