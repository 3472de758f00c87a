"""Commands on copies of a dataset: replica and verify."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure, one_line
from penstock.client.cli.printing import print_outcome
from penstock.client.cli.records import Dataset, Fields, Filter

if TYPE_CHECKING:
    from penstock.client.replica import Replica

Table = Annotated[
    str, typer.Option("--table", help="The table; by default it has the dataset's name.")
]
#: How many differing keys are printed.
_NAMED = 100


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.command("replica")(keep_replica)
    app.command("verify")(verify_replica)


def keep_replica(
    dataset: Dataset,
    to: Annotated[
        str, typer.Option("--to", help="A SQLite file, or postgresql://… (needs psycopg).")
    ],
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep it up to date until Ctrl-C.")
    ] = False,
    table: Table = "",
    filter: Filter = "",
    fields: Fields = "",
) -> None:
    """Keep a copy of a dataset in a database of your own.

    The first run takes all records, later runs only changes. If changes alone do not suffice, the
    copy is compared with the hub and the differences are repaired.
    """
    from penstock.client.cli.gate import SignalGate

    with _open_replica(dataset, to, table, filter, fields) as copy:
        done = copy.sync()
        mended = sum(found.upserts + found.deletes for found in copy.repairs)
        typer.echo(
            f"{_mask_database(to)}: {done:,} changes, {mended:,} repaired, cursor {copy.cursor}",
            err=True,
        )
        if follow:
            with SignalGate() as gate:
                # An interrupted transaction is rolled back: signals need not wait.
                copy.follow(lambda count: gate.check())


def verify_replica(
    dataset: Dataset,
    replica: Annotated[
        str, typer.Option("--replica", help="A SQLite file, or postgresql://… (needs psycopg).")
    ],
    table: Table = "",
    filter: Filter = "",
    fields: Fields = "",
) -> None:
    """Bring a copy up to date and prove it equal to the hub; exits with 1 if it differs.

    Only digests are sent. Use the --filter and --fields that the copy was made with.
    """
    name = _mask_database(replica)
    with _open_replica(dataset, replica, table, filter, fields, there=True) as copy:
        if not copy.cursor:
            raise Failure(f"{name} holds no copy of {dataset}: make one with penstock replica")
        found = copy.verify()
    kinds = {"differs": found.different, "unexpected": found.unexpected}
    said = {"equal": found.equal, "row_count": found.rows} | {
        kind: list(keys[:_NAMED]) for kind, keys in kinds.items()
    }
    if found.equal:
        print_outcome(said, f"{name}: equal, {found.rows:,} records")
        return
    print_outcome(said, _format_differences(kinds))
    count = len(found.different) + len(found.unexpected)
    raise Failure(f"{name} differs from the hub in {count:,} record{'s' * (count > 1)}")


def _format_differences(kinds: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for kind, keys in kinds.items():
        yield from (f"{kind}\t{one_line(key)}" for key in keys[:_NAMED])
        if len(keys) > _NAMED:
            yield f"{kind}\t… and {len(keys) - _NAMED:,} more"


@contextmanager
def _open_replica(
    dataset: str,
    database: str,
    table: str,
    filter: str,
    fields: str,
    *,
    there: bool = False,
) -> Iterator[Replica]:
    from penstock.client.replica import NotTheOnly, Replica

    made, broken = _connect_database(database, there)
    with connect_client() as client, closing(made) as connection:
        try:
            yield Replica(client, dataset, connection, table=table, filter=filter, fields=fields)
        except (ValueError, NotTheOnly) as error:
            raise Failure(str(error)) from None
        except broken as error:
            raise Failure(f"{_mask_database(database)}: {_first_error(error, broken)}") from None


def _connect_database(database: str, there: bool) -> tuple[Any, type[Exception]]:
    """A connection, and the errors of its driver."""
    if not _is_postgres(database):
        if there and not Path(database).exists():
            raise Failure(f"there is no {database}")
        try:
            return sqlite3.connect(database), sqlite3.Error
        except sqlite3.Error as error:
            raise Failure(f"{database}: {error}") from None
    import importlib

    for name in ("psycopg", "psycopg2"):
        try:
            driver = importlib.import_module(name)
        except ImportError:
            continue
        try:
            return driver.connect(database), driver.Error
        except driver.Error as error:
            raise Failure(f"the database cannot be reached: {error}") from None
    raise Failure("PostgreSQL needs psycopg: pip install 'psycopg[binary]'")


def _is_postgres(database: str) -> bool:
    return database.startswith(("postgresql://", "postgres://"))


def _mask_database(database: str) -> str:
    """The database's URL without user and password, safe to print."""
    if not _is_postgres(database):
        return database
    parts = urlsplit(database)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _first_error(error: BaseException, kind: type[Exception]) -> BaseException:
    """The original error, rather than that of the failed rollback after it."""
    while isinstance(error.__context__, kind):
        error = error.__context__
    return error
