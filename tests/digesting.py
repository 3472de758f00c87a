"""The canonical form of records from REST's JSON, in plain Python without the SDK."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from harness import RunningHub

DATASETS = ("customers", "contacts", "products", "orders", "interactions")


def records(hub: RunningHub, dataset: str, consumer: str, **query: str) -> list[dict[str, Any]]:
    """All records that a consumer sees, in key order, over REST."""
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        page = hub.get(f"/v1/{dataset}", consumer, page_size=1000, page_token=token, **query)
        assert page.status == 200, page.text
        found += page.json().get(dataset, [])
        token = page.json().get("nextPageToken", "")
        if not token:
            return found


class Form:
    """The form of one consumer's records of a dataset, from the catalog's description."""

    def __init__(self, fields: list[dict[str, Any]]) -> None:
        """``fields`` are those of the dataset in ``GET /v1/datasets``."""
        self.fields = {f["jsonPath"]: f for f in _each(fields)}

    @classmethod
    def of(cls, hub: RunningHub, dataset: str, consumer: str) -> Form:
        """That of a consumer's records of a dataset."""
        datasets = hub.get("/v1/datasets", consumer).json()["datasets"]
        return cls(next(d["fields"] for d in datasets if d["name"] == dataset))

    def digest(self, record: dict[str, Any]) -> str:
        """A record's digest in hexadecimal."""
        return hashlib.sha256(self.text(record).encode()).hexdigest()

    def text(self, record: dict[str, Any]) -> str:
        """A record's canonical form."""
        kept = {k: v for k, v in record.items() if k not in ("updateTime", "etag")}
        return self._value(kept, "")

    def given(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record without its unset members."""
        found: dict[str, Any] = self._given(record, "")
        return found

    def _given(self, value: Any, path: str) -> Any:
        kind = self.fields.get(path, {}).get("type")
        if isinstance(value, list):
            return [self._given(v, path) for v in value]
        if not isinstance(value, dict) or kind == "STRUCT":
            return value
        if kind == "MAP":
            return {name: self._given_members(v, path) for name, v in value.items()}
        return self._given_members(value, path)

    def _given_members(self, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            return value
        below = f"{path}." if path else ""
        return {
            name: self._given(v, below + name)
            for name, v in value.items()
            if not self._unset(v, below + name)
        }

    def _value(self, value: Any, path: str) -> str:
        field = self.fields.get(path, {})
        if isinstance(value, dict) and field.get("type") == "MAP":
            return self._map(value, path)
        if isinstance(value, dict):
            return self._object(value, path, whole=field.get("type") == "STRUCT")
        if isinstance(value, list):
            return "[" + ",".join(self._value(v, path) for v in value) + "]"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return _number(value)
        if field.get("type") == "DECIMAL" and "." in value:
            return f'"{value.rstrip("0").rstrip(".")}"'
        return _text(value)

    def _object(self, value: dict[str, Any], path: str, *, whole: bool) -> str:
        below = f"{path}." if path else ""
        kept = {n: v for n, v in value.items() if whole or not self._unset(v, below + n)}
        names = sorted(kept, key=lambda name: name.encode("utf-16-be"))
        inner = [
            f"{_text(n)}:{_plain(kept[n]) if whole else self._value(kept[n], below + n)}"
            for n in names
        ]
        return "{" + ",".join(inner) + "}"

    def _map(self, value: dict[str, Any], path: str) -> str:
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        inner = [f"{_text(n)}:{self._entry(value[n], path)}" for n in names]
        return "{" + ",".join(inner) + "}"

    def _entry(self, value: Any, path: str) -> str:
        """The form of a map's value: a message, or a scalar."""
        if isinstance(value, dict):
            return self._object(value, path, whole=False)
        return self._value(value, path)

    def _unset(self, value: Any, path: str) -> bool:
        """Whether a member is null, or has the default of a field that is not optional."""
        field = self.fields.get(path)
        if field is None:  # a member of a message that contains itself: the catalog lists none
            return value in (None, "", [])
        if value is None or field.get("optional"):
            return value is None
        default: tuple[Any, ...] = ("", 0, [], {}, field.get("values", [None])[0])
        return value in (("0",) if field["type"] in ("INT64", "UINT64") else default)


def range_digest(digests: list[str]) -> str:
    """The digest of a range of records."""
    return hashlib.sha256(b"".join(bytes.fromhex(d) for d in digests)).hexdigest()


def _each(fields: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for field in fields:
        yield field
        yield from _each(field.get("members", []))


def _plain(value: Any) -> str:
    """The form of a value in a Struct, of which nothing is left out."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{_text(n)}:{_plain(value[n])}" for n in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_plain, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _text(value) if isinstance(value, str) else _number(value)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """As ECMAScript prints it, for numbers that need no exponent there."""
    assert value == 0 or 1e-6 <= abs(value) < 1e21, value
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
