"""The steps that bring the datasets' tables to the model, and the consent that each needs.

The store keeps the manifest of the model that its tables were made with (``hub.model``), to detect
changes that no column type shows. The values decide: a change that affects no value is applied at
start, one that converts values is applied by command, and one that some value cannot survive is
refused, with the keys of the records that contain it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import orjson
from sqlalchemy import Connection, text

from penstockd.catalog import Catalog, Dataset, Field
from penstockd.catalog.comparison import ShapeComparison, match_fields, shape_name
from penstockd.catalog.conversion import FieldConversion
from penstockd.catalog.elements import default_value
from penstockd.catalog.manifest import (
    Manifest,
    StoredDataset,
    StoredField,
    ValueShape,
    dump_manifest,
    parse_manifest,
    write_manifest,
)
from penstockd.catalog.model import KEY_COLUMN, column_name
from penstockd.catalog.oneofs import oneofs_of
from penstockd.catalog.values import load_json
from penstockd.store.closing import closing_steps, unreadable_images
from penstockd.store.columns import (
    Differ,
    PresentColumn,
    ValueReport,
    column_ddl,
    has_rows,
    judge_rules,
    judge_values,
    quoted_table,
    read_columns,
    rewrite_values,
    sql_kind,
    table_ddl,
    type_name,
)
from penstockd.store.field_users import describe_field_users, list_field_users
from penstockd.store.indexes import (
    declared_indexes,
    find_duplicates,
    is_indexed,
    present_indexes,
    undeclared_indexes,
)
from penstockd.store.key_changes import find_key_change
from penstockd.store.step import Consent, Step, do_nothing, quote_literal, script_step
from penstockd.store.tables import Tables, column_default, empty_value


def model_steps(connection: Connection, catalog: Catalog) -> Iterator[Step]:
    """The changes after which the database has exactly the catalog's tables, in order.

    Reads every value of the columns whose meaning changes.
    """
    history = _read_history(connection)
    before = history[-1] if history else Manifest({}, {})
    after = write_manifest(catalog)
    present = read_columns(connection)
    tables = Tables(catalog)
    closing: list[tuple[str, str]] = []
    for dataset in catalog:
        if dataset.name not in present:
            ddl = table_ddl(dataset, tables[dataset.name])
            yield Step(f"new dataset {dataset.name}", Consent.START, script_step(ddl))
            if any(dataset.name in m.datasets for m in history):
                closing.append((dataset.name, f"the former dataset {dataset.name}"))
            continue
        changes = _DatasetChanges(connection, dataset, present[dataset.name], before, after)
        yield from changes.steps()
        closing += [(dataset.name, what) for what in changes.unreadable(history)]
    for name in present.keys() - {d.name for d in catalog}:
        gone = f"DROP TABLE {quoted_table(name)}; DELETE FROM hub.lost_reference WHERE dataset = "
        consent = Consent.COMMAND if has_rows(connection, name) else Consent.START
        yield Step(
            f"dataset {name} is no longer in the model: its table would be dropped",
            consent,
            script_step(gone + quote_literal(name)),
        )
    yield from closing_steps(connection, closing)


def keep_manifest(connection: Connection, catalog: Catalog) -> None:
    """Record the catalog as the one that the tables now have."""
    manifest = dump_manifest(write_manifest(catalog))
    history = _read_history(connection)
    # Compared as text, because the comparison of shapes ignores how numbers are encoded.
    if not history or dump_manifest(history[-1]) != manifest:
        connection.execute(
            text("INSERT INTO hub.model (manifest) VALUES (CAST(:manifest AS json))"),
            {"manifest": manifest},
        )


class _DatasetChanges:
    """The steps of one dataset that has a table."""

    def __init__(
        self,
        connection: Connection,
        dataset: Dataset,
        present: Mapping[str, PresentColumn],
        before: Manifest,
        after: Manifest,
    ) -> None:
        self._connection = connection
        self._dataset = dataset
        self._present = present
        self._table = quoted_table(dataset.name)
        self._rules_before = before.datasets.get(dataset.name, StoredDataset(())).rules
        self._known = dataset.name in before.datasets
        self._after = after.datasets[dataset.name]
        self._shapes = ShapeComparison(before.messages, after.messages)
        stored = before.datasets.get(dataset.name, StoredDataset(()))
        columns = self._stored_fields(stored)
        self._matches = match_fields(columns, self._after.fields)
        self._key_before = [f for f in stored.fields or columns if f.key]

    def steps(self) -> Iterator[Step]:
        """The steps in the order of application: columns are removed, renamed, added, changed."""
        dataset = self._dataset
        moved = find_key_change(dataset.name, self._key_before, self._after.fields, self._matches)
        if moved is not None:
            yield moved
            return
        for gone in self._matches.removed:
            yield self._removal(gone)
        yield from self._renames()
        for new in self._matches.added:
            added = self._dataset.by_path[new.path]
            sql = f"ALTER TABLE {self._table} ADD {column_ddl(added)}"
            if added.reference is not None:
                sql += f'; CREATE INDEX ON {self._table} ("{added.column}")'
            yield Step(f"new field {self._where(added)}", Consent.START, script_step(sql))
        for old, new in self._matches.kept:
            yield from self._field_steps(old, new)
        yield from self._reference_steps()
        yield from self._rule_steps()
        yield from self._index_steps()

    def unreadable(self, history: Sequence[Manifest]) -> list[str]:
        """See ``closing.unreadable_images``."""
        images = unreadable_images(self._dataset, self._matches, self._shapes, history)
        return list(dict.fromkeys(images))

    def _stored_fields(self, stored: StoredDataset) -> list[StoredField]:
        """The present columns, with what the manifest records of them. If the store has no manifest
        for the dataset, a column of the type that the model requires counts as the model's."""
        known = {column_name(f.path): f for f in stored.fields}
        wanted = {column_name(f.path): f for f in self._after.fields}
        fields = []
        for name, column in self._present.items():
            if name == KEY_COLUMN:
                continue
            field = known.get(name)
            if field is None and not self._known and name in wanted:
                path = wanted[name].path
                same = type_name(self._dataset.by_path[path]) == column.type_name
                field = wanted[name] if same else None
            if field is None:
                kind = sql_kind(column.type_name)
                shape = ValueShape(kind.name if kind is not None else "STRING", {}, 38, 19)
                key = any(name == f.column for f in self._dataset.key_fields)
                field = StoredField(name, (), shape, column.nullable, key)
            fields.append(field)
        return fields

    def _where(self, field: Field) -> str:
        return f"{self._dataset.name}.{field.path}"

    def _removal(self, gone: StoredField) -> Step:
        where = f"{self._dataset.name}.{gone.path}"
        sql = f'ALTER TABLE {self._table} DROP COLUMN "{column_name(gone.path)}"'
        rows = has_rows(self._connection, self._dataset.name)
        users = list_field_users(self._connection, self._dataset.name, [gone.path])
        return Step(
            f"{where} is no longer in the model: its values would be dropped"
            f"{describe_field_users(users)}",
            Consent.COMMAND if rows else Consent.START,
            script_step(sql),
        )

    def _renames(self) -> Iterator[Step]:
        renamed = [(old, new) for old, new in self._matches.kept if old.path != new.path]
        if not renamed:
            return
        # Via names that no field has, since two fields may have swapped names.
        sql = [
            f'ALTER TABLE {self._table} RENAME COLUMN "{column_name(old.path)}" TO "~{i}"'
            for i, (old, _) in enumerate(renamed)
        ]
        sql += [
            f'ALTER TABLE {self._table} RENAME COLUMN "~{i}" TO "{column_name(new.path)}"'
            for i, (_, new) in enumerate(renamed)
        ]
        pairs = [
            (quote_literal(column_name(o.path)), quote_literal(column_name(n.path)))
            for o, n in renamed
        ]
        cases = " ".join(f"WHEN {old} THEN {new}" for old, new in pairs)
        sql.append(
            f"UPDATE hub.lost_reference SET field = CASE field {cases} ELSE field END"
            f" WHERE dataset = {quote_literal(self._dataset.name)}"
        )
        names = ", ".join(f"{self._dataset.name}.{o.path} to {n.path}" for o, n in renamed)
        rows = has_rows(self._connection, self._dataset.name)
        olds = [old.path for old, _ in renamed]
        users = list_field_users(self._connection, self._dataset.name, olds)
        yield Step(
            f"renamed: {names}; the values stay, but grants, filters and files that use the old"
            f" name must use the new one{describe_field_users(users)}",
            Consent.COMMAND if rows else Consent.START,
            script_step("; ".join(sql)),
        )

    def _field_steps(self, old: StoredField, new: StoredField) -> Iterator[Step]:
        field = self._dataset.by_path[new.path]
        where, column = self._where(field), self._present[column_name(old.path)]
        typed = type_name(field) == column.type_name
        if not typed or not self._shapes.holds_every(old.shape, new.shape):
            yield from self._conversion(old, new, field, column)
        elif column.nullable and not field.nullable:
            yield self._filling(field, old)
        if field.nullable and not column.nullable:
            sql = (
                f'ALTER TABLE {self._table} ALTER "{field.column}" DROP NOT NULL,'
                f' ALTER "{field.column}" DROP DEFAULT'
            )
            if any(oneof.holds(field) for oneof in oneofs_of(self._dataset)):
                nothing = empty_value(field) or "NULL"
                sql += (
                    f'; UPDATE {self._table} SET "{field.column}" = NULL'
                    f' WHERE "{field.column}" = {nothing}'
                )
            yield Step(f"{where} may now be unset", Consent.START, script_step(sql))

    def _reference_steps(self) -> Iterator[Step]:
        """The indexes of references that have none yet; row rules and feeds use them."""
        kept = {new.path: column_name(old.path) for old, new in self._matches.kept}
        for field in self._dataset.references.values():
            column = kept.get(field.path)
            if column is None or type_name(field) != self._present[column].type_name:
                continue  # the index is made with the column
            if is_indexed(self._connection, self._dataset.name, column):
                continue
            assert field.reference is not None, "references have a target"
            yield Step(
                f"{self._where(field)} refers to {field.reference.dataset} from now on: an index"
                " is made",
                Consent.START,
                script_step(f'CREATE INDEX ON {self._table} ("{field.column}")'),
            )

    def _filling(self, field: Field, old: StoredField) -> Step:
        """The step that sets unset values to the default."""
        column, default = f'"{field.column}"', column_default(field) or "now()"
        unset_now = f'"{column_name(old.path)}" IS NULL'
        unset = has_rows(self._connection, self._dataset.name, unset_now)
        return Step(
            f"{self._where(field)} may no longer be unset: unset values become {default}",
            Consent.COMMAND if unset else Consent.START,
            script_step(
                f"UPDATE {self._table} SET {column} = {default} WHERE {column} IS NULL; "
                f"ALTER TABLE {self._table} ALTER {column} SET DEFAULT {default},"
                f" ALTER {column} SET NOT NULL"
            ),
        )

    def _conversion(
        self, old: StoredField, new: StoredField, field: Field, column: PresentColumn
    ) -> Iterator[Step]:
        convert = _fill_default(FieldConversion(old, new, field, self._shapes), field)
        report = judge_values(
            self._connection,
            self._dataset.name,
            self._key_now,
            column_name(old.path),
            convert,
            _make_differ(field, column),
        )
        what = f"{self._where(field)} {self._difference(old, new)}"
        yield Step(
            f"{what}: {_describe_effect(report)}",
            _needed_consent(report),
            lambda connection: rewrite_values(
                connection, self._dataset, field, column.type_name, convert
            ),
        )

    @property
    def _key_now(self) -> str:
        """The name of the key's column before any renaming."""
        kept = self._matches.kept
        if self._dataset.joins_key:
            return KEY_COLUMN
        return next(column_name(o.path) for o, n in kept if n.path == self._dataset.key.path)

    def _difference(self, old: StoredField, new: StoredField) -> str:
        before, after = shape_name(old.shape), shape_name(new.shape)
        if before != after:
            return f"changes from {before} to {after}"
        gone = old.shape.enum_values.items() - new.shape.enum_values.items()
        if gone:
            return f"loses or renames {', '.join(sorted(name for name, _ in gone))}"
        lost = self._shapes.lost_members(old.shape, new.shape)
        dropped = f", and drops {', '.join(lost)}" if lost else ""
        return f"changes in what its {after} may hold{dropped}"

    def _rule_steps(self) -> Iterator[Step]:
        if not self._known or self._rules_before == self._after.rules:
            return
        yield from self._oneof_steps()
        if any(o.path != n.path or o.shape != n.shape for o, n in self._matches.kept):
            return  # the values to judge do not exist yet
        if self._matches.added:
            return
        report = judge_rules(self._connection, self._dataset)
        if report.refused:
            broken = "record breaks" if report.refused == 1 else "records break"
            yield Step(
                f"{self._dataset.name}: {report.refused} {broken} the current rules: they can be"
                f" read, and are refused when they are written again: {report.reasons()}",
                Consent.START,
                do_nothing,
            )

    def _index_steps(self) -> Iterator[Step]:
        """Indexes that are made and dropped after the other steps: see ``indexes``."""
        for words in undeclared_indexes(self._connection, self._dataset):
            yield Step(f"{words}: its index is dropped", Consent.START, do_nothing)
        present = present_indexes(self._connection)
        columns = {n.path: (o, n) for o, n in self._matches.kept}
        for name, index in declared_indexes(self._dataset).items():
            if name in present:
                continue
            where, kind = self._where(index.field), "unique" if index.field.unique else "indexed"
            pair = columns.get(index.field.path)
            same = pair is not None and pair[0].path == pair[1].path
            shared: list[tuple[str, str]] = []
            if index.field.unique and same and self._holds(pair):
                shared = find_duplicates(self._connection, self._dataset, index)
            if shared:
                told = "; ".join(f"{one}: has the value of {other}" for one, other in shared)
                yield Step(
                    f"{where} becomes unique, but values occur twice ({told})",
                    Consent.NEVER,
                    do_nothing,
                )
            else:
                yield Step(f"{where} becomes {kind}", Consent.START, do_nothing)

    def _holds(self, pair: tuple[StoredField, StoredField] | None) -> bool:
        """Whether a field's stored values are those of the new model."""
        return pair is not None and self._shapes.holds_every(pair[0].shape, pair[1].shape)

    def _oneof_steps(self) -> Iterator[Step]:
        """Refuse a oneof if a stored record has set several of its members."""
        columns = {n.path: column_name(o.path) for o, n in self._matches.kept}
        for oneof in oneofs_of(self._dataset):
            chosen = [
                [self._is_set(f, columns[f.path]) for f in member if f.path in columns]
                for member in oneof.members
            ]
            counted = " + ".join(f"({' OR '.join(m)})::int" for m in chosen if m)
            if not counted:
                continue
            rows = self._connection.execute(
                text(
                    f'SELECT "{self._key_now}" FROM {self._table} WHERE {counted} > 1'
                    f' ORDER BY "{self._key_now}" LIMIT 5'
                )
            )
            keys = [row[0] for row in rows]
            if keys:
                yield Step(
                    f"{self._dataset.name}.{oneof.path} is a oneof, and records have set several"
                    f" members: {', '.join(keys)}",
                    Consent.NEVER,
                    do_nothing,
                )

    def _is_set(self, field: Field, column: str) -> str:
        """SQL for whether a column that may not be NULL yet has a value."""
        if self._present[column].nullable:
            return f'"{column}" IS NOT NULL'
        return f"\"{column}\"::text NOT IN ('', '0', 'false', {empty_value(field) or chr(39) * 2})"


