"""Commands of usage: who is shown whose."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from fake_organs import NOBODY, HubLike
from penstockd import paging
from penstockd.commands.usage import export_usage as exporting
from penstockd.commands.usage import report_usage as module
from penstockd.commands.usage.report_usage import report_usage
from penstockd.errors import PermissionDenied, ValueInvalid
from penstockd.metering.counting import NOTHING, UsageCounts
from penstockd.metering.files import FORMATS
from penstockd.metering.report import UsageQuestion, UsageReport, UsageRow
from penstockd.query.errors import PageTokenError

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[UsageQuestion, int, int]]:
    """What the report was asked for; it has as many rows as it may."""
    found: list[tuple[UsageQuestion, int, int]] = []

    async def read(_: Any, question: UsageQuestion, limit: int, skip: int) -> UsageReport:
        found.append((question, limit, skip))
        return UsageReport([UsageRow(None, {}, NOTHING)] * limit, NOW, NOW, NOW)

    monkeypatch.setattr(module, "read_report", read)
    return found


async def test_report_usage(hub: HubLike, asked: list[tuple[UsageQuestion, int, int]]) -> None:
    question = UsageQuestion(("consumer",), NOW)
    report, token = await report_usage(hub, call := hub.call(), question, 5, "")
    assert asked == [(question, 6, 0)] and len(report.rows) == 5 == call.entry.row_count
    assert "2026-03-01" in (call.entry.query or "")
    _, token = await report_usage(hub, hub.call(), question, 5, token)
    assert asked[-1] == (question, 6, 5) and token
    with pytest.raises(PageTokenError):  # of another report
        await report_usage(hub, hub.call(), UsageQuestion(("plan",), NOW), 5, token)


async def test_a_page_that_ends_early_is_followed_by_its_next_row(
    hub: HubLike, asked: list[tuple[UsageQuestion, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "count_fitting", lambda *_: 2)
    question, token, seen = UsageQuestion(("consumer",), NOW), "", []
    for _ in range(3):
        report, token = await report_usage(hub, call := hub.call(), question, 5, token)
        assert len(report.rows) == 2 == call.entry.row_count
        seen.append(asked.pop()[2])
    assert seen == [0, 2, 4]


async def test_export_usage(hub: HubLike, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = UsageCounts(4, 1, 20, 300)
    rows = [UsageRow(None, {"method": "/Get,All", "status": "<OK>"}, counts)]

    async def read(*_: Any) -> UsageReport:
        return UsageReport(rows, NOW, NOW, NOW)

    monkeypatch.setattr(exporting, "report_usage", read)
    found: dict[str, bytes] = {}
    question = UsageQuestion(("method", "status"))
    for form in FORMATS:
        call, pieces = hub.call(), list[bytes]()
        call.recorded = True  # set by the first piece

        async def send(piece: bytes, pieces: list[bytes] = pieces) -> None:
            pieces.append(piece)

        await exporting.export_usage(hub, call, question, form, send)
        found[form] = b"".join(pieces)
        assert (hub.journal.entries[-1].phase, hub.journal.entries[-1].row_count) == ("END", 1)
    assert found["CSV"].decode() == (
        'method,status,calls,errors,error_rate,records,bytes\n"/Get,All",<OK>,4,1,0.25,20,300\n'
    )
    assert b"<row><method>/Get,All</method><status>&lt;OK&gt;</status><calls>4" in found["XML"]
    told = {"method": "/Get,All", "status": "<OK>", "calls": "4", "errors": "1", "errorRate": 0.25}
    assert orjson.loads(found["JSON"]) == [told | {"records": "20", "bytes": "300"}]
    assert orjson.loads(found["NDJSON"]) == orjson.loads(found["JSON"])[0]
    # Large files leave in pieces; too many rows are refused before the first.
    rows *= exporting.MAX_ROWS
    await exporting.export_usage(hub, hub.call(), question, "CSV", (sent := Pieces()).take)
    assert max(sent.sizes) == exporting.PIECE_BYTES and len(sent.sizes) > 5
    rows *= 2
    with pytest.raises(ValueInvalid, match="50,000"):
        await exporting.export_usage(hub, hub.call(), question, "CSV", (none := Pieces()).take)
    assert none.sizes == []


class Pieces:
    """Remembers the sizes of pieces."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def take(self, piece: bytes) -> None:
        self.sizes.append(len(piece))


async def test_a_consumer_sees_its_own_usage_alone(
    hub: HubLike, asked: list[tuple[UsageQuestion, int, int]]
) -> None:
    own = UsageQuestion(only={"consumer": NOBODY})
    for question in (UsageQuestion(), own):
        await report_usage(hub, hub.call(caller=NOBODY), question, 5, "")
        assert asked.pop()[0] == own
    narrow, wide = frozenset({"customers:read"}), frozenset({"usage.read"})
    await report_usage(hub, hub.call(caller=NOBODY, scopes=wide), own, 5, "")
    assert asked.pop()[0] == own
    with pytest.raises(PermissionDenied, match=r"usage\.read"):
        await report_usage(hub, hub.call(caller=NOBODY, scopes=narrow), own, 5, "")
    with pytest.raises(PermissionDenied, match=r"usage\.read"):
        other = UsageQuestion(only={"consumer": "crm"})
        await report_usage(hub, hub.call(caller=NOBODY), other, 5, "")
    with pytest.raises(PermissionDenied):  # an administrator's token that does not name it
        await report_usage(hub, hub.call(scopes=narrow), UsageQuestion(), 5, "")
    audit = frozenset({"audit.read"})  # which shows all usage to a token that names usage.read, too
    with pytest.raises(PermissionDenied, match=r"usage\.read"):
        await report_usage(hub, hub.call(scopes=audit), UsageQuestion(), 5, "")
    assert asked == []
