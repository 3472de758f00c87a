"""Forms of addresses in settings."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_origin(text: str) -> bool:
    """Whether a text consists of a scheme, a host and perhaps a port, and nothing else."""
    try:
        parts = urlsplit(text)
        usable = (parts.port or 1) > 0
    except ValueError:
        return False
    return (
        usable
        and parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and text == f"{parts.scheme}://{parts.netloc}"
        and parts.username is None
        and "*" not in text
    )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
