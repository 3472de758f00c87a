"""One servicer for all datasets: methods, messages and paths come from their descriptors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import message_factory
from google.protobuf.empty_pb2 import Empty

from penstockd.budget import offload_large
from penstockd.calls import Permit
from penstockd.catalog import Catalog, Dataset
from penstockd.catalog.keys import REQUEST_KEY
from penstockd.catalog.record_json import RecordJson
from penstockd.commands.batch_upsert import batch_upsert
from penstockd.commands.create_record import create_record
from penstockd.commands.delete_record import delete_record
from penstockd.commands.digest_records import digest_records
from penstockd.commands.export_page import export_page
from penstockd.commands.get_record import get_record
from penstockd.commands.import_records import import_records
from penstockd.commands.list_changes import list_changes
from penstockd.commands.list_records import list_records
from penstockd.commands.repair_records import repair_records
from penstockd.commands.stream_export import stream_export
from penstockd.commands.update_record import update_record
from penstockd.commands.watch_changes import watch_changes
from penstockd.exports.plan import ExportRequest
from penstockd.exports.receipts import Receipt
from penstockd.feed.watching import Wanted
from penstockd.policy.model import Action
from penstockd.policy.pages import Query
from penstockd.policy.rendering import JsonPage, SelectedJson, render_message
from penstockd.rpc import receipts
from penstockd.rpc.digests import digest_reply, digest_request, repair_reply, repair_request
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import Exchange, Handler, ServedCall
from penstockd.rpc.feeds import StreamReply, poll_reply, show_lenses, wait_of, watch_of
from penstockd.rpc.frames import FRAME_BYTES, NEXT_PAGE, attach_file, http_body
from penstockd.rpc.routes import name_service, routes_of
from penstockd.rpc.writes import (
    GrpcUpload,
    fill_import_report,
    fill_report,
    mark_replayed,
    write_request,
)


def list_routes(catalog: Catalog) -> Iterator[Route]:
    """The routes of every dataset's service. A method without a handler is a defect."""
    for dataset in catalog:
        service = catalog.pool.FindServiceByName(name_service(dataset))
        handlers = DatasetHandlers(dataset, service).by_method()
        yield from routes_of(service, handlers, dataset=dataset.name)


