"""Twin worlds: two hubs that differ only in what some consumers must not see.

Both are made alike and hold the same rows. Then, in one of them, every hidden value is changed:
columns that the roles hide or null, masked ones behind their mask, and whole rows that the row
rules hide, which are changed, removed or added. What a consumer gets must not tell the two apart.

Both have the same root secret, the same epoch of the log and the same mark for all transactions, so
that cursors, sequences and ids of transactions that stand for the same are the same texts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import asyncpg

from harness import PATIENCE, SECRET, RunningHub, folder
from penstockd.auth.credentials import API_KEY, Credentials
from penstockd.auth.secret import RootSecret
from penstockd.catalog import Catalog, Dataset, Field, FieldClass, Kind
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder
from penstockd.policy.admin import put_consumer, put_role
from penstockd.policy.model import Action, Consumer, Grant, Mask, Role
from penstockd.store.migrate import apply_migration

CUSTOMERS = 150

#: What other databases draw. No setting of the hub does this: it is done to the database.
_SAME_PLACES = """
CREATE OR REPLACE FUNCTION hub.new_mark() RETURNS bytea LANGUAGE sql VOLATILE
RETURN '\\x7477696e7477696e'::bytea;
UPDATE hub.log_head SET epoch = 'twinworlds12';
"""

_OPEN = {FieldClass.PUBLIC: Mask.CLEAR, FieldClass.INTERNAL: Mask.CLEAR}
_RULE = {"customers": "status = ACTIVE", "products": ""}
_READ = frozenset({Action.READ})
_WRITE = frozenset(Action) - _READ

#: Members of repeated messages that all roles hide, and what becomes of one that is shown.
_MEMBERS = {"lines.unit_price": Mask.HIDE, "lines.discount": Mask.NULL}
#: Role -> masks of its classes, masks of its fields and members.
ROLES: Mapping[str, tuple[Mapping[FieldClass, Mask], Mapping[str, Mask]]] = {
    "hides": (_OPEN, {}),
    "nulls": (
        _OPEN | {FieldClass.PII: Mask.NULL, FieldClass.SENSITIVE: Mask.NULL},
        {"lines.unit_price": Mask.NULL, "lines.product_id": Mask.HASH},
    ),
    "masks": (
        _OPEN | {FieldClass.PII: Mask.NULL},
        {
            "email": Mask.PARTIAL,
            "phone": Mask.PARTIAL,
            "tax_id": Mask.NULL,
            "billing_address.line1": Mask.HIDE,
        },
    ),
    # INTERNAL is the same in both worlds, so its hash may be shown.
    "hashes": ({FieldClass.PUBLIC: Mask.CLEAR, FieldClass.INTERNAL: Mask.HASH}, {}),
    "timeless": (_OPEN, {"update_time": Mask.HIDE}),
}
#: Role -> a field of customers, and the domain within which it is hashed. Its role alone names the
#: domain of the last one.
HASHED = {
    "phone-north": ("phone", "north"),
    "tax-north": ("tax_id", "north"),
    "tax-south": ("tax_id", "south"),
    "tax-own": ("tax_id", ""),
}
#: Consumer -> roles. Nobody of them may see what differs.
BLIND = {
    "hides": ["hides"],
    "nulls": ["nulls"],
    "masks": ["masks"],
    "hashes": ["hashes"],
    "many": ["hides", "masks", "hashes"],
    "timeless": ["timeless"],
}
#: The negative control: its roles show everything.
SEER = "seer"
#: May write every field of the rows that the others read, and read none of them.
WRITES = "writes"
#: Consumer -> roles. They write more than they may see of what differs.
WRITERS = {
    "writes-only": [WRITES],
    "writes-hides": ["hides", WRITES],
    "writes-nulls": ["nulls", WRITES],
    "writes-masks": ["masks", WRITES],
}
#: The negative control of these.
SEEING_WRITER = "writes-seer"

HIDDEN_CLASSES = (FieldClass.PII, FieldClass.SENSITIVE)


@dataclass
class World:
    """One of the two, with the API keys of its consumers."""

    hub: RunningHub
    keys: dict[str, str] = field(default_factory=dict)

    def connect(self) -> HTTPConnection:
        """A connection that is kept."""
        place = urlsplit(self.hub.url)
        return HTTPConnection(place.hostname or "", place.port, timeout=PATIENCE)


@contextlib.contextmanager
def worlds(catalog: Catalog, seed: int) -> Iterator[tuple[World, World]]:
    """The two, running."""
    with folder() as data:
        # One worker each: both worlds answer at once, and answers are what counts here.
        environment = {"PENSTOCK_SECRET": SECRET, "PENSTOCK_WORKERS": "1"}
        pair = [
            World(RunningHub(data / name, customers=CUSTOMERS, environment=environment))
            for name in ("a", "b")
        ]
        try:
            for world in pair:
                asyncio.run(_place_alike(world.hub, catalog))
                world.hub.start()
                asyncio.run(_prepare(world, catalog))
            asyncio.run(_change_hidden(pair[1], catalog, random.Random(seed)))
            yield pair[0], pair[1]
        finally:
            for world in pair:
                world.hub.stop()


def _rule_of(dataset: Dataset) -> str:
    """The row filter of all roles but the seer's."""
    return _RULE.get(dataset.name, "customer.status = ACTIVE")


