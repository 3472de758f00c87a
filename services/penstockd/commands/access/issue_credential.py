"""IssueCredential: a new secret, which only this reply contains."""

from __future__ import annotations

from datetime import datetime

from penstockd.access.changes import ChangeTerms, change_policy
from penstockd.access.credentials import NewCredential, check_end, issue_within, name_credential
from penstockd.auth.credentials import KINDS
from penstockd.calls import Call
from penstockd.errors import ValueInvalid
from penstockd.hub import Hub
from penstockd.policy.history import PolicyChange
from penstockd.policy.model import Permission


async def issue_credential(
    hub: Hub,
    call: Call,
    consumer_id: str,
    kind: str,
    expire_time: datetime | None,
    terms: ChangeTerms,
) -> NewCredential:
    """A new credential.

    Raises RecordNotFound, ValueInvalid for an end that is past, and PermissionDenied also for a
    token whose scopes allow less than the consumer may do.
    """
    call.require(Permission.ACCESS_WRITE)
    if kind not in KINDS:
        raise ValueInvalid.of("kind", "is required: CLIENT_SECRET or API_KEY")
    check_end(expire_time)

    async def issue(under_way: PolicyChange) -> NewCredential:
        issued, secret = await issue_within(
            hub.credentials, call, under_way, consumer_id, kind, expire_time
        )
        under_way.told["change"] = [f"consumer {consumer_id}: {name_credential(issued)} issued"]
        return issued, "" if terms.validate_only else secret

    key = f"consumers/{consumer_id}"
    return (await change_policy(hub.database, hub.policy, call, key, terms, issue))[0]
