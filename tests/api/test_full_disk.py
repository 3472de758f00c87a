"""A full disk has a status of its own, and health reports it in advance."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog

from harness import PATIENCE, RunningHub, new_customer
from own_worker import Worker, worker
from penstock.api.v1 import customers_service_pb2 as api
from penstockd.formats import READERS
from penstockd.rpc import health
from penstockd.store import shortages

#: PostgreSQL's error if a file cannot grow.
FULL = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.notes = '{name}' THEN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER {name} BEFORE INSERT OR UPDATE ON data.customers
  FOR EACH ROW EXECUTE FUNCTION {name}();
"""


@contextlib.contextmanager
def full(hub: RunningHub, name: str) -> Iterator[None]:
    """Make writes of customers with these notes fail for lack of space."""
    hub.sql_script(FULL.format(name=name))
    try:
        yield
    finally:
        hub.sql_script(f"DROP FUNCTION {name}() CASCADE")


@pytest.mark.parametrize("accept", ["application/json", "application/problem+json"])
def test_no_room_is_507_and_reads_go_on(hub: RunningHub, accept: str) -> None:
    name = f"no_room_{accept[-4:]}"
    record = new_customer(notes=name)
    rows = json.dumps(record).encode()
    calls = [
        ("POST", "/v1/customers", rows),
        (
            "PATCH",
            "/v1/customers/c00000001?update_mask=notes",
            json.dumps({"notes": name}).encode(),
        ),
        ("POST", "/v1/customers:batchUpsert", json.dumps({"customers": [record]}).encode()),
        ("POST", "/v1/customers:import?format=NDJSON", rows),
    ]
    with full(hub, name):
        for method, path, body in calls:
            headers = {"accept": accept, "content-type": "application/json"}
            reply = hub.request(method, path, consumer="admin", body=body, headers=headers)
            assert reply.status == 507, (path, reply.text)
            assert "x-http-status" not in reply.headers
            told = reply.json()
            if accept.endswith("problem+json"):
                assert (told["reason"], told["status"]) == ("STORAGE_FULL", 507)
            else:
                assert (reply.reason, told["code"]) == ("STORAGE_FULL", 8)
        assert hub.get("/v1/customers/c00000001").status == 200
    # The control: with space, the same call succeeds.
    headers = {"content-type": "application/json"}
    reply = hub.request("POST", "/v1/customers", consumer="admin", body=rows, headers=headers)
    assert reply.status == 200
    hub.request("DELETE", f"/v1/customers/{record['customerId']}", consumer="admin")
    assert hub.get("/v1/errors/STORAGE_FULL").json()["httpStatus"] == 507


#: The same error when the transaction ends: an import has begun to reply by then.
FULL_AT_COMMIT = """
CREATE FUNCTION full_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.notes = 'full_at_commit' THEN
    RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full';
  END IF;
  RETURN NEW;
END $$;
CREATE CONSTRAINT TRIGGER full_at_commit AFTER INSERT ON data.customers
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION full_at_commit();
"""


@pytest.mark.parametrize("accept", ["application/json", "application/problem+json"])
def test_an_import_that_finds_no_room_at_its_end_is_507(hub: RunningHub, accept: str) -> None:
    record = new_customer(notes="full_at_commit")
    hub.sql_script(FULL_AT_COMMIT)
    try:
        reply = hub.request(
            "POST",
            "/v1/customers:import?format=NDJSON",
            consumer="admin",
            body=json.dumps(record).encode(),
            headers={"accept": accept, "content-type": "application/x-ndjson"},
        )
    finally:
        hub.sql_script("DROP FUNCTION full_at_commit() CASCADE")
    assert (reply.status, "x-http-status" in reply.headers) == (507, False), reply.text
    assert reply.headers["content-type"] == accept
    told = reply.json()
    assert (told["reason"] if accept.endswith("problem+json") else reply.reason) == "STORAGE_FULL"
    assert hub.get(f"/v1/customers/{record['customerId']}").status == 404


#: PostgreSQL's error if the audit cannot grow, for reads of one record.
NO_AUDIT = """
CREATE FUNCTION no_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.record_key = 'c00000007' THEN
    RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER no_audit BEFORE INSERT ON hub.audit_entry FOR EACH ROW EXECUTE FUNCTION no_audit();
"""


