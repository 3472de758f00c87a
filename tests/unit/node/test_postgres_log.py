"""The log of the embedded PostgreSQL: lines of JSON, bounded, and none of them lost."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import asyncpg
import pytest

from harness import folder
from penstockd.node import postgres_log
from penstockd.node.errors import ProcessFailed
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.postgres_log import PostgresLog, parse_messages
from penstockd.node.sockets import sockets_folder

TEXT = """\
2026-03-01 10:00:00.123 UTC [7] ERROR:  duplicate key
2026-03-01 10:00:00.123 UTC [7] DETAIL:  Key (id)=(1) already exists.
2026-03-01 10:00:00.123 UTC [7] STATEMENT:  INSERT INTO t
\tVALUES (1)
2026-03-01 10:00:01.000 UTC [8] HINT:  of another process
libc: something "odd" \x01
2026-03-01 10:00:02.000 UTC [1] FATAL:  the
\tend
"""


def read(path: Path) -> list[dict[str, object]]:
    """All lines of a log, each of which must be JSON."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_message_is_one_object_with_its_parts() -> None:
    found = list(parse_messages(TEXT))
    assert found[0] == {
        "event": "duplicate key",
        "level": "error",
        "timestamp": "2026-03-01T10:00:00.123Z",
        "pid": 7,
        "detail": "Key (id)=(1) already exists.",
        "statement": "INSERT INTO t\nVALUES (1)",
    }
    assert [(m["event"], m["level"]) for m in found[1:]] == [
        ("of another process", "hint"),
        ('libc: something "odd" \x01', "warning"),
        ("the\nend", "fatal"),
    ]


def test_text_of_a_killed_run_and_of_an_earlier_version_is_converted(tmp_path: Path) -> None:
    log = PostgresLog(tmp_path / "postgres.log", tmp_path / "text")
    log.path.write_text("2026-03-01 10:00:00.123 UTC [7] LOG:  earlier version\nplain\n")
    log.text.write_bytes(TEXT.encode() + b"half a line \xff")
    log.begin()
    events = [m["event"] for m in read(log.path)]
    assert events[:3] == ["earlier version", "plain", "duplicate key"]
    assert events[-1] == "half a line \ufffd"
    assert log.text.read_bytes() == b"" and log.tail == ""
    log.begin()
    assert [m["event"] for m in read(log.path)] == events, "each is moved once"


async def test_log_and_text_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstockd.node.process.LOG_LIMIT", 20_000)
    monkeypatch.setattr(postgres_log, "EMPTY_BYTES", 5_000)
    log = PostgresLog(tmp_path / "postgres.log", tmp_path / "text")
    log.begin()
    for at in range(1000):
        with log.text.open("ab") as file:
            file.write(f"2026-03-01 10:00:00.123 UTC [7] LOG:  message {at}\n".encode())
        await log.end()
        assert log.text.stat().st_size < 6_000
        assert log.path.stat().st_size < 21_000
    kept = read(log.path.with_name("postgres.log.1")) + read(log.path)
    numbers = [int(str(m["event"]).split()[1]) for m in kept]
    assert numbers == list(range(numbers[0], 1000)) and len(numbers) > 100
    assert sorted(os.listdir(tmp_path)) == ["postgres.log", "postgres.log.1", "text"]


async def test_a_write_that_breaks_off_leaves_no_part_in_the_log(tmp_path: Path) -> None:
    log = PostgresLog(tmp_path / "postgres.log", tmp_path / "text")
    log.begin()
    lines = [f"2026-03-01 10:00:00.123 UTC [7] LOG:  message {at}\n" for at in range(30_000)]
    log.text.write_text("".join(lines[:20_000]))
    log.begin()
    size = log.path.stat().st_size
    log.text.write_text("".join(lines[20_000:]))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_001, before[1]))  # like a full disk
    try:
        await log.end()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert log.path.stat().st_size == size
    log.begin()
    assert [m["event"] for m in read(log.path)] == [f"message {at}" for at in range(30_000)]


async def test_a_server_logs_json_alone_from_its_start_to_its_end() -> None:
    with folder() as data:
        server = EmbeddedPostgres(data, sockets_folder(data))
        await server.start()
        try:
            connection = await asyncpg.connect(server.dsn)
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute("SELECT 1 /\n 0 -- an error\n, E'\\x01'")
            await connection.close()
        finally:
            await server.stop()
        messages = read(server.log.path)
        (wrong,) = [m for m in messages if m["level"] == "error"]
        assert wrong["event"] == "division by zero" and "an error" in str(wrong["statement"])
        assert "database system is shut down" in [m["event"] for m in messages]
        assert [p.name for p in (data / "log").iterdir()] == ["postgres.log"]
        # If the server does not start, the error and the log say why.
        with (data / "postgres" / "postgresql.conf").open("a") as file:
            file.write("no_such_setting = 1\n")
        with pytest.raises(ProcessFailed, match="no_such_setting"):
            await server.start()
        assert any("no_such_setting" in str(m) for m in read(server.log.path))
