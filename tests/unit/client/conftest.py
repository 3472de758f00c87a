"""A hub for the client's tests: the gRPC services and the token endpoint on one port.

It keeps records in dicts and implements only as much of the contract as the client uses.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import grpc
import pytest
from google.api import httpbody_pb2
from google.protobuf import empty_pb2, json_format
from google.rpc import error_details_pb2, status_pb2

from harness import PATIENCE
from penstock.client.stubs import Stubs, known_datasets, load_stubs
from penstock.hub.v1 import datasets_pb2, receipts_pb2

SECRETS = {"admin": "s3cret"}
API_KEY = "key-1"


class Refusal(Exception):
    """An error that the fake hub returns instead of a reply."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str = "",
        violations: tuple[tuple[str, str], ...] = (),
        **metadata: str,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status_pb2.Status(code=code.value[0], message=message)
        if reason:
            info = error_details_pb2.ErrorInfo(reason=reason, domain="penstock", metadata=metadata)
            self.status.details.add().Pack(info)
        if violations:
            bad = error_details_pb2.BadRequest()
            for field, description in violations:
                bad.field_violations.add(field=field, description=description)
            self.status.details.add().Pack(bad)


#: A stream of changes that stays open and sends nothing.
HOLD = object()
UNSCRIPTED = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "The test expects no further call.")


