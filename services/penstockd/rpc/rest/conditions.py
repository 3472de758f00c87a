"""Preconditions of calls: ``If-Match`` and ``If-None-Match`` (RFC 9110, 13.1), and ETags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstockd.errors import RequestMalformed, ValueInvalid
from penstockd.rpc.exchange import STATUS
from penstockd.rpc.http_errors import PreconditionFailed

_NOT_MODIFIED, _FAILED = 304, 412
_ETAG = "etag"


@dataclass(frozen=True, slots=True)
class Conditions:
    """The preconditions of one call."""

    if_match: str | None = None
    if_none_match: str | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Conditions:
        """Those in the headers of a call."""
        return cls(metadata.get("if-match"), metadata.get("if-none-match"))

    def apply(self, request: Any, verb: str, *, creates: bool) -> None:
        """Put what a write expects into its request; ``creates``: it makes one new resource.

        Raises PreconditionFailed for a tag that no record can have, and ValueInvalid for one beside
        another etag.
        """
        if verb in ("GET", "HEAD"):
            return
        if self.if_none_match is not None and not (creates and self.if_none_match.strip() == "*"):
            raise RequestMalformed("If-None-Match is for reads, and * for a POST that creates")
        if self.if_match is None:
            return
        if self.if_match.strip() == "*":
            if getattr(request, "allow_missing", False):
                raise RequestMalformed("If-Match: * does not fit a call that may create")
            return
        if _ETAG not in type(request).DESCRIPTOR.fields_by_name:
            raise RequestMalformed("this method has no precondition If-Match")
        tags = read_tags(self.if_match)
        strong = [tag for tag, weak in tags if not weak]
        tag = strong[0].partition("-")[0] if len(tags) == 1 and strong else ""
        if not tag:
            raise PreconditionFailed("If-Match names no one strong etag of a record")
        if request.etag and request.etag != tag:
            raise ValueInvalid.of(_ETAG, "differs from the header If-Match")
        request.etag = tag

    def status_of(self, reason: str) -> int:
        """The HTTP status of an error that says that a precondition failed; 0 for other errors."""
        if self.if_match is not None and reason == "ETAG_MISMATCH":
            return _FAILED
        if self.if_match is not None and reason == "RECORD_NOT_FOUND":
            return _FAILED
        if self.if_none_match is not None and reason == "RECORD_EXISTS":
            return _FAILED
        return 0

    def describe(self, etag: str, verb: str, headers: dict[str, str], form: str = "") -> bool:
        """Add the ETag of a reply to its headers, if it has one; returns whether the caller has the
        reply already.

        ``form`` is a suffix for replies in another form than JSON.
        """
        if not etag:
            return False
        tag = etag + form
        headers[_ETAG] = f'"{tag}"'
        headers["vary"] = "accept"
        if verb not in ("GET", "HEAD") or self.if_none_match is None:
            return False
        known = [name for name, _ in read_tags(self.if_none_match)]
        if self.if_none_match.strip() != "*" and tag not in known:
            return False
        headers[STATUS] = str(_NOT_MODIFIED)
        return True


def read_tags(header: str) -> list[tuple[str, bool]]:
    """The etags of a header, and whether each is weak. A tag without quotes is taken as it is."""
    found = []
    for part in header.split(","):
        text = part.strip()
        weak = text.startswith("W/")
        text = text.removeprefix("W/").strip('"')
        found.append((text.removesuffix("-gzip"), weak))
    return found
