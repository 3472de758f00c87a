"""The console's files, which the sidecar serves by itself from its memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstockd.node.errors import ConfigRefused

#: Where the console is.
ROOT = "/portal/"
#: Below here names change with what is in the files.
HASHED = "assets/"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: What the page may do: load what is here and call this hub, and nothing else. No script of it
#: makes markup of text.
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
_GUARDS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}


@dataclass(frozen=True)
class Served:
    """A file, at which path, and with which headers."""

    path: str
    file: str
    size: int
    headers: Mapping[str, str]


def served(folder: Path) -> list[Served]:
    """All files of the built console. Raises OSError, and ConfigRefused for a type unknown."""
    return [_served(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]


def _served(folder: Path, path: Path) -> Served:
    name = path.relative_to(folder).as_posix()
    kind = _TYPES.get(path.suffix)
    if kind is None:
        raise ConfigRefused(f"{path}: files of the console are {', '.join(_TYPES)}")
    keep = "public, max-age=31536000, immutable" if name.startswith(HASHED) else "no-cache"
    return Served(
        path=ROOT + name.removesuffix("index.html"),
        file=str(path.absolute()),
        size=path.stat().st_size,
        headers={"content-type": kind, "cache-control": keep, **_GUARDS},
    )
