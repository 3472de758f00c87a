"""Code never distinguishes errors by their texts, which are for people and change."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock.client
import penstockd

ROOTS = [Path(penstockd.__file__).parent, Path(penstock.client.__file__).parent]

#: Attributes of errors that hold texts. A ``reason`` comes from a list and may be compared, but
#: never searched.
TEXTS = frozenset({"args", "message", "description", "strerror"})
#: Operations that inspect a text.
LOOKS = frozenset(
    {"startswith", "endswith", "removeprefix", "removesuffix", "find", "index", "count"}
    | {"partition", "rpartition", "split", "match", "search", "fullmatch"}
)


def error_names(tree: ast.AST) -> set[str]:
    """Names that stand for errors: those that are caught, and those that are passed as one."""
    caught = {n.name for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and n.name}
    passed = {
        a.arg
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        for a in n.args.args
        if a.annotation is not None
        and ast.unparse(a.annotation).endswith(("Exception", "Error", "Refused"))
    }
    return caught | passed


def is_text(node: ast.AST, errors: set[str]) -> bool:
    """Whether an expression is the text of an error, or part of it."""
    match node:
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return name in errors and attribute in TEXTS
        case ast.Call(func=ast.Name(id="str" | "repr"), args=[ast.Name(id=name)]):
            return name in errors
        case ast.Subscript(value=value):
            return is_text(value, errors)
        case ast.JoinedStr(values=values):
            return any(
                isinstance(v, ast.FormattedValue)
                and (is_text(v.value, errors) or getattr(v.value, "id", None) in errors)
                for v in values
            )
        case ast.Call(func=ast.Attribute(value=value)):
            return is_text(value, errors)
    return False


def comparisons(source: str) -> Iterator[str]:
    """Expressions that decide something by the text of an error."""
    tree = ast.parse(source)
    errors = error_names(tree)
    # A text that first gets a name is still a text.
    named = {
        target.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Assign) and is_text(n.value, errors)
        for target in n.targets
        if isinstance(target, ast.Name)
    }

    def text(node: ast.AST) -> bool:
        return is_text(node, errors) or (isinstance(node, ast.Name) and node.id in named)

    def reason(node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == "reason"

    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(map(text, [node.left, *node.comparators])):
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            parts = [node.func.value, *node.args]
            if node.func.attr in LOOKS and any(text(p) or reason(p) for p in parts):
                yield ast.unparse(node)
        elif isinstance(node, ast.Match) and text(node.subject):
            yield ast.unparse(node.subject)


def test_no_error_is_told_by_its_text() -> None:
    found = {
        f"{path.name}: {each}"
        for root in ROOTS
        for path in root.rglob("*.py")
        for each in comparisons(path.read_text())
    }
    assert found == set()


@pytest.mark.parametrize(
    "use",
    [
        'inner = error.reason.removeprefix("at ")',
        'return str(error) == "gone"',
        'return "gone" in str(error)',
        'return error.args[0] == "gone"',
        'told = f"{type(error)}: {error}"\n    return told == known',
        "return re.search('gone', error.message)",
    ],
)
def test_the_rule_finds_what_it_is_for(use: str) -> None:
    assert list(comparisons(f"def f(error: Exception) -> Any:\n    {use}"))
    assert not list(comparisons("def f(error: Exception) -> Any:\n    log(error=str(error))"))
