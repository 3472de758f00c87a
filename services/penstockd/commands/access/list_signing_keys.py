"""ListSigningKeys: the past, current and future keys that sign the hub's tokens."""

from __future__ import annotations

from penstockd.auth.keys import SigningKeys
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.model import Permission


def list_signing_keys(hub: Hub, call: Call) -> SigningKeys:
    """The keys in force. Raises PermissionDenied without access.read."""
    call.require(Permission.ACCESS_READ)
    call.entry.row_count = len(hub.tokens.keys.all)
    return hub.tokens.keys