class DatasetHandlers:
    """The handlers of one dataset."""

    def __init__(self, dataset: Dataset, service: Any) -> None:
        self.dataset = dataset
        self._key = REQUEST_KEY if dataset.joins_key else dataset.key.path
        outputs = {m.name: m.output_type for m in service.methods}
        self._reply: Callable[[str], Any] = lambda method: message_factory.GetMessageClass(
            outputs[method]
        )
        message = dataset.message_type.name
        plural = service.name
        self._names = {
            "get": f"Get{message}",
            "list": f"List{plural}",
            "create": f"Create{message}",
            "update": f"Update{message}",
            "delete": f"Delete{message}",
            "batch_upsert": f"BatchUpsert{plural}",
            "import_": f"Import{plural}",
            "export": f"Export{plural}",
            "stream_export": f"StreamExport{plural}",
            "watch": f"Watch{plural}",
            "changes": f"List{message}Changes",
            "digest": f"Digest{plural}",
            "repair": f"Repair{plural}",
        }
        self._list_reply = self._reply(self._names["list"])
        self._list_name = self._list_reply.DESCRIPTOR.fields_by_name[dataset.name].json_name
        self._batch_reply = self._reply(self._names["batch_upsert"])
        self._import_reply = self._reply(self._names["import_"])
        self._changes_reply = self._reply(self._names["changes"])
        self._digest_reply = self._reply(self._names["digest"])
        self._repair_reply = self._reply(self._names["repair"])

    def by_method(self) -> dict[str, Handler]:
        """Handlers by the names that the generator gives the methods."""
        return {name: getattr(self, handler) for handler, name in self._names.items()}

    async def get(self, request: Any, call: ServedCall) -> Any:
        """Get…: one record."""
        key = getattr(request, self._key)
        render = call.exchange.wire.render
        record = await get_record(call.hub, call, self.dataset, key, request.fields, render)
        self._show(call, request.fields)
        return record

    async def list(self, request: Any, call: ServedCall) -> Any:
        """List…: one page."""
        query, form = _read_query(request), call.exchange.wire.page_format
        if form:
            page, token = await export_page(call.hub, call, self.dataset, query, form)
            reply = http_body(page.body, page.content_type)
            return await call.exchange.head_reply(reply, _tell_next(call, token))
        render = call.exchange.wire.render
        records, token = await list_records(call.hub, call, self.dataset, query, render)
        self._show(call, request.fields)
        if render is not render_message:
            return JsonPage(self._list_name, records, token)
        return self._list_reply(**{self.dataset.name: records, "next_page_token": token})

    async def create(self, request: Any, call: ServedCall) -> Any:
        """Create…: a new record."""
        record = getattr(request, self.dataset.singular)
        asked, precision = write_request(request, call.exchange), request.time_precision
        named = call.exchange.named
        reply = await create_record(
            call, self.dataset, record, asked, named, time_precision=precision
        )
        self._show_written(call, Action.CREATE)
        return await mark_replayed(call, reply)

    async def update(self, request: Any, call: ServedCall) -> Any:
        """Update…: some fields of a record."""
        record, mask = getattr(request, self.dataset.singular), request.update_mask.paths
        reply = await update_record(
            call,
            self.dataset,
            record,
            mask,
            request.etag,
            write_request(request, call.exchange),
            key=request.key if self.dataset.joins_key else "",
            allow_missing=request.allow_missing,
            time_precision=request.time_precision,
        )
        actions = (Action.UPDATE, Action.CREATE) if request.allow_missing else (Action.UPDATE,)
        self._show_written(call, *actions)
        return await mark_replayed(call, reply)

    async def delete(self, request: Any, call: ServedCall) -> Any:
        """Delete…: one record."""
        key = getattr(request, self._key)
        await delete_record(
            call,
            self.dataset,
            key,
            request.etag,
            write_request(request, call.exchange),
            allow_missing=request.allow_missing,
        )
        return await mark_replayed(call, Empty())

    async def batch_upsert(self, request: Any, call: ServedCall) -> Any:
        """BatchUpsert…: many records."""
        records = getattr(request, self.dataset.name)
        report = await batch_upsert(
            call,
            self.dataset,
            records,
            write_request(request, call.exchange),
            partial=request.partial,
            time_precision=request.time_precision,
        )
        return await mark_replayed(call, fill_report(self._batch_reply, report))

    async def import_(self, requests: Any, call: ServedCall) -> Any:
        """Import…: an uploaded file."""
        upload = GrpcUpload(requests, call.exchange)
        asked, form = await upload.begun()
        report = await import_records(
            call.hub, call, self.dataset, upload, asked, form, limits=call.hub.imports
        )
        return await mark_replayed(call, fill_import_report(self._import_reply, report))

    async def export(self, request: Any, call: ServedCall) -> bytes:
        """Export…: one page as a file."""
        form = call.exchange.pick_format(request.format)
        query = _read_query(request)
        page, next_token = await export_page(
            call.hub,
            call,
            self.dataset,
            query,
            form,
            request.shape,
            spreadsheet_safe=request.spreadsheet_safe,
            nested=request.nested,
            bom=_read_choice(request, "bom"),
        )
        headers = {"content-disposition": attach_file(page.file_name)}
        if not call.headers_only:  # they tell of the records, which HEAD does not disclose
            headers |= receipts.page_headers(page.body, page.rows, page.records)
        headers |= _tell_next(call, next_token)
        return await call.exchange.head_reply(http_body(page.body, page.content_type), headers)

    async def stream_export(self, request: Any, call: ServedCall) -> None:
        """StreamExport…: a file of any size."""
        export = ExportRequest(
            call.exchange.pick_format(request.format),
            request.filter,
            request.order_by,
            request.fields,
            request.limit,
            request.compression,
            request.spreadsheet_safe,
            request.receipt,
            request.resume_receipt,
            request.resume_offset,
            request.nested,
            request.shape,
            _read_choice(request, "bom"),
        )
        await stream_export(call.hub, call, self.dataset, export, _FileReply(call.exchange))

    async def watch(self, request: Any, call: ServedCall) -> None:
        """Watch…: changes as they come."""
        wanted = Wanted(
            [self.dataset],
            filter=request.filter,
            fields=request.fields,
            operations=request.operations,
            batch_size=request.batch_size,
            include_before=request.include_before,
            transaction_boundaries=request.transaction_boundaries,
            shape_names=_list_shape(request),
        )
        watch, reply = watch_of(request, call.exchange), StreamReply(call.exchange)
        await watch_changes(call.hub, call, wanted, watch, reply)

    async def changes(self, request: Any, call: ServedCall) -> Any:
        """List…Changes: the changes after a cursor."""
        wanted = Wanted(
            [self.dataset],
            filter=request.filter,
            fields=request.fields,
            operations=request.operations,
            batch_size=request.page_size,
            include_before=request.include_before,
            shape_names=_list_shape(request),
        )
        page = await list_changes(call.hub, call, wanted, request.cursor, wait_of(request))
        show_lenses(call.exchange, page.lenses)
        return poll_reply(self._changes_reply, page)

    async def digest(self, request: Any, call: ServedCall) -> Any:
        """Digest…: the records as digests."""
        asked = digest_request(request)
        reply = await digest_records(call.hub, call, self.dataset, asked)
        return digest_reply(self._digest_reply, reply)

    async def repair(self, request: Any, call: ServedCall) -> Any:
        """Repair…: what differs from the caller's copy."""
        repair = await offload_large(request.ByteSize(), repair_request, request)
        reply = await repair_records(call.hub, call, self.dataset, repair)
        self._show(call, repair.fields)
        return repair_reply(self._repair_reply, reply)

    def _show(self, call: ServedCall, fields: str) -> None:
        """Note that the reply shows records as the caller may read them."""
        view = call.view(self.dataset, Action.READ)
        call.exchange.show(self.dataset, view.prepared(SelectedJson, fields).writer)

    def _show_written(self, call: ServedCall, *actions: Action) -> None:
        """Note what the reply to a write shows."""
        view = call.reply_view(self.dataset, *actions)
        if view is not None and call.shows_record:
            call.exchange.show(self.dataset, view.prepared(SelectedJson, "").writer)
        elif call.own_fields:
            call.exchange.show(self.dataset, RecordJson(self.dataset, call.own_fields))


