"""GetCaller: what the caller may do with the hub itself."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.calls import Call
from penstockd.policy.model import Permission


def get_caller(call: Call) -> Sequence[str]:
    """The names of the caller's permissions, within the scopes of its token, in order."""
    call.entry.row_count = 1
    return sorted(p.value for p in Permission if call.permits(p))
