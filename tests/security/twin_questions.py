"""Questions to twin worlds, and their answers without the parts that differ between any two
calls."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlencode

import asyncpg

from penstockd.catalog import Catalog, Dataset, Field, Kind

from .twin_changes import HIDDEN_CLASSES
from .twins import World


@dataclass(frozen=True)
class Question:
    """One call of one consumer: a GET, or a write that is only validated."""

    consumer: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    body: bytes | None = None

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path


@dataclass(frozen=True)
class Answer:
    """An answer without the parts that differ between any two calls."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    page_token: str = ""


_FLEETING = re.compile(
    "date|server|content-length|x-request-id|x-envoy-.*|x-ratelimit-.*|penstock-receipt.*|transfer-encoding"
)
_REQUEST_ID = re.compile(rb'"requestId":\s*"[^"]*"')
#: Times and numbers that a write which is only validated would get at that moment.
_WOULD_BE = re.compile(
    rb'"(?:createTime":"(?!2026-01-02T00:00:00Z)[^"]*'
    rb'|updateTime":"(?!2026-01-03T00:00:00Z)[^"]*|etag":"[0-9]{15})"'
)
#: The header of the same.
_NEW_ETAG = re.compile('"[0-9]{15}"')


def ask(connection: HTTPConnection, world: World, question: Question) -> Answer:
    """The world's answer."""
    headers = {"x-api-key": world.keys[question.consumer], **question.headers}
    for _ in range(5):
        connection.request(question.method, question.target, question.body, headers)
        reply = connection.getresponse()
        body = reply.read()
        if reply.status != 503:  # a busy machine's refusal says nothing about the data
            break
    kept = sorted(
        (k.lower(), _NEW_ETAG.sub('"new"', v) if k.lower() == "etag" else v)
        for k, v in reply.getheaders()
        if not _FLEETING.fullmatch(k.lower())
    )
    token = dict(kept).get("penstock-next-page-token", "")
    if reply.status == 200 and b'"nextPageToken"' in body:
        token = json.loads(body)["nextPageToken"]
    if reply.getheader("content-type") == "application/json" and body:
        # The order of a map's entries differs between any two processes.
        content = json.loads(body)
        if question.path.endswith(":digest"):
            content.pop("state", None)  # the session in the world's database that holds it
        body = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        if question.method != "GET":
            body = _WOULD_BE.sub(b'"moved"', body)
    body = _REQUEST_ID.sub(b"", body).replace(world.hub.url.encode(), b"")
    return Answer(reply.status, tuple(kept), body, token)


