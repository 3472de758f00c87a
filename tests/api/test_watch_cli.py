"""``penstock watch`` and ``penstock changes``: what was printed is not lost and not repeated."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import RunningHub, eventually, new_customer


class Watching:
    """The command under way."""

    def __init__(self, hub: RunningHub, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "penstock.client.cli", "watch", *arguments],
            env=hub.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def lines(self) -> Iterator[str]:
        """What it prints."""
        assert self.process.stdout is not None
        yield from self.process.stdout

    def changes(self) -> Iterator[dict[str, Any]]:
        """The same as JSON."""
        yield from map(json.loads, self.lines())

    def end(self, number: int) -> tuple[int, list[str], str]:
        """Send a signal; exit code, what else was printed, and what was said."""
        self.process.send_signal(number)
        printed, said = self.process.communicate(timeout=120)
        return self.process.returncode, printed.splitlines(), said


@contextlib.contextmanager
def watching(hub: RunningHub, *arguments: str) -> Iterator[Watching]:
    made = Watching(hub, *arguments)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.communicate()


def create(hub: RunningHub) -> str:
    record = new_customer()
    assert hub.request("POST", "/v1/customers", consumer="admin", json_body=record).status == 200
    return str(record["customerId"])


def own(keys: list[str], mine: list[str]) -> list[str]:
    """Other tests write to the same hub."""
    return [key for key in keys if key in mine]


def test_the_present_and_then_what_changes(hub: RunningHub) -> None:
    before = create(hub)
    with watching(hub, "customers", "--snapshot") as command:
        changes = command.changes()
        for change in changes:
            assert change["operation"] == "SNAPSHOT"
            if change["key"] == before:
                break
        # Whatever is left of the snapshot stands before it.
        after = create(hub)
        change = next(c for c in changes if c["operation"] != "SNAPSHOT" and c["key"] == after)
        assert change["operation"] == "CREATED"
        assert change["after"]["customerId"] == after
        code, _, said = command.end(signal.SIGINT)
        assert (code, said) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_cursor_file_goes_on_where_it_was(
    hub: RunningHub, tmp_path: Path, number: signal.Signals
) -> None:
    file, mine, seen = tmp_path / "cursor", [], []
    arguments = ("customers", "--fields", "customer_id", "--cursor-file", str(file))
    with watching(hub, *arguments) as command:
        eventually(file.exists)  # it has begun
        for _ in range(5):
            mine.append(create(hub))
        for change in command.changes():
            seen.append(change["key"])
            if change["key"] == mine[-1]:
                break
        # Killed between print and file, the last batch may come again: here the file is waited for.
        cursor = file.read_text
        number_of = hub.head()
        eventually(lambda: reached(cursor(), number_of))
        _, printed, _ = command.end(number)
        seen += [json.loads(line)["key"] for line in printed]
    for _ in range(5):
        mine.append(create(hub))
    with watching(hub, *arguments) as command:
        for change in command.changes():
            seen.append(change["key"])
            if change["key"] == mine[-1]:
                break
    assert own(seen, mine) == mine


def reached(text: str, number: int) -> bool:
    from penstockd.store.cursor import Cursor

    return Cursor.parse(json.loads(text)["cursor"]).number >= number


def test_a_snapshot_with_a_file_goes_on_from_the_file(hub: RunningHub, tmp_path: Path) -> None:
    file = tmp_path / "cursor"
    begin = ("products", "--snapshot", "--cursor-file", str(file), "--format", "table")
    count = len(hub.get("/v1/products", page_size=1000, fields="product_id").json()["products"])
    with watching(hub, *begin) as command:
        for _ in zip(range(count), command.lines(), strict=False):
            pass
        eventually(file.exists)  # written behind the snapshot
        command.end(signal.SIGINT)
    product = f"t-{tmp_path.name}"
    body = {"productId": product, "name": "Valve"}
    assert hub.request("POST", "/v1/products", consumer="admin", json_body=body).status == 200
    try:
        more = ("--snapshot", "--cursor-file", str(file), "--limit", "1", "--format", "table")
        done = hub.command("watch", "products", *more)
        assert done.stdout.decode().split()[1:] == ["CREATED", "products", product]
    finally:
        hub.request("DELETE", f"/v1/products/{product}", consumer="admin")


def test_a_poll_prints_changes_and_where_to_go_on(hub: RunningHub) -> None:
    said = hub.command("changes", "customers").stderr.decode()
    word, cursor = said.split()[:2]
    assert word == "cursor"
    key = create(hub)
    done = hub.command("changes", "customers", "--cursor", cursor, "--wait", "20")
    keys = [json.loads(line)["key"] for line in done.stdout.splitlines()]
    assert own(keys, [key]) == [key]
    mixed = hub.command("changes", "customers", "orders", "--cursor", cursor)
    assert {json.loads(line)["dataset"] for line in mixed.stdout.splitlines()} <= {
        "customers",
        "orders",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("customers", "--cursor", "nonsense"), "CURSOR_INVALID"),
        (("customers", "orders", "--filter", "x = 1"), "are for one dataset"),
        (("customers", "--operations", "EATEN"), "there is no operation 'EATEN'"),
        (("customers", "--cursor", "AQ", "--snapshot"), "leave --cursor out"),
        (("customers", "--filter", "colour = 1"), "FIELD_UNKNOWN"),
        (("nothing",), "there is no dataset 'nothing'"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    hub: RunningHub, arguments: tuple[str, ...], said: str
) -> None:
    done = hub.command("watch", *arguments, check=False)
    assert done.returncode == 1
    assert said in done.stderr.decode()
    assert len(done.stderr.decode().splitlines()) == 1


def test_a_damaged_cursor_file_is_not_overwritten(hub: RunningHub, tmp_path: Path) -> None:
    file = tmp_path / "cursor"
    file.write_text("{}")
    done = hub.command("watch", "customers", "--cursor-file", str(file), check=False)
    assert done.returncode == 1
    assert "is damaged" in done.stderr.decode()
    assert file.read_text() == "{}"
