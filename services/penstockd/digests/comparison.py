"""The subject of a comparison: some fields of the matching records of a View, by ranges of keys."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from penstockd.calls import Call
from penstockd.catalog import Catalog, Dataset, Field
from penstockd.catalog.model import MAX_KEY_BYTES
from penstockd.digests.rows import Rows
from penstockd.errors import RecordUnreadable, ValueInvalid
from penstockd.native.digest import Digester, digest_fields
from penstockd.native.digest_kernel import Digested
from penstockd.policy.digest import Several
from penstockd.policy.lens import Lens
from penstockd.policy.model import Action
from penstockd.policy.read import LOWER, UPPER, ExportQuery
from penstockd.policy.unreadable import find_unreadable, name_unreadable
from penstockd.policy.view import View
from penstockd.query import parse_fields
from penstockd.store.database import Connection, Database
from penstockd.store.snapshots import Held
from penstockd.store.sql import apply_settings

#: Receives the digests of the next rows, in another thread.
Take = Callable[[Digested], None]


@dataclass(frozen=True, slots=True)
class DigestComparison:
    """A caller's comparison, checked. ``view_id`` changes with the caller's View and its request; a
    feed of the same view has the same id."""

    view: View
    filter: str
    shown: tuple[Field, ...]
    fields: tuple[Field, ...]
    read: ExportQuery
    view_id: str

    @classmethod
    def of(
        cls, catalog: Catalog, call: Call, dataset: Dataset, filter: str, fields: str
    ) -> DigestComparison:
        """The comparison of a request. Raises PermissionDenied, FieldUnknown, FilterInvalid."""
        view = call.view(dataset, Action.READ)
        wanted = {*parse_fields(fields, view), *dataset.key_fields}
        shown = tuple(f for f in view.fields() if f in wanted)
        compared = digest_fields(dataset, shown)
        columns = [Digester.sql(f, view.column(f)) for f in compared]
        read = ExportQuery(view, columns, filter=filter, order_by="")
        lens = Lens(view, catalog, fields=fields, filter=filter)
        return cls(view, filter, shown, compared, read, lens.view_id)

    async def digest(self, connection: Connection, start: str, end: str, take: Take) -> None:
        """Pass the digests of the range's rows to ``take``, in key order; raises what it raises.

        The connection must be in a transaction. It cannot be used any more if this raises.
        """
        bounds = {LOWER: start, UPPER: end} if end else {LOWER: start}
        sql, settings = self.read.copy_range(last=not end)
        rows = Rows(Digester(self.fields), take)
        await apply_settings(connection, {**settings, **bounds})
        try:
            await connection.copy_from_query(sql, output=rows.take, format="binary")
            await rows.finish()
        finally:
            await rows.stop()

    def naming_unreadable(
        self, database: Database, held: Held
    ) -> AbstractAsyncContextManager[None]:
        """Read the held state in the block. Raises RecordUnreadable if a record has no digest."""

        async def find() -> RecordUnreadable | None:
            async with database.snapshot() as connection:
                await held.share(connection)
                return await find_unreadable(connection, self.view, self.shown, self.filter)

        return name_unreadable(find)

    def several(self) -> Several:
        """The query for some records with all requested fields."""
        return Several(self.view, self.shown)


def check_bounds(start: str, end: str, where: str = "") -> None:
    """Raise ValueInvalid for impossible bounds; ``where`` is the path of their message."""
    for name, key in (("start_key", start), ("end_key", end)):
        if len(key.encode()) > MAX_KEY_BYTES:
            raise ValueInvalid.of(
                where + name, f"is longer than the {MAX_KEY_BYTES} bytes of a key"
            )
    if end and end <= start:
        raise ValueInvalid.of(f"{where}end_key", "is not behind start_key")
