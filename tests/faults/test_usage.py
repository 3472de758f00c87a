"""Usage through the door: every method is counted, within seconds, and exactly once, whoever is
killed or frozen meanwhile."""

from __future__ import annotations

import csv
import http.client
import io
import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import grpc
import pyarrow.parquet
import pytest

from faults.exporting import export, multiply, receipt
from feeds import Made, consumer_with, credentials, grant, watch
from harness import PATIENCE, RunningHub, eventually, folder, promptly, timed
from security.calls import every_route

COUNTS = ("calls", "errors", "records", "bytes")
#: Who is killed, or frozen for longer than its lease, while calls go on.
VICTIMS = ("keeper", "worker", "keeper", "frozen keeper", "worker", "keeper")
LEASE = 6.0
LIST = "/penstock.api.v1.Customers/ListCustomers"
EXPORT = "/penstock.api.v1.Customers/StreamExportCustomers"


def values_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["method"], row["status"], *counts_of(row))


def read_csv(kind: str, data: bytes) -> list[tuple[Any, ...]]:
    assert kind.startswith("text/csv")
    return [values_of(row) for row in csv.DictReader(io.StringIO(data.decode()))]


def read_xml(kind: str, data: bytes) -> list[tuple[Any, ...]]:
    assert kind == "application/xml"
    rows = ElementTree.fromstring(data)
    return [values_of({cell.tag: cell.text for cell in row}) for row in rows]


#: Readers of files of reports, by format or media type.
READERS: dict[str, Callable[[str, bytes], list[tuple[Any, ...]]]] = {
    "JSON": lambda _, data: [values_of(row) for row in json.loads(data)],
    "ndjson": lambda _, data: [values_of(json.loads(line)) for line in data.splitlines()],
    "CSV": read_csv,
    "text/csv": read_csv,
    "XML": read_xml,
    "PARQUET": lambda _, data: [
        values_of(row) for row in pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    ],
}


@pytest.fixture(scope="module")
def metered() -> Iterator[RunningHub]:
    """A hub whose audit nothing but its calls changes."""
    with folder() as data:
        hub = RunningHub(data / "hub", customers=300, environment={"PENSTOCK_WORKERS": "2"})
        hub.start()
        try:
            yield hub
        finally:
            hub.stop()


def report(hub: RunningHub, key: str, **query: object) -> list[dict[str, Any]]:
    """The rows of a report, as a consumer gets it by its API key."""
    path = "/v1/usage:report?" + "&".join(f"{k}={v}" for k, v in query.items())
    headers = {"x-api-key": key.removeprefix("key:")}
    reply = hub.request("GET", path, headers=headers)
    assert reply.status == 200, reply.text
    assert not reply.json().get("nextPageToken")
    return list(reply.json().get("rows", []))


def fresh_report(hub: RunningHub, **query: object) -> list[dict[str, Any]]:
    """The rows of an administrator's report that counts every call answered before this one."""
    now = datetime.now(UTC)

    def rows() -> list[dict[str, Any]] | None:
        asked = {"pageSize": 1000, **query}
        reply = hub.request("GET", "/v1/usage:report", consumer="admin", query=asked)
        assert reply.status == 200, reply.text
        fresh = datetime.fromisoformat(reply.json()["freshTime"])
        return list(reply.json().get("rows", [])) if fresh >= now else None

    return list(eventually(rows))


def counts_of(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(row.get(name, 0)) for name in COUNTS)


