"""The service Shapes: saved projections for one receiver."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from google.protobuf.empty_pb2 import Empty

from penstock.hub.v1 import shapes_pb2 as pb
from penstockd.commands.shapes.compare_shapes import compare_shapes
from penstockd.commands.shapes.create_shape import create_shape
from penstockd.commands.shapes.delete_shape import delete_shape
from penstockd.commands.shapes.get_shape import get_shape
from penstockd.commands.shapes.list_shapes import list_shapes
from penstockd.commands.shapes.preview_shape import preview_shape
from penstockd.commands.shapes.update_shape import update_shape
from penstockd.rpc import receipts
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.frames import attach_file, http_body
from penstockd.rpc.hub.messages import put_time
from penstockd.rpc.routes import routes_of
from penstockd.shapes.model import (
    ColumnDifference,
    ListRows,
    NumberFormat,
    ShapeColumn,
    ShapeDefinition,
    compare_columns,
)
from penstockd.store.shapes import StoredShape

#: The most columns whose problems a preview names.
MOST_PROBLEMS = 20
#: The most bytes of these problems: many clients of gRPC refuse headers of more than 8 KiB.
MOST_PROBLEM_BYTES = 4096

_SERVICE = pb.DESCRIPTOR.services_by_name["Shapes"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "CreateShape": _create_shape,
            "UpdateShape": _update_shape,
            "GetShape": _get_shape,
            "ListShapes": _list_shapes,
            "DeleteShape": _delete_shape,
            "CompareShapes": _compare_shapes,
            "PreviewShape": _preview_shape,
        },
    )


async def _create_shape(request: pb.CreateShapeRequest, call: ServedCall) -> pb.Shape:
    shape_id, definition = request.shape.shape_id, _read_definition(request.shape)
    return _shape_message(await create_shape(call.hub, call, shape_id, definition))


async def _update_shape(request: pb.UpdateShapeRequest, call: ServedCall) -> pb.Shape:
    shape_id, definition = request.shape.shape_id, _read_definition(request.shape)
    return _shape_message(await update_shape(call.hub, call, shape_id, definition))


async def _get_shape(request: pb.GetShapeRequest, call: ServedCall) -> pb.Shape:
    found, problems = await get_shape(call.hub, call, request.shape_id, request.version)
    reply = _shape_message(found)
    for column in reply.columns:
        column.import_problem = problems.get(column.name, "")
    return reply


async def _list_shapes(request: pb.ListShapesRequest, call: ServedCall) -> pb.ListShapesResponse:
    found, token = await list_shapes(call.hub, call, request.page_size, request.page_token)
    return pb.ListShapesResponse(shapes=map(_shape_message, found), next_page_token=token)


async def _delete_shape(request: pb.DeleteShapeRequest, call: ServedCall) -> Empty:
    await delete_shape(call.hub, call, request.shape_id)
    return Empty()


async def _compare_shapes(
    request: pb.CompareShapesRequest, call: ServedCall
) -> pb.CompareShapesResponse:
    earlier, later = await compare_shapes(
        call.hub, call, request.shape_id, request.from_version, request.to_version
    )
    return pb.CompareShapesResponse(
        differences=map(_difference_message, compare_columns(earlier, later)),
        before_rows=_rows_message(earlier.rows),
        after_rows=_rows_message(later.rows),
    )


async def _preview_shape(request: pb.PreviewShapeRequest, call: ServedCall) -> bytes:
    definition, form = _read_definition(request.shape), request.format or "JSON"
    page, problems = await preview_shape(
        call.hub, call, definition, form, request.filter, request.page_size
    )
    headers = {
        "penstock-import-problems": _format_problems(problems),
        "content-disposition": attach_file(page.file_name),
        **receipts.page_headers(page.body, page.rows, page.records),
    }
    return await call.exchange.head_reply(http_body(page.body, page.content_type), headers)


def _read_definition(message: pb.Shape) -> ShapeDefinition:
    rows = message.rows
    return ShapeDefinition(
        message.dataset,
        list(map(_read_column, message.columns)),
        message.title,
        ListRows(rows.field, rows.skip_empty) if message.HasField("rows") else None,
    )


def _read_column(message: pb.ShapeColumn) -> ShapeColumn:
    def optional(name: str) -> str | None:
        return str(getattr(message, name)) if message.HasField(name) else None

    number = message.number_format
    return ShapeColumn(
        name=message.name,
        field=message.field,
        expression=message.expression,
        constant=optional("constant"),
        join=optional("join"),
        values=dict(message.values),
        otherwise=optional("otherwise"),
        number=NumberFormat(
            number.decimals, number.decimal_separator or ".", number.group_separator
        )
        if message.HasField("number_format")
        else None,
        time=message.time_format,
        default=optional("default_value"),
        skip_on_import=message.skip_on_import,
        row_number=message.row_number,
    )


def _column_message(column: ShapeColumn) -> pb.ShapeColumn:
    message = pb.ShapeColumn(
        name=column.name,
        join=column.join,
        values=column.values,
        otherwise=column.otherwise,
        time_format=column.time,
        default_value=column.default,
        skip_on_import=column.skip_on_import,
    )
    if column.constant is not None:
        message.constant = column.constant
    elif column.expression:
        message.expression = column.expression
    elif column.row_number:
        message.row_number = True
    else:
        message.field = column.field
    if (number := column.number) is not None:
        message.number_format.decimals = number.decimals
        message.number_format.decimal_separator = number.decimal_separator
        message.number_format.group_separator = number.group_separator
    return message


def _shape_message(stored: StoredShape) -> pb.Shape:
    definition = ShapeDefinition.parse(stored.definition)
    message = pb.Shape(
        shape_id=stored.shape_id,
        version=stored.version,
        dataset=definition.dataset,
        title=definition.title,
        columns=map(_column_message, definition.columns),
        rows=_rows_message(definition.rows),
    )
    put_time(message, "create_time", stored.create_time)
    return message


def _rows_message(rows: ListRows | None) -> pb.ListRows | None:
    return None if rows is None else pb.ListRows(field=rows.field, skip_empty=rows.skip_empty)


def _format_problems(problems: Mapping[str, str]) -> str:
    """Why imports refuse columns, as a header: the first ones, if they are many."""
    shown = dict(list(problems.items())[:MOST_PROBLEMS])
    while len(shown) > 1 and len(json.dumps(shown)) > MOST_PROBLEM_BYTES:
        shown.popitem()
    if len(problems) > len(shown):
        shown[""] = f"{len(problems) - len(shown)} more columns cannot be read back"
    return json.dumps(shown)


def _difference_message(found: ColumnDifference) -> pb.ColumnDifference:
    return pb.ColumnDifference(
        name=found.name,
        from_position=found.from_position,
        to_position=found.to_position,
        before=_column_message(found.before) if found.before else None,
        after=_column_message(found.after) if found.after else None,
    )
