"""``penstock watch --cursor-file`` while the hub behind it is killed, stopped and started again."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import Reply, RunningHub, eventually, new_customer, signal_processes

pytestmark = pytest.mark.lane("faults/own_hub")

#: Records of one transaction: more than fit in one message.
MANY = 700


class Watched:
    """A file that the command appends to, and its expected contents."""

    def __init__(self, hub: RunningHub, folder: Path, beside: Watched | None = None) -> None:
        self.hub = hub
        self.cursor, self.output = folder / "cursor", folder / "out.ndjson"
        self.source: str = beside.source if beside else f"watched-{uuid.uuid4().hex[:8]}"
        self.made: list[str] = beside.made if beside else []

    def write(self, count: int = 1) -> None:
        """Make a transaction, repeated under its name until the hub has answered."""
        records = [new_customer(source=self.source) for _ in range(count)]
        body = {"customers": records, "requestId": str(uuid.uuid4())}

        def written() -> Reply | None:
            path = "/v1/customers:batchUpsert"
            try:
                reply = self.hub.request("POST", path, consumer="admin", json_body=body)
            except (OSError, http.client.HTTPException):
                return None
            return reply if reply.status < 500 and reply.status != 409 else None

        reply: Reply = eventually(written)
        assert reply.json()["createdCount"] == str(count), reply.text
        self.made += [record["customerId"] for record in records]

    def printed(self) -> list[str]:
        """The printed keys, in order."""
        text = self.output.read_text() if self.output.exists() else ""
        # The last line may be incomplete.
        whole = text[: text.rfind("\n") + 1]
        return [json.loads(line)["key"] for line in whole.splitlines()]

    def is_told(self) -> bool:
        """Whether everything was printed, and the place remembered."""
        return self.cursor.exists() and set(self.printed()) >= set(self.made)

    def goes_on(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether a working command prints earlier changes again."""
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.fail(f"the command has ended: {process.stderr.read().decode()}")
        return len(self.printed()) > len(self.made)

    @contextmanager
    def watching(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the command during the block."""
        arguments = (
            "watch", "customers", "--format", "json", "--filter", f'source = "{self.source}"',
            "--cursor-file", str(self.cursor), "--output", str(self.output), "--snapshot",
        )  # fmt: skip
        line = [sys.executable, "-m", "penstock.client.cli", *arguments]
        errors = subprocess.PIPE
        with subprocess.Popen(line, env=self.hub.env(), stderr=errors) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate()
            assert process.returncode == 128 + signal.SIGTERM, said.decode()

    def judge(self) -> None:
        """Everything was printed once, in the order of the writes."""
        printed = self.printed()
        assert [key for key, times in Counter(printed).items() if times > 1] == []
        assert printed == self.made


def test_killed_workers_lose_and_repeat_nothing(own_hub: RunningHub, tmp_path: Path) -> None:
    watched = Watched(own_hub, tmp_path)
    watched.write()
    with watched.watching() as process:
        eventually(watched.is_told)
        for _ in range(3):
            watched.write(MANY)
            signal_processes(own_hub.processes("worker"), signal.SIGKILL)
            watched.write(3)
            eventually(watched.is_told)
        assert process.poll() is None
    watched.judge()
    # A command that forgets its place starts again, and the judge finds that.
    watched.cursor.unlink()
    with watched.watching() as process:
        eventually(lambda: watched.goes_on(process))
    with pytest.raises(AssertionError):
        watched.judge()


def test_a_hub_that_restarts_loses_and_repeats_nothing(own_hub: RunningHub, tmp_path: Path) -> None:
    watched = Watched(own_hub, tmp_path)
    (tmp_path / "other").mkdir()
    other = Watched(own_hub, tmp_path / "other", beside=watched)
    watched.write()
    # One command waits until the hub is back, the other ends while the hub is away.
    with watched.watching() as process:
        with other.watching():
            eventually(lambda: watched.is_told() and other.is_told())
            own_hub.stop()
        own_hub.start()
        watched.write(MANY)
        eventually(watched.is_told)
        assert process.poll() is None
        assert not other.is_told()
        with other.watching():
            eventually(other.is_told)
    watched.judge()
    other.judge()
