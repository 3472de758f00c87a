"""What commands are not: no file of theirs holds SQL."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import penstockd

COMMANDS = Path(penstockd.__file__).parent / "commands"
SQL = re.compile(
    r"(\bSELECT\s.+|\bINSERT\s+INTO|UPDATE\s+\w+\.\w+|DELETE\s+FROM|LOCK\s+TABLE|\sFROM\s+(hub|data)\.\w+)"
)


def statements(source: str) -> list[str]:
    """The texts in a module that are SQL; docstrings and comments are none."""
    return [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value)
    ]


def test_commands_hold_no_sql() -> None:
    files = sorted(COMMANDS.rglob("*.py"))
    assert len(files) > 60
    found = {p.relative_to(COMMANDS).as_posix(): statements(p.read_text()) for p in files}
    assert {name: texts for name, texts in found.items() if texts} == {}


def test_sql_is_recognised() -> None:
    for text in (
        "SELECT epoch FROM hub.log_head",
        "UPDATE hub.webhook SET replay_end = $3",
        "DELETE FROM hub.webhook WHERE webhook_id = $1",
        "LOCK TABLE hub.issuer IN SHARE ROW EXCLUSIVE MODE",
        "\nINSERT INTO hub.epoch (because)",
        "SELECT hub.open_epoch($1, true, $2)",
    ):
        assert statements(f"await connection.execute({text!r})") == [text]
