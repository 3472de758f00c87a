"""protoc, from grpcio-tools."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class CompileError(Exception):
    """protoc refused the protos; the message is its output, with file and line."""


@dataclass(frozen=True)
class Compiler:
    """protoc with import roots."""

    roots: Sequence[Path]

    def files(self, folder: str) -> list[str]:
        """The protos of ``folder`` and below, by their import names, in order."""
        return sorted(
            path.relative_to(root).as_posix()
            for root in self.roots
            for path in (root / folder).rglob("*.proto")
        )

    def describe(self, files: Sequence[str]) -> bytes:
        """The ``FileDescriptorSet`` of ``files``, with all their imports and comments.

        Raises CompileError.
        """
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder, "set")
            self._run(
                [f"--descriptor_set_out={output}", "--include_imports", "--include_source_info"],
                files,
            )
            return output.read_bytes()

    def messages(self, files: Sequence[str], output: Path) -> None:
        """Write the Python messages of ``files`` and their types. Raises CompileError."""
        self._run([f"--python_out={output}", f"--pyi_out={output}"], files)

    def messages_of(self, described: bytes, files: Sequence[str], output: Path) -> None:
        """Write the same for files in a ``FileDescriptorSet``. Raises CompileError."""
        with tempfile.TemporaryDirectory() as folder:
            held = Path(folder, "set")
            held.write_bytes(described)
            self._run(
                [f"--descriptor_set_in={held}", f"--python_out={output}", f"--pyi_out={output}"],
                files,
                roots=(),
            )

    def stubs(self, files: Sequence[str], output: Path) -> None:
        """Write the Python stubs of the services in ``files`` and their types.

        Raises CompileError.
        """
        plugin = Path(sys.executable).with_name("protoc-gen-mypy_grpc")
        self._run(
            [
                f"--grpc_python_out={output}",
                f"--plugin=protoc-gen-mypy_grpc={plugin}",
                f"--mypy_grpc_out={output}",
            ],
            files,
        )

    def typescript_of(
        self, described: bytes, files: Sequence[str], output: Path, plugin: Path
    ) -> None:
        """Write the TypeScript of files in a ``FileDescriptorSet``.

        ``plugin`` is protoc-gen-es. Raises CompileError.
        """
        with tempfile.TemporaryDirectory() as folder:
            held = Path(folder, "set")
            held.write_bytes(described)
            self._run(
                [
                    f"--descriptor_set_in={held}",
                    f"--plugin=protoc-gen-es={plugin}",
                    f"--es_out={output}",
                    "--es_opt=target=ts,import_extension=none",
                ],
                files,
                roots=(),
            )

    def _run(
        self, outputs: Sequence[str], files: Sequence[str], roots: Sequence[Path] | None = None
    ) -> None:
        includes = [f"-I{root}" for root in (self.roots if roots is None else roots)]
        done = subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", *includes, *outputs, *files],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CompileError(done.stderr.strip() or f"protoc ended with {done.returncode}")
