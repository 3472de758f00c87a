"""Media types of calls: what a body may be, and in which form the caller wants the reply."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.formats import parse_accept
from penstockd.rpc.http_errors import MediaTypeUnsupported, NotAcceptable

JSON, XML, CSV = "application/json", "application/xml", "text/csv"
#: The form of a reply that says nothing, for who takes no JSON: it has no body.
NOTHING = ""
PROBLEM = "application/problem+json"
NDJSON, EVENTS = "application/x-ndjson", "text/event-stream"
#: What clients send with JSON: some name no type, and curl names a form unless it is told.
_JSON_TYPES = frozenset({"", JSON, "text/json", "application/x-www-form-urlencoded", "text/plain"})
_PATCHES = frozenset({"application/merge-patch+json"})


def check_json_type(content_type: str, *, patch: bool, xml: bool = False) -> None:
    """Raise MediaTypeUnsupported unless a body of this type is read as JSON.

    ``patch``: the body changes a resource, so that it may be a merge patch (RFC 7396). ``xml``: it
    could be XML instead.
    """
    kind, _, rest = content_type.partition(";")
    kind = kind.strip().lower()
    if kind == "application/json-patch+json":
        raise MediaTypeUnsupported(
            "application/json-patch+json is not supported; send the changed members as"
            " application/merge-patch+json (RFC 7396)"
        )
    _check_charset(rest)
    if kind in _JSON_TYPES or (patch and kind in _PATCHES) or kind.endswith("+json"):
        return
    wanted = f"{JSON} or {XML}" if xml else JSON
    raise MediaTypeUnsupported(f"a body must be {wanted}, not {kind[:80]}")


def is_xml_type(content_type: str) -> bool:
    """Whether a body is XML. Raises MediaTypeUnsupported for XML in another charset than UTF-8."""
    kind, _, rest = content_type.partition(";")
    if kind.strip().lower() not in (XML, "text/xml"):
        return False
    _check_charset(rest)
    return True


def _check_charset(parameters: str) -> None:
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if "charset=" in charset and "charset=utf-8" not in charset:
        raise MediaTypeUnsupported(f"the body must be in UTF-8, not {parameters.strip()[:60]}")


def prefers_events(accept: str | None) -> bool:
    """Whether a caller wants a feed as server-sent events rather than as lines of JSON."""
    ranges = parse_accept(accept or "")
    events = ranges.get(EVENTS, (0.0, 0))
    return events > (0.0, 0) and events >= ranges.get(NDJSON, (0.0, 0))


def choose_media(accept: str | None, offered: Sequence[str]) -> str:
    """The media type of a reply: of those ``offered`` the one that the header ``Accept`` ranks
    highest (RFC 9110, 12.5.1), the first of equal ones.

    Who asks for problems takes JSON if there is none. Raises NotAcceptable, unless NOTHING is
    offered.
    """
    if not accept:
        return offered[0]
    ranges, nothing = parse_accept(accept), (0.0, 0)
    if PROBLEM in ranges:
        ranges.setdefault(JSON, ranges[PROBLEM])
    ranks = {}
    for media in offered:
        kinds = (media, media.partition("/")[0] + "/*", "*/*")
        ranks[media] = next((ranges[kind] for kind in kinds if kind in ranges), nothing)
    best = max(offered, key=ranks.__getitem__)
    if ranks[best] == nothing and NOTHING in offered:
        return NOTHING
    if ranks[best] == nothing:
        raise NotAcceptable(f"the reply can be {' or '.join(offered)}, not '{accept[:200]}'")
    return best
