"""Feeds as consumers read them: streams over gRPC and REST, and pages of polls."""

from __future__ import annotations

import contextlib
import functools
import http.client
import importlib
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from harness import PATIENCE, RunningHub, eventually
from penstock.hub.v1 import changes_pb2, changes_pb2_grpc
from penstockd.catalog.load import load_catalog
from penstockd.resources import find_descriptors
from penstockd.store.cursor import Cursor
from places import PLACES, log_number, transaction_number

CATALOG = load_catalog(find_descriptors())
#: Dataset and key -> the record as the consumer sees it, serialised.
Replica = dict[tuple[str, str], bytes]
_GONE = frozenset({"DELETED", "LEFT_VIEW"})


@dataclass(frozen=True)
class Told:
    """One change as a consumer received it, in a form that is the same for streams and polls."""

    operation: str
    dataset: str
    key: str
    before: bytes | None
    after: bytes | None
    changed: tuple[str, ...]
    transaction: int
    sequence: int
    time: int

    @property
    def brief(self) -> tuple[str, str]:
        """The operation and the record."""
        return self.operation, self.key


def told(change: Any, dataset: str = "") -> Told:
    """The change in a response, from a dataset's own service or from ``Changes``."""

    def image(name: str) -> bytes | None:
        if not change.HasField(name):
            return None
        record: Message = getattr(change, name)
        if not dataset:
            value: bytes = getattr(record, "value")  # noqa: B009  # an Any
            return value
        return record.SerializeToString(deterministic=True)

    number = log_number(change.sequence)
    return Told(
        changes_pb2.Operation.Name(change.operation),
        dataset or change.dataset,
        change.key,
        image("before"),
        image("after"),
        tuple(change.changed_fields),
        transaction_number(change.transaction_id, number),
        number,
        change.commit_time.ToNanoseconds(),
    )


def apply(replica: Replica, events: Sequence[Told]) -> Replica:
    """The replica after the events, changed in place."""
    for event in events:
        place = (event.dataset, event.key)
        if event.operation in _GONE:
            replica.pop(place, None)
        else:
            assert event.after is not None
            replica[place] = event.after
    return replica


def number(cursor: str) -> int:
    """The place in the log that a cursor stands for."""
    return PLACES.open(cursor).number


def at(hub: RunningHub, place: int) -> str:
    """The cursor of a number."""
    ((epoch, mark),) = hub.sql("SELECT epoch, hub.mark_at($1) FROM hub.log_head", place)
    return PLACES.seal(Cursor(epoch, place, mark=mark or bytes(8)))


def here(hub: RunningHub) -> str:
    """The current cursor, after everything that has been written."""
    return at(hub, hub.head())


def service(dataset: str) -> tuple[Any, Any, str, str]:
    """The messages, stub class and methods of a dataset's service (of ``Changes`` for "")."""
    if not dataset:
        return changes_pb2, changes_pb2_grpc.ChangesStub, "WatchChanges", "ListChanges"
    module = importlib.import_module(f"penstock.api.v1.{dataset}_service_pb2")
    stubs = importlib.import_module(f"penstock.api.v1.{dataset}_service_pb2_grpc")
    one = CATALOG[dataset].message_type.name
    plural = dataset.title()
    return module, getattr(stubs, f"{plural}Stub"), f"Watch{plural}", f"List{one}Changes"


