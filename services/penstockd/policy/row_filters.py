"""Row filters of grants: the expressions, and the predicates in SQL that they become.

They resolve their names against all fields of a dataset: a rule may compare what it hides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import (
    ColumnElement,
    FromClause,
    Text,
    and_,
    cast,
    exists,
    false,
    literal_column,
    or_,
    select,
)

from penstockd.catalog import Catalog, Dataset, Field
from penstockd.policy.model import Grant
from penstockd.query import Expression, FilterError, Names, Wrap, compile_filter, parse_rule
from penstockd.store.tables import Tables

Claims = Mapping[str, Sequence[str]]
#: A row rule, and the same in SQL.
Rendered = tuple[Expression, ColumnElement[bool]]

_log = structlog.get_logger(__name__)


class RowNames:
    """All fields of a dataset in the clear, with references, for row rules to resolve against."""

    def __init__(
        self, dataset: Dataset, catalog: Catalog, tables: Tables, table: FromClause
    ) -> None:
        self._dataset, self._catalog, self._tables = dataset, catalog, tables
        self._table = table

    def fields(self) -> Sequence[Field]:
        """All fields, in the order of the schema."""
        return self._dataset.fields

    def field(self, path: str) -> Field | None:
        """The field with this proto or JSON path, or None."""
        return self._dataset.by_path.get(path) or self._dataset.by_json_path.get(path)

    def members(self, field: Field) -> Sequence[Field]:
        """All members of a list or map of messages."""
        return field.members

    def column(self, field: Field) -> ColumnElement[Any]:
        """The field's column."""
        return readable_column(self._table, field)

    def follow(self, alias: str) -> tuple[Names, Wrap] | None:
        """The dataset of a reference, and how a predicate on it becomes a predicate here."""
        field = self._dataset.references.get(alias)
        if field is None or field.reference is None:
            return None
        target = self._catalog[field.reference.dataset]
        table = self._tables[target.name].alias()
        here = self._table.c[field.path]
        (key,) = target.key_fields

        def wrap(predicate: ColumnElement[bool]) -> ColumnElement[bool]:
            joined = and_(table.c[key.path] == here, predicate)
            return exists(select(literal_column("1")).select_from(table).where(joined))

        return RowNames(target, self._catalog, self._tables, table), wrap


def readable_column(table: FromClause, field: Field) -> ColumnElement[Any]:
    """The field's value as readers see it: an etag is stored as a number and shown as text."""
    column: ColumnElement[Any] = table.c[field.path]
    return cast(column, Text()) if field.is_etag else column


def check_grant(grant: Grant, catalog: Catalog, tables: Tables) -> None:
    """Raise FilterError or FieldUnknown if the grant's row filter cannot be applied.

    Claims cannot be checked here: a consumer whose claims are not valid values of the fields that
    they are compared with sees no rows.
    """
    dataset = catalog[grant.dataset]
    names = RowNames(dataset, catalog, tables, tables[dataset.name])
    parse_rule(grant.row_filter).check(names)


def bind_rule(grant: Grant, claims: Claims) -> Expression | None:
    """A grant's row rule with these claims; None if it shows no rows. Raises FilterError."""
    return parse_rule(grant.row_filter).bound(claims)


def filter_rows(
    grants: Sequence[Grant], names: RowNames, claims: Claims
) -> ColumnElement[bool] | None:
    """Rows that any of the grants shows; None for all rows. Without grants there are no rows."""
    rules = collect_rules(grants, names, claims)
    return None if rules is None else join_rules(rules)


def collect_rules(
    grants: Sequence[Grant], names: RowNames, claims: Claims
) -> Sequence[Rendered] | None:
    """The rules of the grants; a row must match any of them. None for all rows."""
    if any(not g.row_filter for g in grants):
        return None
    shown = [_render_grant(g, names, claims) for g in {g.row_filter: g for g in grants}.values()]
    return [s for s in shown if s is not None]


def join_rules(rules: Sequence[Rendered]) -> ColumnElement[bool]:
    """Rows that match any of the rules; without rules there are no rows."""
    return or_(*[predicate for _, predicate in rules]) if rules else false()


def _render_grant(grant: Grant, names: RowNames, claims: Claims) -> Rendered | None:
    """A grant's row filter, also in SQL; None if it shows nothing with these claims."""
    try:
        rule = bind_rule(grant, claims)
        return None if rule is None else (rule, compile_filter(rule, names))
    except FilterError:
        # A claim is not a valid value of the field that it is compared with. A rule without claims
        # is checked when it is written; if the model has changed since, it shows nothing either.
        _log.warning("row_filter_unfit", role=grant.role, dataset=grant.dataset)
        return None
