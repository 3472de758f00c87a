"""RevokeCredential: ends a credential for good."""

from __future__ import annotations

from penstockd.access.changes import ChangeTerms, change_policy
from penstockd.access.credentials import name_credential
from penstockd.access.stored import find_credential
from penstockd.auth.credentials import StoredCredential, end_credential
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.history import PolicyChange


async def revoke_credential(
    hub: Hub, call: Call, consumer_id: str, credential_id: str, terms: ChangeTerms
) -> StoredCredential:
    """End a credential for good; harmless if it has ended already. Raises RecordNotFound."""
    key = f"consumers/{consumer_id}/credentials/{credential_id}"

    async def revoke(under_way: PolicyChange) -> StoredCredential:
        found = await find_credential(under_way.connection, consumer_id, credential_id)
        await end_credential(under_way.connection, credential_id)
        under_way.told["change"] = [f"consumer {consumer_id}: {name_credential(found)} revoked"]
        return await find_credential(under_way.connection, consumer_id, credential_id)

    return (await change_policy(hub.database, hub.policy, call, key, terms, revoke))[0]
