"""Over REST, a file that breaks off for any reason ends as a broken reply on the wire: no client
can take a part of a file for the whole.

Each experiment stops two downloads by curl in the middle, one over HTTP/1.1 and one over HTTP/2,
causes the fault, and lets them continue.
"""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest

from faults.exporting import receipt
from harness import PATIENCE, RunningHub, eventually, signal_processes

pytestmark = pytest.mark.lane("faults/own_hub", priority=2)

#: By the version of HTTP, curl's exit code for a reply that breaks off.
BROKEN = {"--http1.1": 18, "--http2-prior-knowledge": 92}
#: Together these records are larger than all buffers on the way to a client that stops reading.
RECORDS, NOTES = 160, 400_000
LAST = f"large-{RECORDS:04}"
#: Gives a record a time that the model cannot express.
UNREADABLE = "UPDATE data.customers SET create_time = '12000-01-01' WHERE customer_id = $1"

_LARGE = f"""
DO $$
DECLARE columns text;
BEGIN
    SELECT string_agg(quote_ident(column_name), ', ') INTO columns FROM information_schema.columns
    WHERE table_schema = 'data' AND table_name = 'customers'
    AND column_name NOT IN ('customer_id', 'notes', 'source');
    EXECUTE format('INSERT INTO data.customers (customer_id, notes, source, %s)
        SELECT ''large-'' || lpad(n::text, 4, ''0''), repeat(''x'', {NOTES}), ''large'', %s
        FROM (SELECT * FROM data.customers WHERE customer_id LIKE ''c0%%'' LIMIT 1) AS one,
        generate_series(1, {RECORDS}) AS n', columns, columns);
END $$
"""


@pytest.fixture
def large(own_hub: RunningHub) -> Iterator[RunningHub]:
    """A hub with some large records, which the log does not contain."""
    own_hub.sql(_LARGE)
    yield own_hub
    eventually(lambda: own_hub.sql("SELECT 1"))
    own_hub.sql("DELETE FROM data.customers WHERE source = 'large'")


@dataclass
class Download:
    """A download by curl that pauses after its first bytes."""

    process: subprocess.Popen[bytes]
    receipt: str
    size: int

    def finish(self) -> tuple[int, int]:
        """Read the rest; curl's exit code, and the bytes that arrived."""
        assert self.process.stdout is not None
        while data := self.process.stdout.read(1 << 20):
            self.size += len(data)
        return self.process.wait(PATIENCE), self.size


@contextlib.contextmanager
def downloads(
    hub: RunningHub, form: str, consumer: str = "admin", compressed: bool = False
) -> Iterator[dict[str, Download]]:
    """A download for each version of HTTP, whose first bytes have arrived."""
    with contextlib.ExitStack() as stack:
        yield {
            version: stack.enter_context(_download(hub, version, form, consumer, compressed))
            for version in BROKEN
        }


@contextlib.contextmanager
def _download(
    hub: RunningHub, version: str, form: str, consumer: str, compressed: bool
) -> Iterator[Download]:
    url = f"{hub.url}/v1/customers:export?format={form}&filter=source%3D%22large%22"
    head = ["--header", f"authorization: Bearer {hub.token(consumer)}"]
    if compressed:
        head += ["--header", "accept-encoding: gzip"]
    # The output has the head first, and then the body as it arrives.
    command = ["curl", "--silent", "--include", "--no-buffer", version, *head, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=1 << 16) as process:
        try:
            assert process.stdout is not None
            fields = dict[str, str]()
            status = process.stdout.readline()
            assert b" 200" in status, status
            while line := process.stdout.readline().decode().strip():
                name, _, value = line.partition(": ")
                fields[name.lower()] = value
            size = len(process.stdout.read(1000))
            yield Download(process, fields["penstock-receipt"], size)
        finally:
            process.kill()


