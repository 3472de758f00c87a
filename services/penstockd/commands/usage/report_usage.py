"""ReportUsage: who used what."""

from __future__ import annotations

from dataclasses import replace

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.metering.report import UsageQuestion, UsageReport
from penstockd.metering.report import report_usage as read_report
from penstockd.paging import Paging
from penstockd.policy.model import Permission


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
    rows, following = paging.cut(report.rows, lambda _: skip + paging.size)
    return replace(report, rows=rows), following


def narrow_question(call: Call, question: UsageQuestion) -> UsageQuestion:
    """The question, of the caller's own usage unless it may see that of all.

    Raises PermissionDenied for other questions. Scopes narrow a token in this as in all.
    """
    if call.permits(Permission.USAGE_READ) or call.permits(Permission.AUDIT_READ):
        return question
    own = call.principal.consumer_id
    if question.only.get("consumer", own) != own or not call.in_scope(Permission.USAGE_READ):
        call.require(Permission.USAGE_READ)
    return replace(question, only={**question.only, "consumer": own})
