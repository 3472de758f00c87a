"""ReportUsage: who used what."""

from __future__ import annotations

from dataclasses import replace

from penstockd.access.usage import narrow_question
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.metering.report import UsageQuestion, UsageReport
from penstockd.metering.report import report_usage as read_report
from penstockd.paging import Paging


async def report_usage(
    hub: Hub, call: Call, question: UsageQuestion, size: int, token: str
) -> tuple[UsageReport, str]:
    """A page of a report, and the token of the next page, "" on the last.

    Raises PermissionDenied, ValueInvalid, PageTokenInvalid.
    """
    call.asked(**question.said)
    question = narrow_question(call, question)
    said = "\n".join(f"{name}={value}" for name, value in sorted(question.said.items()))
    paging = Paging(hub.page_tokens, call, f"usage\n{said}", size, token)
    skip = int(paging.after(0))
    async with hub.database.connection() as connection:
        report = await read_report(connection, question, paging.limit, skip)
    # The page may be shorter than asked for: the next one begins where this one really ends.
    rows = paging.fit(report.rows[: paging.size])
    more = len(report.rows) > len(rows)
    return replace(report, rows=rows), paging.end(rows, (skip + len(rows),) if more else None)
