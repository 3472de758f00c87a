"""House rules that no linter knows: ``python -m rules`` prints violations.

- A file of tests/unit lies where its subject lies in services/ or scripts/.
- No function has more than LONGEST lines, and no file of the server and the client more than
  MOST_LINES. Half of the functions of the server and the client have at most MEDIAN lines, 95 % at
  most MOSTLY, and a use case in commands/ has USE_CASE lines on average.
- Tests use at most PRIVATE private names of the server and the client.
- No two classes of the server share a name.
- Functions at module level have a verb and an object, except those of ``names.ONE_WORD``.
- No modules of the server and the client import each other in a circle, not even inside functions.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from rules.circles import find_circles
from rules.names import find_short_names

ROOT = Path(__file__).parents[2]
LONGEST, PRIVATE, MOST_LINES = 50, 10, 450
MEDIAN, MOSTLY, USE_CASE = 8, 26, 32
#: The roots that folders and files of tests/unit mirror.
SUBJECTS = ("services/penstockd", "services/penstock", "scripts")
#: Files of tests/unit whose subject is another file of the root.
ROOT_FILES = {
    "test_docs.py": "README.md",
    "test_packaging.py": "pyproject.toml",
}
#: Public according to their documentation, despite their names.
NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make"}


def find_misplaced(root: Path) -> Iterator[str]:
    """Files of tests/unit that mirror nothing, or import nothing of what they mirror."""
    unit = root / "tests" / "unit"
    for path in sorted(unit.rglob("test_*.py")):
        name = path.relative_to(unit).as_posix()
        if name in ROOT_FILES and (root / ROOT_FILES[name]).exists():
            continue
        subject = path.relative_to(unit).parent if "/" in name else Path(path.stem[5:])
        found = [s for s in SUBJECTS if _is_module(root / s / subject)]
        if not found:
            yield f"tests/unit/{name}: no module {subject} in {', '.join(SUBJECTS)}"
        elif found[0] == SUBJECTS[0]:
            module = ".".join(("penstockd", *subject.parts))
            imported = _imports(root, path)
            if imported and not any(f"{i}.".startswith(f"{module}.") for i in imported):
                yield f"tests/unit/{name}: imports nothing of {module}"


def find_long_functions(root: Path) -> Iterator[str]:
    """Functions with more than LONGEST lines; declared options of commands do not count."""
    for path in _sources(root, "services", "tests"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = _count_lines(node)
                if lines > LONGEST:
                    yield f"{path.relative_to(root)}: {node.name} has {lines} lines"


def find_long_files(root: Path) -> Iterator[str]:
    """Files of the server and the client with more than MOST_LINES lines."""
    for path in _sources(root, "services"):
        lines = len(path.read_text().splitlines())
        if lines > MOST_LINES:
            yield f"{path.relative_to(root)} has {lines} lines"


def find_excess(root: Path) -> Iterator[str]:
    """Bars that the functions of the server and the client, or the use cases, exceed together."""
    sizes = sorted(
        _count_lines(node)
        for path in _sources(root, "services")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    for share, most in ((0.5, MEDIAN), (0.95, MOSTLY)):
        if sizes and (found := sizes[int(share * len(sizes))]) > most:
            yield f"{share:.0%} of the functions have up to {found} lines, not {most}"
    files = [p for p in _sources(root, "services/penstockd/commands") if p.name != "__init__.py"]
    lines = sum(len(path.read_text().splitlines()) for path in files)
    if files and lines > USE_CASE * len(files):
        yield f"the {len(files)} use cases have {lines} lines, more than {USE_CASE} on average"


def find_private_names(root: Path) -> set[str]:
    """Private names that tests read, call, replace or import, other than their own."""
    found: set[str] = set()
    for path in sorted((root / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Attribute) and not _is_self(node.value):
                names = [node.attr]
            elif isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
                texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
                names = [str(t).rpartition(".")[2] for t in texts]
            found |= {f"{path.relative_to(root)}: {n}" for n in names if _is_private(n)}
    return found


def find_shared_class_names(root: Path) -> Iterator[str]:
    """Names of more than one class of the server."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted((root / "services" / "penstockd").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(str(path.relative_to(root)))
    for name, files in sorted(places.items()):
        if len(files) > 1:
            yield f"class {name}: {', '.join(files)}"


def check(root: Path) -> list[str]:
    """Everything that breaks a rule."""
    private = sorted(find_private_names(root))
    excess = f"{len(private)} private names: {', '.join(private)}"
    return [
        *find_misplaced(root),
        *find_long_functions(root),
        *find_long_files(root),
        *find_excess(root),
        *([excess] if len(private) > PRIVATE else []),
        *find_shared_class_names(root),
        *find_short_names(root),
        *find_circles(root),
    ]


def _count_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function, with one for its head: declared options of commands do not count."""
    return (node.end_lineno or 0) - node.body[0].lineno + 2


def _sources(root: Path, *folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((root / folder).rglob("*.py"))


def _is_module(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").exists()


def _imports(root: Path, path: Path) -> set[str]:
    """Modules of the server that a test imports, directly or through helpers in tests/."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            helper = root / "tests" / f"{node.module}.py"
            if node.level == 0 and helper.exists() and helper != path:
                found |= _imports(root, helper)
            elif node.module.partition(".")[0] == "penstockd":
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in NAMED_TUPLE


def main(arguments: Iterable[str]) -> int:
    """Print violations of the rules; return 1 if there are any."""
    broken = check(Path(next(iter(arguments), ROOT)))
    print("\n".join(broken))
    return 1 if broken else 0
