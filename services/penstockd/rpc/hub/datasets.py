"""What there is to read and write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.hub.v1 import datasets_pb2
from penstockd.commands.list_datasets import list_datasets
from penstockd.policy.model import Mask
from penstockd.policy.view import View
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import Exchange, Method

_SERVICE = "penstock.hub.v1.Datasets"


def routes() -> Iterator[Route]:
    """The service's methods."""
    yield Route(
        Method(_SERVICE, "ListDatasets"),
        _list_datasets,
        datasets_pb2.ListDatasetsRequest.FromString,
        datasets_pb2.ListDatasetsResponse.SerializeToString,
    )


async def _list_datasets(request: Any, exchange: Exchange) -> datasets_pb2.ListDatasetsResponse:
    views = list_datasets(exchange.hub, exchange.call)
    return datasets_pb2.ListDatasetsResponse(datasets=[_dataset(v) for v in views])


def _dataset(view: View) -> datasets_pb2.Dataset:
    dataset = view.dataset
    return datasets_pb2.Dataset(
        name=dataset.name,
        title=dataset.title,
        description=dataset.description,
        actions=sorted(view.actions),
        fields=[
            datasets_pb2.Field(
                path=f.path,
                json_path=f.json_path,
                type=f.kind.name,
                **{"class": int(f.field_class)},
                nullable=f.nullable,
                output_only=f.output_only,
                mask=None if view.mask(f) is Mask.CLEAR else view.mask(f).name,
                description=f.description,
            )
            for f in view.fields()
        ],
    )
