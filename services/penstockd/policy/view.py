"""The View: what one principal may see of one dataset. It is the only door to data.

Reads are built here and nowhere else; filters, sorts and field lists resolve their names against
the View, so that a hidden field does not exist for the caller.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    FromClause,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
)

from penstockd.catalog import Catalog, Dataset, Field
from penstockd.policy.masks import fits, masked
from penstockd.policy.model import Action, Grant, Mask
from penstockd.query import Names, Wrap, compile, parse
from penstockd.store.sql import compile_statement
from penstockd.store.tables import Tables
from penstockd.store.writer import Guard

#: How many compiled reads a View keeps.
PREPARED_READS = 256

R = TypeVar("R")


class View:
    """What some grants show of a dataset, and what they allow to do with it.

    Several grants (a consumer has several roles) show the rows that any of them shows. A field is
    shown as the most generous of them says where all show the same rows, and as the strictest says
    where they do not: a column of one grant never appears in a row that only another one shows.
    """

    def __init__(
        self,
        dataset: Dataset,
        catalog: Catalog,
        tables: Tables,
        grants: Sequence[Grant],
        *,
        revision: int,
        mask_key: bytes,
    ) -> None:
        self.dataset = dataset
        self.revision = revision
        self.grants = tuple(grants)
        self.actions = frozenset[Action]().union(*(g.actions for g in grants))
        self._table = tables[dataset.name]
        self._mask_key = mask_key
        self._reads: OrderedDict[Any, Any] = OrderedDict()
        self._masks = {f: self._combined_mask(f) for f in dataset.fields}
        self._fields = tuple(f for f in dataset.fields if self._masks[f] is not Mask.HIDE)
        self._names = _visible_names(self._fields)
        self.predicate = _row_predicate(dataset, catalog, tables, grants)

    def _combined_mask(self, field: Field) -> Mask:
        masks = [g.mask(field) for g in self.grants]
        same_rows = len({g.row_filter for g in self.grants}) <= 1
        mask = (min if same_rows else max)(masks, key=lambda m: m.strictness, default=Mask.HIDE)
        return mask if fits(field, mask) else Mask.HIDE

    def allows(self, action: Action) -> bool:
        """Whether any grant allows the action."""
        return action in self.actions

    def mask(self, field: Field) -> Mask:
        """What the caller gets of a field."""
        return self._masks[field]

    @cached_property
    def writable(self) -> tuple[Field, ...]:
        """The fields the caller may set: those it sees in the clear and the hub does not own."""
        return tuple(f for f in self._fields if self._masks[f] is Mask.CLEAR and not f.output_only)

    # --- Names: what filters and sorts resolve against ------------------------------------

    def fields(self) -> Sequence[Field]:
        """The visible fields, in the order of the schema."""
        return self._fields

    def field(self, path: str) -> Field | None:
        """The visible field of a proto path or a JSON path; None if there is none to see."""
        return self._names.get(path)

    def column(self, field: Field) -> ColumnElement[Any]:
        """What the caller sees of a field, as SQL: filters and sorts act on the mask too."""
        column: ColumnElement[Any] = self._table.c[field.path]
        if field.path == "etag":
            column = cast(column, Text())
        return masked(field, column, self._masks[field], self._mask_key)

    def follow(self, alias: str) -> tuple[Names, Wrap] | None:
        """Callers' filters do not follow references; only row rules do."""
        return None

    # --- reads ----------------------------------------------------------------------------

    @property
    def key_column(self) -> ColumnElement[str]:
        """The key, which every View shows."""
        column: ColumnElement[str] = self._table.c[self.dataset.key.path]
        return column

    def select(
        self, fields: Sequence[Field], condition: ColumnElement[bool] | None = None
    ) -> Select[Any]:
        """The visible rows, the given visible fields as columns named by their paths."""
        return self.narrow([self.column(f).label(f.path) for f in fields], condition)

    def narrow(
        self, columns: Sequence[ColumnElement[Any]], condition: ColumnElement[bool] | None
    ) -> Select[Any]:
        """The visible rows that meet a condition; ``columns`` are made of ``column``'s."""
        statement = select(*columns).select_from(self._table)
        if self.predicate is not None:
            statement = statement.where(self.predicate)
        return statement if condition is None else statement.where(condition)

    def prepared(self, read: Callable[..., R], *texts: str) -> R:
        """A read (see ``read``) compiled for these texts of the caller.

        The View keeps the latest, since callers repeat themselves. Raises what ``read`` raises.
        """
        prepared: R | None = self._reads.get((read, texts))
        if prepared is None:
            prepared = read(self, *texts)
            self._reads[read, texts] = prepared
            if len(self._reads) > PREPARED_READS:
                self._reads.popitem(last=False)
        else:
            self._reads.move_to_end((read, texts))
        return prepared

    # --- writes ---------------------------------------------------------------------------

    @cached_property
    def guard(self) -> Guard:
        """What a writer checks the rows it touches against."""
        key = self._table.c[self.dataset.key.path]
        wanted = key == any_(bindparam("keys", type_=ARRAY(Text())))
        visible = true() if self.predicate is None else self.predicate
        lock = (
            select(
                *self._table.c,
                func.coalesce(visible, literal_column("false")).label("visible"),
                key.label("__key"),
            )
            .where(wanted)
            .order_by(key)
            .with_for_update(of=self._table)
        )
        leaving = None
        if self.predicate is not None:
            outside = func.coalesce(self.predicate, literal_column("false")).is_(False)
            leaving = compile_statement(
                select(func.count()).select_from(self._table).where(wanted, outside)
            )
        return Guard(compile_statement(lock), leaving)


