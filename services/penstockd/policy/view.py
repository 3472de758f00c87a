"""The View: what one principal may see of one dataset. It is the only door to data.

Every read is built from a View. Filters, sorts and field lists resolve their names against it, so
that a hidden field does not exist for the caller.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.sql.visitors import iterate

from penstockd.catalog import Catalog, Dataset, Field
from penstockd.catalog.member_nulls import find_null_items
from penstockd.catalog.oneofs import oneofs_of
from penstockd.policy.decision import Combination, FieldDecision, decide_all, decide_field
from penstockd.policy.masks import mask_column
from penstockd.policy.member_nulls import fill_nulls
from penstockd.policy.members import Stripping, is_whole
from penstockd.policy.model import Action, Grant, Mask
from penstockd.policy.row_filters import (
    Claims,
    RowNames,
    collect_rules,
    filter_rows,
    join_rules,
    readable_column,
)
from penstockd.query import (
    And,
    Expression,
    Names,
    Or,
    Wrap,
)
from penstockd.store.extremes import is_extreme
from penstockd.store.sql import Statement, compile_statement
from penstockd.store.tables import Tables
from penstockd.store.uniqueness import Unread
from penstockd.store.writer import Guard

#: The most compiled reads that are kept for all Views that share a cache.
PREPARED_READS = 4096

R = TypeVar("R")
Reads = OrderedDict[Any, Any]


class View:
    """What some grants show of a dataset, and what they allow to do with it.

    Several grants (a consumer has several roles) show the rows that any of them shows. A field has
    the most generous of their masks if all show the same rows, else the strictest: a column of one
    grant never appears in a row that only another grant shows.

    ``on`` are the actions that the View is for. Only grants that allow an action decide what it
    can touch: a caller that may read all customers and update some can update no others. A View for
    two actions (an upsert creates and updates) shows only what the Views for each would both show.
    Without ``on`` every grant counts.

    ``claims`` fill the row rules that use them (see ``query.rules``); they stay bind parameters.
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
        on: Sequence[Action] = (),
        claims: Claims | None = None,
        reads: Reads | None = None,
    ) -> None:
        self.dataset = dataset
        self.revision = revision
        self.grants = tuple(grants)
        self.on = tuple(on)
        self.actions = frozenset[Action]().union(*(g.actions for g in grants))
        self._table = tables[dataset.name]
        self._mask_key = mask_key
        self._reads = OrderedDict() if reads is None else reads
        groups = [[g for g in grants if a in g.actions] for a in on] or [list(grants)]
        self._decisions = {f: d for top in dataset.fields for f, d in decide_all(top, groups)}
        self._derives_etag = self._hide_etag()
        self._masks = {f: d.mask for f, d in self._decisions.items()}
        self._fields = tuple(f for f in dataset.fields if self._masks[f] is not Mask.HIDE)
        self._strippings = {f: Stripping(f, self._masks, self.hash_key) for f in self._stripped()}
        #: The visible fields by their proto and JSON paths.
        self.names: Mapping[str, Field] = {f.json_path: f for f in self._fields} | {
            f.path: f for f in self._fields
        }
        self._row_names = RowNames(dataset, catalog, tables, self._table)
        self._claims: Claims = claims or {}
        rules = [collect_rules(group, self._row_names, self._claims) for group in groups]
        self._rules = [r for r in rules if r is not None]
        narrowing = [join_rules(r) for r in self._rules]
        self.predicate: ColumnElement[bool] | None = and_(*narrowing) if narrowing else None

    def allows(self, action: Action) -> bool:
        """Whether any grant allows the action."""
        return action in self.actions

    def mask(self, field: Field) -> Mask:
        """What the caller sees of a field, or of a member of a repeated message or a map."""
        return self._masks[field]

    def hash_key(self, field: Field) -> bytes:
        """The key of a hashed field's hashes, derived from its hash domain."""
        domain = self._decisions[field].hash_domain
        return hmac.digest(self._mask_key, b"hash domain\n" + domain.encode(), "sha256")

    def hash_domain(self, field: Field) -> str:
        """The domain within which a field's hashes can be joined; "" if it is not hashed."""
        hashed = self._masks[field] is Mask.HASH
        return self._decisions[field].hash_domain if hashed else ""

    @property
    def derives_etag(self) -> bool:
        """Whether the View hides something, and so the stored etag, which counts every change.

        Reads by key and lists then derive an etag from what is shown (see ``etag_of``); filters,
        orders, exports and feeds have none.
        """
        return self._derives_etag

    def etag_of(self, shown: bytes) -> str:
        """The etag of a record that is shown as these bytes, for a View that ``derives_etag``."""
        text = b"etag\n" + self.dataset.name.encode() + b"\n" + shown
        return hmac.digest(self._mask_key, text, "sha256")[:16].hex()

    def stripping(self, field: Field) -> Stripping | None:
        """How a list or map of messages is stripped if some of its members are hidden or masked;
        None for any other field."""
        return self._strippings.get(field)

    @cached_property
    def hidden(self) -> frozenset[Field]:
        """The fields and members that do not exist for the caller."""
        return frozenset(f for f, mask in self._masks.items() if mask is Mask.HIDE)

    @cached_property
    def nulls(self) -> frozenset[Field]:
        """The fields and members that exist for the caller, but never have a value. The etag is
        none of them: replies may derive one."""
        found = (f for f, mask in self._masks.items() if mask is Mask.NULL)
        return frozenset(f for f in found if not f.is_etag)

    def is_whole(self, field: Field) -> bool:
        """Whether the caller sees a field as stored, with all of its members."""
        return is_whole(field, self._masks)

    def seen(self, field: Field) -> Any:
        """What the caller sees of a field, as JSON-ready data that can be compared."""
        if field not in self._strippings:
            domain = self.hash_domain(field)
            return [self._masks[field], domain] if domain else self._masks[field]
        return {f.path: [self._masks[f], self.hash_domain(f)] for f in field.walk()}

    def decision(self, field: Field) -> FieldDecision:
        """The decision on a field, with its reasons."""
        return self._decisions[field]

    @property
    def mask_key(self) -> bytes:
        """The secret from which the keys of hashes are derived."""
        return self._mask_key

    @property
    def row_rule(self) -> Expression | None:
        """The expression behind ``predicate``, over ``row_names``; None for all rows.

        An Or without terms, from grants that show nothing, is false.
        """
        if not self._rules:
            return None
        return And(tuple(Or(tuple(rule for rule, _ in group)) for group in self._rules))

    @property
    def row_names(self) -> Names:
        """All fields of the dataset, including references, for row rules to resolve against."""
        return self._row_names

    @property
    def reads_all_rows(self) -> bool:
        """Whether the caller may read every record that the View shows."""
        read = {g.row_filter for g in self.grants if Action.READ in g.actions}
        return "" in read or all(
            {g.row_filter for g in self.grants if action in g.actions} <= read for action in self.on
        )

    @cached_property
    def writable(self) -> tuple[Field, ...]:
        """The fields the caller may set: those it sees in the clear and the hub does not own.

        A list or map of messages is one value: a caller that does not see all of its members in
        the clear cannot set it, since it would change or erase what it does not see. For the same
        reason it sets a member of a oneof only if it may set all: the others are cleared.
        """
        settable = {f for f in self._fields if self.is_whole(f) and not f.output_only}
        for oneof in oneofs_of(self.dataset):
            leaves = {f for member in oneof.members for f in member}
            if not leaves <= settable:
                settable -= leaves
        return tuple(f for f in self._fields if f in settable)

    # --- Names: what filters and sorts resolve against ------------------------------------

    def fields(self) -> Sequence[Field]:
        """The visible fields, in the order of the schema."""
        return self._fields

    def field(self, path: str) -> Field | None:
        """The visible field with this proto or JSON path, or None."""
        return self.names.get(path)

    def members(self, field: Field) -> Sequence[Field]:
        """The visible members of a list or map of messages; a null member counts as unset."""
        shown = (m for m in field.members if self._masks[m] is not Mask.HIDE)
        return [
            replace(m, presence=True, nullable=True) if self._masks[m] is Mask.NULL else m
            for m in shown
        ]

    def shown(self, field: Field) -> Field:
        """A field with only those members that the caller sees; a copy if it has members."""
        if not field.members or field.recursive:
            return field
        shown = (m for m in field.members if self._masks[m] is not Mask.HIDE)
        return replace(field, members=tuple(self.shown(m) for m in shown))

    def column(self, field: Field) -> ColumnElement[Any]:
        """What the caller sees of a field, as SQL: filters and sorts act on masked values too."""
        column = readable_column(self._table, field)
        if field is self.dataset.key:  # perhaps no field of the record
            return column
        stripping = self._strippings.get(field)
        if stripping is not None:
            return stripping.sql(column)
        return mask_column(field, column, self._masks[field], self.hash_key(field))

    def json_column(self, field: Field) -> ColumnElement[Any]:
        """``column`` for JSON, where members of messages in lists and maps that are masked to null
        are there, as null."""
        items = find_null_items(field, self.nulls, self.hidden)
        column = self.column(field)
        return column if items is None else fill_nulls(items, column)

    def follow(self, alias: str) -> tuple[Names, Wrap] | None:
        """Callers' filters do not follow references; only row rules do."""
        return None

    def _hide_etag(self) -> bool:
        """Make the stored etag null if any other field is not shown whole; return whether it did.

        Even a hash of it would change with every hidden change.
        """
        etag = self.dataset.by_path["etag"]
        own = self._decisions[etag]
        others = (d.mask for f, d in self._decisions.items() if f is not etag)
        if own.mask in (Mask.NULL, Mask.HIDE) or all(mask is Mask.CLEAR for mask in others):
            return False
        self._decisions[etag] = FieldDecision(Mask.NULL, own.says, Combination.ETAG)
        return True

    def _stripped(self) -> list[Field]:
        """The lists and maps of messages that are shown, but not whole."""
        shown = (f for f in self._fields if f.members and self._masks[f] is Mask.CLEAR)
        return [f for f in shown if not self.is_whole(f)]

    # --- reads ----------------------------------------------------------------------------

    @property
    def key_column(self) -> ColumnElement[str]:
        """The key, which every View shows."""
        column: ColumnElement[str] = self._table.c[self.dataset.key.path]
        return column

    def select(
        self, fields: Sequence[Field], condition: ColumnElement[bool] | None = None
    ) -> Select[Any]:
        """The visible rows, with the given visible fields as columns. These have the names of the
        table's columns: PostgreSQL cuts long names off, so two paths could become one name."""
        return self.narrow([self.column(f).label(f.column) for f in fields], condition)

    def narrow(
        self,
        columns: Sequence[ColumnElement[Any]],
        condition: ColumnElement[bool] | None,
        beside: FromClause | None = None,
        *,
        outer: bool = False,
    ) -> Select[Any]:
        """The visible rows that meet a condition; ``columns`` are built from ``column``. With rows
        of a function of the record (``beside``), each of these makes a row; ``outer`` keeps the
        records that have none."""
        table = self._table if beside is None else self._table.join(beside, true(), isouter=outer)
        statement = select(*columns).select_from(table)
        if self.predicate is not None:
            statement = statement.where(self.predicate)
        return statement if condition is None else statement.where(condition)

    def prepared(self, read: Callable[..., R], *texts: str) -> R:
        """A read (see ``read``) compiled for these texts of the caller.

        The latest are cached, since callers repeat themselves. Raises what ``read`` raises.
        """
        key = (self, read, texts)
        prepared: R | None = self._reads.get(key)
        if prepared is None:
            prepared = read(self, *texts)
            self._reads[key] = prepared
            if len(self._reads) > PREPARED_READS:
                self._reads.popitem(last=False)
        else:
            self._reads.move_to_end(key)
        return prepared

    # --- explanations: answers about rows, for administrators ------------------------------

    def showing(self, grants: Sequence[Grant]) -> Statement:
        """Selects, for the record with ``key``, whether each grant shows it.

        There is no row if the record does not exist. Records that the View hides are judged too.
        """
        shown = [filter_rows([g], self._row_names, self._claims) for g in grants]
        columns = [true() if s is None else func.coalesce(s, false()) for s in shown]
        labelled = [c.label(f"__{i}") for i, c in enumerate(columns)]
        wanted = self.key_column == bindparam("key", type_=Text())
        return compile_statement(
            select(literal_column("1"), *labelled).select_from(self._table).where(wanted)
        )

    def compared(self, after: View) -> Statement:
        """Counts the records this View shows, those only it shows, and those only ``after`` shows.

        Both Views are of the same dataset and made with the same tables; a View that does not allow
        reading shows none.
        """
        here, there = self._shows(), after._shows()
        return compile_statement(
            select(
                func.count().filter(here),
                func.count().filter(and_(here, not_(there))),
                func.count().filter(and_(there, not_(here))),
            ).select_from(self._table)
        )

    def _shows(self) -> ColumnElement[bool]:
        """The row rule as a predicate that is never NULL."""
        if not self.allows(Action.READ):
            return false()
        return true() if self.predicate is None else func.coalesce(self.predicate, false())

    # --- writes ---------------------------------------------------------------------------

    @cached_property
    def guard(self) -> Guard:
        """The statements with which a writer checks the rows that it touches."""
        key = self._table.c[self.dataset.key.path]
        wanted = key == any_(bindparam("keys", type_=ARRAY(Text())))
        visible = true() if self.predicate is None else self.predicate
        lock = (
            select(
                *(self._table.c[f.path] for f in self.dataset.fields),
                func.coalesce(visible, literal_column("false")).label("~visible"),
                key.label("~key"),
            )
            .where(wanted)
            .order_by(key)
            .with_for_update(of=self._table)
        )
        leaving = None
        if self.predicate is not None:
            lock = lock.where(self.predicate)
            outside = func.coalesce(self.predicate, literal_column("false")).is_(False)
            leaving = compile_statement(
                select(key.label("~key")).select_from(self._table).where(wanted, outside)
            )
        extremes = [is_extreme(self._table.c[f.path], f) for f in self.dataset.fields]
        extreme = (
            select(key.label("~key"))
            .where(wanted, visible, or_(*(e for e in extremes if e is not None)))
            .limit(1)
        )
        return Guard(
            self.dataset.name,
            compile_statement(lock),
            leaving,
            compile_statement(extreme),
            self._unread(wanted),
        )

    def _unread(self, wanted: ColumnElement[bool]) -> Unread:
        """The fields that the caller may not read, by its grants for reading, whatever the View is
        for; ``wanted`` selects some keys."""
        readers = [g for g in self.grants if Action.READ in g.actions]
        fields = frozenset(
            f
            for f in self.dataset.fields
            if f.unique and decide_field(f, [readers]).mask is not Mask.CLEAR
        )
        shown = filter_rows(readers, self._row_names, self._claims)
        ruled = frozenset(f for f in self.dataset.fields if f.unique and self._decides_rows(f))
        if shown is None:
            return Unread(fields, None, ruled)
        outside = func.coalesce(shown, literal_column("false")).is_(False)
        query = select(self.key_column.label("~key")).select_from(self._table)
        return Unread(fields, compile_statement(query.where(wanted, outside)), ruled)

    def _decides_rows(self, field: Field) -> bool:
        """Whether the row rule depends on a field."""
        if self.predicate is None:
            return False
        name = self._table.c[field.path].name
        return any(getattr(part, "name", None) == name for part in iterate(self.predicate))
