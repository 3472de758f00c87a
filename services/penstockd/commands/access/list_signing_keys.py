"""ListSigningKeys: the past, current and future keys that sign the hub's tokens."""

from __future__ import annotations

from penstockd.auth.keys import SigningKey
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.policy.model import Permission


def list_signing_keys(
    hub: Hub, call: Call, page_size: int, page_token: str
) -> tuple[list[SigningKey], str]:
    """A page of the keys, newest first, and the next page's token. Raises PermissionDenied."""
    call.require(Permission.ACCESS_READ)
    paging = Paging(hub.page_tokens, call, "keys", page_size, page_token)
    return paging.cut(hub.tokens.keys.newest(paging.position), lambda key: key.place)
