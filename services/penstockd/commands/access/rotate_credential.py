"""RotateCredential: a new secret; the old one stays valid for a while."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from penstockd.access.changes import ChangeTerms, change_policy
from penstockd.access.credentials import NewCredential, check_end, issue_within, name_credential
from penstockd.access.stored import find_credential
from penstockd.auth.credentials import end_credential
from penstockd.calls import Call
from penstockd.errors import CredentialEnded, ValueInvalid
from penstockd.hub import Hub
from penstockd.policy.history import PolicyChange
from penstockd.policy.model import Permission

MAX_OVERLAP = timedelta(days=30)


async def rotate_credential(
    hub: Hub,
    call: Call,
    consumer_id: str,
    credential_id: str,
    overlap: timedelta,
    expire_time: datetime | None,
    terms: ChangeTerms,
) -> NewCredential:
    """A new credential of the same kind; the old one ends after ``overlap``.

    Raises RecordNotFound, CredentialEnded, and ValueInvalid for times that make no sense.
    """
    call.require(Permission.ACCESS_WRITE)
    if not timedelta() <= overlap <= MAX_OVERLAP:
        raise ValueInvalid.of("overlap", f"must be between 0 and {MAX_OVERLAP.days} days")
    check_end(expire_time)

    async def rotate(under_way: PolicyChange) -> NewCredential:
        old = await find_credential(under_way.connection, consumer_id, credential_id)
        if old.ended:
            raise CredentialEnded(f"credential '{credential_id}' has ended")
        issued, secret = await issue_within(
            hub.credentials, call, under_way, consumer_id, old.kind, expire_time
        )
        at = datetime.now(UTC) + overlap if overlap else None
        await end_credential(under_way.connection, credential_id, at)
        end = f", ends at {at:%Y-%m-%dT%H:%M:%SZ}" if at is not None else ", revoked"
        names = f"{name_credential(old)} rotated to {name_credential(issued)}"
        under_way.told["change"] = [f"consumer {consumer_id}: {names}{end}"]
        return issued, "" if terms.validate_only else secret

    key = f"consumers/{consumer_id}/credentials/{credential_id}"
    return (await change_policy(hub.database, hub.policy, call, key, terms, rotate))[0]