@dataclass
class Stream:
    """A stream over gRPC, read message by message; ``dataset`` "" stands for all that may be read.

    ``events`` lists all events so far, ``marks`` the checkpoints: each cursor with the number of
    events before it. ``end`` is the stream's last record.
    """

    call: Any
    dataset: str
    begin: changes_pb2.StreamBegin
    events: list[Told] = field(default_factory=list)
    marks: list[tuple[str, int]] = field(default_factory=list)
    heartbeats: list[str] = field(default_factory=list)
    ends: list[tuple[int, int, int]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    end: changes_pb2.StreamEnd | None = None

    @property
    def cursor(self) -> str:
        """The last place to continue from."""
        return self.marks[-1][0] if self.marks else self.begin.cursor

    def read(self) -> Any:
        """The next message of any kind. Raises grpc.RpcError at the end of the stream."""
        message = next(self.call)
        if message.changes:
            self.sizes.append(len(message.changes))
        self.events += [told(c, self.dataset) for c in message.changes]
        if message.HasField("transaction_end"):
            ended = message.transaction_end
            last = self.events[-1].sequence if self.events else 0
            transaction = transaction_number(ended.transaction_id, last)
            self.ends.append((transaction, ended.change_count, len(self.events)))
        if message.HasField("checkpoint"):
            self.marks.append((message.checkpoint.cursor, len(self.events)))
        if message.HasField("heartbeat"):
            self.heartbeats.append(message.heartbeat.cursor)
        if message.HasField("end"):
            self.end = message.end
        return message

    def until(self, check: Callable[[], object]) -> Stream:
        """Read on until ``check`` holds."""
        while not check():
            self.read()
        return self

    def to(self, place: int) -> list[Told]:
        """Read until everything up to a number has arrived; returns all events."""

        def passed() -> bool:
            cursors = [m[0] for m in self.marks[-1:]] + self.heartbeats[-1:]
            return any(number(c) >= place for c in cursors)

        self.until(passed)
        return self.events

    def failure(self) -> tuple[grpc.StatusCode, str]:
        """Read to the end, which must be an error; returns its code and reason."""
        try:
            while True:
                self.read()
        except grpc.RpcError as error:
            return failure(error)
        except StopIteration:
            raise AssertionError("the stream ended well") from None


def failure(error: Any) -> tuple[grpc.StatusCode, str]:
    """The code and reason of an error."""
    status = rpc_status.from_call(error)
    assert status is not None, error
    reasons = [d.value.split(b"\n")[1] for d in status.details if d.type_url.endswith("ErrorInfo")]
    text = reasons[0][1 : 1 + reasons[0][0]].decode() if reasons else ""
    return error.code(), text


@contextlib.contextmanager
def watch(
    hub: RunningHub, consumer: str = "admin", dataset: str = "", **options: Any
) -> Iterator[Stream]:
    """A stream that has begun, as soon as the hub can answer. The end of the block cancels it."""
    module, stub, method, _ = service(dataset)
    request = getattr(module, f"{method}Request")(**{"heartbeat_seconds": 1, **options})
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}", options=OPTIONS) as channel:

        def begun() -> tuple[Any, Any]:
            call = getattr(stub(channel), method)(
                request, metadata=credentials(hub, consumer), timeout=STREAM_SECONDS
            )
            return call, next(call)

        call, first = eventually(begun)
        try:
            assert first.HasField("begin"), first
            yield Stream(call, dataset, first.begin)
        finally:
            call.cancel()


#: The seconds that a stream may last: as long as any test, because some keep one during a restore.
STREAM_SECONDS = 400.0
#: Each stream has a connection of its own, and accepts messages of any size.
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 1 << 26))


