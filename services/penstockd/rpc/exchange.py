"""One gRPC exchange as the interceptors and handlers see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import grpc
import structlog
from google.rpc import status_pb2

from penstockd import budget
from penstockd.answers.edge import BRIEF
from penstockd.audit.entry import Entry
from penstockd.auth.tickets import ShownTicket
from penstockd.calls import ArrivingCall, Call, Permit
from penstockd.catalog import Dataset
from penstockd.catalog.merging import MergePatch
from penstockd.catalog.record_json import RecordJson
from penstockd.errors import CallTimeout, FormatUnknown, RequestMalformed
from penstockd.formats import MEDIA, pick_format
from penstockd.hub import Hub
from penstockd.metering.admission import Admission
from penstockd.policy.errors import QuotaExhausted
from penstockd.policy.model import Principal
from penstockd.policy.rendering import Render
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.rpc.disclosures import ReplyGuard, Undisclosed
from penstockd.rpc.http_errors import NotAcceptable

#: The seconds that the message of a call may take to arrive: for a caller with valid credentials;
#: and for anybody else, or without a body (the sidecar buffers a body that has no stated length).
MESSAGE_SECONDS, OPEN_MESSAGE_SECONDS = 120.0, 10.0

#: The header of a reply with its HTTP status, where that follows from no status of gRPC: the
#: sidecar sets the status, and shows the header to no client.
STATUS = "x-http-status"

#: No message of protobuf begins with this byte: the field number would be zero.
_UNPARSABLE = b"\x07"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Method:
    """What the server must know about a method before a call."""

    service: str
    name: str
    dataset: str | None = None
    public: bool = False
    audited: bool = True
    #: Whether the reply is a stream, and whether that is one file, sent in pieces.
    streams: bool = False
    sends_file: bool = False

    @property
    def path(self) -> str:
        """The method's name in gRPC."""
        return f"/{self.service}/{self.name}"


class Wire(Protocol):
    """How calls of one kind carry requests, replies and errors: gRPC, or HTTP (``rpc.rest``)."""

    @property
    def holds_headers(self) -> bool:
        """Whether headers wait for the first piece of the reply, so that an error has none."""

    @property
    def headers_only(self) -> bool:
        """Whether nothing but headers leaves."""

    @property
    def ticket(self) -> ShownTicket | None:
        """The ticket in the URL of the call, if it has one; only feeds over HTTP take them."""

    @property
    def render(self) -> Render[Any]:
        """How replies show the rows of records that are read."""

    @property
    def page_format(self) -> str:
        """The format of files in which a page of records leaves; "" if it is a reply like
        others."""

    async def read(self, exchange: Exchange) -> Any:
        """The request of the call; an iterator of them if the method takes a stream."""

    async def pack(self, exchange: Exchange, reply: Any) -> Any:
        """A reply as it leaves: bytes, or a message that the server serialises."""

    async def frame(self, exchange: Exchange, data: bytes) -> bytes:
        """A message of a streaming reply as it leaves; b"" if it leaves nothing."""

    async def refuse(self, exchange: Exchange, refusal: Refusal) -> NoReturn:
        """Answer with an error, which ends the call."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as an answer: its code in gRPC, its reason, and its status with details.

    ``trailers`` go with it in gRPC; those among them that are headers in HTTP are ``headers``.
    """

    code: grpc.StatusCode
    reason: str
    status: status_pb2.Status
    headers: Sequence[tuple[str, str]]
    trailers: Sequence[tuple[str, str | bytes]]


@dataclass(slots=True, repr=False)
class PublicCall(ArrivingCall):
    """The call for the handler of a public method: a call by anyone, and its exchange."""

    exchange: Exchange = field(kw_only=True)

    @property
    def hub(self) -> Hub:
        """The organs of this process."""
        return self.exchange.hub


@dataclass(slots=True, repr=False)
class ServedCall(Call):
    """The call for every other handler: the call of a known caller, and its exchange."""

    exchange: Exchange = field(kw_only=True)

    @property
    def hub(self) -> Hub:
        """The organs of this process."""
        return self.exchange.hub