def lose_access(hub: RunningHub, running: list[Download]) -> None:
    """The role may read other records from now on."""
    narrow = "UPDATE hub.grant SET row_filter = $1 WHERE role_id = 'crm' AND dataset = 'customers'"
    before = "SELECT row_filter FROM hub.grant WHERE role_id = 'crm' AND dataset = 'customers'"
    ((old,),) = hub.sql(before)
    hub.sql(narrow, 'source = "small"')
    try:
        ended(hub, running)
    finally:
        hub.sql(narrow, old)
        hub.settle()  # the next test has the same role


def ended(hub: RunningHub, running: list[Download]) -> None:
    """Wait until the receipts of the exports are closed."""
    ids = [one.receipt for one in running]
    open_ones = "SELECT 1 FROM hub.receipt WHERE receipt_id = ANY($1) AND state = 'RUNNING'"
    eventually(lambda: not hub.sql(open_ones, ids))


def at_backends(function: str) -> Callable[[RunningHub, list[Download]], None]:
    """Apply a fault to all sessions that send rows."""

    def cause(hub: RunningHub, running: list[Download]) -> None:
        copies = "FROM pg_stat_activity WHERE query LIKE 'COPY %' AND state = 'active'"
        assert hub.sql(f"SELECT {function}(pid) {copies}")

    return cause


def kill_database(hub: RunningHub, running: list[Download]) -> None:
    """The server dies; the hub starts another."""
    hub.kill("postgres")


def end_workers(how: signal.Signals) -> Callable[[RunningHub, list[Download]], None]:
    """Apply a fault to all workers."""

    def cause(hub: RunningHub, running: list[Download]) -> None:
        workers = hub.processes("worker")
        signal_processes(workers, how)
        assert not psutil.wait_procs(workers, PATIENCE)[1]

    return cause


CAUSES: dict[str, Callable[[RunningHub, list[Download]], None]] = {
    "access lost": lose_access,
    # A statement that takes too long ends the same way.
    "statement cancelled": at_backends("pg_cancel_backend"),
    "session killed": at_backends("pg_terminate_backend"),
    "database gone": kill_database,
    "worker killed": end_workers(signal.SIGKILL),
    "worker stopped": end_workers(signal.SIGTERM),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_file_that_breaks_off_is_broken_on_the_wire(large: RunningHub, cause: str) -> None:
    with downloads(large, "CSV", "crm") as running:
        CAUSES[cause](large, list(running.values()))
        found = {version: one.finish() for version, one in running.items()}
    assert {version: code for version, (code, _) in found.items()} == BROKEN
    assert all(size < RECORDS * NOTES for _, size in found.values())
    receipts = [one.receipt for one in running.values()]
    # A worker that dies leaves the receipt open, which then counts as failed; one that is stopped
    # cancels its calls.
    ends = {"FAILED", "CANCELLED"}
    eventually(lambda: {receipt(large, each, "crm")["state"] for each in receipts} <= ends)


@pytest.mark.parametrize("form", ["CSV", "NDJSON", "JSON", "XML", "PARQUET", "ARROW"])
def test_a_value_that_no_format_can_hold_breaks_the_file_off(large: RunningHub, form: str) -> None:
    large.sql(UNREADABLE, LAST)
    with downloads(large, form, compressed=True) as running:
        found = {version: one.finish()[0] for version, one in running.items()}
    assert found == BROKEN
    for one in running.values():
        told = receipt(large, one.receipt)
        assert (told["state"], told["reason"]) == ("FAILED", "RECORD_UNREADABLE")


def test_a_client_library_raises(large: RunningHub) -> None:
    large.sql(UNREADABLE, LAST)
    with pytest.raises(http.client.IncompleteRead):
        large.get("/v1/customers:export", format="CSV", filter='source = "large"')


def test_whole_files_are_not_broken(large: RunningHub) -> None:
    """Negative control: without a fault, the same downloads end well."""
    with downloads(large, "CSV") as running:
        found = {version: one.finish() for version, one in running.items()}
    assert all(code == 0 and size > RECORDS * NOTES for code, size in found.values())
