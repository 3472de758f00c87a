"""The benchmark reports what is missing before it measures, and keeps its measurements."""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from benchmark import __main__ as command
from benchmark.driver import Results, run_parts
from benchmark.needs import ENVOY, H2LOAD, PSQL, Need, need_package, need_program
from benchmark.parts import PARTS, Measure, Part
from benchmark.table import Row

BENCHMARK = Path(command.__file__).parent
TESTS = Path(__file__).parents[2]


@dataclass
class FakeHub:
    calls: list[str] = field(default_factory=list)
    refuses: bool = False

    def start(self) -> None:
        self.calls.append("start")
        if self.refuses:
            raise AssertionError("the hub does not start")

    def stop(self) -> None:
        self.calls.append("stop")


def part(monkeypatch: pytest.MonkeyPatch, name: str, measure: Measure, *needs: Need) -> Part:
    """A part whose module has this function."""
    module = ModuleType(f"fake_{name}")
    module.measure = measure  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return Part(name, module.__name__, needs)


def good(hub: object, rows: int, rounds: int) -> list[Row]:
    return [Row("rows", float(rows), "rows")]


def bad(hub: object, rows: int, rounds: int) -> list[Row]:
    raise AssertionError("a reply that nobody expected")


def quits(hub: object, rows: int, rounds: int) -> list[Row]:
    raise SystemExit("no h2load")


def measured(file: Path) -> list[str]:
    return [figure["part"] for figure in json.loads(file.read_text())]


@pytest.mark.parametrize("failure", [bad, quits])
def test_a_part_that_fails_takes_nothing_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    failure: Measure,
) -> None:
    results, hub = Results(tmp_path / "bench.json"), FakeHub()
    seen: list[list[str]] = []

    def looks(hub: object, rows: int, rounds: int) -> list[Row]:
        seen.append(measured(results.file))
        return failure(hub, rows, rounds)

    parts = [
        part(monkeypatch, "first", good),
        part(monkeypatch, "second", looks),
        part(monkeypatch, "third", good),
    ]
    run_parts(parts, hub, 7, 1, results)
    assert seen == [["first"]], "the file is behind while a later part runs"
    assert measured(results.file) == ["first", "third"]
    assert results.failed == ["second"]
    assert hub.calls == ["stop", "start", "stop", "start", "stop"]
    printed = capsys.readouterr()
    assert printed.out.count("| rows | 7.00 rows |") == 2
    assert "second: FAILED" in printed.err and str(failure).split()[1] in printed.err


def test_a_hub_that_does_not_start_fails_every_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results, hub = Results(tmp_path / "bench.json"), FakeHub(refuses=True)
    parts = [part(monkeypatch, "first", good), part(monkeypatch, "second", good)]
    run_parts(parts, hub, 7, 1, results)
    assert results.failed == ["first", "second"]
    assert measured(results.file) == []
    assert hub.calls[-1] == "stop"


def test_an_interrupted_run_keeps_its_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(hub: object, rows: int, rounds: int) -> list[Row]:
        raise KeyboardInterrupt

    results, hub = Results(tmp_path / "bench.json"), FakeHub()
    parts = [part(monkeypatch, "first", good), part(monkeypatch, "second", interrupted)]
    with pytest.raises(KeyboardInterrupt):
        run_parts(parts, hub, 7, 1, results)
    assert measured(results.file) == ["first"]
    assert hub.calls[-1] == "stop"


def test_a_missing_need_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = need_program("penstock-has-no-such-program", "build it yourself")
    parts = (part(monkeypatch, "first", bad), part(monkeypatch, "second", bad, absent))
    monkeypatch.setattr(command, "PARTS", parts)
    monkeypatch.setattr(command, "run_parts", lambda *_: pytest.fail("it measures"))
    file = tmp_path / "bench.json"
    assert command.main(["--json", str(file), "--rows", "10"]) == 2
    told = "second: the program penstock-has-no-such-program is missing: build it yourself"
    assert capsys.readouterr().err.splitlines() == [told]


def test_only_the_parts_asked_for_must_have_what_they_need(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    absent = need_package("penstock_has_no_such_package")
    parts = (part(monkeypatch, "first", good), part(monkeypatch, "second", bad, absent))
    monkeypatch.setattr(command, "PARTS", parts)
    monkeypatch.setattr(command, "run_parts", lambda parts, hub, rows, rounds, results: None)
    assert command.main(["first", "--json", str(tmp_path / "a.json"), "--rows", "10"]) == 0
    assert command.main(["--json", str(tmp_path / "b.json"), "--rows", "10"]) == 2


def test_a_failed_part_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(parts: object, hub: object, rows: int, rounds: int, results: Results) -> None:
        results.failed += ["feed", "get"]

    monkeypatch.setattr(command, "PARTS", (part(monkeypatch, "first", good),))
    monkeypatch.setattr(command, "run_parts", fail)
    assert command.main(["--json", str(tmp_path / "bench.json"), "--rows", "10"]) == 1
    assert capsys.readouterr().err == "Failed: feed, get\n"


def test_a_file_that_cannot_be_written_is_missing_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("no folder")
    file = tmp_path / "taken" / "bench.json"
    assert command.main(["import", "--json", str(file), "--rows", "10"]) == 2
    assert f"every part: write access to {file} is missing" in capsys.readouterr().err


def used(module: str) -> tuple[set[str], str]:
    """The external packages that a module of the benchmark imports, and its text; both include the
    benchmark's own modules that it imports, directly or not."""
    text = (BENCHMARK / f"{module.removeprefix('benchmark.')}.py").read_text()
    packages: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmark."):
            more, inner = used(str(node.module))
            packages |= more
            text += inner
        elif isinstance(node, ast.ImportFrom):
            packages.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
    ours = {"benchmark", *(file.stem for file in TESTS.glob("*.py"))}
    return packages - sys.stdlib_module_names - ours, text


@pytest.mark.parametrize("each", PARTS, ids=lambda part: part.name)
def test_a_part_declares_what_it_uses(each: Part) -> None:
    packages, text = used(each.module)
    declared = {need.name.removeprefix("the Python package ") for need in each.needs}
    if ENVOY in each.needs:
        declared.add("envoy")
    # `penstock` and `penstockd` are in one distribution.
    assert packages - {"penstock"} <= declared
    assert ("h2load" in text) == (H2LOAD in each.needs)
    assert ("psql()" not in text) or PSQL in each.needs
    assert callable(each.load_measure())