async def _place_alike(hub: RunningHub, catalog: Catalog) -> None:
    """Make the hub's database, before the hub knows it, with an epoch and marks that all have."""
    server = EmbeddedPostgres(hub.data, sockets_folder(hub.data))
    url = await server.start()
    try:
        await apply_migration(url, catalog)
        connection = await asyncpg.connect(hub.dsn)
        await connection.execute(_SAME_PLACES)
        await connection.close()
    finally:
        await server.stop()


async def _prepare(world: World, catalog: Catalog) -> None:
    """The same roles and the same rows, to the last time and etag."""
    credentials = Credentials(RootSecret(SECRET).derive("credentials"))
    connection = await asyncpg.connect(world.hub.dsn)
    try:
        async with connection.transaction():
            for role, (classes, fields) in ROLES.items():
                grants = [
                    Grant(
                        role,
                        d.name,
                        _READ,
                        classes,
                        {
                            f.path: mask
                            for f in d.every_field
                            if (mask := {**_MEMBERS, **fields}.get(f.path)) is not None
                        },
                        _rule_of(d),
                    )
                    for d in catalog
                ]
                await put_role(connection, Role(role, "", tuple(grants)))
            everything = dict.fromkeys(FieldClass, Mask.CLEAR)
            seer = tuple(Grant(SEER, d.name, _READ, everything, {}) for d in catalog)
            await put_role(connection, Role(SEER, "", seer))
            writes = tuple(
                Grant(WRITES, d.name, _WRITE, everything, {}, _rule_of(d)) for d in catalog
            )
            await put_role(connection, Role(WRITES, "", writes))
            for role, (path, domain) in HASHED.items():
                grant = Grant(
                    role,
                    "customers",
                    _READ,
                    _OPEN,
                    {path: Mask.HASH},
                    _RULE["customers"],
                    hash_domain=domain,
                )
                await put_role(connection, Role(role, "", (grant,)))
            seers = {SEER: [SEER], SEEING_WRITER: [SEER, WRITES]}
            hashed = {role: [role] for role in HASHED}
            for consumer, roles in {**BLIND, **WRITERS, **seers, **hashed}.items():
                await put_consumer(connection, Consumer(consumer, True, frozenset(roles)))
                issued = await credentials.issue(connection, consumer, API_KEY)
                world.keys[consumer] = issued.secret
            for dataset in catalog:
                # A customer in three is seen by nobody, and so is what belongs to it.
                if dataset.name == "customers":
                    await connection.execute(
                        "UPDATE data.customers SET status = CASE hashtext(customer_id) & 3"
                        " WHEN 0 THEN 'LEAD' WHEN 1 THEN 'CHURNED' ELSE 'ACTIVE' END"
                    )
                await connection.execute(
                    f"UPDATE data.\"{dataset.name}\" SET create_time = '2026-01-02Z',"
                    f" update_time = '2026-01-03Z', etag = abs(hashtext(\"{dataset.key.path}\"))"
                )
    finally:
        await connection.close()


