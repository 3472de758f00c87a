"""Shapes: saved projections of datasets for one receiver."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from penstock.client.link import Link, Metadata
from penstock.client.pages import walk_pages
from penstock.hub.v1 import shapes_pb2 as api
from penstock.hub.v1 import shapes_pb2_grpc as stubs


@dataclass(frozen=True, slots=True)
class Preview:
    """A file of a few records in a shape. ``import_problems`` says why imports refuse columns of
    the shape, by the columns' names, with "" for the shape as a whole."""

    data: bytes
    import_problems: Mapping[str, str]


class ShapesClient:
    """The caller's shapes at one hub. Every method raises PenstockError.

    Shapes are ``penstock.hub.v1.Shape``; arguments may also be dicts in its JSON form.

        client.shapes.create({"shape_id": "crm", "dataset": "customers", "columns": [
            {"name": "Company", "field": "name"}]})
        client.dataset("customers").download("crm.csv", shape="crm")
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._stub = stubs.ShapesStub(link.channel)

    def latest(self) -> list[api.Shape]:
        """The latest versions of all, by id."""

        def ask(request: api.ListShapesRequest) -> Any:
            return self._link.unary(self._stub.ListShapes, request, safe=True)

        return [*walk_pages(ask, api.ListShapesRequest(), "shapes")]

    def get(self, shape_id: str, version: int = 0) -> api.Shape:
        """One version, the latest if 0."""
        request = api.GetShapeRequest(shape_id=shape_id, version=version)
        return self._ask(self._stub.GetShape, request, safe=True)

    def create(self, shape: api.Shape | Mapping[str, Any]) -> api.Shape:
        """Save a new shape. Raises ValueError for a dict that is none."""
        request = api.CreateShapeRequest(shape=_read_shape(shape))
        return self._ask(self._stub.CreateShape, request)

    def update(self, shape: api.Shape | Mapping[str, Any]) -> api.Shape:
        """Save a new version, with all columns. Raises ValueError for a dict that is none."""
        request = api.UpdateShapeRequest(shape=_read_shape(shape))
        return self._ask(self._stub.UpdateShape, request)

    def delete(self, shape_id: str) -> None:
        """Delete a shape with all versions."""
        request = api.DeleteShapeRequest(shape_id=shape_id)
        self._link.unary(self._stub.DeleteShape, request, safe=False)

    def compare(
        self, shape_id: str, from_version: int = 0, to_version: int = 0
    ) -> api.CompareShapesResponse:
        """How two versions differ, in ``differences`` of columns and in the rows that they make: by
        default the latest two."""
        request = api.CompareShapesRequest(
            shape_id=shape_id, from_version=from_version, to_version=to_version
        )
        found: api.CompareShapesResponse = self._link.unary(
            self._stub.CompareShapes, request, safe=True
        )
        return found

    def preview(
        self,
        shape: api.Shape | Mapping[str, Any],
        format: str = "JSON",
        *,
        filter: str = "",
        rows: int = 0,
    ) -> bytes:
        """A file of a few records in a shape that need not be saved; 0 rows means 10."""
        return self.preview_whole(shape, format, filter=filter, rows=rows).data

    def preview_whole(
        self,
        shape: api.Shape | Mapping[str, Any],
        format: str = "JSON",
        *,
        filter: str = "",
        rows: int = 0,
    ) -> Preview:
        """``preview``, and whether imports can read files in the shape."""
        request = api.PreviewShapeRequest(
            shape=_read_shape(shape), filter=filter, format=format, page_size=rows
        )
        beside = Metadata()
        reply = self._link.unary(self._stub.PreviewShape, request, safe=True, beside=beside)
        problems = json.loads(beside.headers.get("penstock-import-problems") or "{}")
        return Preview(bytes(reply.data), problems)

    def _ask(self, method: Any, request: Any, *, safe: bool = False) -> api.Shape:
        reply: api.Shape = self._link.unary(method, request, safe=safe)
        return reply


def _read_shape(given: api.Shape | Mapping[str, Any]) -> api.Shape:
    """The message itself, or one made of a dict. Raises ValueError."""
    if isinstance(given, api.Shape):
        return given
    try:
        return json_format.ParseDict(dict(given), api.Shape())
    except json_format.ParseError as error:
        raise ValueError(f"that is no shape: {error}") from None
