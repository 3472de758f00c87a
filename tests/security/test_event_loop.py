"""S9: no call blocks the event loop, however large one of its fields is.

A worker runs within the test, so that each step of each call on its event loop can be measured in
processor time: other programs on the machine do not count. Every repeated, map, string and bytes
field of every method is sent at its usual size, at its largest, and at ten times that. A caller
beside them is answered all the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import os
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from fields import Place, all_routes, is_text, sized_places
from harness import PATIENCE, RunningHub, eventually, reference
from own_worker import Worker, worker
from penstockd.catalog.rules import EXTENSION
from penstockd.policy.lens import Lens
from penstockd.rpc import bounds, door
from penstockd.rpc.door import Route
from penstockd.store.upsert import Refusals
from penstockd.webhooks.messages import Payloads

#: All datasets.
ALL = bool(os.environ.get("PENSTOCK_S9_ALL"))
#: Datasets in which every field is tried; in the others only the requests' own fields, which are
#: alike.
WHOLE = ("orders",)
#: Datasets in whose records the lists and maps are tried.
COUNTED = ("orders", "products")
#: The largest text of a record, and the largest file, in bytes.
MOST = int(os.environ.get("PENSTOCK_S9_BYTES", "65536"))
#: A field may block the loop for this many times as long as an ordinary one.
TIMES = 5
#: The measurements of an import, and of a call that takes too long: the shortest counts.
TRIES, RETRIES = 3, 10
#: The patterns of texts: plain, a list, brackets, an expression, not ASCII.
TEXTS = ("x", "a,", "(", "name = 1 AND ", "Ω.")
_patterns = itertools.cycle(TEXTS)
IMPORT = "/penstock.api.v1.Customers/ImportCustomers"
NEIGHBOUR = "/penstock.hub.v1.Changes/GetChangeLog"


def routes() -> list[Route]:
    """Every method, in an order in which none removes what others need."""
    return sorted(all_routes(), key=lambda r: r.method.path)


def places(route: Route) -> Iterator[Place]:
    """The fields of a method's requests to try."""
    for place in sized_places(route):
        if (
            ALL
            or not any(bounds.in_record(f) for f in place.path)
            or route.method.dataset in (WHOLE if is_text(place.field) else COUNTED)
        ):
            yield place


def base(route: Route, place: Place) -> dict[str, Any]:
    """The other fields of the request, so that the call gets as far as this field."""
    found: dict[str, Any] = {}
    kinds = route.request.DESCRIPTOR.fields_by_name
    if "validate_only" in kinds:
        found["validate_only"] = True
    if (dataset := route.method.dataset) is not None:
        for name, fd in kinds.items():
            inner: Any = fd.message_type
            if inner is not None and bounds.is_record(inner):
                key = {_key(inner): "s9"}
                found[name] = [key] if fd.is_repeated else key
        if route.streams_request:
            found |= {"format": "CSV", "partial": True}
            found["file"] = {"data": f"{dataset[:-1]}_id\n".encode()}
        if "ranges" in kinds:
            found["ranges"] = [{"row_count": 0}]
    if "webhook" in kinds:
        found["webhook"] = {"url": "https://example.com/", "webhook_id": "wh_none"}
    if "role" in kinds:
        found["role"] = {"role_id": "s9"}
    if "consumer" in kinds and kinds["consumer"].message_type is not None:
        found["consumer"] = {"consumer_id": "s9"}
    if "subscription" in kinds and kinds["subscription"].message_type is not None:
        found["subscription"] = {"datasets": ["customers"]}
    if "dataset" in kinds and kinds["dataset"].message_type is None:
        found["dataset"] = "customers"
    top = place.path[0].name
    if len(place.path) == 1 and not place.field.is_repeated:
        found.pop(top, None)
    return found


def _key(record: Any) -> str:
    """The name of a record's key."""
    return f"{record.name.lower()}_id"


def limit(place: Place) -> int:
    """The most that a field may hold; without a limit, as much as the test sends."""
    fd = place.field
    if bounds.in_record(fd):
        return min(_declared(fd) or MOST, MOST) if is_text(fd) else bounds.limit_of(fd)
    return min(bounds.limit_of(fd), MOST)


