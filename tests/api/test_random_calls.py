"""Random calls over HTTP: none is answered with a failure of the hub, every error is one of the
documented form, and what the hub accepts is what it shows afterwards.

Chains of calls run side by side, each with records of its own in every dataset of the demo and of
tests/models. ``plain_records`` says what a record must hold. PENSTOCK_REST_CALLS sets the number of
calls; ``values_drawn.KNOWN_FAULTS`` names the faults that are left out.
"""

from __future__ import annotations

import collections
import gzip
import http.client
import json
import os
import random
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

import plain_records as plain
from calls_drawn import (
    Binding,
    HttpCall,
    bindings,
    drawn_accept,
    drawn_headers,
    drawn_type,
    method_call,
    odd_call,
    query_text,
)
from chance import SEED
from harness import PATIENCE, Reply
from penstockd.answers.problem import http_status
from penstockd.answers.reasons import REASONS
from penstockd.catalog.load import load_catalog
from plain_records import Number, Tree
from values_drawn import KNOWN_FAULTS, damage, dump, good_object, spoil
from workshops import Workshop

pytestmark = [pytest.mark.slow, pytest.mark.lane("api/models", priority=12)]

CALLS = int(os.environ.get("PENSTOCK_REST_CALLS", "5000"))
#: Chains at one time, and the calls of each.
CHAINS, STEPS = 8, 50
#: Statuses from 500 on that are right answers, and what they answer.
BY_DESIGN = {
    501: "a transfer coding that does not exist",
    505: "a stream over HTTP/1.0",
}
#: Texts of tokens and keys that are none.
_STRANGERS = ["", "Bearer x", "Bearer a.b.c", "Basic Og==", "Basic é", "Digest x", "Bearer  "]


# --- one line to the hub -----------------------------------------------------------------------