def reconcile(hub: RunningHub) -> dict[str, Any]:
    """What ``penstock usage reconcile`` finds; it must be no difference."""
    done = hub.command("usage", "reconcile", "--format", "json", check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(found["difference"].values()) == {0} and found["findings"] == []
    assert found["metered"] == found["audited"]
    return found


def test_every_method_is_counted(metered: RunningHub) -> None:
    """Each method, as a caller without a role: its call is counted, once."""
    routes = [r for r in every_route() if r.method.audited and not r.method.public]
    with consumer_with(metered) as made, grpc.insecure_channel(f"127.0.0.1:{metered.port}") as way:
        for route in routes:
            call: Any = way.stream_stream(route.method.path)
            replies = call(iter([b""]), metadata=credentials(metered, made.key), timeout=PATIENCE)
            try:
                for _ in replies:
                    pass
            except grpc.RpcError as error:
                assert error.code() is not grpc.StatusCode.UNIMPLEMENTED, route.method.path
        rows = fresh_report(metered, groupBy="method", consumer=made.name)
        assert {row["method"]: counts_of(row)[0] for row in rows} == {
            route.method.path: 1 for route in routes
        }
        assert sum(counts_of(row)[1] for row in rows) > len(routes) / 2


def test_what_a_consumer_used_is_reported(metered: RunningHub) -> None:
    with consumer_with(metered, grant("customers", email="hash")) as made:
        headers = {"x-api-key": made.key.removeprefix("key:")}
        for path, status in (
            ("/v1/customers?page_size=7", 200),
            ("/v1/customers?page_size=7", 200),
            ("/v1/customers/nobody", 404),
            ("/v1/orders", 403),
        ):
            assert metered.request("GET", path, headers=headers).status == status
        with watch(metered, made.key, "customers", snapshot=True):
            pass  # cancelled as soon as it has begun
        rows = fresh_report(metered, groupBy="method", consumer=made.name)
        by_method = {row["method"].rpartition("/")[2]: counts_of(row) for row in rows}
        assert by_method["ListCustomers"][:3] == (2, 0, 14) and by_method["ListCustomers"][3] > 0
        assert by_method["GetCustomer"] == (1, 1, 0, 0)
        assert by_method["ListOrders"] == (1, 1, 0, 0)
        assert by_method["WatchCustomers"][0] == 1
        classes = report(metered, made.key, groupBy="field_class", method=LIST)
        assert {row.get("fieldClass", "") for row in classes} >= {"public", "internal", "pii"}
        assert all(counts_of(row)[2] == 14 for row in classes)
        # It sees its own usage, and nobody else's.
        rows = report(metered, made.key, groupBy="consumer")
        assert [row["consumer"] for row in rows] == [made.name]
        reply = metered.request("GET", "/v1/usage:report?consumer=admin", headers=headers)
        assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED")
        text = metered.command(
            *("usage", "report", "--by", "consumer,day", "--top", "calls", "--format", "csv"),
            *("--zone", "Asia/Kolkata", "--consumer", made.name),
        ).stdout.decode()
        (line,) = csv.DictReader(io.StringIO(text))
        assert line["consumer"] == made.name and int(line["calls"]) >= 5


def test_a_stream_counts_what_it_sent(metered: RunningHub) -> None:
    whole = export(metered, "bi", format="CSV")
    found = receipt(metered, whole.receipt, "bi")
    rows = fresh_report(metered, groupBy="status", consumer="bi", method=EXPORT)
    assert [(row["status"], *counts_of(row)) for row in rows] == [
        ("OK", 1, 0, int(found["rowCount"]), int(found["byteCount"]))
    ]


#: Exports that have ended, and how their receipts differ from the entries of their ends.
CUT = """
SELECT count(*), sum(r.row_count - e.row_count)::bigint, sum(r.byte_count - e.byte_count)::bigint
FROM hub.receipt AS r JOIN hub.audit_entry AS e USING (receipt_id)
WHERE e.phase = 'END' AND r.consumer_id = 'crm' AND r.state <> 'RUNNING'
"""


@pytest.mark.slow
def test_streams_that_break_off_are_counted(metered: RunningHub) -> None:
    """Cut by their clients, and by the death of their worker: what they sent counts, once."""
    with (
        consumer_with(metered, grant("customers")) as made,
        watch(metered, made.key, "customers", snapshot=True) as stream,
    ):
        stream.until(lambda: len(stream.events) >= 300)
        # What was sent is noted within seconds; only then the worker may die.
        noted = "SELECT count(*) FROM hub.open_stream WHERE row_count = 300"
        eventually(lambda: metered.sql(noted) == [(1,)])
        for worker in metered.processes("worker"):
            worker.send_signal(signal.SIGKILL)
        with pytest.raises(grpc.RpcError):
            stream.until(lambda: False)
        eventually(lambda: metered.sql("SELECT count(*) FROM hub.open_stream") == [(0,)])
        rows = fresh_report(metered, groupBy="status", consumer=made.name)
        found = {row["status"]: counts_of(row) for row in rows}
        assert found["HUB_UNAVAILABLE"][:3] == (0, 1, 300) and found["HUB_UNAVAILABLE"][3] > 0
    multiply(metered, 100)
    for until in (1, 400_000, 1_000_000):
        assert len(export(metered, "crm", until=until, format="NDJSON").data) == until
    eventually(lambda: metered.sql(CUT) == [(3, 0, 0)])
    reconcile(metered)


def report_file(hub: RunningHub, key: str, accept: str = "", **query: object) -> tuple[str, bytes]:
    """The content type and content of a report as a file."""
    headers = {"x-api-key": key.removeprefix("key:")} | ({"accept": accept} if accept else {})
    path = "/v1/usage:export?" + "&".join(f"{k}={v}" for k, v in query.items())
    reply = hub.request("GET", path, headers=headers)
    assert reply.status == 200, reply.text
    return reply.headers["content-type"], reply.body


def test_reports_are_files_too(metered: RunningHub) -> None:
    """The same rows in every format; a caller without the permission gets its own."""
    with consumer_with(metered, grant("customers")) as made:
        headers = {"x-api-key": made.key.removeprefix("key:")}
        for _ in range(3):
            metered.request("GET", "/v1/customers?page_size=2", headers=headers)
        metered.request("GET", "/v1/customers/nobody", headers=headers)
        asked = {"group_by": "method&group_by=status"}
        fresh_report(metered)

        def of_customers(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
            """Without the calls of the reports themselves."""
            return [row for row in rows if "Customer" in row[0]]

        right = of_customers([values_of(row) for row in report(metered, made.key, **asked)])
        assert [row[1:3] for row in right] == [("RECORD_NOT_FOUND", 1), ("OK", 3)]

        def read(form: str, accept: str = "") -> list[tuple[Any, ...]]:
            named = {"format": form} if form else {}
            kind, data = report_file(metered, made.key, accept, **named, **asked)
            return of_customers(READERS[accept or form](kind, data))

        for form in ("JSON", "ndjson", "CSV", "XML", "PARQUET"):
            assert read(form) == right, form
        assert read("", "text/csv") == right
        for form in ("XLSX", "nothing"):
            path = f"/v1/usage:export?format={form}"
            assert metered.request("GET", path, headers=headers).reason == "FORMAT_UNKNOWN"
        path = "/v1/usage:export?consumer=admin"
        assert metered.request("GET", path, headers=headers).status == 403


def test_usage_is_reported_within_seconds(metered: RunningHub) -> None:
    with consumer_with(metered, grant("customers")) as made:
        headers = {"x-api-key": made.key.removeprefix("key:")}

        def attempt() -> float:
            assert (
                metered.request("GET", "/v1/customers?page_size=1", headers=headers).status == 200
            )
            wanted[0] += 1
            return timed(lambda: counted() == wanted[0])

        def counted() -> int:
            rows = report(metered, made.key, method=LIST)
            return int(rows[0]["calls"]) if rows else 0

        wanted = [0]
        promptly(3.0, attempt)


class Caller:
    """Makes calls until it is stopped; counts the answers by status."""

    def __init__(self, hub: RunningHub, made: Made) -> None:
        self._hub, self._headers = hub, {"x-api-key": made.key.removeprefix("key:")}
        self.answered: Counter[int] = Counter()
        self.stop = threading.Event()

    def call(self) -> None:
        """Call until stopped."""
        while not self.stop.is_set():
            try:
                reply = self._hub.request("GET", "/v1/customers?page_size=3", headers=self._headers)
                self.answered[reply.status] += 1
            except (OSError, http.client.HTTPException):
                continue  # nobody was there; whether it was counted is not known

    def harm(self, victim: str) -> None:
        """Kill or freeze a process after some more answers, and wait for its successor."""
        before = self.answered[200]
        eventually(lambda: self.answered[200] > before + 20)
        name = victim.rpartition(" ")[2]
        if victim == name:
            self._hub.kill(name)
        else:
            process = self._hub.processes(name)[0]
            process.send_signal(signal.SIGSTOP)
            self.stop.wait(LEASE + 1)
            process.send_signal(signal.SIGCONT)
        eventually(lambda: self._hub.processes(name))


@pytest.mark.slow
def test_every_call_is_counted_once_whoever_is_killed(metered: RunningHub) -> None:
    with consumer_with(metered, grant("customers")) as made, ThreadPoolExecutor(2) as pool:
        caller = Caller(metered, made)
        calling = [pool.submit(caller.call) for _ in range(2)]
        try:
            for victim in VICTIMS:
                caller.harm(victim)
        finally:
            caller.stop.set()
        for each in calling:
            each.result(PATIENCE)
        (row,) = fresh_report(metered, consumer=made.name, method=LIST, status="OK")
        calls, _, records, _ = counts_of(row)
        entries = metered.sql(
            "SELECT count(*), sum(row_count)::bigint FROM hub.audit_entry"
            " WHERE consumer_id = $1 AND method = $2 AND outcome = 'OK'",
            made.name,
            LIST,
        )
        assert entries == [(calls, records)]
        assert calls >= caller.answered[200] > 20 * len(VICTIMS)
    reconcile(metered)
    # The control: a rollup that counts one call twice is found.
    damage = "UPDATE hub.usage_minute SET calls = calls {} WHERE (bucket_time, series_id) = ("
    damage += "SELECT bucket_time, series_id FROM hub.usage_minute ORDER BY 1, 2 LIMIT 1)"
    metered.sql_script(damage.format("+ 1"))
    done = metered.command("usage", "reconcile", check=False)
    assert done.returncode == 1 and b"NOT RECONCILED" in done.stdout
    metered.sql_script(damage.format("- 1"))
    reconcile(metered)
