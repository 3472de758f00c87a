"""Queries of Prometheus over the metrics of the list."""

from __future__ import annotations

from penstockd.observe.metrics import METRICS, MetricKind


def select_series(name: str, *, part: str = "", **labels: str) -> str:
    """A selector of a metric's series, such as ``penstock_webhooks{state="DISABLED"}``.

    ``part`` is ``bucket``, ``sum`` or ``count`` for histograms. A label whose value begins with
    ``~`` or ``!~`` is matched as a regular expression. Raises KeyError for a metric or a label that
    the list does not have.
    """
    metric = METRICS[name]
    if (metric.kind is MetricKind.HISTOGRAM) != bool(part):
        raise KeyError(f"{name} is a {metric.kind.value}: part {part!r}")
    known = {*metric.labels, "process", *(("le",) if part == "bucket" else ())}
    if unknown := labels.keys() - known:
        raise KeyError(f"{name} has no label {', '.join(sorted(unknown))}")
    matched = ",".join(_match_label(label, value) for label, value in labels.items())
    suffix = f"_{part}" if part else ""
    return f"{name}{suffix}{{{matched}}}" if matched else f"{name}{suffix}"


def _match_label(label: str, value: str) -> str:
    for operator in ("!~", "~"):
        if value.startswith(operator):
            sign = operator if operator == "!~" else "=~"
            return f'{label}{sign}"{value.removeprefix(operator)}"'
    return f'{label}="{value}"'


def find_rate(name: str, window: str, *, part: str = "", **labels: str) -> str:
    """The growth of a counter a second, over a window such as ``5m``."""
    return f"rate({select_series(name, part=part, **labels)}[{window}])"


def sum_rates(name: str, window: str, *, part: str = "", by: str = "", **labels: str) -> str:
    """The sum of such growths, over all series or by labels."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} ({find_rate(name, window, part=part, **labels)})"


def find_quantile(at: float, name: str, window: str, *, by: str = "", **labels: str) -> str:
    """A quantile of a histogram over a window."""
    grouped = f"le, {by}" if by else "le"
    buckets = sum_rates(name, window, part="bucket", by=grouped, **labels)
    return f"histogram_quantile({at:g}, {buckets})"
