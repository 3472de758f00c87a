"""Rules for commands: one use case in each file, tested, without SQL."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import penstockd

COMMANDS = Path(penstockd.__file__).parent / "commands"
FILES = {
    p.relative_to(COMMANDS).as_posix(): ast.parse(p.read_text())
    for p in sorted(COMMANDS.rglob("*.py"))
    if p.name != "__init__.py"
}
#: The most lines of a command's file on average, and of one function.
MOST_LINES, MOST_OF_ONE = 32, 45
SQL = re.compile(
    r"(\bSELECT\s.+|\bINSERT\s+INTO|UPDATE\s+\w+\.\w+|DELETE\s+FROM|LOCK\s+TABLE|\sFROM\s+(hub|data)\.\w+)"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def statements(tree: ast.AST) -> list[str]:
    """The texts in a module that are SQL, without docstrings and comments."""
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value)
    ]


def use_cases(tree: ast.Module) -> list[str]:
    """The functions of a module that other modules call."""
    functions = [n.name for n in tree.body if isinstance(n, Function)]
    return [name for name in functions if not name.startswith("_")]


def untested(names: list[str], tests: str) -> list[str]:
    """Commands that no test calls, or after which no test is named."""
    return [
        name
        for name in names
        if not re.search(rf"^(async )?def test_{name}\b|^(async )?def test_{name}_", tests, re.M)
        or not re.search(rf"(?<!import )(?<!test_)\b{name}\(", tests)
    ]


def test_commands_hold_no_sql() -> None:
    assert len(FILES) > 60
    found = {name: statements(tree) for name, tree in FILES.items()}
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
        assert statements(ast.parse(f"await connection.execute({text!r})")) == [text]


def test_each_file_is_the_use_case_that_it_is_named_for() -> None:
    found = {name: use_cases(tree) for name, tree in FILES.items()}
    assert {n: f for n, f in found.items() if f != [Path(n).stem]} == {}


def test_use_cases_are_short() -> None:
    long = {
        f"{name}: {node.name}"
        for name, tree in FILES.items()
        for node in ast.walk(tree)
        if isinstance(node, Function) and (node.end_lineno or 0) - node.lineno >= MOST_OF_ONE
    }
    assert long == set()
    lines = sum(len(p.read_text().splitlines()) for p in COMMANDS.rglob("*.py"))
    average = lines / len(FILES)
    assert average <= MOST_LINES, f"commands have {average:.1f} lines: an engine goes to an organ"


def test_every_command_has_a_test_of_its_own() -> None:
    tests = "\n".join(p.read_text() for p in sorted(Path(__file__).parent.glob("test_*.py")))
    names = [Path(name).stem for name in FILES]
    assert untested(names, tests) == []
    # The rule finds a command that is not tested, and one that is imported and not called.
    assert untested(["no_such_command"], tests) == ["no_such_command"]
    only_named = "from x import get_it\n\n\ndef test_get_it() -> None:\n    pass\n"
    assert untested(["get_it"], only_named) == ["get_it"]
    assert untested(["get_it"], only_named.replace("pass", "get_it()")) == []
