"""Callers without valid credentials: they keep nothing open, and cost little."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

import grpc
import pytest
from google.api import annotations_pb2

from harness import PATIENCE, Reply, RunningHub, eventually, folder
from http2 import DATA, Connection, connected, frame
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1 import customers_service_pb2_grpc as api_grpc
from penstockd.answers import problem
from penstockd.audit.entry import REFUSALS
from penstockd.rpc.sidecar import METHOD, SERVICE
from penstockd.webhooks.sign_ins import CONSUMER_FAILED, FAILED, FAILURES

from .calls import every_route, method_of

GRPC = {"content_type": "application/grpc", "te": "trailers"}
#: A library's method with one request message: its handler starts when the message is complete.
WAITS = "/grpc.health.v1.Health/Check"


async def ended(connection: Connection, streams: set[int]) -> None:
    """Return once these streams have their replies and are closed on both sides."""
    async with asyncio.timeout(PATIENCE):
        while not streams <= connection.ended & connection.reset:
            assert not connection.closed
            await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Begun:
    """A call of which only the headers and a part of the body are sent."""

    verb: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b"{"


def every_grpc_call() -> list[Begun]:
    """For each method that needs credentials, the start of a message."""
    part = b"\0\0\0\0\x09\x0a"
    paths = [r.method.path for r in every_route() if not r.method.public]
    return [Begun("POST", path, GRPC, part) for path in paths]


def every_rest_call() -> list[Begun]:
    """For each path that needs credentials, calls whose bodies do and do not state their length."""
    begun = []
    for route in (r for r in every_route() if not r.method.public):
        rule = method_of(route).GetOptions().Extensions[annotations_pb2.http]
        for binding in (rule, *rule.additional_bindings):
            verb = binding.WhichOneof("pattern")
            path = re.sub(r"{[^}]*}", "x", getattr(binding, verb))
            for more in ({}, {"content_length": "1000"}, {"x_api_key": "psk_x_x"}):
                headers = {"content_type": "application/json", **more}
                begun.append(Begun(verb.upper(), path, headers))
    return begun


async def begin_and_wait(port: int, calls: list[Begun]) -> None:
    """Begin calls whose bodies never arrive; each must end nevertheless."""
    async with connected(port) as connection:
        connection.begin(1, WAITS, **GRPC)
        for number, call in enumerate(calls, 1):
            stream = 2 * number + 1
            connection.begin(stream, call.path, call.verb, **call.headers)
            connection.writer.write(frame(DATA, 0, stream, call.body))
        await ended(connection, {2 * number + 1 for number in range(1, len(calls) + 1)})
        assert 1 not in connection.answered, "the test knows a call that waits for its message"


@pytest.mark.parametrize("every", [every_grpc_call, every_rest_call])
def test_a_call_without_credentials_ends_at_its_headers(
    hub: RunningHub, every: Callable[[], list[Begun]]
) -> None:
    """For every method, in whatever form its messages come: the hub waits for none of them."""
    since = hub.sql("SELECT coalesce(max(entry_id), 0) FROM hub.audit_entry")[0][0]
    for calls in batched(every(), 90):
        asyncio.run(begin_and_wait(hub.port, calls))
    guarded = {r.method.path for r in every_route() if not r.method.public}

    def missing() -> set[str]:
        entered = hub.sql(
            "SELECT DISTINCT method FROM hub.audit_entry"
            " WHERE entry_id > $1 AND outcome = 'UNAUTHENTICATED'",
            since,
        )
        return guarded - {method for (method,) in entered}

    # If a call keeps sending, its 401 may arrive before its entry is stored.
    eventually(lambda: not missing())


async def wait_for_known(port: int, credentials: list[dict[str, str]]) -> None:
    async with connected(port) as connection:
        kind = {"content_type": "application/json"}
        connection.begin(1, "/v1/customers", **kind)
        for number, known in enumerate(credentials, 1):
            connection.begin(4 * number - 1, "/v1/customers", **kind, **known)
            connection.begin(4 * number + 1, "/v1/customers", content_length="9", **kind, **known)
        await ended(connection, {1})
        assert connection.answered == {1}


def test_a_call_with_credentials_is_waited_for(hub: RunningHub) -> None:
    secret = hub.consumers["crm"]["client_secret"]
    basic = base64.b64encode(f"crm:{secret}".encode()).decode()
    known = [
        {"x_api_key": hub.api_key},
        {"authorization": f"Bearer {hub.token('crm')}"},
        {"authorization": f"Bearer {hub.api_key}"},
        {"authorization": f"Basic {basic}"},
    ]
    asyncio.run(wait_for_known(hub.port, known))


def test_only_the_sidecar_asks_who_is_known(hub: RunningHub) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/{METHOD}")
        with pytest.raises(grpc.RpcError) as error:
            call(b"", metadata=hub.metadata("admin"))
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def batched(calls: list[Begun], size: int) -> Iterator[list[Begun]]:
    for first in range(0, len(calls), size):
        yield calls[first : first + size]


#: An address that sends nothing else.
SWAPPED = "203.0.113.200"
#: Refused calls that get answers and entries of their own; one more every half minute.
FEW = 2


@pytest.fixture(scope="module")
def strict() -> Iterator[RunningHub]:
    """A hub with one worker, behind a proxy, that answers few refused calls individually."""
    with folder() as data:
        environment = {
            "PENSTOCK_REFUSED_CALLS": str(FEW),
            "PENSTOCK_WORKERS": "1",
            "PENSTOCK_TRUSTED_PROXIES": "1",
        }
        running = RunningHub(data / "hub", customers=1, environment=environment)
        running.start()
        try:
            yield running
        finally:
            running.stop()


def ask(hub: RunningHub, address: str, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return hub.request(
        "GET", "/v1/customers?page_size=1", headers={"x-forwarded-for": address, **named}
    )


def sign_in(hub: RunningHub, address: str, client: str, secret: str) -> Reply:
    form = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
    return hub.request(
        "POST",
        "/oauth2/token",
        body=urlencode(form).encode(),
        headers={
            "x-forwarded-for": address,
            "content-type": "application/x-www-form-urlencoded",
        },
    )


def entries_of(hub: RunningHub, address: str) -> list[tuple[str, str, Any]]:
    """The method, outcome and query of each audit entry of an address."""
    found = hub.sql(
        "SELECT method, outcome, query FROM hub.audit_entry WHERE peer = $1 ORDER BY entry_id",
        address,
    )
    return [(method, outcome, query and json.loads(query)) for method, outcome, query in found]


def notices_of(hub: RunningHub, consumer: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        hub.get("/v1/webhooks:notices", consumer).json().get("notices", [])
    )
    return found


def until_limited(call: Callable[[], Reply]) -> list[Reply]:
    """The replies to a refused call, up to the first short one. On a slow machine one more may have
    become due for an individual answer."""
    replies = [call()]
    while replies[-1].status != 429:
        assert replies[-1].status == 401 and len(replies) < 20
        replies.append(call())
    return replies


def test_bad_credentials_cost_little_and_good_ones_nothing(strict: RunningHub) -> None:
    address, key = "203.0.113.1", strict.api_key
    replies = [ask(strict, address, x_api_key=f"psk_{n}_x") for n in range(FEW)]
    assert {reply.status for reply in replies} == {401}
    for headers in (
        {"x_api_key": "psk_another_x"},
        {"authorization": "Bearer forged"},
        {"authorization": "Bearer a.b.c"},
        {"x_api_key": key, "authorization": "Bearer a.b.c"},
        {},
    ):
        replies += until_limited(partial(ask, strict, address, **headers))
        assert replies[-1].reason == "RATE_LIMITED"
        assert int(replies[-1].headers["retry-after"]) >= 1
        # Valid credentials from the same address are not refused, in any form.
        assert ask(strict, address, x_api_key=key).status == 200
        bearer = f"Bearer {strict.token('crm')}"
        assert ask(strict, address, authorization=bearer).status == 200
    # Another address is not affected.
    assert ask(strict, "203.0.113.2", x_api_key="psk_0_x").status == 401
    found = [e for e in entries_of(strict, address) if e[1] != "OK" and e[0] != REFUSALS]
    assert [e[1] for e in found] == ["UNAUTHENTICATED"] * sum(r.status == 401 for r in replies)
    assert [e[2] for e in found[:FEW]] == [{"credential": str(n)} for n in range(FEW)]


def test_grpc_is_told_resource_exhausted(strict: RunningHub) -> None:
    metadata, request = (("x-forwarded-for", "203.0.113.3"),), api.GetCustomerRequest()
    codes = []
    with grpc.insecure_channel(f"127.0.0.1:{strict.port}") as channel:
        while grpc.StatusCode.RESOURCE_EXHAUSTED not in codes:
            with pytest.raises(grpc.RpcError) as error:
                api_grpc.CustomersStub(channel).GetCustomer(request, metadata=metadata)
            codes.append(error.value.code())
    assert codes[:FEW] == [grpc.StatusCode.UNAUTHENTICATED] * FEW


def test_failed_sign_ins_are_bounded_by_address_and_by_client(strict: RunningHub) -> None:
    secret = strict.consumers["crm"]["client_secret"]
    for number in range(FEW):
        reply = sign_in(strict, "203.0.113.10", f"nobody-{number}", "x")
        assert (reply.status, reply.json()["error"]) == (401, "invalid_client")
    reply = until_limited(lambda: sign_in(strict, "203.0.113.10", "nobody", "x"))[-1]
    assert reply.json()["error"] == "slow_down"
    assert int(reply.headers["retry-after"]) >= 1
    assert sign_in(strict, "203.0.113.10", "crm", secret).status == 200
    tried = [e[2]["client_id"] for e in entries_of(strict, "203.0.113.10") if e[1] != "OK"]
    assert tried[:FEW] == [f"nobody-{n}" for n in range(FEW)]
    assert not notices_of(strict, "crm"), "the control"
    # From ever new addresses, for one client.
    for number in range(FEW):
        assert sign_in(strict, f"203.0.113.{20 + number}", "crm", "x").status == 401
    fresh = (f"203.0.113.{n}" for n in range(50, 100))
    until_limited(lambda: sign_in(strict, next(fresh), "crm", "x"))
    assert sign_in(strict, "203.0.113.49", "crm", secret).status == 200
    assert sign_in(strict, "203.0.113.49", "bi", "x").status == 401
    # The consumer and those who may change access are told, once, and nobody else.
    for number in range(100, 100 + FAILURES):
        assert sign_in(strict, f"203.0.113.{number}", "crm", "x").status in (401, 429)
    eventually(lambda: notices_of(strict, "crm") and notices_of(strict, "admin"))
    for consumer, kind in (("crm", FAILED), ("admin", CONSUMER_FAILED)):
        (told,) = notices_of(strict, consumer)
        assert (told["type"], told["data"]["consumerId"]) == (kind, "crm")
        assert told["data"]["failures"] >= FAILURES
        assert all(address.startswith("203.0.113.") for address in told["data"]["addresses"])
    assert not strict.sql(
        "SELECT FROM hub.webhook_notice WHERE consumer_id NOT IN ('crm', 'admin')"
    )
    # A caller that swaps the id and the secret leaves no secret, and a long name is cut.
    sign_in(strict, SWAPPED, secret, "x")
    sign_in(strict, SWAPPED, "n" * 5000, "x")
    mixed, long = (e[2]["client_id"] for e in entries_of(strict, SWAPPED))
    assert secret not in mixed and mixed == "_".join([*secret.split("_", 2)[:2], "…"])
    assert len(long) < 200 and long.startswith("nnn")


def test_a_password_is_taken_over_tls_or_from_this_machine(strict: RunningHub) -> None:
    text = f"crm:{strict.consumers['crm']['client_secret']}"
    basic = f"Basic {base64.b64encode(text.encode()).decode()}"
    for address, scheme, status in [
        ("203.0.113.150", "http", 401),
        ("203.0.113.150", "https", 200),
        ("127.0.0.1", "http", 200),
    ]:
        reply = ask(strict, address, authorization=basic, x_forwarded_proto=scheme)
        assert reply.status == status, (address, scheme, reply.text)


def test_a_malformed_request_for_a_token_costs_as_much(strict: RunningHub) -> None:
    def call() -> Reply:
        headers = {"x-forwarded-for": "203.0.113.70"}
        return strict.request("POST", "/oauth2/token", headers=headers)

    assert [call().status for _ in range(FEW)] == [400] * FEW
    replies = [call() for _ in range(20)]
    assert 429 in {reply.status for reply in replies}


def test_what_has_no_entry_of_its_own_is_counted(strict: RunningHub) -> None:
    """Nothing is dropped: entries and counts together are all calls, even after a stop."""
    address, sent = "2001:db8:1::7", 20
    got = Counter(ask(strict, address, x_api_key=f"psk_{n}_x").status for n in range(sent))
    assert set(got) == {401, 429} and got.total() == sent
    strict.stop()
    strict.start()
    own = [e for e in entries_of(strict, address) if e[0] != REFUSALS]
    counts = [e[2]["calls"] for e in entries_of(strict, "2001:db8:1::/64") if e[0] == REFUSALS]
    assert len(own) == got[401]
    assert sum(counts) == got[429] and len(counts) < got[429]


#: Streams of one experiment, and replies with bodies that an address may leave untaken: at once,
#: and more with every second.
MANY, AT_ONCE, EACH_SECOND = 300, 100, 5
FORM = {"content_type": "application/x-www-form-urlencoded"}

#: Kinds of calls that are refused: verb, path, headers; ``#`` stands for a number.
REFUSED: dict[str, tuple[str, str, dict[str, str]]] = {
    "nothing": ("GET", "/v1/customers", {}),
    "made-up key": ("GET", "/v1/customers", {"x_api_key": "psk_#_x"}),
    "problem": ("GET", "/v1/customers", {"x_api_key": "psk_#_x", "accept": problem.MEDIA_TYPE}),
    "forged token": ("GET", "/v1/customers/c", {"authorization": "Bearer a.#.c"}),
    "unknown path": ("GET", "/nowhere/#", {"x_api_key": "psk_#_x"}),
    "unknown parameter": ("GET", "/v1/customers?a%62=#", {"x_api_key": "psk_#_x"}),
    "write": ("DELETE", "/v1/customers/#", {"x_api_key": "psk_#_x"}),
    "export": ("GET", "/v1/customers:export", {"x_api_key": "psk_#_x", "accept_encoding": "zstd"}),
    "feed": ("GET", "/v1/customers:watch", {"x_api_key": "psk_#_x"}),
    "sign-in": ("POST", "/oauth2/token", FORM),
    "health": ("GET", "/healthz", {}),
    "unknown error": ("GET", "/v1/errors/NONE_#", {}),
    "gRPC": ("POST", "/penstock.api.v1.Customers/GetCustomer", GRPC),
    "gRPC-Web": (
        "POST",
        "/penstock.api.v1.Customers/GetCustomer",
        {"content_type": "application/grpc-web+proto", "x_grpc_web": "1"},
    ),
}


async def pinned(port: int, kind: str, address: Callable[[int], str]) -> tuple[int, float]:
    """How many refusals stay with the sidecar because their client takes no bodies, and the
    seconds in which they were asked for."""
    verb, path, headers = REFUSED[kind]
    began, held = time.monotonic(), 0
    for first in range(0, MANY, 100):
        async with connected(port, window=0) as connection:
            for number in range(100):
                given = {k: v.replace("#", str(first + number)) for k, v in headers.items()}
                given["x_forwarded_for"] = address(first + number)
                where = path.replace("#", str(first + number))
                connection.request(2 * number + 1, where, verb, **given)
            async with asyncio.timeout(PATIENCE):
                while len(connection.answered) < 100:  # noqa: ASYNC110 - a reader of frames counts
                    await asyncio.sleep(0.02)
            held += 100 - len(connection.ended)
    return held, time.monotonic() - began


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_stranger_leaves_untaken_is_bounded(strict: RunningHub, kind: str) -> None:
    """With HTTP/2 a client may take no body at all; each would keep its stream in memory."""
    own = f"203.0.114.{list(REFUSED).index(kind)}"
    held, seconds = asyncio.run(pinned(strict.port, kind, lambda _: own))
    assert held <= AT_ONCE + EACH_SECOND * (seconds + 1)


def test_many_addresses_get_bodies(strict: RunningHub) -> None:
    """What is said to callers who call seldom, and that the experiment above counts right."""
    held, _ = asyncio.run(
        pinned(strict.port, "made-up key", lambda n: f"198.51.{n // 200}.{n % 200}")
    )
    assert held == MANY