class _FileReply:
    """A stream of HttpBody with a receipt in its headers and trailers."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._first = True

    async def begin(self, receipt_id: str, file_name: str) -> None:
        headers = {"content-disposition": attach_file(file_name), receipts.HEADER: receipt_id}
        await self._exchange.send_headers(headers)

    async def send(self, data: bytes, content_type: str, permit: Permit) -> None:
        for at in range(0, len(data) or 1, FRAME_BYTES):
            piece = data[at : at + FRAME_BYTES] if len(data) > FRAME_BYTES else data
            frame = http_body(piece, content_type if self._first else "")
            self._first = False
            await self._exchange.send(frame, permit)

    def end(self, receipt: Receipt) -> None:
        self._exchange.add_trailers(receipts.make_trailers(receipt, self._exchange.hub.places))


def _tell_next(call: ServedCall, token: str) -> dict[str, str]:
    """The header with the token of the next page. That there is one tells of records, which HEAD
    does not disclose."""
    return {NEXT_PAGE: token} if token and not call.headers_only else {}


def _list_shape(request: Any) -> list[str]:
    return [request.shape] if request.shape else []


def _read_choice(request: Any, name: str) -> bool | None:
    """The value of an optional field; None if it is unset."""
    return bool(getattr(request, name)) if request.HasField(name) else None


def _read_query(request: Any) -> Query:
    return Query(
        request.filter, request.order_by, request.fields, request.page_size, request.page_token
    )
