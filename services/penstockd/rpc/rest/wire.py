"""One call over HTTP: its request from path, query and body; its reply and its errors as bodies."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import DecodeError, Message

from penstock.rest.v1.rest_pb2 import HttpCall
from penstockd.auth.tickets import ShownTicket
from penstockd.budget import offload_large
from penstockd.catalog import Dataset
from penstockd.catalog.leniency import TRUNCATE
from penstockd.catalog.record_json import RecordJson
from penstockd.catalog.scalars import ValueRefused
from penstockd.catalog.values import load_json
from penstockd.errors import RequestMalformed, RequestTooLarge
from penstockd.policy.rendering import JsonPage, JsonRecord, Render, render_json
from penstockd.rpc.door import Route, ServedRoute
from penstockd.rpc.exchange import Exchange, Refusal
from penstockd.rpc.frames import NEXT_PAGE, http_body
from penstockd.rpc.http_errors import HttpVersionUnsupported
from penstockd.rpc.rest.bodies import BodyReading
from penstockd.rpc.rest.conditions import Conditions
from penstockd.rpc.rest.errors import (
    end_reconnection,
    finish_call,
    name_in_json,
    refuse_call,
)
from penstockd.rpc.rest.feeds import FeedLines, ends_reconnection
from penstockd.rpc.rest.media import (
    CSV,
    JSON,
    NOTHING,
    XML,
    check_json_type,
    choose_media,
    is_xml_type,
)
from penstockd.rpc.rest.paths import FoundPath, bound_values
from penstockd.rpc.rest.problems import Problems
from penstockd.rpc.rest.queries import parse_query, query_reader
from penstockd.rpc.rest.readers import record_readers, xml_reader
from penstockd.rpc.rest.records import RecordBodies, TruncatingBodies
from penstockd.rpc.rest.replies import EncodeRecord, ReplyWriter
from penstockd.rpc.rest.values import follow_steps
from penstockd.rpc.rest.xml_replies import XmlReplies
from penstockd.writes.incoming import populated_paths

#: Headers by which the sidecar describes a call; it removes them from what callers send.
PATH, VERB = "x-envoy-original-path", "x-envoy-original-method"
#: On the paths of streams, the version of HTTP, such as HTTP/1.1.
PROTOCOL = "x-penstock-protocol"
#: Bytes by which a call may exceed its body: its content type, and tags.
_SPARE = 4096
#: The most objects and arrays of a body, brackets in its texts among them: each costs memory.
_MOST_NODES = 1_000_000
_HTTP_BODY = HttpBody.DESCRIPTOR.full_name
_MASK = "update_mask"
_PRECISION = ("time_precision", "timePrecision")


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """A method that paths lead to."""

    served: ServedRoute
    #: The media types of its replies; () for files and streams, which choose by themselves.
    media: Sequence[str] = (JSON,)
    #: Whether its replies have etags.
    tagged: bool = False

    @property
    def route(self) -> Route:
        """Its route."""
        return self.served.route

    @property
    def ways(self) -> tuple[bool, bool]:
        """Whether its request and its reply are streams."""
        return self.route.streams_request, self.route.streams_reply

    @property
    def is_feed(self) -> bool:
        """Whether its reply is a stream of messages, not a file."""
        return self.route.streams_reply and not self.route.method.sends_file


@dataclass(slots=True)
class RestWire:
    """The wire of one call (see ``exchange.Wire``)."""

    found: FoundPath[HttpTarget]
    verb: str
    query: str
    ticket: ShownTicket | None = None
    holds_headers: bool = True
    conditions: Conditions = field(default_factory=Conditions)
    media: str = JSON
    #: Whether the body is XML, so that errors name fields as the model does.
    xml_body: bool = False
    _lines: FeedLines | None = None

    @property
    def headers_only(self) -> bool:
        """Whether the caller wants no body."""
        return self.verb == "HEAD"

    @property
    def render(self) -> Render[Any]:
        """Replies are made of JSON, in XML too."""
        return render_json

    @property
    def page_format(self) -> str:
        """A page in CSV is a file; in XML it is made of JSON."""
        return "CSV" if self.media == CSV else ""

    # --- requests ---------------------------------------------------------------------------

    async def read(self, exchange: Exchange) -> Any:
        """The request of the method, or an iterator of the requests of an upload."""
        if self.found.target.route.streams_reply and exchange.metadata.get(PROTOCOL) == "HTTP/1.0":
            raise HttpVersionUnsupported("over HTTP/1.0 there are no streams; use HTTP/1.1 or 2")
        self.conditions = Conditions.of(exchange.metadata)
        if self.found.target.route.streams_request:
            self.conditions.refuse("an import")
            return self._read_upload(exchange)
        if offered := self.found.target.media:
            self.media = choose_media(exchange.metadata.get("accept"), offered)
        request = await self._make_request(exchange, await self._receive(exchange))
        await self.found.target.served.reader.check(request)
        return request

    async def _receive(self, exchange: Exchange) -> Any:
        most, data = self.found.target.route.most_bytes, await exchange.receive()
        if len(data) > most + _SPARE:
            raise RequestTooLarge(f"the body has more than {most:,} bytes")
        return _parse_call(data)

    async def _make_request(self, exchange: Exchange, body: Any) -> Any:
        """Raises FieldUnknown, ValueInvalid, RequestMalformed, MediaTypeUnsupported."""
        rule, route = self.found.rule, self.found.target.route
        request: Any = route.request()
        if route.request.DESCRIPTOR.full_name == _HTTP_BODY:
            request.content_type, request.data = body.content_type, body.data
            return request
        given: Sequence[str] = ()
        bound = bound_values(self.found)
        if rule.body:
            given = await self._read_body(exchange, body, request, bound)
        elif body.data.strip():
            raise RequestMalformed(f"a call with {self.verb} has no body")
        self._bind_path(request, bound)
        self._read_query(request, given)
        creates = exchange.method.name.startswith("Create")
        tagged = self.found.target.tagged
        self.conditions.apply(request, self.verb, creates=creates, tagged=tagged)
        return request

    async def _read_body(
        self, exchange: Exchange, body: Any, request: Any, bound: Mapping[str, str | int]
    ) -> Sequence[str]:
        """Put the body into the request; returns the fields that it has set."""
        rule = self.found.rule
        whole = rule.body == "*"
        target = request if whole else getattr(request, rule.body)
        if not whole:
            target.SetInParent()
        problems = Problems()
        value = await self._load_body(exchange, body, target, problems)
        find = record_readers(exchange, self._find_reader(value, whole=whole))
        reading = BodyReading(find, problems, patches=self._patches(request))
        try:
            await offload_large(len(body.data), reading.read, value, target)
        except RecursionError:
            raise RequestMalformed("the body is nested too deeply") from None
        for path, named in bound.items():
            path_in_body = path if whole else path.removeprefix(f"{rule.body}.")
            if path_in_body in reading.present and follow_steps(request, path.split(".")) != named:
                reading.problems.add(path_in_body, "differs from the path of the call")
        reading.problems.raise_any()
        exchange.named = () if whole else reading.present
        if reading.patches:
            # In one order, so that a repeated call is the same call.
            request.update_mask.paths.extend(sorted(set(reading.present)))
            exchange.merges = reading.merges
        return [path.partition(".")[0] for path in reading.present] if whole else [rule.body]

    async def _load_body(
        self, exchange: Exchange, body: Any, target: Any, problems: Problems
    ) -> Any:
        """The data of a body, as JSON has it; XML for records alone."""
        xml = xml_reader(exchange, target)
        if xml is not None and is_xml_type(body.content_type):
            self.xml_body = True
            return await offload_large(len(body.data), xml, body.data, problems)
        if not body.data and self.found.rule.body == "*":
            return {}
        patch = self.verb == "PATCH"
        check_json_type(body.content_type, patch=patch, xml=xml is not None)
        return await offload_large(len(body.data), _load_json, body.data)

    def _patches(self, request: Any) -> bool:
        """Whether the call is a merge patch: it names no fields itself."""
        if self.verb != "PATCH" or _MASK not in type(request).DESCRIPTOR.fields_by_name:
            return False
        return not any(name in (_MASK, "updateMask") for name, _ in parse_query(self.query))

    def _find_reader(self, value: Any, *, whole: bool) -> type[RecordBodies]:
        """The reader of the body's records, by the precision of times that the call names: in its
        query, or in the body if that is the ``whole`` request."""
        given = [text for name, text in parse_query(self.query) if name in _PRECISION]
        if whole and type(value) is dict:
            given += [str(value[name]) for name in _PRECISION if name in value]
        return TruncatingBodies if TRUNCATE in map(str.upper, given) else RecordBodies

    def _bind_path(self, request: Any, bound: Mapping[str, str | int]) -> None:
        for path, value in bound.items():
            *steps, last = path.split(".")
            setattr(follow_steps(request, steps), last, value)

    def _read_query(self, request: Any, given: Sequence[str]) -> None:
        rule = self.found.rule
        bound = [variable.path for variable in rule.variables]
        taken = [*bound, *([rule.body] if rule.body not in ("", "*") else [])]
        if parameters := parse_query(self.query):
            reader = query_reader(type(request).DESCRIPTOR, tuple(taken))
            reader.read(parameters, request, given)

    async def _read_upload(self, exchange: Exchange) -> AsyncIterator[Any]:
        """The requests of an upload: the first has the parameters, each a piece of the file."""
        rule, route = self.found.rule, self.found.target.route
        first = True
        async for data in exchange.requests:
            request: Any = route.request()
            body = _parse_call(data)
            piece = getattr(request, rule.body)  # its class may be one of another pool
            piece.content_type, piece.data = body.content_type, body.data
            if first:
                self._read_query(request, ())
                await self.found.target.served.reader.check(request)
            first = False
            yield request

    # --- replies ----------------------------------------------------------------------------

    async def pack(self, exchange: Exchange, reply: Any) -> bytes:
        """The reply as a serialised HttpBody."""
        if isinstance(reply, bytes):
            return reply
        if self.media == NOTHING:
            return http_body(b"")
        if isinstance(reply, JsonPage):
            return await self._pack_page(exchange, reply)
        form = "-xml" if self.media == XML else ""
        if self.conditions.describe(_etag_of(reply), self.verb, exchange.headers, form):
            return http_body(b"", self.media)
        if isinstance(reply, JsonRecord):
            data = reply.data
        else:
            encode = _reply_writer(exchange).encode
            data = await offload_large(reply.ByteSize(), encode, reply)
        if self.media == XML:
            encode_xml = _xml_replies(exchange, reply).encode_record
            data = await offload_large(len(data), encode_xml, data)
        return http_body(data, self.media)

    async def _pack_page(self, exchange: Exchange, page: JsonPage) -> bytes:
        if self.media != XML:
            return http_body(page.encode(), JSON)
        if page.token and not self.headers_only:  # it tells of records, as a body would
            exchange.headers[NEXT_PAGE] = page.token
        size = sum(len(record.data) for record in page.records)
        encode = _xml_replies(exchange, page).encode_page
        return http_body(await offload_large(size, encode, page), XML)

    async def finish(self, exchange: Exchange, reply: bytes | None) -> None:
        """Send the reply of a method without a stream of them."""
        await finish_call(exchange, reply, headers_only=self.headers_only)

    async def frame(self, exchange: Exchange, data: bytes) -> bytes:
        """A message of a streaming reply: a piece of a file, or lines of a feed."""
        if exchange.method.sends_file:
            return data
        if self._lines is None:
            self._lines = FeedLines(exchange, lambda: _reply_writer(exchange))
        return await self._lines.frame(data)

    # --- errors -----------------------------------------------------------------------------

    async def refuse(self, exchange: Exchange, refusal: Refusal) -> NoReturn:
        """Answer with the error (see ``refuse_call``)."""
        if self.verb == "GET" and ends_reconnection(exchange, refusal):
            await end_reconnection(exchange, refusal)
        http = self.conditions.status_of(refusal.reason)
        body, streams = self.found.rule.body, self.found.target.route.streams_request
        if body and not streams and not self.xml_body:
            name_in_json(refusal.status, body)
        await refuse_call(exchange, refusal, http, headers_only=self.headers_only)


def _parse_call(data: bytes) -> Any:
    try:
        return HttpCall.FromString(data).penstock_body
    except DecodeError as exc:
        raise RequestMalformed("the body cannot be read") from exc


def _load_json(data: bytes) -> Any:
    """JSON of a body. Raises RequestMalformed."""
    if not data.strip():
        raise RequestMalformed("the body is empty; it must be a JSON object")
    if data.count(b"{") + data.count(b"[") > _MOST_NODES:
        raise RequestTooLarge("the body has too many objects and arrays; use an import")
    try:
        return load_json(data)
    except ValueRefused as refused:
        raise RequestMalformed(f"the body {refused.reason}") from None


def _etag_of(reply: Any) -> str:
    """The etag of a reply that is one resource; "" for others."""
    if isinstance(reply, JsonRecord):
        return reply.etag
    return str(reply.etag) if "etag" in type(reply).DESCRIPTOR.fields_by_name else ""


def _reply_writer(exchange: Exchange) -> ReplyWriter:
    """Writes replies with records as far as the caller may see them."""
    catalog = exchange.hub.catalog
    records: dict[str, EncodeRecord] = {
        d.message_type.full_name: functools.partial(_encode_populated, d) for d in catalog
    }
    records |= {name: shown.encode for name, shown in exchange.shown.items()}
    return ReplyWriter(records, catalog.pool, exchange.columns)


def _xml_replies(exchange: Exchange, reply: Any) -> XmlReplies:
    """Writes a reply with records as XML: what is shown of them, or of a message what is set."""
    dataset = exchange.hub.catalog[exchange.method.dataset or ""]
    shown = exchange.shown.get(dataset.message_type.full_name)
    return XmlReplies(dataset, (shown or _populated_json(dataset, reply)).fields)


def _encode_populated(dataset: Dataset, record: Message) -> bytes:
    """A record of which only what is set is shown."""
    return _populated_json(dataset, record).encode(record)


def _populated_json(dataset: Dataset, record: Message) -> RecordJson:
    given = set(populated_paths(dataset, record))
    return RecordJson(dataset, [f for f in dataset.fields if f.path in given])
