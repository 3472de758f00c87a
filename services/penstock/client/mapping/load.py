"""Sends the records of a mapping to a hub."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.client.client import Client
from penstock.client.dataset import Counts
from penstock.client.errors import PenstockError
from penstock.client.mapping.errors import BadRow, BadRows
from penstock.client.mapping.plan import Plan
from penstock.client.mapping.record import RecordSource, open_lookups

#: Bad rows that are reported in full; the rest is counted.
MOST_TOLD = 100

#: Called with the dataset and the number of its rows read so far.
Progress = Callable[[str, int], object]


@dataclass(frozen=True, slots=True)
class Loaded:
    """One dataset that was loaded."""

    dataset: str
    counts: Counts


def bind_sources(plan: Plan, folder: Path) -> list[RecordSource]:
    """The sources of a plan's datasets. Raises MappingError if files or fields do not fit.

    Everything but the rows is checked here, before anything is sent.
    """
    lookups = open_lookups(plan, folder)
    return [
        RecordSource(plan, dataset, folder, lookups, f"{plan.name}: datasets[{i}]")
        for i, dataset in enumerate(plan.datasets)
    ]


def unused_columns(sources: Iterable[RecordSource]) -> list[str]:
    """The columns of the sources that no field uses, such as "customers.csv: fax"."""
    readers = [reader for source in sources for reader in source.readers]
    used = {(reader.table.path, column) for reader in readers for column in reader.used}
    columns = dict.fromkeys((r.table.path, column) for r in readers for column in r.table.header)
    return [f"{path.name}: {column}" for path, column in columns if (path, column) not in used]


def load_sources(
    client: Client, sources: Iterable[RecordSource], progress: Progress | None = None
) -> Iterator[Loaded]:
    """Loads the sources of ``bind_sources`` in their order, each in one transaction.

    Raises BadRows with file and line of each row that the mapping or the hub rejects: nothing of
    that dataset is loaded, but the datasets before it are. Loading them again changes nothing.
    Raises MappingError and PenstockError.
    """
    for source in sources:
        yield Loaded(source.dataset, _load_one(client, source, progress))


def _load_one(client: Client, source: RecordSource, progress: Progress | None) -> Counts:
    lines = array("Q")
    try:
        return client.dataset(source.dataset).import_(
            write_ndjson(source, lines, progress), format="NDJSON"
        )
    except PenstockError as error:
        if error.reason != "IMPORT_ROW_INVALID":
            raise
        rows = [_locate_row(v.field, v.description, source, lines) for v in error.violations]
        total = int(error.metadata.get("bad_rows", len(rows)))
        raise BadRows(source.dataset, rows, total) from None


def write_ndjson(
    source: RecordSource, lines: array[int] | None = None, progress: Progress | None = None
) -> Iterator[bytes]:
    """The records as lines of proto JSON; ``lines`` collects the source line of each.

    Reads to the end to find all bad rows, and then raises BadRows if there are any.
    """
    bad: list[BadRow] = []
    total = 0
    for number, (line, record, faults) in enumerate(source.records(), 1):
        if faults:
            total += 1
            bad += faults[: MOST_TOLD - len(bad)]
        elif not total:
            if lines is not None:
                lines.append(line)
            text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
            yield text.encode("utf-8", "surrogatepass") + b"\n"
        if progress and number % 1000 == 0:
            progress(source.dataset, number)
    if total:
        raise BadRows(source.dataset, bad, total)


def _locate_row(field: str, reason: str, source: RecordSource, lines: array[int]) -> BadRow:
    match = re.fullmatch(r"rows\[(\d+)\]\.?(.*)", field)
    row = int(match[1]) if match else 0
    line = lines[row - 1] if 0 < row <= len(lines) else 0
    return BadRow(source.table.path.name, line, match[2] if match else field, reason)
