"""A write that keeps losing the race for a new key ends and reports that it can be repeated.

Writers that create and delete a record between two looks of one write cannot be timed. A trigger
stands for them: it keeps the row out, as a row of another transaction does.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from harness import Reply, RunningHub
from penstock.api.v1 import customers_service_pb2, customers_service_pb2_grpc
from penstock.model.v1 import customers_pb2
from penstockd.answers.reasons import REASONS
from penstockd.store.writer import RACES

DOCUMENTED = REASONS["CONFLICT"]


@pytest.fixture
def contested(hub: RunningHub) -> Iterator[str]:
    """A key that others always create first; a sequence counts the attempts."""
    name = f"race_{uuid.uuid4().hex[:8]}"
    hub.sql(f"CREATE SEQUENCE public.{name}")
    hub.sql(f"GRANT ALL ON SEQUENCE public.{name} TO PUBLIC")
    hub.sql(
        f"CREATE FUNCTION public.{name}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM nextval('public.{name}'); RETURN NULL; END $$"
    )
    hub.sql(
        f"CREATE TRIGGER {name} BEFORE INSERT ON data.customers FOR EACH ROW"
        f" WHEN (NEW.customer_id = '{name}') EXECUTE FUNCTION public.{name}()"
    )
    try:
        yield name
    finally:
        give_in(hub, name)
        hub.sql(f"DROP SEQUENCE public.{name}")


def give_in(hub: RunningHub, name: str) -> None:
    """Remove the other writers."""
    hub.sql(f"DROP FUNCTION IF EXISTS public.{name}() CASCADE")


def tries(hub: RunningHub, name: str) -> int:
    """The number of attempts to insert the key."""
    last, called = hub.sql(f"SELECT last_value, is_called FROM public.{name}")[0]
    return int(last) if called else 0


def outcome(hub: RunningHub, request_id: str) -> list[tuple[object, ...]]:
    """The outcome of a call in the audit, and the number of records in its entry."""
    return hub.sql(
        "SELECT outcome, row_count FROM hub.audit_entry WHERE request_id = $1", request_id
    )


def test_a_lost_race_is_answered_as_documented_over_rest(hub: RunningHub, contested: str) -> None:
    other = f"{contested}_beside"
    body = {"customers": [{"customerId": key, "name": "Race"} for key in (contested, other)]}
    once = {"idempotency-key": f"once-{uuid.uuid4().hex}"}

    def write() -> Reply:
        path = "/v1/customers:batchUpsert"
        return hub.request("POST", path, consumer="admin", json_body=body, headers=once)

    reply = write()
    assert (reply.status, reply.reason) == (409, "CONFLICT"), reply.text
    told = reply.json()
    assert told["code"] == DOCUMENTED.code
    (retry,) = [d for d in told["details"] if d["@type"].endswith("RetryInfo")]
    assert retry["retryDelay"] == f"{DOCUMENTED.retry_seconds}s"
    assert tries(hub, contested) == RACES
    assert outcome(hub, reply.request_id) == [("CONFLICT", None)]
    # All or nothing: the other record of the call is neither stored nor logged.
    logged = "SELECT count(*) FROM hub.change WHERE key = ANY($1)"
    assert hub.sql(logged, [contested, other]) == [(0,)]
    assert hub.get(f"/v1/customers/{other}").status == 404
    # The call can be repeated under the same id.
    give_in(hub, contested)
    again = write()
    assert again.status == 200, again.text
    assert hub.sql(logged, [contested, other]) == [(2,)]


def test_a_lost_race_is_answered_as_documented_over_grpc(hub: RunningHub, contested: str) -> None:
    record = customers_pb2.Customer(customer_id=contested, name="Race")
    request = customers_service_pb2.BatchUpsertCustomersRequest(customers=[record])
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        stub = customers_service_pb2_grpc.CustomersStub(channel)
        with pytest.raises(grpc.RpcError) as raised:
            stub.BatchUpsertCustomers(request, metadata=hub.metadata("admin"))
    failed: Any = raised.value
    status = rpc_status.from_call(failed)
    assert status is not None and status.code == DOCUMENTED.code
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for message in (info, retry):
        assert any(detail.Unpack(message) for detail in status.details)
    assert (info.reason, retry.retry_delay.seconds) == ("CONFLICT", DOCUMENTED.retry_seconds)
    assert tries(hub, contested) == RACES


def test_a_create_that_loses_says_that_the_record_exists(hub: RunningHub, contested: str) -> None:
    body = {"customerId": contested, "name": "Race"}
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=body)
    assert (reply.status, reply.reason) == (409, "RECORD_EXISTS"), reply.text
    assert tries(hub, contested) == 1
