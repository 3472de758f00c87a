"""Gives the call the request id that Envoy sent, or a new one."""

from __future__ import annotations

import re
import uuid
from typing import Any

from penstockd.observe import request_id_var
from penstockd.rpc.exchange import Exchange, Proceed

_PLAIN = re.compile(r"[A-Za-z0-9_.-]{8,64}")


async def request_id(exchange: Exchange, proceed: Proceed) -> Any:
    """Bind the id to the task. An incoming id is used if it is plain and short."""
    given = exchange.metadata.get("x-request-id", "")
    exchange.arriving.entry.request_id = given if _PLAIN.fullmatch(given) else str(uuid.uuid4())
    token = request_id_var.set(exchange.arriving.entry.request_id)
    try:
        return await proceed(exchange)
    finally:
        request_id_var.reset(token)