def same_times(pair: Sequence[World]) -> None:
    """Let all records of both have the same times again after writes, which the log keeps."""
    times = "create_time = '2026-01-02Z', update_time = '2026-01-03Z'"
    for world in pair:
        for dataset in ("customers", "orders"):
            world.hub.sql(f"UPDATE data.{dataset} SET {times}")


async def _change_hidden(world: World, catalog: Catalog, chance: random.Random) -> None:
    connection = await asyncpg.connect(world.hub.dsn)
    try:
        async with connection.transaction():
            # Before the customers that hide them are touched, the rows that belong to them.
            for dataset in sorted(catalog, key=lambda d: d.name == "customers"):
                await _change_dataset(connection, dataset, chance)
    finally:
        await connection.close()


async def _change_dataset(
    connection: asyncpg.Connection[asyncpg.Record], dataset: Dataset, chance: random.Random
) -> None:
    table, key = f'data."{dataset.name}"', dataset.key.path
    hidden_row = {"customers": "t.status <> 'ACTIVE'", "products": "false"}.get(
        dataset.name,
        "NOT EXISTS (SELECT FROM data.customers c"
        " WHERE c.customer_id = t.customer_id AND c.status = 'ACTIVE')",
    )
    rows = await connection.fetch(f"SELECT t.*, ({hidden_row}) AS hidden FROM {table} AS t")
    hidden_fields = [f for f in dataset.fields if f.field_class in HIDDEN_CLASSES]
    for row in rows:
        if not row["hidden"]:
            values = _other_values(dict(row), hidden_fields, chance)
            if hidden_fields:
                values["etag"] = chance.randrange(10**6)  # it counts hidden changes
            if "lines" in row:
                values["lines"] = _other_members(row["lines"], chance)
            await _set(connection, dataset, row[key], values)
            continue
        fate = chance.random()
        if fate < 0.3:
            await connection.execute(f'DELETE FROM {table} WHERE "{key}" = $1', row[key])
        elif fate < 0.7:
            own = [f for f in dataset.fields if _free(dataset, f)]
            await _set(connection, dataset, row[key], _other_values(dict(row), own, chance))
        else:
            columns = ", ".join(f'"{f.path}"' for f in dataset.fields if f is not dataset.key)
            await connection.execute(
                f'INSERT INTO {table} ("{key}", {columns})'
                f" SELECT $1 || '+', {columns} FROM {table} WHERE \"{key}\" = $1",
                row[key],
            )


def _free(dataset: Dataset, field: Field) -> bool:
    """Whether a hidden row may have another value in the field and still be hidden."""
    holds_it = {"customers": "status"}.get(dataset.name, "customer_id")
    return not field.key and field.path not in (holds_it, "etag") and field.kind is not Kind.MAP


def _other_values(
    row: Mapping[str, Any], fields: Sequence[Field], chance: random.Random
) -> dict[str, Any]:
    return {f.path: _other_value(f, row[f.path], chance) for f in fields}


def _other_members(lines: str, chance: random.Random) -> str:
    """An order's lines with other values in the members that are hidden."""
    items = json.loads(lines)
    for item in items:
        item["unitPrice"] = f"{chance.randrange(10**6)}.{chance.randrange(100):02}"
        item.pop("discount", None)
        if chance.random() < 0.5:
            item["discount"] = f"0.{chance.randrange(1, 100):02}"
    return json.dumps(items)


_NO_ADDRESSES = ("+{}", "", "@{}", "{}@", "a b{}@c.example", "{}@@b.example", "é{}@b.example")


