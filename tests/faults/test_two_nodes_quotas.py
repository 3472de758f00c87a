"""S8: limits hold over two nodes with two workers each, exactly.

``scripts/soak s8`` runs longer: PENSTOCK_S8_ROUNDS rounds of PENSTOCK_S8_CALLERS calls at one time;
and it measures a rate for PENSTOCK_S8_SECONDS, which nothing measures here.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from feeds import Made, consumer_with, grant
from harness import PATIENCE, RunningHub, eventually, folder

pytestmark = pytest.mark.lane(priority=11)

ROUNDS = int(os.environ.get("PENSTOCK_S8_ROUNDS", "3"))
CALLERS = int(os.environ.get("PENSTOCK_S8_CALLERS", "48"))
SECONDS = int(os.environ.get("PENSTOCK_S8_SECONDS", "0"))
CALL = "/v1/customers?page_size=1"
#: The calls of a consumer that the audit says were answered, and charged.
ADMITTED = (
    "SELECT count(*) FROM hub.audit_entry"
    " WHERE consumer_id = $1 AND method LIKE '%ListCustomers' AND outcome = 'OK'"
)


@dataclass
class Pair:
    """Two nodes on one database, and a consumer with limits."""

    hubs: tuple[RunningHub, RunningHub]
    made: Made

    def limit(self, **limits: Any) -> None:
        """Give the consumer these limits alone; they are in force at both nodes on return."""
        path = f"/v1/access/consumers/{self.made.name}?update_mask=limits"
        near = self.hubs[0]
        reply = near.insist("PATCH", path, consumer="admin", json_body={"limits": limits})
        assert reply.status == 200, reply.text
        for hub in self.hubs:
            hub.settle()

    def call(self, turn: int) -> int:
        """The status of one call, of every other one at the second node."""
        headers = {"x-api-key": self.made.key.removeprefix("key:")}
        return self.hubs[turn % 2].request("GET", CALL, headers=headers).status

    def flood(self, calls: int) -> Counter[int]:
        """So many calls, CALLERS at one time; the answers by status."""
        with ThreadPoolExecutor(CALLERS) as pool:
            return Counter(pool.map(self.call, range(calls)))

    def admitted(self) -> int:
        """The calls that were admitted, by the audit."""
        return int(self.hubs[0].sql(ADMITTED, self.made.name)[0][0])


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[RunningHub, RunningHub]]:
    common = {"PENSTOCK_WORKERS": "2", "PENSTOCK_PUBLIC_URL": "http://hub.example.com"}
    with folder() as data:
        near = RunningHub(data / "near", customers=20, environment=dict(common))
        near.start()
        far = RunningHub(data / "far", customers=20, environment=dict(common))
        secret = (near.data / "secret").read_text().strip()
        far.environment |= {"PENSTOCK_DATABASE_URL": near.dsn, "PENSTOCK_SECRET": secret}
        try:
            far.command("up", "--detach")
            shutil.copy(near.data / "demo.json", far.data)  # the credentials of both
            yield near, far
        finally:
            far.stop()
            near.stop()


@pytest.fixture
def pair(nodes: tuple[RunningHub, RunningHub]) -> Iterator[Pair]:
    with consumer_with(nodes[0], grant("customers")) as made:
        yield Pair(nodes, made)


@pytest.mark.slow
def test_a_quota_admits_exactly_its_limit_at_two_nodes(pair: Pair) -> None:
    """From nothing to the limit, and then one more in each round, whoever asks for it."""
    most = CALLERS + CALLERS // 2
    pair.limit(quotas=[{"what": "calls", "per": "month", "limit": str(most)}])
    assert pair.flood(2 * CALLERS) == {200: most, 429: 2 * CALLERS - most}
    for more in range(1, ROUNDS + 1):
        pair.limit(quotas=[{"what": "calls", "per": "month", "limit": str(most + more)}])
        assert pair.flood(CALLERS) == {200: 1, 429: CALLERS - 1}
        assert pair.admitted() == most + more
    used = "SELECT sum(used)::int FROM hub.allowance WHERE consumer_id = $1"
    assert pair.hubs[0].sql(used, pair.made.name) == [(most + ROUNDS,)]


@pytest.mark.slow
@pytest.mark.skipif(not SECONDS, reason="scripts/soak s8 measures it, with nothing else to do")
def test_a_rate_is_exact_at_two_nodes(pair: Pair) -> None:
    """Within a tenth over SECONDS, once the burst is over, while both nodes are asked for more."""
    rate, burst = 50, 10
    pair.limit(rates=[{"perSecond": rate, "burst": burst}])
    stop, refused = threading.Event(), Counter[int]()

    def call(turn: int) -> None:
        while not stop.is_set():
            refused[pair.call(turn)] += 1

    began = (
        "SELECT min(entry_time) + interval '1 second' FROM hub.audit_entry"
        " WHERE consumer_id = $1 AND outcome = 'RATE_LIMITED'"
    )
    with ThreadPoolExecutor(8) as pool:
        calling = [pool.submit(call, turn) for turn in range(8)]
        try:
            eventually(lambda: pair.hubs[0].sql(began, pair.made.name)[0][0])
            ((start,),) = pair.hubs[0].sql(began, pair.made.name)
            over = "SELECT clock_timestamp() > $1::timestamptz + make_interval(secs => $2)"
            eventually(
                lambda: pair.hubs[0].sql(over, start, SECONDS + 1.0)[0][0], seconds=2 * SECONDS + 60
            )
        finally:
            stop.set()
        for each in calling:
            each.result(PATIENCE)
    within = f"{ADMITTED} AND entry_time >= $2 AND entry_time < $2 + make_interval(secs => $3)"
    ((admitted,),) = pair.hubs[0].sql(within, pair.made.name, start, float(SECONDS))
    assert refused[429] > 0
    assert 0.9 * rate * SECONDS <= admitted <= 1.1 * rate * SECONDS, admitted
