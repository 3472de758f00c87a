"""The parts of the bench in the order in which they run, and the needs of each."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmark.needs import ENVOY, H2LOAD, PSQL, Need, need_package
from benchmark.table import Row

#: Called with a running hub, the customers to measure with, and the rounds to take a median of.
Measure = Callable[[Any, int, int], list[Row]]


@dataclass(frozen=True, slots=True)
class Part:
    """A group of figures. ``module`` has a function ``measure``, see Measure."""

    name: str
    module: str
    needs: tuple[Need, ...] = ()

    def load_measure(self) -> Measure:
        """Import the module, only now, because it may need a missing package."""
        measure: Measure = importlib.import_module(self.module).measure
        return measure


#: Needed to start a hub and call it, whichever part is measured.
HUB = (ENVOY, PSQL, *map(need_package, ("asyncpg", "grpc", "penstockd", "psutil")))
REFERENCES = tuple(map(need_package, ("fastapi", "httptools", "starlette", "uvicorn", "uvloop")))

# The import comes first: it measures new rows, which the other parts then read.
PARTS = (
    Part("import", "benchmark.imports", HUB),
    Part("export", "benchmark.exports", HUB),
    Part("shapes", "benchmark.shapes", HUB),
    Part("digest", "benchmark.digests", HUB),
    Part("feed", "benchmark.feeds", (*HUB, need_package("uvloop"))),
    Part("get", "benchmark.unary", (*HUB, *REFERENCES, H2LOAD)),
    Part("webhooks", "benchmark.webhooks", HUB),
    Part("fair", "benchmark.fairness", (*HUB, H2LOAD)),
    Part("manage", "benchmark.manage", (*HUB, H2LOAD)),
)
