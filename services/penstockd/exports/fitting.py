"""Refuses an export whose format cannot hold the records, before it sends the first byte."""

from __future__ import annotations

from penstockd.errors import RequestTooLarge
from penstockd.exports.plan import ExportPlan
from penstockd.store.database import Connection


async def refuse_misfits(connection: Connection, plan: ExportPlan) -> None:
    """Raise RequestTooLarge if the records exceed a limit of the plan's format.

    The connection must be in a transaction on the state that the export reads. For formats without
    limits, which are most of them, nothing is read.
    """
    writer, limit = plan.target.writer, plan.export.limit
    most = writer.most_rows
    unfolds = plan.target.unfolding is not None
    if most is not None and (not limit or limit > most or unfolds):
        statement = plan.read.count(most + 1, limit if unfolds else 0)
        if await connection.fetchval(statement.text, *statement.arguments()) > most:
            name = plan.export.format
            raise RequestTooLarge(f"a file of {name} holds at most {most} rows; use CSV")
    fields = writer.selected
    found = plan.read.first_where(lambda i, column: writer.too_long(fields[i], column), limit)
    if found is None:
        return
    row = await connection.fetchrow(found.text, *found.arguments())
    if row is not None:
        key, place = row
        raise RequestTooLarge(
            f"the value of '{fields[place].path}' of the record '{key[:80]}' is too long for a "
            f"cell of {plan.export.format}; leave the field out or use CSV"
        )
