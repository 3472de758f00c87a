"""The console's files, which the sidecar serves without a worker."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstockd.node.errors import ConfigRefused

#: The URL path of the console.
ROOT = "/portal/"
#: File names below this folder change with their content.
HASHED = "assets/"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: The page may only load files from here and call this hub, and its scripts cannot turn text into
#: markup.
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


#: Files below this size, in bytes, are served uncompressed.
_COMPRESSED_FROM = 1024
#: Matches if gzip is accepted, and not refused by a weight of zero.
_ACCEPTS_GZIP = r"(.*[ ,])?gzip( *; *q=(0\.[0-9]*[1-9][0-9]*|1(\.0*)?))? *(,.*)?"


@dataclass(frozen=True)
class Variant:
    """One way to serve a file of the console: its URL path, folder, type and headers; those of
    ``file_headers`` only if the file is sent, not with an error in its place.

    The request's accept-encoding must match the pattern ``accept_encoding``, unless it is empty.
    """

    path: str
    folder: str
    content_type: str
    headers: Mapping[str, str]
    file_headers: Mapping[str, str]
    accept_encoding: str = ""


def write_compressed(folder: Path, target: Path) -> None:
    """Keep a compressed copy of each large file of the console below ``target``.

    Compressing once, here, saves a codec for each reply, which would hold up to 19 MB for as long
    as the client reads. Raises OSError.
    """
    for path in _list_files(folder):
        if _is_compressed(path):
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(gzip.compress(path.read_bytes(), mtime=0))


def served_variants(folder: Path, compressed: Path) -> list[Variant]:
    """All files of the built console, compressed copies first.

    Raises OSError, and ConfigRefused for an unknown type.
    """
    return [v for path in _list_files(folder) for v in _file_variants(folder, compressed, path)]


def _list_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _is_compressed(path: Path) -> bool:
    return path.stat().st_size >= _COMPRESSED_FROM


def _file_variants(folder: Path, compressed: Path, path: Path) -> Iterator[Variant]:
    name = path.relative_to(folder).as_posix()
    kind = _TYPES.get(path.suffix)
    if kind is None:
        raise ConfigRefused(f"{path}: files of the console are {', '.join(_TYPES)}")
    keep = "public, max-age=31536000, immutable" if name.startswith(HASHED) else "no-cache"
    place = ROOT + name.removesuffix("index.html")
    headers, of_file = dict(_GUARDS), {"cache-control": keep}
    if _is_compressed(path):
        headers["vary"] = "accept-encoding"
        encoded = {**of_file, "content-encoding": "gzip"}
        yield Variant(place, f"{compressed.absolute()}/", kind, headers, encoded, _ACCEPTS_GZIP)
    yield Variant(place, f"{folder.absolute()}/", kind, headers, of_file)