class Line:
    """A connection that is kept alive."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = self._open()

    def _open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)

    def send(self, call: HttpCall, authorization: str | None) -> Reply:
        """The reply to a call; of a feed, its head."""
        connection = self._connection
        connection.putrequest(call.verb, call.target, skip_accept_encoding=True)
        for name, value in call.headers:
            connection.putheader(name, value.encode())
        if authorization is not None:
            connection.putheader("authorization", authorization.encode())
        if call.body is not None or call.verb in ("POST", "PATCH", "PUT"):
            connection.putheader("content-length", str(len(call.body or b"")))
        connection.endheaders(call.body)
        reply = connection.getresponse()
        head = {name.lower(): value for name, value in reply.getheaders()}
        if call.endless and reply.status == 200 and call.verb != "HEAD":
            self.close()
            self._connection = self._open()
            return Reply(reply.status, head, b"")
        body = reply.read()
        if head.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        return Reply(reply.status, head, body)

    def close(self) -> None:
        """Close it."""
        self._connection.close()


# --- what every answer must be -----------------------------------------------------------------


def check_answer(call: HttpCall, reply: Reply) -> None:
    """Raise AssertionError unless the reply is one that the documentation describes."""
    status, head = reply.status, reply.headers
    if is_grpc(call):
        assert status == 200 and "grpc-status" in head, "a call of gRPC is answered as one"
        return
    if "x-request-id" not in head:
        # The sidecar could not read it as HTTP, or it is about no path: it is no call.
        assert status in (400, 501) or (call.target == "*" and status == 404), (status, head)
        return
    assert status < 500 or status in BY_DESIGN, f"{status} {reply.body[:500]!r}"
    leaked = [name for name in head if name.startswith(("grpc-", "x-http-", "x-envoy-"))]
    if leaked == ["x-http-status"] and "statuses that the sidecar does not set" in KNOWN_FAULTS:
        return
    assert not leaked, f"the sidecar's headers leak: {leaked}"
    if status in (204, 304) or call.verb == "HEAD":
        assert not reply.body, f"{status} with a body"
    elif status >= 400:
        check_error(call, reply)
    elif head.get("content-type") == "application/json" and not (
        call.endless or "resume" in call.target  # a part of a file
    ):
        plain.load(reply.body)


def is_grpc(call: HttpCall) -> bool:
    """Whether the content type makes a call one of gRPC or gRPC-Web."""
    return (call.header("content-type") or "").startswith("application/grpc")


def check_error(call: HttpCall, reply: Reply) -> None:
    """Check the body of an error."""
    kind = reply.headers.get("content-type", "").partition(";")[0]
    if call.target.startswith("/oauth2/token") and call.verb == "POST" and b'"error"' in reply.body:
        assert set(reply.json()) == {"error", "error_description"}
        return
    if kind == "application/xml":
        told = {child.tag: child.text or "" for child in ET.fromstring(reply.body)}
        reason, request_id, code = told["reason"], told["requestId"], int(told["status"])
    elif kind == "application/problem+json":
        problem = reply.json()
        reason, request_id, code = problem["reason"], problem["requestId"], problem["status"]
    else:
        assert kind == "application/json", f"an error of type {kind!r}: {reply.body[:300]!r}"
        reason, request_id, code = read_status(reply)
    assert request_id == reply.headers["x-request-id"], reply.text
    assert code == reply.status
    allowed = {http_status(REASONS[reason])}
    if call.header("if-match") is not None or call.header("if-none-match") is not None:
        allowed.add(412)
    assert reply.status in allowed, f"{reason} with {reply.status}"
    assert "Traceback" not in reply.text and "penstockd" not in reply.text, reply.text


def read_status(reply: Reply) -> tuple[str, str, int]:
    """The reason, the request id and the status of an error in the usual form."""
    told = reply.json()
    assert next(iter(told)) == "message" and told["message"], told
    details = {d["@type"].rpartition(".")[2]: d for d in told["details"]}
    reason = details["ErrorInfo"]["reason"]
    assert told["code"] == REASONS[reason].code, told
    for violation in details.get("BadRequest", {}).get("fieldViolations", ()):
        assert violation["description"], told
    return reason, details["RequestInfo"]["requestId"], reply.status


# --- chains ------------------------------------------------------------------------------------


@dataclass
class Dataset:
    """A dataset with the ways to write to it."""

    name: str
    message: Any
    key: list[Any]
    by_name: dict[str, Binding] = field(default_factory=dict)

    def key_text(self, parts: list[Any]) -> str:
        """The text of a key (see the README)."""
        if len(parts) == 1:
            return str(parts[0])
        escaped = [str(p).replace("%", "%25").replace("~", "%7E") for p in parts]
        return "~".join(escaped)


class World:
    """What all chains share."""

    def __init__(self, made: Workshop) -> None:
        self.hub = made.hub
        descriptors = made.tree / "gen/descriptors/hub.binpb"
        catalog = load_catalog(descriptors)
        self.bindings = bindings(catalog, descriptors)
        self.datasets = []
        for known in catalog:
            fields = known.message_type.fields_by_name
            dataset = Dataset(
                known.name, known.message_type, [fields[f.path] for f in known.key_fields]
            )
            for binding in self.bindings:
                if _serves(binding, known.name):
                    dataset.by_name.setdefault(_verb_of(binding.method.name), binding)
            self.datasets.append(dataset)
        self.calls: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self._lock = threading.Lock()

    def count(self, *names: str) -> None:
        """Count something that happened."""
        with self._lock:
            self.calls.update(names)

    def fail(self, text: str) -> None:
        """Note a failure."""
        with self._lock:
            self.failures.append(text)


def _serves(binding: Binding, name: str) -> bool:
    service = binding.method.containing_service
    own = service.full_name.startswith("penstock.api.v1.")
    return bool(own and service.name.lower() == name.replace("_", ""))


def _verb_of(name: str) -> str:
    """Create, Update … of a method's name; those of a dataset begin with it."""
    verbs = ("BatchUpsert", "Create", "Update", "Delete", "Get", "List", "StreamExport", "Export")
    return next((verb for verb in verbs if name.startswith(verb)), name)


@dataclass
class Written:
    """A write: the call, and the trees that follow from its body, by key; None is no record."""

    call: HttpCall
    then: Callable[[Any, Reply], dict[str, Tree | None]]
    dry: bool = False
    #: Who writes; anybody, unless it matters.
    principal: str | None = None


