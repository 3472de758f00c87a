"""A log that cannot be written ends no process, and lost lines are reported."""

from __future__ import annotations

import ast
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import penstockd
from penstockd.output import GuardedOutput

SOURCES = Path(penstockd.__file__).parent


def test_a_full_device_drops_lines_and_raises_nothing() -> None:
    with Path("/dev/full").open("wb") as full:
        output = GuardedOutput(full.fileno())
        assert output.write("a line\n") == 7
        print("another", file=output, flush=True)
    assert output.lost >= 2


def test_lines_that_were_lost_are_told_when_there_is_room_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with path.open("wb") as file:
            output = GuardedOutput(file.fileno())
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
            output.write("1234567\n")
            output.write("broken off\n")
            output.write("lost\n")
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            output.write("there again\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    first, half, notice, last = path.read_text().splitlines()
    assert (first, half, last) == ("1234567", "br", "there again")
    assert json.loads(notice) == {"event": "log_lines_lost", "level": "warning", "count": 2}


#: Writes in every way that a process of the hub does; its exit code shows that it went on.
PROGRAM = """
import logging, sys, warnings
from penstockd.observe import set_up
{before}
set_up("test", "INFO", None)
import structlog
structlog.get_logger("x").info("event", text="é" * 10_000)
logging.getLogger("library").warning("a library's complaint")
warnings.warn("something old")
print("to the console", flush=True)
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger("x").exception("a defect")
sys.excepthook(ValueError, ValueError("x"), None)
sys.stdout.flush()
sys.exit(7)
"""


def _exit_code(before: str) -> int:
    with Path("/dev/full").open("wb") as full:
        program = PROGRAM.format(before=before)
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, stdout=full, stderr=full, check=False, env=os.environ)
    return done.returncode


def test_no_way_to_write_a_line_ends_a_process() -> None:
    assert _exit_code("") == 7


def test_without_the_guard_it_would_end() -> None:
    """The negative control."""
    assert _exit_code("import penstockd.observe.logs as o; o.guard_output = lambda: None") != 7


def test_every_process_has_the_guard_before_it_writes() -> None:
    """Everything that the supervisor starts, and the supervisor, call ``set_up`` first: workers and
    keeper in ``run_process``, which is their whole main function."""
    for module, function in (("wiring", "run_process"), ("up", "run_node")):
        first = _body(module, function)[0]
        assert isinstance(first, ast.Expr) and ast.unparse(first).startswith("set_up("), module
    for module, function in (("app", "serve_calls"), ("keeper", "run_keeper")):
        *before, last = _body(module, function)
        assert all(isinstance(statement, ast.AsyncFunctionDef) for statement in before), module
        assert ast.unparse(last).startswith("await wiring.run_process("), module


def _body(module: str, function: str) -> list[ast.stmt]:
    """The statements of a function after its docstring."""
    tree = ast.parse((SOURCES / f"{module}.py").read_text())
    [found] = [
        n for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef) and n.name == function
    ]
    return found.body[1:]


def test_no_stream_is_bound_before_the_guard_is_there() -> None:
    """A default, or a name of a module, keeps the stream from the time when the module was
    loaded."""
    found = []
    for path in SOURCES.rglob("*.py"):
        tree = ast.parse(path.read_text())
        early: list[ast.AST | None] = [n for n in tree.body if isinstance(n, ast.Assign)]
        for node in ast.walk(tree):
            if isinstance(node, ast.arguments):
                early += [*node.defaults, *node.kw_defaults]
            elif isinstance(node, ast.ClassDef):
                early += [n for n in node.body if isinstance(n, ast.Assign | ast.AnnAssign)]
        names = [n for e in early if e is not None for n in ast.walk(e)]
        found += [path.name for n in names if _is_stream(n)]
    assert found == []
    assert _is_stream(ast.parse("sys.stderr", mode="eval").body), "the control"


def _is_stream(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr")
