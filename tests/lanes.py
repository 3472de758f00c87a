"""How the tests are spread over the workers of pytest-xdist.

A file stays together, on one worker and in its order. Files that share what is dear to start share
a lane, since each worker has session fixtures of its own; each of them says so::

    pytestmark = pytest.mark.lane("faults/own_hub", priority=13)

Lanes of a higher priority, which take longer, begin first, so that the workers end together.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]


def lane(nodeid: str) -> str:
    """The lane of a test: the one that its file names, else the file."""
    file = nodeid.partition("::")[0]
    return read_mark(file)[0] or file


@functools.cache
def read_mark(file: str) -> tuple[str, int]:
    """The lane that a file names, or '', and its priority. Read from its text: the process that
    spreads the tests imports none of them."""
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            for call in ast.walk(node.value):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.lane":
                    name = str(ast.literal_eval(call.args[0])) if call.args else ""
                    return name, int(*(ast.literal_eval(k.value) for k in call.keywords))
    return "", 0


def order(items: list[pytest.Item]) -> None:
    """Bring the tests of a lane together, and the lanes of high priority to the front."""
    first: dict[str, int] = {}
    priority: dict[str, int] = {}
    for number, item in enumerate(items):
        name = lane(item.nodeid)
        first.setdefault(name, number)
        own = read_mark(item.nodeid.partition("::")[0])[1]
        priority[name] = max(priority.get(name, 0), own)
    items.sort(key=lambda i: (-priority[lane(i.nodeid)], first[lane(i.nodeid)]))


class Lanes(LoadScopeScheduling):  # type: ignore[misc]  # xdist brings no types
    """Gives the next lane to the worker that is free first, in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return lane(nodeid)
