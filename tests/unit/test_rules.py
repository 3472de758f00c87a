"""The project's rules find violations; scripts/check shows that there are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import rules

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of a small tree with a server, a client and tests."""

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("services/penstockd/store/log.py", "class Entry: ...\n")
    write("services/penstockd/budget.py", "")
    write("services/penstock/client/feed.py", "class Entry: ...\n")
    write("tests/unit/store/test_log.py", "from penstockd.store import log\n")
    write("tests/unit/test_budget.py", "from penstockd import budget\n")
    write("tests/unit/client/test_feed.py", "from penstock.client import feed\n")
    return write


def test_a_tree_that_keeps_the_rules(write: Write, tmp_path: Path) -> None:
    assert rules.check(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("unit/storage/test_log.py", "", "no module storage"),
        ("unit/test_budgets.py", "", "no module budgets"),
        ("unit/store/test_other.py", "from penstockd.policy import view\n", "imports nothing of"),
        ("unit/store/test_other.py", "from helper import make\n", "imports nothing of"),
    ],
)
def test_a_misplaced_test_is_named(
    write: Write, tmp_path: Path, file: str, text: str, said: str
) -> None:
    write("tests/helper.py", "from penstockd.policy.view import View\n")
    write(f"tests/{file}", text)
    (broken,) = rules.check(tmp_path)
    assert broken.startswith(f"tests/{file}: ") and said in broken


def test_a_helper_imports_for_its_tests(write: Write, tmp_path: Path) -> None:
    write("tests/helper.py", "from penstockd.store.log import Entry\n")
    write("tests/unit/store/test_other.py", "from helper import make\n")
    assert rules.check(tmp_path) == []


@pytest.mark.parametrize(("lines", "broken"), [(rules.LONGEST, 0), (rules.LONGEST + 1, 1)])
def test_a_long_function_is_named(write: Write, tmp_path: Path, lines: int, broken: int) -> None:
    body = "    pass\n" * (lines - 1)
    write("tests/helper.py", f"class A:\n  async def work(self):\n{body}")
    assert len(rules.check(tmp_path)) == broken


@pytest.mark.parametrize(("lines", "broken"), [(rules.MOST_LINES, 0), (rules.MOST_LINES + 1, 1)])
def test_a_long_file_is_named(write: Write, tmp_path: Path, lines: int, broken: int) -> None:
    write("services/penstockd/turns.py", "x = 1\n" * lines)
    write("tests/helper.py", "x = 1\n" * lines)  # tests may be longer
    assert len(rules.check(tmp_path)) == broken


def test_private_names_are_counted_once_a_file(write: Write, tmp_path: Path) -> None:
    text = "import x\nx._a\nx._a\nself._own\nx._replace(a=1)\nx.__doc__\n"
    write("tests/a.py", text + "patch.setattr(x, '_b', 1)\npatch.setattr('x.y._c', 1)\n")
    write("tests/b.py", "from x import _a\n")
    found = {"tests/a.py: _a", "tests/a.py: _b", "tests/a.py: _c", "tests/b.py: _a"}
    assert rules.find_private_names(tmp_path) == found
    assert rules.check(tmp_path) == []
    for number in range(rules.PRIVATE):
        write(f"tests/c{number}.py", "x._more\n")
    assert len(rules.check(tmp_path)) == 1


def test_class_names_of_the_server_are_unique(write: Write, tmp_path: Path) -> None:
    assert list(rules.find_shared_class_names(tmp_path)) == []
    write("services/penstockd/budget.py", "class _Entry: ...\n")
    (broken,) = rules.find_shared_class_names(tmp_path)
    assert broken.startswith("class Entry: ") and "budget.py" in broken


@pytest.mark.parametrize("name", ["read", "_read", "main", "register", "read_log", "__getattr__"])
def test_functions_have_a_verb_and_an_object(write: Write, tmp_path: Path, name: str) -> None:
    write(
        "services/penstockd/turns.py", f"class A:\n  def read(self): ...\nasync def {name}(): ...\n"
    )
    broken = rules.check(tmp_path)
    assert [b.split()[1] for b in broken] == [name] * (name in {"read", "_read", "register"})


@pytest.mark.parametrize(
    "source",
    [
        "from penstockd import budget\n",
        "from penstockd.budget import f\n",
        "def run_g() -> None:\n    from penstockd.budget import f\n",
        "import penstockd.budget\n",
    ],
)
def test_a_circle_of_imports_is_named(write: Write, tmp_path: Path, source: str) -> None:
    write("services/penstockd/turns.py", source)
    write("services/penstockd/budget.py", "if TYPE_CHECKING:\n    import penstockd.turns\n")
    assert rules.check(tmp_path) == []
    write("services/penstockd/budget.py", "def run_f() -> None:\n    import penstockd.turns\n")
    (broken,) = rules.check(tmp_path)
    assert "penstockd.budget" in broken and "penstockd.turns" in broken