class FakeHub:
    """Records by dataset and key. Each of ``refusals`` answers one call.

    An export breaks off before chunk ``refuse_stream_after``, ``breaks`` times; ``receipt`` changes
    its receipt, None omits it.
    """

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {name: {} for name in known_datasets()}
        self.calls: list[str] = []
        self.metadata: list[dict[str, str]] = []
        self.requests: list[Any] = []
        self.refusals: list[Refusal | None] = []
        self.refuse_stream_after: int | None = None
        self.breaks = 1_000_000
        self.resumable = True
        self.receipt: dict[str, Any] | None = {}
        self.export_chunks = [b"customer_id,name\n", b"c1,Ada\n"]
        self.uploads: list[bytes] = []
        self.upload_ended = threading.Event()
        self.upload_is_cancelled = False
        self.tokens_issued = 0
        self.token_life = 900
        self.valid_tokens: set[str] = set()
        self.token_answer: tuple[int, bytes] | None = None
        self.url = ""
        #: The messages of each stream of changes; see ``watch``.
        self.streams: list[list[Any]] = []
        self.holding = threading.Event()
        self.cancelled = threading.Event()
        #: The answers to polls, in turn: messages, or refusals.
        self.polls: list[Any] = []

    # --- the dataset services ---

    async def unary(self, stubs: Stubs, method: str, request: Any, context: Any) -> Any:
        await self.admit(method, request, context)
        if method.endswith("Changes"):
            return _said(self.polls.pop(0) if self.polls else UNSCRIPTED)
        records = self.records[stubs.dataset]
        verb = method.removesuffix(stubs.plural).removesuffix(stubs.singular)
        return getattr(self, f"_{verb.lower()}")(stubs, method, request, records)

    def _get(self, stubs: Stubs, method: str, request: Any, records: dict[str, Any]) -> Any:
        key = getattr(request, stubs.key)
        if key not in records:
            raise Refusal(
                grpc.StatusCode.NOT_FOUND,
                f"{stubs.dataset} has no record '{key}'.",
                "RECORD_NOT_FOUND",
                dataset=stubs.dataset,
            )
        return records[key]

    def _list(self, stubs: Stubs, method: str, request: Any, records: dict[str, Any]) -> Any:
        start, size = int(request.page_token or 0), request.page_size or 2
        page = [records[key] for key in sorted(records)][start : start + size]
        token = str(start + size) if start + size < len(records) else ""
        reply = _reply_class(stubs, method)(next_page_token=token)
        getattr(reply, stubs.page_field(method)).extend(page)
        return reply

    def _create(self, stubs: Stubs, method: str, request: Any, records: dict[str, Any]) -> Any:
        record = getattr(request, stubs.record_field(method))
        key = getattr(record, stubs.key)
        if key in records:
            raise Refusal(grpc.StatusCode.ALREADY_EXISTS, f"'{key}' exists.", "RECORD_EXISTS")
        records[key] = record
        return record

    def _update(self, stubs: Stubs, method: str, request: Any, records: dict[str, Any]) -> Any:
        record = getattr(request, stubs.record_field(method))
        stored = records[getattr(record, stubs.key)]
        if request.etag and request.etag != stored.etag:
            raise Refusal(grpc.StatusCode.ABORTED, "The record has changed.", "ETAG_MISMATCH")
        request.update_mask.MergeMessage(record, stored, True, True)
        for path in request.update_mask.paths:
            named = record.DESCRIPTOR.fields_by_name.get(path)
            if named is not None and named.has_presence and not record.HasField(path):
                stored.ClearField(path)
        return stored

    def _delete(self, stubs: Stubs, method: str, request: Any, records: dict[str, Any]) -> Any:
        records.pop(getattr(request, stubs.key))
        return empty_pb2.Empty()

    def _batchupsert(self, stubs: Stubs, method: str, request: Any, records: dict[str, Any]) -> Any:
        given = getattr(request, stubs.record_field(method))
        created = sum(getattr(record, stubs.key) not in records for record in given)
        records.update((getattr(record, stubs.key), record) for record in given)
        return _reply_class(stubs, method)(
            created_count=created, updated_count=len(given) - created
        )

    async def upload(self, stubs: Stubs, method: str, requests: Any, context: Any) -> Any:
        parts: list[Any] = []
        try:
            async for request in requests:
                parts.append(request)
            # A cancelled stream ends like a complete one; the cancellation itself comes a moment
            # later.
            await asyncio.sleep(PATIENCE if self.upload_is_cancelled else 0)
        finally:
            self.upload_ended.set()
        await self.admit(method, parts, context)
        data = b"".join(part.file.data for part in parts)
        self.uploads.append(data)
        rows = [json.loads(line) for line in data.splitlines()] if data[:1] == b"{" else []
        for row in rows:
            record = json_format.ParseDict(row, stubs.record_class())
            self.records[stubs.dataset][getattr(record, stubs.key)] = record
        count = len(rows) or max(0, data.count(b"\n") - 1)
        return _reply_class(stubs, method)(row_count=count, created_count=count)

    async def stream(
        self, stubs: Stubs, method: str, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        await self.admit(method, request, context)
        if request.resume_receipt and not self.resumable:
            text = "The state of the data is no longer kept."
            code = grpc.StatusCode.FAILED_PRECONDITION
            raise Refusal(code, text, "EXPORT_NOT_RESUMABLE")
        await context.send_initial_metadata((("penstock-receipt", "r1"),))
        digest, size, rows = hashlib.sha256(), 0, 0
        for number, chunk in enumerate(self.export_chunks):
            if number == self.refuse_stream_after and self.breaks:
                self.breaks -= 1
                raise Refusal(grpc.StatusCode.UNAVAILABLE, "The database cannot be reached.")
            digest.update(chunk)
            had, size, rows = max(0, request.resume_offset - size), size + len(chunk), rows + 1
            if chunk[had:]:
                yield httpbody_pb2.HttpBody(content_type="text/csv", data=chunk[had:])
        if self.receipt is not None:
            receipt = receipts_pb2.Receipt(
                receipt_id="r1",
                state=receipts_pb2.Receipt.COMPLETE,
                row_count=rows,
                byte_count=size,
                sha256=digest.hexdigest(),
            )
            receipt.MergeFrom(receipts_pb2.Receipt(**self.receipt))
            context.set_trailing_metadata((("penstock-receipt-bin", receipt.SerializeToString()),))

    async def watch(
        self, stubs: Stubs, method: str, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        """Send the first of ``streams``: messages, refusals, or HOLD until the client cancels. At
        its end the stream closes normally. Further streams get a refusal that no feed retries."""
        await self.admit(method, request, context)
        for said in self.streams.pop(0) if self.streams else [UNSCRIPTED]:
            if said is not HOLD:
                yield _said(said)
                continue
            self.holding.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.cancelled.set()

    async def datasets(self, request: Any, context: Any) -> Any:
        await self.admit("ListDatasets", request, context)
        field = datasets_pb2.Field(
            path="email",
            json_path="email",
            type=datasets_pb2.Field.STRING,
            nullable=True,
            mask=datasets_pb2.Field.PARTIAL,
            description="Where to write to.",
        )
        setattr(field, "class", 3)
        customers = datasets_pb2.Dataset(
            name="customers", title="Customers", actions=["get", "list"], fields=[field]
        )
        return datasets_pb2.ListDatasetsResponse(datasets=[customers])

    async def admit(self, method: str, request: Any, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        self.calls.append(method)
        self.requests.append(request)
        self.metadata.append(metadata)
        if self.refusals and (refusal := self.refusals.pop(0)) is not None:
            raise refusal
        bearer = metadata.get("authorization", "").removeprefix("Bearer ")
        if bearer not in self.valid_tokens and metadata.get("x-api-key") != API_KEY:
            raise Refusal(
                grpc.StatusCode.UNAUTHENTICATED, "Valid credentials are needed.", "UNAUTHENTICATED"
            )

    # --- the token endpoint ---

    def token(self, form: dict[str, str]) -> tuple[int, bytes]:
        if self.token_answer:
            return self.token_answer
        if SECRETS.get(form.get("client_id", "")) != form.get("client_secret"):
            error = {"error": "invalid_client", "error_description": "Unknown client or secret."}
            return 401, json.dumps(error).encode()
        self.tokens_issued += 1
        token = f"token-{self.tokens_issued}"
        self.valid_tokens.add(token)
        reply = {"access_token": token, "token_type": "Bearer", "expires_in": self.token_life}
        return 200, json.dumps(reply).encode()


def _said(message: Any) -> Any:
    if isinstance(message, Refusal):
        raise message
    return message


def _reply_class(stubs: Stubs, method: str) -> Any:
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(stubs.methods[method].output_type)


class _Services(grpc.GenericRpcHandler):
    def __init__(self, hub: FakeHub) -> None:
        self._hub = hub
        self._stubs = {load_stubs(name).plural: load_stubs(name) for name in known_datasets()}

    def service(self, details: Any) -> Any:
        service, method = details.method.rsplit("/", 1)
        if method == "ListDatasets":
            return grpc.unary_unary_rpc_method_handler(
                _refusing(self._hub.datasets), datasets_pb2.ListDatasetsRequest.FromString, _bytes
            )
        stubs = self._stubs.get(service.rsplit(".", 1)[1])
        if stubs is None or method not in stubs.methods:
            return None
        request = stubs.request(method).FromString
        if method.startswith("Import"):
            return grpc.stream_unary_rpc_method_handler(
                _refusing(_bound(self._hub.upload, stubs, method)), request, _bytes
            )
        if method.startswith(("StreamExport", "Watch")):
            stream = self._hub.watch if method.startswith("Watch") else self._hub.stream
            return grpc.unary_stream_rpc_method_handler(
                _refusing_stream(_bound(stream, stubs, method)), request, _bytes
            )
        return grpc.unary_unary_rpc_method_handler(
            _refusing(_bound(self._hub.unary, stubs, method)), request, _bytes
        )


def _bound(call: Callable[..., Any], stubs: Stubs, method: str) -> Callable[..., Any]:
    return lambda request, context: call(stubs, method, request, context)


def _bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _refusing(call: Callable[..., Any]) -> Callable[..., Any]:
    async def handler(request: Any, context: Any) -> Any:
        try:
            return await call(request, context)
        except Refusal as refusal:
            await _refuse(refusal, context)

    return handler


def _refusing_stream(call: Callable[..., Any]) -> Callable[..., Any]:
    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for reply in call(request, context):
                yield reply
        except Refusal as refusal:
            await _refuse(refusal, context)

    return handler


async def _refuse(refusal: Refusal, context: Any) -> None:
    context.set_trailing_metadata(
        (
            ("grpc-status-details-bin", refusal.status.SerializeToString()),
            ("x-request-id", "req-1"),
        )
    )
    await context.abort(refusal.code, refusal.status.message)


class _Front:
    """One port for HTTP/2 (gRPC) and HTTP/1.1 (tokens), which their first bytes distinguish."""

    def __init__(self, hub: FakeHub, grpc_port: int) -> None:
        self._hub = hub
        self._grpc_port = grpc_port
        self._tasks: set[asyncio.Task[Any]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            head = await reader.readexactly(4)
            if head == b"PRI ":
                await self._tunnel(head, reader, writer)
            else:
                await self._http(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # asyncio's streams complain about cancelled tasks
        finally:
            writer.close()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _http(self, head: bytes, reader: Any, writer: Any) -> None:
        text = (head + await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(
            line.lower().split(": ", 1) for line in text.split("\r\n")[1:] if ": " in line
        )
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        form = dict(urllib.parse.parse_qsl(body.decode()))
        code, reply = (
            self._hub.token(form) if text.startswith("POST /oauth2/token ") else (404, b"no")
        )
        writer.write(
            f"HTTP/1.1 {code} X\r\nx-request-id: req-2\r\nconnection: close\r\n"
            f"content-length: {len(reply)}\r\n\r\n".encode()
            + reply
        )
        await writer.drain()

    async def _tunnel(self, head: bytes, reader: Any, writer: Any) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", self._grpc_port)
        outer.write(head)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, outer))
                group.create_task(_pump(inner, writer))
        except* ConnectionError:
            pass
        finally:
            outer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def _serve(hub: FakeHub, ready: Future[str], stop: asyncio.Event) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Services(hub),))
    front = _Front(hub, server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    listener = await asyncio.start_server(front.accept, "127.0.0.1", 0)
    ready.set_result(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    await stop.wait()
    listener.close()
    await front.close()
    await server.stop(None)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    hub, ready, stop = FakeHub(), Future[str](), asyncio.Event()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(_serve(hub, ready, stop),))
    thread.start()
    try:
        hub.url = ready.result(PATIENCE)
        yield hub
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
        loop.close()


@pytest.fixture
def hold() -> object:
    return HOLD


@pytest.fixture
def refusal() -> type[Refusal]:
    return Refusal
