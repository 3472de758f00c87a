"""kill -9 of each process under the supervisor: it is restarted, and nothing is lost."""

from __future__ import annotations

import pytest

from harness import RunningHub, eventually, new_customer

pytestmark = pytest.mark.lane("faults/own_hub")


def create(hub: RunningHub) -> str:
    """A new customer; its path."""
    record = new_customer()
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    assert reply.status == 200, reply.text
    return f"/v1/customers/{record['customerId']}"


@pytest.mark.parametrize("kind", ["worker", "keeper", "envoy", "postgres", "backend", "guard"])
def test_a_killed_process_comes_back(own_hub: RunningHub, kind: str) -> None:
    path = create(own_hub)
    before = own_hub.processes(kind)
    # PostgreSQL ends all backends when one is killed, and the hub reconnects when it needs to: it
    # needs one session, and may have had any number before.
    wanted = 1 if kind == "backend" else len(before)
    own_hub.kill(kind)
    # Only failed calls may be repeated at once; the earlier record is still there.
    eventually(lambda: own_hub.get(path).status == 200)

    def back() -> bool:
        now = own_hub.processes(kind)
        return len(now) >= wanted and before[0] not in now

    eventually(back)
    eventually(lambda: create(own_hub))
    own_hub.head()
    created = eventually(lambda: create(own_hub)).rpartition("/")[2]
    # The keeper and the workers number changes as before.
    own_hub.head()
    assert own_hub.sql("SELECT operation FROM hub.change WHERE key = $1", created) == [(1,)]


def test_what_a_worker_left_unnumbered_the_keeper_numbers(own_hub: RunningHub) -> None:
    """As after a kill between the commit and the stamp: the worker finds the sequencer's lock
    taken, and there are no more writes."""
    head = own_hub.head()
    with own_hub.holding("SELECT pg_advisory_lock(hashtext('penstock.sequencer'))"):
        create(own_hub)
        assert own_hub.sql("SELECT last_number FROM hub.log_head") == [(head,)]
        assert own_hub.sql("SELECT count(*) FROM hub.pending") == [(1,)]
    assert own_hub.head() == head + 1
