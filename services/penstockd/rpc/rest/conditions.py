"""Preconditions of calls: ``If-Match`` and ``If-None-Match`` (RFC 9110, 13.1), and ETags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from penstockd.errors import RequestMalformed, ValueInvalid
from penstockd.rpc.exchange import STATUS
from penstockd.rpc.http_errors import PreconditionFailed

_NOT_MODIFIED, _FAILED = 304, 412
_ETAG = "etag"
_READS = ("GET", "HEAD")
#: An etag as RFC 9110 (8.8.3) writes it, or one without quotes.
_TAG = re.compile(r'(W/)?(?:"([\x21\x23-\x7e\x80-\xff]*)"|([!#-)+\-.0-~]+))')
#: The most etags of a header.
MOST_TAGS = 100


class EntityTag(NamedTuple):
    """An etag of a header. A weak one equals no other in a strong comparison (8.8.3.2)."""

    text: str
    weak: bool


@dataclass(frozen=True, slots=True)
class Conditions:
    """The preconditions of one call."""

    if_match: str | None = None
    if_none_match: str | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Conditions:
        """Those in the headers of a call."""
        return cls(metadata.get("if-match"), metadata.get("if-none-match"))

    def refuse(self, what: str) -> None:
        """Raise RequestMalformed if there are any, because ``what`` has none."""
        for name, given in (("If-Match", self.if_match), ("If-None-Match", self.if_none_match)):
            if given is not None:
                raise RequestMalformed(f"{what} has no precondition {name}")

    def apply(self, request: Any, verb: str, *, creates: bool, tagged: bool) -> None:
        """Put what a write expects into its request; ``creates``: it makes one new resource;
        ``tagged``: its reply has an etag.

        Raises RequestMalformed for a precondition that the method does not have, PreconditionFailed
        for tags that no record can have, and ValueInvalid for tags beside another etag.
        """
        if verb in _READS:
            if self.if_match is not None and not tagged:
                raise RequestMalformed("this method has no precondition If-Match")
            return
        if self.if_none_match is not None and not (creates and self.if_none_match.strip() == "*"):
            raise RequestMalformed("If-None-Match is for reads, and * for a POST that creates")
        if self.if_match is None:
            return
        if _ETAG not in type(request).DESCRIPTOR.fields_by_name:
            raise RequestMalformed("this method has no precondition If-Match")
        if self.if_match.strip() == "*":
            if getattr(request, "allow_missing", False):
                raise RequestMalformed("If-Match: * does not fit a call that may create")
            return
        expected = strong_etags(self.if_match)
        if not expected:
            raise PreconditionFailed("If-Match names no strong etag of a record")
        if request.etag and request.etag not in expected:
            raise ValueInvalid.of(_ETAG, "differs from the header If-Match")
        request.etag = request.etag or ",".join(expected)

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

        ``form`` is a suffix for replies in another form than JSON. Raises PreconditionFailed for a
        read whose If-Match names another etag.
        """
        tag = etag + form if etag else ""
        if tag:
            headers[_ETAG] = f'"{tag}"'
        if verb not in _READS:
            return False
        # If-Match comes first (13.2.2), and compares strongly (13.1.1).
        wanted = (self.if_match or "*").strip()
        if wanted != "*" and EntityTag(tag, False) not in read_tags("If-Match", wanted):
            raise PreconditionFailed("the resource has none of the etags of If-Match")
        if self.if_none_match is None:
            return False
        if self.if_none_match.strip() != "*":
            known = [known.text for known in read_tags("If-None-Match", self.if_none_match)]
            if not tag or tag not in known:
                return False
        headers[STATUS] = str(_NOT_MODIFIED)
        return True


def strong_etags(header: str) -> Sequence[str]:
    """The etags of records that a header If-Match names, without the form of the reply."""
    strong = [tag.text.partition("-")[0] for tag in read_tags("If-Match", header) if not tag.weak]
    # No record has one with a comma, which would separate two in the request.
    return list(dict.fromkeys(text for text in strong if text and "," not in text))


def read_tags(name: str, header: str) -> Sequence[EntityTag]:
    """The etags of a header, which is called ``name``. Raises RequestMalformed."""
    found, at = [], 0
    text = header.strip()
    while at < len(text):
        if text[at] in ", \t":
            at += 1
            continue
        match = _TAG.match(text, at)
        if match is None or text[match.end() : match.end() + 1] not in ("", ",", " ", "\t"):
            raise RequestMalformed(f'{name} is not a list of etags such as "a", "b"')
        weak, quoted, bare = match.groups()
        found.append(EntityTag((quoted or bare or "").removesuffix("-gzip"), bool(weak)))
        at = match.end()
        if len(found) > MOST_TAGS:
            raise RequestMalformed(f"{name} has more than {MOST_TAGS} etags")
    return found