def test_a_read_for_which_the_audit_has_no_room_is_507(hub: RunningHub) -> None:
    hub.sql_script(NO_AUDIT)
    try:
        for accept in ("application/json", "application/xml", "*/*"):
            reply = hub.request(
                "GET", "/v1/customers/c00000007", consumer="admin", headers={"accept": accept}
            )
            assert (reply.status, "x-http-status" in reply.headers) == (507, False), reply.text
            assert "c00000007" not in reply.text
    finally:
        hub.sql_script("DROP FUNCTION no_audit() CASCADE")
    assert hub.get("/v1/customers/c00000007").status == 200


def test_livez_and_readyz_need_no_credentials(hub: RunningHub) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        assert hub.request("GET", path).status == 200


SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


async def becomes(worker: Worker, expected: dict[str, bytes]) -> None:
    """Wait until the health of the given parts is as expected."""
    check: Any = worker.channel.unary_unary("/grpc.health.v1.Health/Check")

    async def health(part: str) -> bytes:
        try:
            return bytes(await check(b"\x0a" + bytes([len(part)]) + part.encode()))
        except grpc.aio.AioRpcError:
            return b""  # not set yet

    deadline = time.monotonic() + PATIENCE
    while (found := {part: await health(part) for part in expected}) != expected:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


async def test_what_runs_short_is_not_well_before_it_fails_calls(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "NODE_PULSE", 0.1)
    async with worker(hub, monkeypatch) as well:
        await becomes(well, dict.fromkeys(("disk", "connections", "locks"), SERVING))
    monkeypatch.setattr(shortages, "CONNECTIONS_USED", 0.0)
    monkeypatch.setattr(shortages, "LOCK_SECONDS", 0.1)
    with structlog.testing.capture_logs() as logged:
        async with worker(hub, monkeypatch, disk_reserve_mb=1 << 40) as short:
            await becomes(
                short, {"disk": NOT_SERVING, "connections": NOT_SERVING, "locks": SERVING}
            )
            first, second = await asyncpg.connect(hub.dsn), await asyncpg.connect(hub.dsn)
            try:
                async with first.transaction():
                    await first.execute("LOCK TABLE data.contacts IN ACCESS EXCLUSIVE MODE")
                    waiting = asyncio.create_task(
                        second.fetchval("SELECT count(*) FROM data.contacts")
                    )
                    await becomes(short, {"locks": NOT_SERVING})
                await waiting
                await becomes(short, {"locks": SERVING})
            finally:
                await first.close()
                await second.close()
    events = [line["event"] for line in logged]
    assert all(events.count(f"{name}_short") == 1 for name in ("disk", "connections", "locks"))
    (held,) = [line for line in logged if line["event"] == "locks_short"]
    assert held["waiting"] and held["held_by_pids"]


def make_files() -> dict[str, tuple[str, bytes]]:
    """Files with one unknown column, in each format, by name: none needs a table."""
    table, arrow, parquet = pa.table({"nothing": ["x"]}), io.BytesIO(), io.BytesIO()
    with pa.ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, parquet)
    files = {
        "a Parquet file": ("PARQUET", parquet.getvalue()),
        "an Arrow stream": ("ARROW", arrow.getvalue()),
        "a few rows": ("CSV", b"nothing\nx\n"),
    }
    return files | {f"a long {name}": (name, b" " * (2 << 20)) for name in READERS}


async def test_imports_leave_the_reserve_of_the_disk_free(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def import_file(served: Worker, name: str, data: bytes) -> str:
        method: Any = served.channel.stream_unary(
            "/penstock.api.v1.Customers/ImportCustomers",
            request_serializer=lambda message: message.SerializeToString(),
        )
        request: Any = api.ImportCustomersRequest(format=name)
        request.file.data = data
        call = method(iter([request]), metadata=(("x-api-key", hub.api_key),), timeout=PATIENCE)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        return f"{raised.value.code().name} {raised.value.details()}"

    files = make_files()
    async with worker(hub, monkeypatch, disk_reserve_mb=1 << 40) as short:
        found = {what: await import_file(short, *file) for what, file in files.items()}
    # The control: a file that stays in memory is read, and refused for its contents.
    assert "unknown column" in found.pop("a few rows")
    wanted = "RESOURCE_EXHAUSTED the hub's disk has no space for the file; nothing was written"
    assert found == dict.fromkeys(found, wanted)
    async with worker(hub, monkeypatch) as well:
        for what, file in files.items():
            assert "INVALID_ARGUMENT" in await import_file(well, *file), what
