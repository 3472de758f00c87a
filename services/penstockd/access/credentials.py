"""Credentials issued by calls: within the caller's scopes, with the secret in one reply only."""

from __future__ import annotations

from datetime import UTC, datetime

from penstockd.access.reach import check_gives, roles_of
from penstockd.access.stored import find_consumer, find_credential
from penstockd.auth.credentials import Credentials, StoredCredential
from penstockd.calls import Call
from penstockd.errors import ValueInvalid
from penstockd.policy.history import PolicyChange, policy_now

#: A credential, and its secret if it is new.
NewCredential = tuple[StoredCredential, str]


async def issue_within(
    credentials: Credentials,
    call: Call,
    under_way: PolicyChange,
    consumer_id: str,
    kind: str,
    expire_time: datetime | None,
) -> NewCredential:
    """A new credential of a consumer, made in a change of the policy.

    Raises RecordNotFound, and PermissionDenied if the consumer may do more than the scopes of the
    caller's token allow.
    """
    connection = under_way.connection
    await find_consumer(connection, consumer_id)
    document = await policy_now(connection)
    check_gives(call, roles_of(document, document.consumers[consumer_id]))
    issued = await credentials.issue(connection, consumer_id, kind, expire_time)
    stored = await find_credential(connection, consumer_id, issued.credential_id)
    return stored, issued.secret


def check_end(expire_time: datetime | None) -> None:
    """Raise ValueInvalid if a credential would end before it begins."""
    if expire_time is not None and expire_time <= datetime.now(UTC):
        raise ValueInvalid.of("expire_time", "is past")


def name_credential(credential: StoredCredential) -> str:
    """The name of a credential in audit entries: its kind and its id."""
    return f"{credential.kind} {credential.credential_id}"
