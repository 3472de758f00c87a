"""The distribution of the tests over the workers of pytest-xdist.

The tests of a file stay together, on one worker and in their order. Files that share an expensive
fixture share a lane, since each worker has session fixtures of its own. Each such file names its
lane::

pytestmark = pytest.mark.lane("faults/own_hub", priority=13)

Lanes with a higher priority take longer and start first, so that the workers end together.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]


def lane(nodeid: str) -> str:
    """The lane of a test: the one that its file names, else the file itself."""
    file = nodeid.partition("::")[0]
    return read_mark(file)[0] or file


@functools.cache
def read_mark(file: str) -> tuple[str, int]:
    """The lane that a file names, or '', and its priority. Parsed from the text, because the
    process that distributes the tests imports none of them."""
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            for call in ast.walk(node.value):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.lane":
                    name = str(ast.literal_eval(call.args[0])) if call.args else ""
                    return name, int(*(ast.literal_eval(k.value) for k in call.keywords))
    return "", 0


def order(items: list[pytest.Item]) -> None:
    """Group the tests by lane, with the lanes of high priority first."""
    first: dict[str, int] = {}
    priority: dict[str, int] = {}
    for number, item in enumerate(items):
        name = lane(item.nodeid)
        first.setdefault(name, number)
        own = read_mark(item.nodeid.partition("::")[0])[1]
        priority[name] = max(priority.get(name, 0), own)
    items.sort(key=lambda i: (-priority[lane(i.nodeid)], first[lane(i.nodeid)]))


class Lanes(LoadScopeScheduling):  # type: ignore[misc]  # xdist brings no types
    """Gives the next lane, in the order of the collection, to the first worker that is free."""

    def _split_scope(self, nodeid: str) -> str:
        return lane(nodeid)
