"""A consumer whose credentials fail again and again is told once a day, and so are operators."""

from __future__ import annotations

import json

import pytest

from announcing import FakeAnnouncements
from penstockd.errors import DatabaseUnavailable
from penstockd.webhooks import sign_ins
from penstockd.webhooks.sign_ins import CONSUMER_FAILED, FAILED, FAILURES, PERIOD, FailedSignIns
from webhook_rig import Receiver, Rig


class Process:
    """The failed sign-ins of one process, with a clock of its own."""

    def __init__(self, rig: Rig) -> None:
        self.now = 0.0
        self._rig = rig
        self.failed = FailedSignIns(
            rig.database, rig.policy, FakeAnnouncements(), rig.clock, lambda: self.now
        )

    async def fail(self, consumer: str, times: int = FAILURES, address: str = "192.0.2.1") -> None:
        for _ in range(times):
            self.failed.note(consumer, address)
        await self.failed.flush()


async def kinds(rig: Rig) -> list[tuple[str, str]]:
    rows = await rig.rows("SELECT consumer_id, type FROM hub.webhook_notice ORDER BY notice_id")
    return [(row[0], row[1]) for row in rows]


BOTH = [("crm", FAILED), ("admin", CONSUMER_FAILED)]


async def test_the_consumer_and_operators_are_told_once_a_day(rig: Rig, receiver: Receiver) -> None:
    await rig.endpoint(receiver.url + "/own", notices=True, consumer="crm")
    await rig.endpoint(receiver.url + "/operator", notices=True, consumer="admin")
    first, second = Process(rig), Process(rig)
    await first.fail("crm", FAILURES - 1)
    assert await kinds(rig) == [], "a few are typing errors"
    await first.fail("crm", 1, "2001:db8::1")
    assert await kinds(rig) == BOTH
    for process in (first, second):  # again, and in another process
        await process.fail("crm")
        process.now += PERIOD + 1
        await process.fail("crm")
    assert await kinds(rig) == BOTH
    await rig.deliver()
    for path, kind in (("/own", FAILED), ("/operator", CONSUMER_FAILED)):
        (told,) = map(lambda r: json.loads(r.body), receiver.of(path))
        assert told["type"] == kind
        assert told["data"]["addresses"] == ["192.0.2.1", "2001:db8::/64"]
        assert (told["data"]["consumerId"], told["data"]["failures"]) == ("crm", FAILURES)
    rig.clock.move(days=1, seconds=1)
    second.now += PERIOD + 1
    await second.fail("crm")
    assert await kinds(rig) == BOTH * 2


async def test_failures_that_are_far_apart_are_not_told(rig: Rig) -> None:
    process = Process(rig)
    for _ in range(3):
        await process.fail("crm", FAILURES - 1)
        process.now += PERIOD + 1
    assert await kinds(rig) == []


async def test_a_consumer_that_is_gone_and_more_consumers_than_are_counted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(rig)
    await process.fail("nobody")
    assert await kinds(rig) == []
    monkeypatch.setattr(sign_ins, "MAX_CONSUMERS", 1)
    await process.fail("crm")
    assert await kinds(rig) == [], "the place is taken"
    process.now += PERIOD + 1
    await process.fail("crm")
    assert await kinds(rig) == BOTH


async def test_a_notice_that_cannot_be_stored_is_stored_later(rig: Rig) -> None:
    process = Process(rig)
    for _ in range(FAILURES):
        process.failed.note("crm", "192.0.2.1")
    await rig.database.close()
    with pytest.raises(DatabaseUnavailable):
        await process.failed.flush()
    await rig.database.open()
    await process.failed.flush()
    assert await kinds(rig) == BOTH
