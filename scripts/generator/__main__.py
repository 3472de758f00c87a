"""The command behind ``scripts/generate``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from generator.compiler import CompileError, Compiler
from generator.tree import differences, replace


def main() -> int:
    """Regenerate, or check. Returns the exit code: 1 for a bad model, or for drift."""
    parser = argparse.ArgumentParser(
        prog="scripts/generate", description="Derives everything under gen/ from protos/."
    )
    parser.add_argument(
        "--root", type=Path, default=Path.cwd(), help="the tree with protos/ and gen/ (default: .)"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if gen/ is not up to date"
    )
    arguments = parser.parse_args()
    root: Path = arguments.root.resolve()
    if not (root / "protos/penstock").is_dir():
        parser.error(f"{root} has no protos/penstock")
    with tempfile.TemporaryDirectory(prefix="penstock-generate-") as folder:
        try:
            generate(root, Path(folder))
        except GenerateError as error:
            print(f"generate: {error}", file=sys.stderr)
            return 1
        return _check(Path(folder), root) if arguments.check else _write(Path(folder), root)


class GenerateError(Exception):
    """The protos cannot be used; the message says where and why."""


def generate(root: Path, output: Path) -> None:
    """Derive everything from ``root``/protos into the empty folder ``output``.

    Raises GenerateError. Call it once in a process: it imports the stubs of the options from
    ``output``.
    """
    (output / "protos").mkdir()
    compiler = Compiler([root / "protos", root / "protos/vendor", output / "protos"])
    try:
        compiler.messages(compiler.files("penstock/options"), output)
    except CompileError as error:
        raise GenerateError(str(error)) from error
    # The following code reads the options by these stubs, not by those of an older gen/.
    sys.path.insert(0, str(output))
    from generator.derive import derive
    from generator.envoy import RouteError
    from penstockd.catalog import ModelError

    try:
        derive(compiler, output)
    except (CompileError, ModelError, RouteError) as error:
        raise GenerateError(str(error)) from error


def _check(new: Path, root: Path) -> int:
    drift = [
        f"gen/{folder.name}/{name}"
        for folder in sorted(new.iterdir())
        for name in differences(folder, root / "gen" / folder.name)
    ]
    for name in drift:
        print(f"out of date: {name}", file=sys.stderr)
    if drift:
        print("Run scripts/generate and commit what it writes.", file=sys.stderr)
    return 1 if drift else 0


def _write(new: Path, root: Path) -> int:
    changed = replace(new, root / "gen")
    for name in changed:
        print(f"gen/{name}")
    print(f"{len(changed)} files changed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