class Asker:
    """Makes questions with values that either world holds, above all hidden ones."""

    def __init__(
        self, catalog: Catalog, values: Mapping[str, Mapping[str, Sequence[str]]], seed: str
    ) -> None:
        self._catalog, self._values = list(catalog), values
        self.chance = random.Random(seed)

    def question(self, consumer: str) -> Question:
        """Any question."""
        dataset = self.chance.choice(self._catalog)
        make: Callable[[str, Dataset], Question] = self.chance.choices(
            [self._get, self._list, self._page, self._export, self._digest, self._other],
            [3, 6, 2, 4, 2, 1],
        )[0]
        return make(consumer, dataset)

    def _get(self, consumer: str, dataset: Dataset) -> Question:
        key = self.chance.choice(self._values[dataset.name][dataset.key.path])
        if self.chance.random() < 0.1:
            key += "?"
        query = self._fields(dataset) if self.chance.random() < 0.3 else {}
        return Question(consumer, f"/v1/{dataset.name}/{quote(key, safe='')}", query)

    def _list(self, consumer: str, dataset: Dataset) -> Question:
        query = self._query(dataset) | {"page_size": str(self.chance.choice([1, 3, 20, 1000]))}
        return Question(consumer, f"/v1/{dataset.name}", query)

    def _page(self, consumer: str, dataset: Dataset) -> Question:
        query = self._query(dataset) | {"page_size": str(self.chance.choice([2, 30]))}
        return Question(consumer, f"/v1/{dataset.name}:exportPage", query | self._format())

    def _export(self, consumer: str, dataset: Dataset) -> Question:
        query = self._query(dataset) | self._format()
        if self.chance.random() < 0.3:
            query["limit"] = str(self.chance.randint(1, 50))
        return Question(consumer, f"/v1/{dataset.name}:export", query)

    def _digest(self, consumer: str, dataset: Dataset) -> Question:
        query = self._query(dataset) | {"parts": str(self.chance.choice([1, 5, 4096]))}
        query.pop("order_by", None)
        if self.chance.random() < 0.3:
            query["keys"] = "true"
        return Question(consumer, f"/v1/{dataset.name}:digest", query)

    def _other(self, consumer: str, dataset: Dataset) -> Question:
        places = ["/v1/datasets", f"/v1/datasets/{dataset.name}/schema.xsd", "/v1/nothing"]
        return Question(consumer, self.chance.choice(places))

    def write(self, consumer: str, visible: Mapping[str, Sequence[str]]) -> Question:
        """A write that is only validated, with guessed values; its new records are never hidden
        ones."""
        dataset = self.chance.choice(self._catalog)
        path, key_name = f"/v1/{dataset.name}", dataset.key.json_path
        key = self.chance.choice(visible[dataset.name])
        record, query = self._guessed(dataset), {"validate_only": "true"}
        headers = {"content-type": "application/json"}
        kind = self.chance.choice(["PATCH", "PATCH", "DELETE", "batchUpsert", "import", "POST"])
        if kind in ("PATCH", "DELETE"):
            # Any row, including hidden ones: they do not exist for a writer.
            key = self.chance.choice([key, *self._values[dataset.name][dataset.key.path]])
            if self.chance.random() < 0.3:
                query["etag"] = self.chance.choice([*self._values[dataset.name]["etag"], "1"])
            body = json.dumps(record).encode() if kind == "PATCH" else None
            place = f"{path}/{quote(key, safe='')}"
            return Question(consumer, place, query, headers, kind, body)
        if kind == "POST":
            key += self.chance.choice(["", "-new"])
            body = json.dumps({**record, key_name: key}).encode()
            return Question(consumer, path, query, headers, "POST", body)
        whole: Any = {**record, key_name: key}
        if kind == "batchUpsert":
            whole = {dataset.name: [whole]}
        else:
            query["format"] = "NDJSON"
        if self.chance.random() < 0.5:
            query["partial"] = "true"
        body = json.dumps(whole).encode()
        return Question(consumer, f"{path}:{kind}", query, headers, "POST", body)

    def _guessed(self, dataset: Dataset) -> dict[str, Any]:
        """Some fields with values that one of the worlds holds in them."""
        record: dict[str, Any] = {}
        plain = [f for f in dataset.fields if not (f.key or f.output_only or f.repeated)]
        for found in self.chance.sample(plain, self.chance.randint(0, 3)):
            values = self._values[dataset.name].get(found.path)
            if values and found.kind is not Kind.BYTES:
                _put(record, found, self.chance.choice(values))
        return record

    def _format(self) -> dict[str, str]:
        formats = ["CSV", "JSON", "NDJSON", "XML", "PARQUET", "ARROW"]
        return {"format": self.chance.choice(formats)}

    def query(self, name: str) -> dict[str, str]:
        """The filter, order and fields of a question about a dataset."""
        return self._query(next(d for d in self._catalog if d.name == name))

    def _query(self, dataset: Dataset) -> dict[str, str]:
        query = {}
        if self.chance.random() < 0.8:
            query["filter"] = self._filter(dataset, 2)
        if self.chance.random() < 0.4:
            names = self.chance.sample(dataset.fields, self.chance.randint(1, 2))
            query["order_by"] = ",".join(
                f.path + self.chance.choice(["", " desc"]) for f in names if not f.repeated
            )
        if self.chance.random() < 0.2:
            query |= self._fields(dataset)
        return query

    def _fields(self, dataset: Dataset) -> dict[str, str]:
        found = self.chance.sample(dataset.fields, self.chance.randint(1, 4))
        return {"fields": ",".join(f.path for f in found)}

    def _filter(self, dataset: Dataset, depth: int) -> str:
        if depth and self.chance.random() < 0.4:
            a, b = self._filter(dataset, depth - 1), self._filter(dataset, depth - 1)
            word = self.chance.choice(["AND", "OR", "AND NOT"])
            return f"({a}) {word} ({b})"
        hidden = [f for f in dataset.fields if f.field_class in HIDDEN_CLASSES]
        found = self.chance.choice(hidden or dataset.fields)
        if self.chance.random() < 0.6:
            found = self.chance.choice(dataset.fields)
        if found.members and self.chance.random() < 0.8:
            found = self.chance.choice(found.members)
        values = self._values[dataset.name].get(found.path) or ["x"]
        value = self.chance.choice(values)
        if "lines." in found.path:
            # A question about a repeated field can only ask whether it is present.
            return f"{found.path}:{self.chance.choice(['*', json.dumps(value)])}"
        if self.chance.random() < 0.2:
            value = value[: self.chance.randint(0, len(value))] + "*"
        operator = self.chance.choice(["=", "!=", "<", ">=", ":"])
        if self.chance.random() < 0.1:
            return f"{found.path}:*"
        literal = value if found.kind in (Kind.ENUM, Kind.BOOL) else json.dumps(value)
        if found.kind in (Kind.DECIMAL, Kind.INT32, Kind.INT64, Kind.DOUBLE):
            literal = value.rstrip("*") or "0"
        return f"{found.path} {operator} {literal}"


def _put(record: dict[str, Any], field: Field, text: str) -> None:
    """Write a field's value into JSON, given as the text in the database."""
    *parents, name = field.json_path.split(".")
    for parent in parents:
        record = record.setdefault(parent, {})
    number = {Kind.INT32: int, Kind.UINT32: int, Kind.DOUBLE: float, Kind.FLOAT: float}
    if field.kind is Kind.BOOL:
        record[name] = text == "true"
    else:
        record[name] = number.get(field.kind, str)(text)


async def values_of(pair: Sequence[World], catalog: Catalog) -> dict[str, dict[str, list[str]]]:
    """Dataset -> field -> the texts that either world holds."""
    found: dict[str, dict[str, set[str]]] = {}
    for world in pair:
        connection = await asyncpg.connect(world.hub.dsn)
        try:
            for dataset in catalog:
                columns = found.setdefault(dataset.name, {})
                for row in await connection.fetch(f'SELECT * FROM data."{dataset.name}"'):
                    for f in dataset.fields:
                        if row[f.path] is not None and not f.repeated:
                            columns.setdefault(f.path, set()).add(_text(row[f.path]))
                        for member in f.members:
                            held = (i.get(member.json_steps[-1]) for i in json.loads(row[f.path]))
                            texts = {str(value) for value in held if value is not None}
                            columns.setdefault(member.path, set()).update(texts)
        finally:
            await connection.close()
    return {d: {p: sorted(v) for p, v in c.items()} for d, c in found.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return str(value)
