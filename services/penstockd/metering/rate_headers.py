"""The headers ``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10), and
the older ``x-ratelimit-limit``, ``-remaining`` and ``-reset``.

The first two are structured fields: lists of limits by name. The partition key is a keyed hash of
the consumer: equal for its calls, and of no use to anybody else. Of very many limits, those are
listed of which the smallest share is left: gRPC bounds the metadata of a call. The older headers
have room for one limit: that of calls which would refuse one first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

#: Their names, as gRPC writes metadata.
POLICY, STATE = "ratelimit-policy", "ratelimit"
_OLDER = "x-ratelimit"
#: The unit of limits that count calls.
REQUESTS = "requests"
#: The most limits that are listed.
_LISTED = 20
#: The largest number of a structured field (RFC 9651, 3.3.1).
_MOST = 999_999_999_999_999


class LimitState(NamedTuple):
    """A limit, and how much of it is left.

    ``quota`` is what may be used in ``window`` seconds (0: at one time), of ``unit``; ``remaining``
    is left for ``reset`` seconds. A ``soft`` one refuses nothing.
    """

    name: str
    quota: int
    window: int
    unit: str
    remaining: int
    reset: int
    soft: bool = False


def format_headers(states: Iterable[LimitState], partition: str) -> Mapping[str, str]:
    """The headers for limits, none without any. ``partition`` is the partition key in base64."""
    found = list(states)
    if len(found) > _LISTED:
        found.sort(key=lambda state: state.remaining / max(1, state.quota))
        del found[_LISTED:]
    if not found:
        return {}
    return {
        POLICY: ", ".join([_format_policy(*state[:4], partition) for state in found]),
        STATE: ", ".join([_format_state(state, partition) for state in found]),
        **_format_older(found),
    }


def _format_older(states: Iterable[LimitState]) -> Mapping[str, str]:
    """The older headers, none unless calls are limited."""
    counting = [s for s in states if s.unit == REQUESTS and not s.soft]
    if not counting:
        return {}
    first = min(counting, key=lambda state: (state.remaining, -state.reset))
    return {
        f"{_OLDER}-limit": str(first.quota),
        f"{_OLDER}-remaining": str(first.remaining),
        f"{_OLDER}-reset": str(first.reset),
    }


@lru_cache(maxsize=8192)
def _format_policy(name: str, quota: int, window: int, unit: str, key: str) -> str:
    of_unit = f';qu="{unit}"' if unit != REQUESTS else ""
    within = f";w={window}" if window else ""
    return f'"{name}";q={min(quota, _MOST)}{of_unit}{within};pk=:{key}:'


def _format_state(state: LimitState, key: str) -> str:
    reset = f";t={state.reset}" if state.reset else ""
    return f'"{state.name}";r={min(state.remaining, _MOST)}{reset};pk=:{key}:'
