"""The readings of a node, for callers of the API."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

#: Seconds for which readings are given to all who ask.
FRESH = 5.0


class MetricReading(NamedTuple):
    """One value of a metric, and its labels."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class NodeReadings:
    """What a node read of itself at one time, by the names of the samples."""

    node: str
    time: datetime
    readings: Mapping[str, Sequence[MetricReading]]

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of a metric over all processes, or over those with these labels; None if there
        is none."""
        found = [r.value for r in self.readings.get(name, ()) if labels.items() <= r.labels.items()]
        return sum(found) if found else None

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """The sums of a metric for each value of a label, in order."""
        found: dict[str, float] = {}
        for reading in self.readings.get(name, ()):
            key = reading.labels.get(label, "")
            found[key] = found.get(key, 0.0) + reading.value
        return dict(sorted(found.items()))

    def buckets(self, name: str, without: str = "") -> list[tuple[float, float]]:
        """Upper bounds and cumulated counts of a histogram over all processes, in order.

        Series whose label ``method`` matches ``without`` are left out.
        """
        left_out = re.compile(without) if without else None
        found: dict[float, float] = {}
        for reading in self.readings.get(f"{name}_bucket", ()):
            if left_out is None or not left_out.search(reading.labels.get("method", "")):
                bound = float(reading.labels.get("le", math.inf))
                found[bound] = found.get(bound, 0.0) + reading.value
        return sorted(found.items())


class NodeMonitor:
    """Reads a node when somebody asks: once for all who ask within FRESH seconds.

    ``find_node`` gives the node's name and its metrics at the first question.
    """

    def __init__(self, find_node: Callable[[], tuple[str, Collector]]) -> None:
        self._find_node = find_node
        self._node: tuple[str, Collector] | None = None
        self._last: NodeReadings | None = None
        self._lock = asyncio.Lock()

    async def read(self) -> NodeReadings:
        """The readings; a process that does not answer is left out."""
        async with self._lock:
            if self._last is None or _find_age(self._last) > FRESH:
                self._last = await asyncio.to_thread(self._collect)
            return self._last

    def _collect(self) -> NodeReadings:
        if self._node is None:
            self._node = self._find_node()
        name, metrics = self._node
        return NodeReadings(name, datetime.now(UTC), gather_readings(metrics.collect()))


def gather_readings(families: Iterable[Family]) -> dict[str, list[MetricReading]]:
    """The readings of families by the names of their samples, without values that are none."""
    found: dict[str, list[MetricReading]] = {}
    for family in families:
        for sample in family.samples:
            if math.isfinite(sample.value):
                found.setdefault(sample.name, []).append(MetricReading(sample.labels, sample.value))
    return found


def _find_age(readings: NodeReadings) -> float:
    return abs((datetime.now(UTC) - readings.time).total_seconds())