class Chain:
    """A caller with records of its own."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.rng = random.Random(f"{SEED}/{number}")
        self.line = Line(world.hub.port)
        self.records: dict[tuple[str, str], Tree] = {}
        self.etags: dict[tuple[str, str], str] = {}
        self.touched: set[tuple[str, str]] = set()
        self._made = 0

    def run(self) -> None:
        """All calls of the chain."""
        try:
            for step in range(STEPS):
                self.step(step)
        finally:
            self.clean()
            self.line.close()

    def step(self, step: int) -> None:
        """One random call, and what must hold after it."""
        call = HttpCall("", "")
        try:
            does = self.rng.choices(list(_STEPS), list(_STEPS.values()))[0]
            if does in ("odd", "method"):
                draw = odd_call if does == "odd" else method_call
                among = self.world.bindings
                call = draw(self.rng, among if does == "odd" else self.rng.choice(among))  # type: ignore[arg-type]
                self.send(call)
            else:
                dataset = self.rng.choice(self.world.datasets)
                if self.rng.random() < 0.3:
                    (dataset,) = [d for d in self.world.datasets if d.name == "customers"]
                write = getattr(self, does)(dataset)
                call = write.call
                self.perform(dataset, write, does)
        except Exception as exc:  # of the check as well: each is a failure of the test
            what = f"{type(exc).__name__}: {str(exc)[:1500]}"
            self.world.fail(f"chain {self.number}, step {step}: {what}\n{call}")
            self.line.close()
            self.line = Line(self.world.hub.port)

    def send(self, call: HttpCall, principal: str | None = None) -> Reply:
        """Send a call as a principal, by default a random one, and check what is said."""
        rng = self.rng
        principal = principal or rng.choices(_PRINCIPALS, (80, 9, 6, 5))[0]
        if principal == "stranger":
            authorization = rng.choice([None, *_STRANGERS])
        else:
            authorization = f"Bearer {self.world.hub.token(principal)}"
        reply = self.line.send(call, authorization)
        self.world.count("calls", call.verb, str(reply.status), principal)
        check_answer(call, reply)
        return reply

    # --- writes ---

    def perform(self, dataset: Dataset, write: Written, does: str) -> None:
        """Send a write, and compare what is there afterwards."""
        reply = self.send(write.call, write.principal)
        accepted = 200 <= reply.status < 300 and not is_grpc(write.call)
        self.world.count(f"{does} {'accepted' if accepted else 'refused'}")
        if accepted and not write.dry:
            self.world.count(f"written {dataset.name}")
            effects = write.then(plain.load(write.call.body or b"null"), reply)
        elif accepted or self.rng.random() < 0.2:
            keys = [key for name, key in self.records if name == dataset.name]
            effects = {key: self.records[dataset.name, key] for key in keys[:1]}
        else:
            return
        for key, tree in effects.items():
            alone = accepted and not write.dry and does in ("create", "patch", "masked")
            self.compare(dataset, key, tree, reply if alone else None)

    def compare(
        self, dataset: Dataset, key: str, expected: Tree | None, reply: Reply | None
    ) -> None:
        """Check that the hub shows what is expected of a record."""
        at = dataset.name, key
        self.touched.add(at)
        path = f"{self.path(dataset, 'Get')}/{quote(key, safe='')}"
        found = self.line.send(HttpCall("GET", path), f"Bearer {self.world.hub.token('admin')}")
        self.records.pop(at, None)
        if found.status == 404:
            self.touched.discard(at)
            assert expected is None, f"{at} is not there"
            return
        assert found.status == 200, found.text
        record = plain.load(found.body)
        tree = plain.shown(dataset.message, record)
        self.records[at], self.etags[at] = tree, found.headers["etag"]
        assert expected is not None, f"{at} is still there"
        assert found.headers["etag"] == f'"{record["etag"]}"'
        for name, value in expected.items():
            assert tree[name] == value, f"{at}.{name} is {tree[name]!r}, not {value!r}"
        same = reply is not None and reply.headers.get("content-type") == "application/json"
        if same and reply is not None and reply.body.count(b":") == found.body.count(b":"):
            assert reply.body == found.body, f"the write was answered with {reply.text}"

    def path(self, dataset: Dataset, verb: str) -> str:
        """The path of a method of a dataset, without the key."""
        template = dataset.by_name[verb].rule.template
        return template.partition("/{")[0]

    def new_key(self, dataset: Dataset) -> list[Any]:
        """The parts of a key that no other chain uses."""
        self._made += 1
        number = 500_000_000 + self.number * 1000 + self._made
        text = f"rnd-{self.number}-{self._made}" + self.rng.choice(
            ("", "", " é", "~%", "/a:b", "😀")
        )
        return [text if fd.cpp_type == fd.CPPTYPE_STRING else number for fd in dataset.key]

    def key_members(self, dataset: Dataset, parts: list[Any]) -> dict[str, Any]:
        """The members of a record that hold its key."""
        return {
            fd.json_name: part if isinstance(part, str) else Number(part)
            for fd, part in zip(dataset.key, parts, strict=True)
        }

    def known(self, dataset: Dataset) -> str | None:
        """The key of a record that this chain has written."""
        keys = [key for name, key in self.records if name == dataset.name]
        return self.rng.choice(keys) if keys else None

    def spelled(self, value: Any) -> bytes:
        """A body, now and then with damaged JSON."""
        text = dump(self.rng, value)
        if self.rng.random() < 0.06:
            return damage(self.rng, text)
        return text.encode("utf-8", "surrogatepass")

    def object(self, dataset: Dataset, share: float = 0.5) -> dict[str, Any]:
        """JSON for a record, of which one in four has a fault."""
        value = good_object(self.rng, dataset.message, share=share)
        if self.rng.random() < 0.25:
            spoil(self.rng, dataset.message, value)
        return value

    def tree_key(self, dataset: Dataset, tree: Tree) -> str:
        """The key of a record."""
        return dataset.key_text([tree[fd.name] for fd in dataset.key])

    def options(self, *more: tuple[str, str]) -> tuple[str, bool, list[tuple[str, str]]]:
        """A query, whether it writes nothing, and headers."""
        pairs = [pair for pair in more if self.rng.random() < 0.8]
        dry = self.rng.random() < 0.06
        if dry:
            pairs.append((self.rng.choice(("validate_only", "validateOnly")), "true"))
        if self.rng.random() < 0.04:
            pairs.append(("nothing", "1"))
        headers = [("content-type", drawn_type(self.rng))]
        if self.rng.random() < 0.25:
            headers += [(n, v) for n, v in drawn_headers(self.rng) if n not in _DECIDE]
        elif self.rng.random() < 0.3:
            headers.append(("accept", drawn_accept(self.rng)))
        return query_text(pairs), dry, headers

    def create(self, dataset: Dataset) -> Written:
        """POST of one record."""
        value = self.key_members(dataset, self.new_key(dataset)) | self.object(dataset)
        query, dry, headers = self.options()
        call = HttpCall("POST", self.path(dataset, "Create") + query, headers, self.spelled(value))

        def then(sent: Any, reply: Reply) -> dict[str, Tree | None]:
            tree = plain.created(dataset.message, sent)
            return {self.tree_key(dataset, tree): tree}

        return Written(call, then, dry)

    def patch(self, dataset: Dataset, paths: list[str] | None = None) -> Written:
        """PATCH of one record, usually one that is there."""
        key = self.known(dataset) if self.rng.random() < 0.85 else None
        parts = self.new_key(dataset) if key is None else None
        key = dataset.key_text(parts) if parts is not None else key
        assert key is not None
        before = self.records.get((dataset.name, key))
        if before is None:
            assert parts is not None
            names = [fd.name for fd in dataset.key]
            before = plain.blank(dataset.message) | dict(zip(names, parts, strict=True))
        value = self.object(dataset, self.rng.choice((0.1, 0.3, 0.6)))
        more = [("allow_missing", "true")] if parts is not None else []
        if paths is not None:
            name = self.rng.choice(("update_mask", "updateMask"))
            more.append((name, ",".join(paths)))
        query, dry, headers = self.options(*more)
        if (tag := self.etags.get((dataset.name, key))) and self.rng.random() < 0.2:
            headers.append(("if-match", self.rng.choice((tag, tag, '"1"', "*"))))
        # What is created has all that is sent.
        named = paths if parts is None and "pdate" in query else None
        target = f"{self.path(dataset, 'Update')}/{quote(key, safe='')}{query}"
        call = HttpCall("PATCH", target, headers, self.spelled(value))

        def then(sent: Any, reply: Reply) -> dict[str, Tree | None]:
            if named is not None:
                return {key: plain.masked(dataset.message, before, sent, named)}
            # A body beside a mask is no merge patch, even if its record is new.
            return {key: plain.merged(dataset.message, before, sent, maps="pdate" not in query)}

        return Written(call, then, dry)

    def masked(self, dataset: Dataset) -> Written:
        """PATCH that names its fields."""
        return self.patch(dataset, list(_some_paths(self.rng, dataset.message)))

    def batch(self, dataset: Dataset) -> Written:
        """Some records at once, each of which replaces what is there."""
        keys = [self.known(dataset) if self.rng.random() < 0.5 else None for _ in range(3)]
        values = []
        for key in keys[: self.rng.choice((1, 2, 3))]:
            if key is None:
                held = self.key_members(dataset, self.new_key(dataset))
            else:
                tree = self.records[dataset.name, key]
                held = self.key_members(dataset, [tree[fd.name] for fd in dataset.key])
            values.append(held | self.object(dataset))
        binding = dataset.by_name["BatchUpsert"]
        ((name, known),) = [
            (f.json_name, f)
            for f in binding.method.input_type.fields
            if f.message_type is not None and f.message_type.full_name == dataset.message.full_name
        ]
        query, dry, headers = self.options(("partial", self.rng.choice(("true", "false"))))
        body = self.spelled({self.rng.choice((name, known.name)): values})
        call = HttpCall("POST", binding.rule.template + query, headers, body)

        def then(sent: Any, reply: Reply) -> dict[str, Tree | None]:
            told = json.loads(reply.body) if "json" in reply.headers["content-type"] else {}
            refused = {int(error["row"]) for error in told.get("rowErrors", ())}
            found: dict[str, Tree | None] = {}
            for number, record in enumerate(sent.get(name) or sent.get(known.name) or (), 1):
                if number not in refused:
                    tree = plain.created(dataset.message, record)
                    found[self.tree_key(dataset, tree)] = tree
            return found

        # A record that is replaced keeps what its writer does not see.
        return Written(call, then, dry, "admin" if any(keys) else None)

    def delete(self, dataset: Dataset) -> Written:
        """DELETE of one record."""
        key = self.known(dataset) or dataset.key_text(self.new_key(dataset))
        query, dry, headers = self.options(("allow_missing", self.rng.choice(("true", "false"))))
        target = f"{self.path(dataset, 'Delete')}/{quote(key, safe='')}{query}"
        headers = [(n, v) for n, v in headers if n != "content-type"]
        return Written(HttpCall("DELETE", target, headers), lambda sent, reply: {key: None}, dry)

    def clean(self) -> None:
        """Remove the records of the chain."""
        paths = {d.name: self.path(d, "Delete") for d in self.world.datasets}
        for name, key in self.touched:
            call = HttpCall("DELETE", f"{paths[name]}/{quote(key, safe='')}?allow_missing=true")
            self.line.send(call, f"Bearer {self.world.hub.token('admin')}")


#: Headers that decide whether a write is done at all; writes choose them themselves.
_DECIDE = {"if-match", "if-none-match", "content-encoding", "expect"}
_PRINCIPALS = ("admin", "crm", "bi", "stranger")
#: What a step does, and how often.
_STEPS = {"create": 20, "patch": 20, "masked": 8, "batch": 7, "delete": 4, "method": 26, "odd": 15}


def _some_paths(rng: random.Random, message: Any) -> Iterator[str]:
    """Proto paths of fields, some of them within nested messages."""
    fields = plain.written(message)
    for fd in rng.sample(fields, min(len(fields), rng.choice((1, 1, 2, 4)))):
        of = plain.inner(fd)
        if of is not None and rng.random() < 0.6:
            yield f"{fd.name}.{rng.choice(list(of.fields)).name}"
        else:
            yield fd.name


@pytest.fixture
def world(modelled: Workshop) -> World:
    return World(modelled)


def test_random_calls(world: World) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED} PENSTOCK_REST_CALLS={CALLS}")
    for principal in ("admin", "crm", "bi"):
        world.hub.token(principal)
    with ThreadPoolExecutor(CHAINS) as pool:
        list(pool.map(lambda number: Chain(world, number).run(), range(CALLS // STEPS)))
    print(dict(sorted(world.calls.items())))
    assert not world.failures, _told(world)
    check_reach(world)


def _told(world: World) -> str:
    first = "\n\n".join(world.failures[:10])
    return f"PENSTOCK_FUZZ_SEED={SEED}: {len(world.failures)} failures\n{first}"


def check_reach(world: World) -> None:
    """The draw reached what it is for."""
    calls = world.calls
    for does, least in (
        ("create", 30),
        ("patch", 30),
        ("masked", 10),
        ("batch", 10),
        ("delete", 10),
    ):
        assert calls[f"{does} accepted"] * 5000 >= least * 5 * CALLS, (does, calls)
    for verb in ("GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"):
        assert calls[verb], verb
    for status in (200, 400, 401, 403, 404, 405, 406, 412, 415):
        assert calls[str(status)], status
    for dataset in world.datasets:
        assert calls[f"written {dataset.name}"], dataset.name
