"""The service Datasets: what a caller may read and write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.hub.v1 import datasets_pb2
from penstockd.catalog import Field
from penstockd.catalog.rules import Rules
from penstockd.commands.list_datasets import list_datasets
from penstockd.commands.xml_schema import xml_schema
from penstockd.policy.model import Mask
from penstockd.policy.view import View
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.frames import http_body
from penstockd.rpc.routes import routes_of

_SERVICE = datasets_pb2.DESCRIPTOR.services_by_name["Datasets"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "ListDatasets": _list_datasets,
            "GetXmlSchema": _get_xml_schema,
        },
        documents={"GetXmlSchema"},
    )


async def _list_datasets(
    request: datasets_pb2.ListDatasetsRequest, call: ServedCall
) -> datasets_pb2.ListDatasetsResponse:
    views = list_datasets(call.hub, call)
    return datasets_pb2.ListDatasetsResponse(datasets=[_dataset_message(v) for v in views])


async def _get_xml_schema(request: datasets_pb2.GetXmlSchemaRequest, call: ServedCall) -> bytes:
    schema = xml_schema(call.hub, call, request.dataset)
    return http_body(schema, "application/xml")


def _dataset_message(view: View) -> datasets_pb2.Dataset:
    dataset = view.dataset
    return datasets_pb2.Dataset(
        name=dataset.name,
        title=dataset.title,
        description=dataset.description,
        actions=sorted(view.actions),
        fields=[_field_message(f, view) for f in view.fields()],
    )


def _field_message(field: Field, view: View) -> datasets_pb2.Field:
    mask, need = view.mask(field), Rules.of(view.dataset).needs.get(field.path)
    return datasets_pb2.Field(
        path=field.path,
        json_path=field.json_path,
        type=field.kind.name,
        **{"class": int(field.field_class)},
        nullable=field.nullable,
        output_only=field.output_only,
        mask=None if mask is Mask.CLEAR else mask.name,
        description=field.description,
        members=[
            _field_message(m, view)
            for m in field.members
            if not field.recursive and view.mask(m) is not Mask.HIDE
        ],
        optional=field.presence,
        values=_list_values(field),
        required=need is not None and need.required,
        min_length=0 if need is None else need.least,
    )


def _list_values(field: Field) -> Sequence[str]:
    """The names of an enum's values, or of those of its elements; the default comes first."""
    values = (field.element or field).enum_values or {}
    return sorted(values, key=lambda name: (values[name] != 0, values[name]))