def _fill_default(convert: FieldConversion, field: Field) -> Callable[[object], object]:
    """The conversion, with the default instead of NULL if the field is not nullable."""
    if field.nullable:
        return convert
    if field.is_json:  # rows hold JSON as text
        unset = orjson.dumps(default_value(field)).decode()
        return lambda value: unset if value is None else convert(value)
    return lambda value: default_value(field) if value is None else convert(value)


def _make_differ(field: Field, column: PresentColumn) -> Differ:
    """Whether a conversion changed a value: always if the type differs; JSON is compared as
    data."""
    if type_name(field) != column.type_name:
        return lambda before, after: before is not None or after is not None
    if field.is_json:
        return lambda before, after: before is None or load_json(before) != load_json(after)
    return lambda before, after: bool(before != after)


def _describe_effect(report: ValueReport) -> str:
    if report.refused:
        fit = "value does" if report.refused == 1 else "values do"
        return f"{report.refused} {fit} not fit ({report.reasons()})"
    if report.changed:
        return f"{report.changed} value{'s are' if report.changed != 1 else ' is'} converted"
    return "no value is affected"


def _needed_consent(report: ValueReport) -> Consent:
    if report.refused:
        return Consent.NEVER
    return Consent.COMMAND if report.changed else Consent.START


def _read_history(connection: Connection) -> list[Manifest]:
    """All manifests of the store, the newest last; none before the first migration."""
    if connection.execute(text("SELECT to_regclass('hub.model') IS NULL")).scalar_one():
        return []
    rows = connection.execute(text("SELECT manifest::text FROM hub.model ORDER BY id"))
    return [parse_manifest(row[0]) for row in rows]
