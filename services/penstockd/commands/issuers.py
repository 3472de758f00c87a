"""Issuers outside the hub: checked, stored, in force at once on the worker that stored them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator

from penstockd.auth.issuers import Issuer
from penstockd.auth.jwks import KNOWN_ALGORITHMS
from penstockd.auth.trust import delete_issuer, load_issuers, lock_issuers, put_issuer
from penstockd.calls import Call
from penstockd.commands.access.reach import check_gives, roles_of
from penstockd.egress import UrlRefused
from penstockd.errors import RecordExists, RecordNotFound, ValueInvalid, Violation
from penstockd.hub import Hub
from penstockd.policy.history import policy_now
from penstockd.policy.model import Permission
from penstockd.query.rules import CLAIM_NAME
from penstockd.store.database import Connection

MAX_AGE_SECONDS = range(60, 3601)
#: Of audiences, claims and the like: an issuer is read whole by every worker.
MAX_LIST = 100
MAX_CONSUMERS = 1000

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TOKEN_TYPE = re.compile(r"[A-Za-z0-9.+-]{1,100}")


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
    violations = [
        Violation(f"issuer.{field}", text) for field, text in _problems(hub, call, issuer)
    ]
    if violations:
        first = violations[0]
        raise ValueInvalid(f"{first.field}: {first.description}", violations=violations)


def _problems(hub: Hub, call: Call, issuer: Issuer) -> Iterator[tuple[str, str]]:
    """What is wrong with an issuer, by field."""
    if not _ID.fullmatch(issuer.issuer_id):
        yield "issuer_id", "must be lower-case letters, digits, '-', '_' and '.', 63 at most"
    if not _text(issuer.issuer, 2048):
        yield "issuer", "is required, and may have 2048 characters"
    if issuer.issuer == hub.tokens.issuer:
        yield "issuer", "is the hub's own"
    try:
        hub.issuers.origins.check_url(issuer.jwks_uri)
    except UrlRefused as exc:
        yield "jwks_uri", str(exc)
    if not 0 < len(issuer.audiences) <= MAX_LIST or not all(_text(a) for a in issuer.audiences):
        yield "audiences", f"must be 1 to {MAX_LIST} texts"
    if unknown := sorted(set(issuer.algorithms) - KNOWN_ALGORITHMS):
        yield "algorithms", f"'{unknown[0]}' is none of {', '.join(sorted(KNOWN_ALGORITHMS))}"
    if not all(_TOKEN_TYPE.fullmatch(t) for t in issuer.token_types[:MAX_LIST]):
        yield "token_types", "must be media types without 'application/', as at+jwt"
    if issuer.max_age_seconds not in MAX_AGE_SECONDS:
        yield "max_age_seconds", "must be 60 to 3600"
    if len(issuer.scope_claim) > 200 or len(issuer.title) > 200:
        yield "scope_claim", "title and scope_claim may have 200 characters"
    yield from _mapping_problems(call, issuer)


def _mapping_problems(call: Call, issuer: Issuer) -> Iterator[tuple[str, str]]:
    if bool(issuer.consumer_id) == bool(issuer.consumer_claim):
        yield "consumer_id", "either consumer_id or consumer_claim must be given"
    if issuer.consumers and not issuer.consumer_claim:
        yield "consumers", "goes with consumer_claim"
    if issuer.consumers_by_claim and (issuer.consumers or not issuer.consumer_claim):
        yield "consumers_by_claim", "goes with consumer_claim and without consumers"
    if len(issuer.consumers) > MAX_CONSUMERS:
        yield "consumers", f"may have {MAX_CONSUMERS} entries"
    named = {issuer.consumer_id, *issuer.consumers.values()} - {""}
    for consumer in sorted(named - call.policy.consumers.keys()):
        yield ("consumers" if issuer.consumers else "consumer_id"), f"no consumer '{consumer}'"
    if len(issuer.claims) > MAX_LIST:
        yield "claims", f"may have {MAX_LIST} entries"
    names = [c.claim for c in issuer.claims]
    for i, mapping in enumerate(issuer.claims):
        if not _text(mapping.token_claim):
            yield f"claims[{i}].token_claim", "is required"
        if not CLAIM_NAME.fullmatch(mapping.claim):
            yield f"claims[{i}].claim", "must be lower-case letters, digits and '_', 63 at most"
        elif names.count(mapping.claim) > 1:
            yield f"claims[{i}].claim", "is mapped twice"


def _text(text: str, length: int = 200) -> bool:
    return 0 < len(text) <= length and text.isprintable()
