"""The canonical form of records from REST's JSON, in plain Python without the SDK."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any

from harness import RunningHub

DATASETS = ("customers", "contacts", "products", "orders", "interactions")
#: Only the model's protos tell that members of elements are decimals.
ELEMENTS = {"orders": {"lines.unitPrice", "lines.discount"}}


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

    def __init__(self, hub: RunningHub, dataset: str, consumer: str) -> None:
        datasets = hub.get("/v1/datasets", consumer).json()["datasets"]
        fields = next(d["fields"] for d in datasets if d["name"] == dataset)
        self.times = {f["jsonPath"] for f in fields if f["type"] == "TIMESTAMP"}
        self.decimals = {f["jsonPath"] for f in fields if f["type"] == "DECIMAL"}
        self.decimals |= ELEMENTS.get(dataset, set())

    def digest(self, record: dict[str, Any]) -> str:
        """A record's digest in hexadecimal."""
        return hashlib.sha256(self.text(record).encode()).hexdigest()

    def text(self, record: dict[str, Any]) -> str:
        """A record's canonical form."""
        kept = {k: v for k, v in record.items() if k not in ("updateTime", "etag")}
        return self._value(kept, "")

    def _value(self, value: Any, path: str) -> str:
        if isinstance(value, dict):
            names = sorted(value, key=lambda name: name.encode("utf-16-be"))
            below = f"{path}." if path else ""
            members = [f"{_text(n)}:{self._value(value[n], below + n)}" for n in names]
            return "{" + ",".join(members) + "}"
        if isinstance(value, list):
            return "[" + ",".join(self._value(v, path) for v in value) + "]"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return _number(value)
        if path in self.times:
            seconds, _, fraction = value.removesuffix("Z").partition(".")
            return f'"{seconds}.{fraction:0<6}Z"'
        if path in self.decimals and "." in value:
            return f'"{value.rstrip("0").rstrip(".")}"'
        return _text(value)


def range_digest(digests: list[str]) -> str:
    """The digest of a range of records."""
    return hashlib.sha256(b"".join(bytes.fromhex(d) for d in digests)).hexdigest()


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """As ECMAScript prints it, for numbers that need no exponent there."""
    assert value == 0 or 1e-6 <= abs(value) < 1e21, value
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