def credentials(hub: RunningHub, consumer: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a consumer: of a demo consumer by name, or of any by its API key."""
    if consumer.startswith("key:"):
        return (("x-api-key", consumer.removeprefix("key:")),)
    return hub.metadata(consumer)


def caught_up(
    hub: RunningHub, consumer: str, dataset: str, cursor: str, place: int, **options: Any
) -> list[Told]:
    """What a stream delivers after a cursor, up to a number at least."""
    with watch(hub, consumer, dataset, cursor=cursor, **options) as stream:
        return [e for e in stream.to(place) if e.sequence <= place]


def polled(
    hub: RunningHub, consumer: str, dataset: str, cursor: str, place: int, **options: Any
) -> list[Told]:
    """What polls deliver after a cursor, page by page."""
    return [e for page in pages(hub, consumer, dataset, cursor, place, **options) for e in page]


def pages(
    hub: RunningHub, consumer: str, dataset: str, cursor: str, place: int, **options: Any
) -> list[list[Told]]:
    """The pages of polls after a cursor, until everything up to a number has arrived."""
    module, stub, _, method = service(dataset)
    found = []
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}", options=OPTIONS) as channel:
        call = getattr(stub(channel), method)
        while number(cursor) < place:
            request = getattr(module, f"{method}Request")(cursor=cursor, **options)
            asked = functools.partial(
                call, request, metadata=credentials(hub, consumer), timeout=PATIENCE
            )
            reply = eventually(asked)
            found.append([told(c, dataset) for c in reply.changes])
            assert reply.more or number(reply.next_cursor) >= place, "there is more, and it says no"
            cursor = reply.next_cursor
    return found


def refused(
    hub: RunningHub, consumer: str = "admin", dataset: str = "customers", **options: Any
) -> tuple[str, str]:
    """The code and reason with which the hub refuses a stream; those of a poll are the same."""
    module, stub, watching, polling = service(dataset)
    found = []
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}", options=OPTIONS) as channel:
        for method in (watching, polling):
            kind = getattr(module, f"{method}Request")
            known = {f.name for f in kind.DESCRIPTOR.fields}
            if not set(options) <= known:
                continue
            call = getattr(stub(channel), method)
            try:
                reply = call(kind(**options), metadata=credentials(hub, consumer), timeout=PATIENCE)
                if method == watching:
                    next(reply)
            except grpc.RpcError as error:
                code, reason = failure(error)
                found.append((code.name, reason))
            else:
                raise AssertionError(f"{method} takes {options}")
    assert len(set(found)) == 1, found
    return found[0]


@contextlib.contextmanager
def rest(
    hub: RunningHub,
    path: str,
    consumer: str = "admin",
    accept: str = "application/x-ndjson",
    headers: Mapping[str, str] | None = None,
    **query: object,
) -> Iterator[http.client.HTTPResponse]:
    """A reply over REST that is read as it arrives."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        sent = {**dict(credentials(hub, consumer)), "accept": accept, **(headers or {})}
        options = {"heartbeat_seconds": 1, **query}
        target = f"{path}?{urlencode({k: str(v) for k, v in options.items()})}"
        connection.request("GET", target, headers=sent)
        reply = connection.getresponse()
        with contextlib.closing(reply):
            yield reply


def lines(reply: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The messages of an NDJSON stream."""
    while line := reply.readline():
        if line.strip():
            yield json.loads(line)


def sse(reply: http.client.HTTPResponse) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """The events of an SSE stream: their fields, and the message in the data."""
    fields: dict[str, str] = {}
    while line := reply.readline():
        text = line.decode().rstrip("\r\n")
        if text:
            name, _, value = text.partition(":")
            fields[name] = fields.get(name, "") + value.removeprefix(" ")
        elif fields:
            yield fields, json.loads(fields.get("data") or "{}")
            fields = {}


# --- scenes --------------------------------------------------------------------------------

CLEAR = {c: "clear" for c in ("PUBLIC", "INTERNAL", "PII", "SENSITIVE")}


def grant(dataset: str, rows: str = "", classes: Mapping[str, str] = CLEAR, **fields: str) -> Any:
    """A grant to read, as REST has it."""
    return {
        "dataset": dataset,
        "actions": ["read"],
        "classMasks": dict(classes),
        "fieldMasks": fields,
        "rowFilter": rows,
    }


@dataclass(frozen=True)
class Made:
    """A test's own consumer with a role of the same name; ``key`` is its API key."""

    hub: RunningHub
    name: str
    key: str
    credential: str

    def administer(self, verb: str, path: str, body: Any = None, **query: Any) -> Any:
        """One call of the administration of access."""
        reply = self.hub.request(
            verb, f"/v1/access{path}", consumer="admin", json_body=body, query=query
        )
        assert reply.status == 200, reply.text
        return reply.json()

    def regrant(self, *grants: Any) -> None:
        """Replace the grants of its role."""
        self.administer(
            "PATCH", f"/roles/{self.name}", {"grants": list(grants)}, update_mask="grants"
        )


@contextlib.contextmanager
def consumer_with(hub: RunningHub, *grants: Any) -> Iterator[Made]:
    """A consumer that has exactly these grants and is known to every worker."""
    made = Made(hub, f"t-{uuid.uuid4().hex[:8]}", "", "")
    role = {"roleId": made.name, "grants": list(grants)}
    made.administer("POST", "/roles", role)
    made.administer("POST", "/consumers", {"consumerId": made.name, "roles": [made.name]})
    path = f"/consumers/{made.name}/credentials"
    issued = made.administer("POST", path, {"kind": "API_KEY"})
    hub.settle()
    try:
        credential = issued["credential"]["credentialId"]
        yield Made(hub, made.name, f"key:{issued['secret']}", credential)
    finally:
        made.administer("DELETE", f"/consumers/{made.name}")
        made.administer("DELETE", f"/roles/{made.name}")


class Scene:
    """The changes between two places of the log, as one consumer receives them."""

    def __init__(self, hub: RunningHub, consumer: str, dataset: str = "", **options: Any) -> None:
        self._hub, self._consumer, self._dataset = hub, consumer, dataset
        self._options = options
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Scene:
        self.start = here(self._hub)
        self._live = self._stack.enter_context(
            watch(self._hub, self._consumer, self._dataset, cursor=self.start, **self._options)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def told(self) -> list[Told]:
        """Everything delivered since the beginning: checked to be the same live, afterwards and by
        polls."""
        head = self._hub.head()
        asked = (self._hub, self._consumer, self._dataset, self.start, head)
        live = [e for e in self._live.to(head) if e.sequence <= head]
        assert caught_up(*asked, **self._options) == live
        polling = {k: v for k, v in self._options.items() if k in _POLLED}
        assert polled(*asked, page_size=2, **polling) == live
        assert polled(*asked, **polling) == live
        return live

    def brief(self) -> list[tuple[str, str]]:
        """The same, reduced to operations and records."""
        return [e.brief for e in self.told()]


_POLLED = frozenset({"filter", "fields", "operations", "include_before", "datasets"})


def put(hub: RunningHub, dataset: str, *records: Mapping[str, Any]) -> None:
    """Write records in one transaction."""
    body = {dataset: list(records)}
    reply = hub.insist("POST", f"/v1/{dataset}:batchUpsert", consumer="admin", json_body=body)
    assert reply.status == 200, reply.text


def patch(hub: RunningHub, dataset: str, key: str, **values: Any) -> None:
    """Change fields of one record; a value of None empties the field."""
    mask = ",".join(re.sub("[A-Z]", lambda m: "_" + m[0].lower(), name) for name in values)
    body = {n: v for n, v in values.items() if v is not None}
    reply = hub.insist(
        "PATCH",
        f"/v1/{dataset}/{key}",
        consumer="admin",
        json_body=body,
        query={"update_mask": mask},
    )
    assert reply.status == 200, reply.text


def delete(hub: RunningHub, dataset: str, key: str) -> None:
    """Delete one record."""
    reply = hub.request("DELETE", f"/v1/{dataset}/{key}", consumer="admin")
    assert reply.status == 200, reply.text