@dataclass(slots=True, repr=False)
class Exchange:
    """A call in progress: the transport's context, its metadata, and the hub's Call.

    ``arriving`` is the call as far as it is known. ``call`` is set when ``auth`` has identified the
    caller; before that, and in public methods, reading it raises AttributeError.
    """

    hub: Hub
    method: Method
    context: grpc.aio.ServicerContext[Any, Any]
    wire: Wire
    #: The messages of the call, for methods that take several; others use ``receive``.
    requests: Any = None
    metadata: dict[str, str] = field(default_factory=dict)
    #: How the records of the reply are written as JSON, by the names of their messages.
    shown: dict[str, RecordJson] = field(default_factory=dict)
    #: The columns of the shapes in which the reply shows records, by dataset.
    columns: dict[str, Sequence[str]] = field(default_factory=dict)
    #: The paths of the fields that the body of a write names, whatever their values.
    named: Sequence[str] = ()
    #: How a merge patch changes the maps and Structs of its record, by their paths.
    merges: Mapping[str, MergePatch] = field(default_factory=dict)
    #: Headers of the reply, sent or waiting; whether they were sent; whether a piece was.
    headers: dict[str, str] = field(default_factory=dict)
    begun: bool = False
    sent: bool = False
    trailers: dict[str, str | bytes] = field(default_factory=dict)
    guard: ReplyGuard | None = None
    arriving: PublicCall | ServedCall = field(init=False)
    call: ServedCall = field(init=False)
    #: What the caller's plan allows the call; None if nothing limits it.
    admission: Admission | None = None
    _enters_refusal: bool | None = None
    #: The task that sends the latest piece of a file to the client.
    _piece: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        for key, value in self.context.invocation_metadata() or ():
            if isinstance(value, str):
                # A repeated header is kept whole: two credentials count as none (see auth).
                self.metadata[key] = (
                    f"{self.metadata[key]},{value}" if key in self.metadata else value
                )
        entry = Entry(
            request_id="",
            method=self.method.path,
            dataset=self.method.dataset,
            peer=self.metadata.get("x-envoy-external-address") or self.context.peer(),
            surface=self._surface(),
        )
        policy = self.hub.policy.newest
        entry.policy_revision = policy.revision
        self.arriving = PublicCall(entry, policy, exchange=self)

    def admit(self, policy: PolicySnapshot, principal: Principal) -> None:
        """Continue as the call of a principal; only the interceptor ``auth`` names one."""
        entry = self.arriving.entry
        entry.consumer_id, entry.credential_id = principal.consumer_id, principal.credential_id
        self.call = ServedCall(entry, policy, self.hub, principal, exchange=self)
        self.arriving = self.call

    async def receive(self) -> bytes:
        """The message of a call that has one.

        Raises RequestMalformed if none arrives, CallTimeout if it takes too long.
        """
        bodiless = self.metadata.get("x-envoy-original-method") in ("GET", "HEAD")
        brief = self.method.public or bodiless
        seconds = OPEN_MESSAGE_SECONDS if brief else MESSAGE_SECONDS
        try:
            async with asyncio.timeout(seconds):
                message: Any = await self.context.read()
        except TimeoutError as exc:
            raise CallTimeout("the request took too long to arrive") from exc
        if message is grpc.aio.EOF:
            raise RequestMalformed("the call ended without a message")
        data: bytes = message
        return data

    def pick_format(
        self, format: str, *, among: Collection[str] = (), media: Mapping[str, str] = MEDIA
    ) -> str:
        """The format of a reply, by its name or by the header ``Accept`` (see ``pick_format``).

        Raises FormatUnknown for a name, NotAcceptable for a header.
        """
        try:
            return pick_format(format, self.metadata.get("accept"), among=among, media=media)
        except FormatUnknown as unknown:
            if format:
                raise
            raise NotAcceptable(unknown.message) from None

    def _surface(self) -> str:
        """How the call arrived, by the sidecar's headers."""
        if "x-envoy-original-path" in self.metadata:
            return "REST"
        return "GRPC_WEB" if "x-grpc-web" in self.metadata else "GRPC"

    def enters_refusal(self) -> bool:
        """Whether the refusal of a caller without valid credentials gets an audit entry of its own;
        if not, it is counted with others. Decided once for a call."""
        if self._enters_refusal is None:
            peer, claimed = self.arriving.entry.peer or "", self.arriving.claimed
            self._enters_refusal = self.hub.refusals.allow(peer, claimed)
            if claimed is not None:
                self.hub.failed_sign_ins.note(claimed, peer)
        return self._enters_refusal

    async def record(self) -> None:
        """Make the audit entry durable, if the call's own transaction has not done so.

        Only a limited number of refused calls by unknown callers get entries.
        """
        arriving = self.arriving
        if self.method.audited and not arriving.recorded:
            entry = arriving.entry
            if self.wire.headers_only:
                entry.shown, entry.row_count, entry.byte_count = None, 0, 0
            if entry.outcome != "OK":
                entry.byte_count = None  # no reply leaves that was ready
            await self._charge(entry)
            arriving.note_recorded()
            refused = entry.consumer_id is None and entry.outcome != "OK"
            if not refused or self.enters_refusal():
                await self.hub.journal.record(entry)
                if self.admission is not None:
                    self.admission.settle()

    async def _charge(self, entry: Entry) -> None:
        """Complete what the entry spends of quotas. Raises QuotaExhausted: then nothing leaves."""
        if self.admission is None:
            return
        if entry.outcome != "OK":
            return self.admission.charge_failure(entry)
        try:
            await self.admission.charge_reply(entry)
        except QuotaExhausted:
            entry.shown = entry.keys = entry.low_key = entry.high_key = None
            entry.row_count = entry.byte_count = None
            raise

    def tell_status(self, status: int) -> dict[str, str]:
        """The header by which the sidecar sends an HTTP status; none for callers of gRPC."""
        return {STATUS: str(status)} if "x-envoy-original-path" in self.metadata else {}

    def mark_brief(self, status: int) -> dict[str, str]:
        """The header of a refusal by which the sidecar sends it without its body, under this HTTP
        status; none unless the sidecar asks for that, and the caller is not known.
        """
        known = self.arriving.entry.consumer_id is not None
        return {BRIEF: str(status)} if BRIEF in self.metadata and not known else {}

    def show(self, dataset: Dataset, writer: RecordJson) -> None:
        """Note how records of a dataset are written as JSON, if the reply is: what the caller may
        see of them, and selected. Without it only what is set is written."""
        self.shown[dataset.message_type.full_name] = writer

    async def send_headers(self, headers: Mapping[str, str]) -> None:
        """Send headers of the reply. They are the start of the reply, so the audit comes first."""
        await self.record()
        self.headers.update(headers)
        if not self.wire.holds_headers:
            await self.flush_headers()

    async def head_reply(self, reply: bytes, headers: Mapping[str, str]) -> bytes:
        """Send headers of a reply that is ready; returns it. The audit has its size before them."""
        self.arriving.entry.byte_count = len(reply)
        await self.send_headers(headers)
        return reply

    async def flush_headers(self) -> None:
        """Send the headers that wait, with those about the caller's limits. Raises an error of gRPC
        if the call was cut off."""
        self.begun = True
        sent = {**self.headers, **self.limit_headers}
        await self.context.send_initial_metadata(tuple(sent.items()))

    async def begin_reply(self) -> None:
        """Send the headers of the reply, if there are any and none were sent."""
        if not self.begun and (self.headers or self.admission is not None):
            await self.flush_headers()

    @property
    def limit_headers(self) -> Mapping[str, str]:
        """The headers about the caller's limits."""
        return {} if self.admission is None else self.admission.headers

    def add_trailers(self, trailers: Mapping[str, str | bytes]) -> None:
        """Add metadata that follows the reply, whether it succeeds or fails."""
        self.trailers.update(trailers)
        self.context.set_trailing_metadata(tuple(self.trailers.items()))

    async def send(self, frame: bytes, permit: Permit | None = None) -> None:
        """Send a frame of a streaming reply; the audit entry is durable before the first one.

        A frame that shows records leaves only with a permit.
        """
        if permit is None and self.guard is not None and self.guard.shows_records(frame):
            raise Undisclosed(f"{self.method.path} shows records that it did not disclose")
        await self.record()
        frame = await self.wire.frame(self, frame)
        if not frame:
            return
        await self.begin_reply()
        if not self.method.sends_file:
            self.sent = True
            await self.context.write(frame)
            return
        # If the wait is cancelled, the piece is still being sent; ``break_off`` waits for it.
        self._piece = budget.create_task(self._write(frame))
        self._piece.add_done_callback(_retrieve_error)
        await asyncio.shield(self._piece)

    async def break_off(self) -> None:
        """Make a client over HTTP see that what it is receiving is incomplete.

        Without this, the file of a failed call would end as a complete one does: over HTTP/1.1 most
        clients ignore the trailers with the status. The sidecar resets the stream when it receives
        a message that it cannot parse. A client that has stopped reading first gets the rest of its
        last piece; the sidecar limits how long that may take.
        """
        try:
            if self._piece is not None:
                await asyncio.shield(self._piece)
            await self.context.write(_UNPARSABLE)
        except Exception as exc:  # the client is gone: it cannot take the reply for complete
            _log.info("file_not_broken_off", method=self.method.path, error=repr(exc))

    async def _write(self, frame: bytes) -> None:
        self.sent = True
        await self.context.write(frame)


Handler = Callable[[Any, ServedCall], Awaitable[Any]]
PublicHandler = Callable[[Any, PublicCall], Awaitable[Any]]
#: What an interceptor calls to go on.
Proceed = Callable[[Exchange], Awaitable[Any]]


def _retrieve_error(piece: asyncio.Task[None]) -> None:
    """Retrieve the error of a piece that nobody awaits, since its call has ended."""
    if not piece.cancelled():
        piece.exception()
