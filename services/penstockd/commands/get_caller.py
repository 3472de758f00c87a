"""GetCaller: who calls, and what it may do with the hub itself."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.calls import Call
from penstockd.policy.model import Consumer, Permission


def get_caller(call: Call) -> tuple[Consumer, Sequence[str]]:
    """The caller's consumer, and the names of its permissions within the scopes of its token."""
    call.entry.row_count = 1
    consumer = call.policy.consumers[call.principal.consumer_id]
    return consumer, sorted(p.value for p in Permission if call.permits(p))