def _declared(fd: Any) -> int | None:
    """The longest text that the model allows."""
    extension = fd.containing_type.file.pool.FindExtensionByName(f"{EXTENSION}.field")
    for name, value in _options(fd, extension):
        if name in ("max_len", "max_bytes"):
            return int(value)
    return None


def _options(fd: Any, extension: Any) -> Iterator[tuple[str, int]]:
    from google.protobuf import message_factory

    pool = fd.containing_type.file.pool
    kind = message_factory.GetMessageClass(
        pool.FindMessageTypeByName("google.protobuf.FieldOptions")
    )
    options: Any = kind.FromString(fd.GetOptions().SerializeToString())
    rules = options.Extensions[extension].string
    for found, value in rules.ListFields():
        if isinstance(value, int):
            yield found.name, value


def usual_request(place: Place) -> Message:
    """A request in which the field has its usual size."""
    if not is_text(place.field):
        return place.message(1, base(place.route, place))
    usual: Any = b"x" if place.field.type == place.field.TYPE_BYTES else "x"
    return place.message(usual, base(place.route, place))


def large_requests(place: Place) -> Iterator[Message]:
    """Requests in which the field is as large as it may be, and ten times as large.

    Texts use one pattern for each field in turn, or all patterns for datasets in ALL.
    """
    given, most = base(place.route, place), limit(place)
    if not is_text(place.field):
        yield place.message(most, given)
        yield place.message(10 * most, given)
        return
    far = min(10 * most, MOST)
    patterns = TEXTS if ALL else [next(_patterns)]
    for pattern, size in [*((pattern, most) for pattern in patterns), (TEXTS[0], far)]:
        if place.field.type == place.field.TYPE_BYTES:
            yield place.message(given_file(given, pattern, size), given)
        else:
            text = pattern * (size // len(pattern.encode()))
            yield place.message(text, given)


def given_file(given: dict[str, Any], pattern: str, size: int) -> bytes:
    """A file of equal rows, or for a field that is not a file that many bytes."""
    head = given.get("file", {}).get("data", b"")
    row = f"{pattern}\n".encode()
    return bytes(head + row * (max(0, size - len(head)) // len(row)))


async def test_no_field_of_any_method_holds_the_loop(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = TIMES * reference()
    slow, defects, tried = [], [], 0
    nearest: dict[str, float] = {}  # how near a method came to its bound
    async with worker(hub, monkeypatch) as served:
        stop = asyncio.Event()
        beside = asyncio.create_task(_neighbour(served, stop))
        for route in routes():
            for place in places(route):
                usual, large = usual_request(place), large_requests(place)
                _, least = await served.call(route, usual)
                bound = max(TIMES * least, floor)
                # Later messages of a stream are read like its first one.
                first = ([], [usual]) if route.streams_request else ([],)
                for request, before in itertools.product(large, first):
                    tried += 1
                    code, longest = await served.call(route, request, before=before)
                    taken = [longest]
                    while min(taken) > bound and len(taken) < RETRIES:
                        # The processor may have become slower since the reference was measured.
                        bound = max(bound, TIMES * reference())
                        _, longest = await served.call(route, request, before=before)
                        taken.append(longest)
                    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                        defects.append((place.name, code.name))
                    near = min(taken) / bound
                    nearest[place.name] = max(near, nearest.get(place.name, 0))
                    if min(taken) > bound:
                        slow.append((place.name, request.ByteSize(), min(taken), least, code.name))
        stop.set()
        ends = await beside
    print(f"{tried} calls, neighbour {dict(ends)}; floor {floor * 1000:.0f} ms; nearest to it:")
    for name in sorted(nearest, key=nearest.__getitem__)[-5:]:
        print(f"{nearest[name]:.2f} {name}")
    assert not defects
    assert not slow, "\n".join(map(str, slow))
    assert tried > 1000 and ends["OK"] > 100
    # On a machine that stands still for seconds, the database counts as unavailable for everyone.
    assert set(ends) <= {"OK", "UNAVAILABLE"} and ends["UNAVAILABLE"] * 20 < ends["OK"], ends


async def _neighbour(served: Worker, stop: asyncio.Event) -> Counter[str]:
    """Make small calls of another kind, one after the other; returns their outcomes."""
    route, ends = _route(NEIGHBOUR), Counter[str]()
    while not stop.is_set():
        ends[(await served.answer(route, route.request())).name] += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.05)
    return ends


def bomb(rows: int) -> Any:
    """A partial import of ``rows`` equal rows, as a compressed file of a few bytes."""
    request: Any = _route(IMPORT).request(format="CSV", partial=True, validate_only=True)
    request.file.data = gzip.compress(b"customer_id\n" + b"x\n" * rows)
    return request


#: Each eight times the one before: two fit a batch of an import, and one needs several.
ROWS = (1_000, 8_000, 64_000)


async def growth(served: Worker, sizes: Sequence[int]) -> list[float]:
    """The ratio of processor time between imports of each size and of the one before."""
    route, taken, steps = _route(IMPORT), dict[int, list[float]](), list[float]()
    await served.call(route, bomb(100))
    for _ in range(TRIES):
        for rows in sizes:
            code, longest = await served.call(route, bomb(rows))
            assert code is grpc.StatusCode.OK
            taken.setdefault(rows, []).append(served.used(route))
        steps.append(longest)
    assert min(steps) < TIMES * reference(), steps
    least = [min(each) for each in taken.values()]
    return [more / less for less, more in itertools.pairwise(least)]


async def test_an_import_of_equal_rows_takes_time_in_proportion(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bomb(10_000).ByteSize() < 120
    async with worker(hub, monkeypatch) as served:
        # Eight times the rows: quadratic work takes 64 times as long.
        found = await growth(served, ROWS)
        assert max(found) < 20, found
        # The negative control: each repeated row is searched among all rows before it.
        monkeypatch.setattr(Refusals, "add", _looking_through(Refusals.add))
        control = await growth(served, ROWS[:2])
        assert control[0] > 20, control


def _looking_through(add: Callable[..., None]) -> Callable[..., None]:
    """The same function, but in time that grows with the number of earlier additions."""

    def added(self: Refusals, index: int, path: str, description: str) -> None:
        if all(known != index for known, _, _ in self.found):
            add(self, index, path, description)

    return added


async def test_a_call_that_uses_up_its_computing_time_writes_nothing(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "CALL_SECONDS", 0.2)
    request = bomb(4_000_000)
    request.ClearField("validate_only")
    async with worker(hub, monkeypatch) as served:
        code, _ = await served.call(_route(IMPORT), request)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert served.used(_route(IMPORT)) < 20 * 0.2
    outcomes = (
        "SELECT outcome, (SELECT count(*) FROM data.customers WHERE customer_id = 'x')"
        " FROM hub.audit_entry WHERE method = $1 ORDER BY entry_id DESC LIMIT 1"
    )
    found = await asyncio.to_thread(hub.sql, outcomes, IMPORT)
    assert found == [("CALL_TOO_COSTLY", 0)]


async def test_an_import_that_comes_drop_by_drop_is_ended(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import holds a transaction; a client that sends a byte now and then would keep it for
    ever."""
    route = _route(IMPORT)

    async def drops() -> AsyncIterator[Message]:
        first: Any = route.request(format="CSV")
        first.file.data = b"customer_id\n"
        yield first
        for i in itertools.count():
            await asyncio.sleep(0.05)
            drop: Any = route.request()
            drop.file.data = b"drop" if i % 2 else b"-"
            yield drop

    async with worker(hub, monkeypatch, import_stall_seconds=0.5) as served:
        call: Any = served.channel.stream_unary(
            IMPORT,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=lambda data: data,
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(drops(), metadata=(("x-api-key", hub.api_key),), timeout=PATIENCE)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "less than 1024 bytes/s for 0.5 s" in str(raised.value.details())
    rows = "SELECT count(*) FROM data.customers WHERE customer_id LIKE '%drop%'"
    assert await asyncio.to_thread(hub.sql, rows) == [(0,)]


#: Requests to the feeds for large records in a form other than the log's.
FEEDS = ("ListOrderChanges", "PullChanges", "PullDeliveries")


def _large_orders(hub: RunningHub) -> dict[str, dict[str, Any]]:
    """Write orders of 10,000 lines, twice; returns a request for each method in FEEDS that reads
    them."""

    def make(path: str, body: Any) -> Any:
        reply = hub.request("POST", f"/v1/{path}", consumer="admin", json_body=body)
        assert reply.status == 200, reply.text
        return reply.json()

    name = f"s9-{uuid.uuid4().hex[:8]}"
    cursor = hub.get("/v1/orders:changes").json()["nextCursor"]
    listen = {"kind": "LISTEN", "selections": [{"dataset": "orders", "fields": "orderId,lines"}]}
    webhook = make("webhooks", listen)["webhook"]["webhookId"]
    terms = {"subscriptionId": name, "datasets": ["orders"], "fields": "orderId,lines"}
    make("subscriptions", {"subscription": terms, "start": cursor})
    customer = hub.get("/v1/customers", pageSize=1).json()["customers"][0]["customerId"]
    for quantity in (1, 2):
        line = {"productId": "p", "quantity": quantity, "unitPrice": "1.50"}
        order = {"orderId": name, "customerId": customer, "currencyCode": "EUR"}
        make("orders:batchUpsert", {"orders": [{**order, "lines": [line] * 10_000}]})
    hub.head()
    path = f"/v1/webhooks/{webhook}/deliveries"
    eventually(lambda: len(hub.get(path).json().get("deliveries", [])) == 2)
    return {
        "ListOrderChanges": {"cursor": cursor, "fields": "order_id,lines"},
        "PullChanges": {"subscription_id": name},
        "PullDeliveries": {"webhook_id": webhook},
    }


async def test_large_records_in_feeds_leave_the_loop(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of 10,000 lines, of which a feed shows some fields: threads process them, however
    long that takes, and the time counts as the call's."""
    asked = await asyncio.to_thread(_large_orders, hub)
    by_name = {r.method.name: r for r in all_routes()}
    slow = 3 * TIMES * reference()
    monkeypatch.setattr(Lens, "see", _slowed(Lens.see, slow))
    monkeypatch.setattr(Payloads, "message", _slowed(Payloads.message, slow))
    async with worker(hub, monkeypatch) as served:

        async def longest(name: str, **more: str) -> float:
            route = by_name[name]
            code, step = await served.call(route, route.request(**{**asked[name], **more}))
            assert code is grpc.StatusCode.OK, name
            assert served.used(route) >= slow, f"{name} is charged"
            return step

        kept = {name: await longest(name) for name in FEEDS}
        assert max(kept.values()) < slow / 3, kept
        # The negative control: the same work on the loop. Results for others are shared, so this
        # asks for other fields.
        monkeypatch.setattr("penstockd.feed.reader.LITTLE", 1 << 30)
        assert await longest("ListOrderChanges", fields="order_id,lines,freight") >= slow


def _slowed(work: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """The work, plus that much extra processor time."""

    def slowed(*arguments: Any, **named: Any) -> Any:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        return work(*arguments, **named)

    return slowed


def _route(path: str) -> Route:
    return next(r for r in all_routes() if r.method.path == path)


async def test_a_handler_that_blocks_is_caught(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: the measurement finds a handler that works without a pause."""
    route = _route(NEIGHBOUR)

    async def blocks(request: Any, exchange: Any) -> Any:
        end = time.thread_time() + 2 * TIMES * reference()
        while time.thread_time() < end:
            pass
        raise ValueError("blocked long enough")

    bad = replace(route, handler=blocks)
    monkeypatch.setattr("penstockd.rpc.server.hub_routes", lambda: [bad])
    async with worker(hub, monkeypatch) as served:
        code, longest = await served.call(bad, bad.request())
    assert code is grpc.StatusCode.INTERNAL
    assert longest > TIMES * reference()
