"""Parses compact tokens (RFC 7515, RFC 7519) defensively, before anything in them is trusted.

The library verifies signatures. This module refuses what it tolerates: long tokens, other
alphabets, repeated names, NaN, deep nesting.
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
    """The text is no valid token; the fault is never disclosed."""


def open_token(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token, whose signature is not verified. Raises Malformed."""
    if len(token) > MAX_TOKEN_BYTES:
        raise Malformed
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise Malformed
    return _decode_object(parts[1]), _decode_object(parts[2])


def whole_times(claims: Mapping[str, Any]) -> bool:
    """Whether the times among the claims are whole seconds, not strings or booleans."""
    return all(type(claims[name]) is int for name in ("exp", "iat", "nbf") if name in claims)


def _decode_object(encoded: str) -> dict[str, Any]:
    """The JSON object in a part, whose names must be unique."""
    try:
        text = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        found = json.loads(
            text, object_pairs_hook=_refuse_repeated, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as exc:
        raise Malformed from exc
    if not isinstance(found, dict):
        raise Malformed
    return found


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise Malformed
