"""The headers ``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10).

Both are structured fields: lists of limits by name. The partition key is a keyed hash of the
consumer: equal for its calls, and of no use to anybody else.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import NamedTuple

#: Their names, as gRPC writes metadata.
POLICY, STATE = "ratelimit-policy", "ratelimit"


class LimitState(NamedTuple):
    """A limit, and how much of it is left.

    ``quota`` is what may be used in ``window`` seconds (0: at one time), of ``unit``; ``remaining``
    is left for ``reset`` seconds.
    """

    name: str
    quota: int
    window: int
    unit: str
    remaining: int
    reset: int


def format_headers(states: Iterable[LimitState], partition: bytes) -> Mapping[str, str]:
    """The headers for limits, none without any."""
    found = list(states)
    if not found:
        return {}
    key = base64.b64encode(partition).decode()
    return {
        POLICY: ", ".join(_format_policy(state, key) for state in found),
        STATE: ", ".join(_format_state(state, key) for state in found),
    }


def _format_policy(state: LimitState, key: str) -> str:
    unit = f';qu="{state.unit}"' if state.unit != "requests" else ""
    window = f";w={state.window}" if state.window else ""
    return f'"{state.name}";q={state.quota}{unit}{window};pk=:{key}:'


def _format_state(state: LimitState, key: str) -> str:
    reset = f";t={state.reset}" if state.reset else ""
    return f'"{state.name}";r={state.remaining}{reset};pk=:{key}:'
