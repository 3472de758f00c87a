"""Triggers on datasets' tables that record references which records no longer have.

A feed must know which records referred to another one at any place in the log (see
``history.find_referring``); a table shows only the current references.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, text

from penstockd.catalog import Catalog, Dataset
from penstockd.store.tables import DATA_SCHEMA

_EVENTS = {
    "UPDATE": "REFERENCING OLD TABLE AS gone NEW TABLE AS come",
    "DELETE": "REFERENCING OLD TABLE AS gone",
}


def stale_triggers(connection: Connection, catalog: Catalog) -> Iterator[str]:
    """The SQL that drops the hub's own triggers that the catalog's tables must not have, or that
    have other arguments. It must precede all changes of columns: a trigger that names a missing
    column makes every write fail."""
    wanted = {d.name: _packed_arguments(d) for d in catalog if d.references}
    for (table, name), arguments in _present_triggers(connection).items():
        if wanted.get(table) != arguments:
            yield f'DROP TRIGGER {name} ON {DATA_SCHEMA}."{table}"'


def missing_triggers(connection: Connection, catalog: Catalog) -> Iterator[str]:
    """The SQL of all triggers that the catalog's tables lack."""
    present = _present_triggers(connection)
    for dataset in catalog:
        for event in _EVENTS:
            if dataset.references and (dataset.name, _trigger_name(event)) not in present:
                yield trigger_sql(dataset, event)


def _present_triggers(connection: Connection) -> dict[tuple[str, str], bytes]:
    """The arguments of the hub's triggers on datasets' tables, by table and name."""
    rows = connection.execute(
        text(
            "SELECT c.relname, t.tgname, t.tgargs FROM pg_trigger AS t"
            " JOIN pg_class AS c ON c.oid = t.tgrelid"
            " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname = :schema AND NOT t.tgisinternal AND t.tgname = ANY (:names)"
        ),
        {"schema": DATA_SCHEMA, "names": [_trigger_name(event) for event in _EVENTS]},
    )
    return {(row[0], row[1]): bytes(row[2]) for row in rows}


def trigger_sql(dataset: Dataset, event: str) -> str:
    """The trigger of a dataset with references, after UPDATE or DELETE."""
    arguments = ", ".join("'" + a.replace("'", "''") + "'" for a in _trigger_arguments(dataset))
    table = f'{DATA_SCHEMA}."{dataset.name}"'
    return (
        f"CREATE OR REPLACE TRIGGER {_trigger_name(event)} AFTER {event} ON {table}"
        f" {_EVENTS[event]} FOR EACH STATEMENT"
        f" EXECUTE FUNCTION hub.note_lost_references({arguments})"
    )


def _trigger_name(event: str) -> str:
    return f"lost_references_{event.lower()}"


def _packed_arguments(dataset: Dataset) -> bytes:
    """The arguments as PostgreSQL stores them."""
    return b"".join(a.encode() + b"\0" for a in _trigger_arguments(dataset))


def _trigger_arguments(dataset: Dataset) -> list[str]:
    """The dataset, its key and its references."""
    return [dataset.name, dataset.key.column, *(f.column for f in dataset.references.values())]
