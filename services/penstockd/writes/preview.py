"""Notes how an import understands the columns of its file, while it reads the file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from penstockd.catalog import Field
from penstockd.catalog.leniency import NAME_CHARACTERS
from penstockd.catalog.model import Kind
from penstockd.catalog.values import to_text
from penstockd.formats import Reader, RowBatch

#: The values of each column that are shown, and the characters of each.
SHOWN_VALUES, SHOWN_CHARACTERS = 5, 100


@dataclass(frozen=True, slots=True)
class ColumnPreview:
    """One column, or one member of the records: the name that the file has, and its field.

    ``field`` and ``type`` are "" if no field takes its values. ``refused`` is how many values of it
    would be refused.
    """

    name: str
    field: str = ""
    type: str = ""
    values: tuple[str, ...] = ()
    refused: int = 0
    note: str = ""


class Preview:
    """Collects the first values of each field, and how many the import refuses."""

    def __init__(self, reader: Reader, *, ignore_unknown: bool) -> None:
        self._reader, self._ignore_unknown = reader, ignore_unknown
        self._rows: list[list[str]] = []
        self._refused: Counter[str] = Counter()
        self._paths = frozenset(f.path for f in reader.offered)

    def take(self, part: RowBatch) -> None:
        """Note the first rows, in the order of the file as far as they are good."""
        wanted = SHOWN_VALUES - len(self._rows)
        if wanted <= 0:
            return
        rows = part.fresh.decode(range(min(wanted, len(part.fresh)))) if part.fresh else []
        fields = self._reader.fields
        for row in (rows + part.rows)[:wanted]:
            texts = [to_text(f, v) for f, v in zip(fields, row, strict=True)]
            self._rows.append([text[:SHOWN_CHARACTERS] for text in texts])

    def count_refused(self, path: str) -> None:
        """Count a value that is refused, by its path, which may lead into a list."""
        name = self._reader.column_names.get(path, path.partition("[")[0])
        if name in self._paths:  # others are names that the file chooses
            self._refused[name] += 1

    def columns(self) -> list[ColumnPreview]:
        """All columns of the file, in its order; unknown members of records follow the fields.

        Names that no field has are cut to NAME_CHARACTERS.
        """
        places = {f.path: i for i, f in enumerate(self._reader.fields)}
        found = [self._column(n, f, places) for n, f in self._reader.columns() if f is not None]
        named = [n[:NAME_CHARACTERS] for n, f in self._reader.columns() if f is None]
        noted = self._reader.leniency.unknown
        counts = {} if noted is None else noted.counts
        unknown = {n[:NAME_CHARACTERS] for n in self._reader.unknown_columns}.union(counts)
        for name in dict.fromkeys([*named, *counts]):
            # Only the first names are counted; the import refuses the others just the same.
            count = counts.get(name, 0) if name in unknown else None
            found.append(self._without_field(name, count))
        return found

    def _column(self, name: str, field: Field, places: dict[str, int]) -> ColumnPreview:
        if field.output_only:
            note = "is written by the hub: the file's values are skipped"
            return ColumnPreview(name, field.path, describe_type(field), note=note)
        at = places[field.path]
        values = tuple(row[at] for row in self._rows)
        refused = self._refused[field.path]
        return ColumnPreview(name, field.path, describe_type(field), values, refused)

    def _without_field(self, name: str, count: int | None) -> ColumnPreview:
        """A name without a field; ``count`` is the number of its values, None for an index."""
        if count is None:
            return ColumnPreview(name, note="is an index, and ignored")
        if self._ignore_unknown:
            return ColumnPreview(name, note="is not a field of the dataset, and ignored")
        note = "is not a field of the dataset: refused, unless ignore_unknown is set"
        return ColumnPreview(name, refused=count, note=note)


def describe_type(field: Field) -> str:
    """The type of a field for people, such as decimal(18, 4) or list of string."""
    if field.repeated:
        element = "message" if field.element is None else describe_type(field.element)
        return f"{field.kind.name.lower()} of {element}"
    if field.kind is Kind.DECIMAL:
        return f"decimal({field.precision or 38}, {field.scale})"
    return field.kind.name.lower()
