"""Compiles the kernel: ``python -m penstockd.native.build`` rewrites ``rows.wasm``.

Run it only after a change of the C sources. It needs the package ``ziglang``, a C compiler in a
wheel. The result is the same on every machine, byte for byte, and is committed, so that installing
the hub needs no compiler.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent
SOURCES = (
    *("columns.c", "digest.c", "encode.c", "keys.c", "load.c", "print.c", "records.c", "sha256.c"),
    *("sheet.c", "split.c", "wire.c"),
)


def build_kernel(target: Path) -> None:
    """Compiles the sources into ``target``; raises CalledProcessError if they do not compile."""
    subprocess.run(
        [
            *(sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-freestanding"),
            *("-O3", "-msimd128", "-mbulk-memory", "-nostdlib", "-Wall", "-Wextra", "-Werror"),
            *("-fno-builtin", "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,--export=__heap_base"),
            *("-o", str(target.absolute()), *SOURCES),
        ],
        check=True,
        cwd=PACKAGE / "src",
    )


if __name__ == "__main__":
    build_kernel(PACKAGE / "rows.wasm")
