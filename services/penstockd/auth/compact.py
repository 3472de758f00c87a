"""Compact tokens (RFC 7515, RFC 7519) taken apart with suspicion, before any of it is believed.

Whether a signature is good, the library says. What it is lenient about is refused here: long
tokens, other alphabets, names given twice, NaN, deep nesting.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

#: A longer token is refused before a byte of it is parsed.
MAX_TOKEN_BYTES = 8192

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


class Malformed(ValueError):
    """The token is none; what is wrong with it is said to nobody."""


def opened(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token whose signature nobody has checked. Raises Malformed."""
    if len(token) > MAX_TOKEN_BYTES:
        raise Malformed
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise Malformed
    return _object(parts[1]), _object(parts[2])


def whole_times(claims: Mapping[str, Any]) -> bool:
    """Whether the times among the claims are whole seconds, and not texts or truth values."""
    return all(type(claims[name]) is int for name in ("exp", "iat", "nbf") if name in claims)


def _object(encoded: str) -> dict[str, Any]:
    """The JSON object that a part holds, all of its names told apart."""
    try:
        text = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:
        raise Malformed from exc
    if not isinstance(found, dict):
        raise Malformed
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed
    return found


def _refuse(constant: str) -> NoReturn:
    raise Malformed