class RowNames:
    """All fields of a dataset in the clear, references included: what row rules resolve against."""

    def __init__(
        self, dataset: Dataset, catalog: Catalog, tables: Tables, table: FromClause
    ) -> None:
        self._dataset, self._catalog, self._tables = dataset, catalog, tables
        self._table = table

    def fields(self) -> Sequence[Field]:
        """All fields, in the order of the schema."""
        return self._dataset.fields

    def field(self, path: str) -> Field | None:
        """The field of a proto path or a JSON path."""
        return self._dataset.by_path.get(path) or self._dataset.by_json_path.get(path)

    def column(self, field: Field) -> ColumnElement[Any]:
        """The field's column."""
        column: ColumnElement[Any] = self._table.c[field.path]
        return column

    def follow(self, alias: str) -> tuple[Names, Wrap] | None:
        """The dataset that a reference leads to, and how a predicate on it becomes one here."""
        field = self._dataset.references.get(alias)
        if field is None or field.reference is None:
            return None
        target = self._catalog[field.reference.dataset]
        table = self._tables[target.name].alias()
        here = self._table.c[field.path]

        def wrap(predicate: ColumnElement[bool]) -> ColumnElement[bool]:
            joined = and_(table.c[target.key.path] == here, predicate)
            return exists(select(literal_column("1")).select_from(table).where(joined))

        return RowNames(target, self._catalog, self._tables, table), wrap


def check_grant(grant: Grant, catalog: Catalog, tables: Tables) -> None:
    """Raise FilterInvalid or FieldUnknown if the grant's row filter or masks cannot be applied."""
    dataset = catalog[grant.dataset]
    _row_predicate(dataset, catalog, tables, [grant])


def _row_predicate(
    dataset: Dataset, catalog: Catalog, tables: Tables, grants: Sequence[Grant]
) -> ColumnElement[bool] | None:
    """Rows that any of the grants shows; None for all rows."""
    if not grants or any(not g.row_filter for g in grants):
        return None
    names = RowNames(dataset, catalog, tables, tables[dataset.name])
    filters = sorted({g.row_filter for g in grants})
    return or_(*(compile(parse(text), names) for text in filters))


def _visible_names(fields: Sequence[Field]) -> Mapping[str, Field]:
    return {f.json_path: f for f in fields} | {f.path: f for f in fields}
