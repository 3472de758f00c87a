"""Shapes in calls: whose they are, and how an export or a page takes one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from penstockd.calls import Call, ReadingOrgans
from penstockd.catalog import Catalog, Dataset
from penstockd.errors import ValueInvalid
from penstockd.policy.model import Action
from penstockd.policy.view import View
from penstockd.shapes.columns import ShapedView
from penstockd.shapes.model import ShapeDefinition, check_definition, parse_reference
from penstockd.store.database import Connection, Database
from penstockd.store.shapes import find_shape

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChosenShape:
    """The version of a shape that a call uses: ``name`` is ``id@version``."""

    name: str
    document: str

    def in_view(self, view: View) -> ShapedView:
        """Its columns in a View. Raises ValueInvalid, which names what the View does not show."""
        return view.prepared(ShapedView, self.document)


async def choose_shape(
    organs: ReadingOrgans, call: Call, dataset: Dataset, reference: str
) -> ChosenShape | None:
    """The caller's shape that a request names by ``id`` or ``id@version``; None if it names none.

    Raises ShapeNotFound, and ValueInvalid for a shape of another dataset.
    """
    if not reference:
        return None
    shape_id, version = parse_reference(reference)
    async with organs.database.connection() as connection:
        found = await find_shape(connection, shape_owner(call), shape_id, version)
    of = ShapeDefinition.parse(found.definition).dataset
    if of != dataset.name:
        raise ValueInvalid.of("shape", f"is of the dataset {of}")
    name = f"{found.shape_id}@{found.version}"
    call.asked(shape=name)
    return ChosenShape(name, found.definition)


def shape_owner(call: Call) -> str:
    """The consumer whose shapes the caller may use: its own."""
    return call.principal.consumer_id


def check_shape(catalog: Catalog, call: Call, definition: ShapeDefinition) -> str:
    """The JSON of a definition that the caller's View can fill now.

    Raises ValueInvalid and PermissionDenied.
    """
    if definition.dataset not in catalog:
        raise ValueInvalid.of("shape.dataset", "is not a dataset that you may read")
    view = call.view(catalog[definition.dataset], Action.READ)
    check_definition(definition)
    document = definition.document().decode()
    ShapedView(view, document)
    return document


async def change_shapes(
    database: Database, call: Call, shape_id: str, work: Callable[[Connection], Awaitable[T]]
) -> T:
    """Run ``work`` to its end in one transaction with its audit entry, and return its result."""
    call.entry.record_key = shape_id
    return await call.write(database.transaction(), work)
