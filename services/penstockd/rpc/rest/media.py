"""Media types of calls: what a body may be, and in which form the caller wants the reply."""

from __future__ import annotations

from penstockd.rpc.http_errors import MediaTypeUnsupported

JSON, XML, CSV = "application/json", "application/xml", "text/csv"
PROBLEM = "application/problem+json"
NDJSON, EVENTS = "application/x-ndjson", "text/event-stream"
#: What clients send with JSON: some name no type, and curl names a form unless it is told.
_JSON_TYPES = frozenset({"", JSON, "text/json", "application/x-www-form-urlencoded", "text/plain"})
_PATCHES = frozenset({"application/merge-patch+json"})


def check_json_type(content_type: str, *, patch: bool) -> None:
    """Raise MediaTypeUnsupported unless a body of this type is read as JSON.

    ``patch``: the body changes a resource, so that it may be a merge patch (RFC 7396).
    """
    kind, _, rest = content_type.partition(";")
    kind = kind.strip().lower()
    if kind == "application/json-patch+json":
        raise MediaTypeUnsupported(
            "application/json-patch+json is not supported; send the changed members as"
            " application/merge-patch+json (RFC 7396)"
        )
    charset = rest.lower().replace(" ", "").replace('"', "")
    if "charset=" in charset and "charset=utf-8" not in charset:
        raise MediaTypeUnsupported(f"the body must be in UTF-8, not {rest.strip()[:60]}")
    if kind in _JSON_TYPES or (patch and kind in _PATCHES) or kind.endswith("+json"):
        return
    raise MediaTypeUnsupported(f"a body must be {JSON}, not {kind[:80]}")
