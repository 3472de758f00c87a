"""Shapes in calls: whose they are, and how an export or a page takes one."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from penstockd.calls import Call, ReadingOrgans
from penstockd.catalog import Catalog, Dataset
from penstockd.errors import PermissionDenied, ValueInvalid
from penstockd.policy.model import Action
from penstockd.policy.view import View
from penstockd.shapes.columns import ShapedView
from penstockd.shapes.model import ShapeDefinition, check_definition, parse_reference
from penstockd.store.database import Connection, Database
from penstockd.store.shapes import StoredShape, find_shape

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChosenShape:
    """The version of a consumer's shape that a call uses. ``document`` is its JSON."""

    owner: str
    shape_id: str
    version: int
    document: str

    @property
    def name(self) -> str:
        """``id@version``."""
        return f"{self.shape_id}@{self.version}"

    @property
    def dataset(self) -> str:
        """The dataset of its records."""
        return ShapeDefinition.parse(self.document).dataset

    @property
    def digest(self) -> str:
        """The SHA-256 of the definition: another shape may later have the same name."""
        return hashlib.sha256(self.document.encode()).hexdigest()

    def in_view(self, view: View) -> ShapedView:
        """Its columns in a View. Raises ValueInvalid, which names what the View does not show."""
        return ShapedView(view, self.document)


def shows_shape(call: Call, shape: StoredShape) -> bool:
    """Whether the call's token may read the dataset of a shape."""
    return call.reaches(ShapeDefinition.parse(shape.definition).dataset, Action.READ)


async def choose_shape(
    organs: ReadingOrgans, call: Call, dataset: Dataset, reference: str
) -> ChosenShape | None:
    """The caller's shape that a request names by ``id`` or ``id@version``; None if it names none.

    Raises ShapeNotFound, and ValueInvalid for a shape of another dataset.
    """
    chosen = await choose_shapes(organs, call, [dataset], [reference] if reference else [])
    return chosen.get(dataset.name)


async def choose_shapes(
    organs: ReadingOrgans, call: Call, datasets: Sequence[Dataset], references: Sequence[str]
) -> Mapping[str, ChosenShape]:
    """The caller's shapes that a request names, by dataset: at most one for each of ``datasets``,
    all of which the caller may read.

    Raises ShapeNotFound, and ValueInvalid for a shape of another dataset and for a second one.
    """
    names = [dataset.name for dataset in datasets]
    chosen: dict[str, ChosenShape] = {}
    if not references:
        return chosen
    owner = call.principal.consumer_id
    async with organs.database.connection() as connection:
        for reference in references:
            shape_id, version = parse_reference(reference)
            found, definition = await find_own_shape(call, connection, owner, shape_id, version)
            if definition.dataset not in names:
                raise ValueInvalid.of("shape", f"belongs to the dataset {definition.dataset}")
            if definition.dataset in chosen:
                raise ValueInvalid.of(
                    "shape", f"is the second shape of the dataset {definition.dataset}"
                )
            chosen[definition.dataset] = ChosenShape(
                owner, found.shape_id, found.version, found.definition
            )
    call.asked(
        shape=", ".join(shape.name for shape in chosen.values()),
        shape_sha256=", ".join(shape.digest for shape in chosen.values()),
    )
    return chosen


def shape_owner(catalog: Catalog, call: Call) -> str:
    """The consumer whose shapes the caller may use: its own.

    Raises PermissionDenied if the caller may not read any dataset: such a caller does not learn
    which shapes exist.
    """
    call.readable(catalog)
    return call.principal.consumer_id


async def find_own_shape(
    call: Call, connection: Connection, owner: str, shape_id: str, version: int = 0
) -> tuple[StoredShape, ShapeDefinition]:
    """A version of a shape of ``owner``, the latest if 0, and what it defines.

    The token's scopes count, since a definition names fields: they must allow reading the dataset.
    Raises ShapeNotFound and PermissionDenied.
    """
    found = await find_shape(connection, owner, shape_id, version)
    definition = ShapeDefinition.parse(found.definition)
    if not call.reaches(definition.dataset, Action.READ):
        raise PermissionDenied(
            f"the shape is of {definition.dataset}, which your token may not read"
        )
    return found, definition


def check_shape(call: Call, definition: ShapeDefinition) -> ShapedView:
    """The columns of a definition that the caller's View can fill now.

    Raises ValueInvalid and PermissionDenied.
    """
    # The error is the same whether the dataset exists or not.
    view = call.policy.view(call.principal, definition.dataset, Action.READ)
    check_definition(definition)
    document = definition.document().decode()
    shaped = ShapedView(view, document)
    call.asked(definition=document)
    return shaped


async def change_shapes(
    database: Database, call: Call, shape_id: str, work: Callable[[Connection], Awaitable[T]]
) -> T:
    """Run ``work`` to its end in one transaction with its audit entry, and return its result."""
    call.entry.record_key = shape_id
    return await call.write(database.transaction(), work)
