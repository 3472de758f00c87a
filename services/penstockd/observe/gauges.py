"""Gauges whose values are set together, so that a value that is gone is absent, not old."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from penstockd.observe.metrics import METRICS, REGISTRY

#: The value of each series: by the metric's name and the values of its labels.
Readings = dict[tuple[str, Sequence[str]], float]


class GaugeReadings(Collector):
    """Gauges of this process, read anew for each scrape.

    ``read`` is called in a thread of the scrape, and must not wait.
    """

    def __init__(self, read: Callable[[], Readings]) -> None:
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The families of all values."""
        families: dict[str, GaugeMetricFamily] = {}
        for (name, labels), value in self._read().items():
            metric = METRICS[name]
            if name not in families:
                families[name] = GaugeMetricFamily(name, metric.help, labels=metric.labels)
            families[name].add_metric(labels, value)
        return families.values()

    def register(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Add the gauges to the metrics of this process."""
        registry.register(self)

    def unregister(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Take them out again."""
        registry.unregister(self)