def _other_value(field: Field, value: Any, chance: random.Random) -> Any:
    if field.path == "phone":
        # No e-mail address, though some are like one: the partial mask shows that there is a text.
        return value and chance.choice(_NO_ADDRESSES).format(chance.randrange(10**6))
    if field.path == "email":
        # What the partial mask shows must stay: the first character, the domain, and if any.
        if not value:
            return value
        name, _, domain = value.rpartition("@")
        return f"{name[0]}{chance.randrange(10**9)}@{domain}"
    if field.nullable and chance.random() < 0.3:
        return None
    match field.kind:
        case Kind.STRING:
            return "".join(chance.choice("abcxyzé雪 'ß0") for _ in range(chance.randint(1, 12)))
        case Kind.DECIMAL:
            return Decimal(chance.randrange(-(10**6), 10**6)).scaleb(-2)
        case Kind.INT32 | Kind.INT64:
            return chance.randrange(1000)
        case Kind.DOUBLE:
            return chance.random()
        case Kind.BOOL:
            return not value
    return value


async def _set(
    connection: asyncpg.Connection[asyncpg.Record],
    dataset: Dataset,
    key: str,
    values: Mapping[str, Any],
) -> None:
    if values:
        sets = ", ".join(f'"{path}" = ${i}' for i, path in enumerate(values, 2))
        await connection.execute(
            f'UPDATE data."{dataset.name}" SET {sets} WHERE "{dataset.key.path}" = $1',
            key,
            *values.values(),
        )


# --- asking both ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """One call of one consumer: a GET, or a write that is only checked."""

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
    """What came back, without what differs between any two calls."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    page_token: str = ""


_FLEETING = re.compile(
    "date|server|content-length|x-request-id|x-envoy-.*|x-ratelimit-.*|penstock-receipt.*|transfer-encoding"
)
_REQUEST_ID = re.compile(rb'"requestId":\s*"[^"]*"')
#: What a write that is only checked would make of these: times and numbers of that moment.
_WOULD_BE = re.compile(
    rb'"(?:createTime":"(?!2026-01-02T00:00:00Z)[^"]*'
    rb'|updateTime":"(?!2026-01-03T00:00:00Z)[^"]*|etag":"[0-9]{15})"'
)


def ask(connection: HTTPConnection, world: World, question: Question) -> Answer:
    """The world's answer."""
    headers = {"x-api-key": world.keys[question.consumer], **question.headers}
    for _ in range(5):
        connection.request(question.method, question.target, question.body, headers)
        reply = connection.getresponse()
        body = reply.read()
        if reply.status != 503:  # a machine that is busy says nothing of the data
            break
    kept = sorted(
        (k.lower(), v) for k, v in reply.getheaders() if not _FLEETING.fullmatch(k.lower())
    )
    token = dict(kept).get("penstock-next-page-token", "")
    if reply.status == 200 and b'"nextPageToken"' in body:
        token = json.loads(body)["nextPageToken"]
    if reply.getheader("content-type") == "application/json" and body:
        # The order of a map's entries differs between any two processes.
        content = json.loads(body)
        if question.path.endswith(":digest"):
            content.pop("state", None)  # which session of the world's database holds it
        body = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        if question.method != "GET":
            body = _WOULD_BE.sub(b'"moved"', body)
    body = _REQUEST_ID.sub(b"", body).replace(world.hub.url.encode(), b"")
    return Answer(reply.status, tuple(kept), body, token)


class Asker:
    """Makes up questions, of values that either world holds, hidden ones above all."""

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
        query = self._query(dataset) | self._format() | {"omit_receipt": "true"}
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
        """A write that is only checked, of guessed values; of new records, none that is hidden."""
        dataset = self.chance.choice(self._catalog)
        path, key_name = f"/v1/{dataset.name}", dataset.key.json_path
        key = self.chance.choice(visible[dataset.name])
        record, query = self._guessed(dataset), {"validate_only": "true"}
        headers = {"content-type": "application/json"}
        kind = self.chance.choice(["PATCH", "PATCH", "DELETE", "batchUpsert", "import", "POST"])
        if kind in ("PATCH", "DELETE"):
            # Any row, the hidden ones too: for a writer they are not there.
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
        """Filter, order and fields of a question about a dataset."""
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
            # Of what is repeated one can only ask whether it is there.
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
    """Write a field's value into JSON, given as the text of what the database holds."""
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
