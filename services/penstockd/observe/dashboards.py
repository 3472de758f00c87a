"""The dashboard that ships with the hub, as a document that Grafana imports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstockd.observe.promql import find_quantile, find_rate, select_series, sum_rates

_WINDOW = "5m"
_WIDTH, _HEIGHT, _ACROSS = 8, 8, 3

_P99_OF_METHODS = find_quantile(0.99, "penstock_call_seconds", _WINDOW, by="method")


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart: queries, each with how its lines are named (Grafana's ``{{label}}``)."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]


ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    (
        "Calls",
        (
            Panel(
                "Answers to clients by class of status",
                "reqps",
                [
                    (
                        sum_rates(
                            "envoy_http_downstream_rq_xx_total",
                            _WINDOW,
                            by="envoy_response_code_class",
                        ),
                        "{{envoy_response_code_class}}xx",
                    )
                ],
            ),
            Panel(
                "Errors by reason",
                "reqps",
                [
                    (
                        sum_rates(
                            "penstock_calls_total", _WINDOW, by="outcome", outcome="!~OK|CANCELLED"
                        )
                        + " or vector(0)",
                        "{{outcome}}",
                    )
                ],
            ),
            Panel(
                "Time of calls in the hub",
                "s",
                [
                    (find_quantile(at, "penstock_call_seconds", _WINDOW), f"p{at * 100:g}")
                    for at in (0.5, 0.95, 0.99)
                ],
            ),
            Panel(
                "Busiest methods",
                "reqps",
                [
                    (
                        f"topk(10, {sum_rates('penstock_calls_total', _WINDOW, by='method')})",
                        "{{method}}",
                    )
                ],
            ),
            Panel(
                "Slowest methods (p99)",
                "s",
                [(f"topk(10, {_P99_OF_METHODS})", "{{method}}")],
            ),
            Panel(
                "Over a rate limit of the sidecar",
                "reqps",
                [
                    (
                        sum_rates("envoy_http_local_rate_limit_rate_limited_total", _WINDOW),
                        "refused",
                    )
                ],
            ),
        ),
    ),
    (
        "Data",
        (
            Panel(
                "Records that leave",
                "rowsps",
                [
                    (
                        sum_rates("penstock_disclosed_records_total", _WINDOW, by="dataset"),
                        "{{dataset}}",
                    )
                ],
            ),
            Panel(
                "Bytes to and from clients",
                "Bps",
                [
                    (sum_rates("envoy_http_downstream_cx_tx_bytes_total", _WINDOW), "sent"),
                    (sum_rates("envoy_http_downstream_cx_rx_bytes_total", _WINDOW), "received"),
                ],
            ),
            Panel(
                "Streams and connections",
                "short",
                [
                    (f"sum({select_series('penstock_streams_open')})", "streams of changes"),
                    (f"sum({select_series('penstock_calls_open')})", "calls in progress"),
                    (f"sum({select_series('envoy_http_downstream_cx_active')})", "connections"),
                ],
            ),
            Panel(
                "From a commit to a stream",
                "s",
                [
                    (find_quantile(at, "penstock_feed_delay_seconds", _WINDOW), f"p{at * 100:g}")
                    for at in (0.5, 0.99)
                ],
            ),
            Panel(
                "Attempts to deliver to webhooks",
                "ops",
                [
                    (
                        sum_rates("penstock_webhook_attempts_total", _WINDOW, by="result"),
                        "{{result}}",
                    )
                ],
            ),
            Panel(
                "Webhooks that wait",
                "short",
                [
                    (f"max({select_series('penstock_webhook_deliveries_waiting')})", "deliveries"),
                    (
                        f"max({select_series('penstock_webhook_delivery_lag_seconds')})",
                        "seconds late",
                    ),
                    (f"max({select_series('penstock_webhooks', state='DISABLED')})", "disabled"),
                ],
            ),
        ),
    ),
    (
        "The hub's own work",
        (
            Panel(
                "How far behind",
                "s",
                [
                    (
                        f"max({select_series('penstock_sequencer_lag_seconds')})",
                        "numbers of changes",
                    ),
                    (f"max({select_series('penstock_sealer_lag_seconds')})", "seals of the audit"),
                    (
                        f"max({select_series('penstock_checkpoint_age_seconds')})",
                        "newest checkpoint",
                    ),
                ],
            ),
            Panel(
                "Entries that usage does not count yet",
                "short",
                [(f"max({select_series('penstock_usage_lag_entries')})", "entries")],
            ),
            Panel(
                "Tasks without a node, and failing ones",
                "short",
                [
                    (
                        f"count({select_series('penstock_singleton_held')} == 0) or vector(0)",
                        "unheld",
                    ),
                    (
                        f"count({select_series('penstock_singleton_failing')} == 1) or vector(0)",
                        "failing",
                    ),
                    (
                        f"count({select_series('penstock_organ_failing')} == 1) or vector(0)",
                        "organs",
                    ),
                ],
            ),
        ),
    ),
    (
        "Machine and database",
        (
            Panel(
                "Processor",
                "percentunit",
                [(find_rate("process_cpu_seconds_total", _WINDOW), "{{process}}")],
            ),
            Panel(
                "Memory",
                "bytes",
                [
                    (select_series("process_resident_memory_bytes"), "{{process}}"),
                    (select_series("envoy_server_memory_allocated"), "envoy"),
                ],
            ),
            Panel(
                "Free disk", "bytes", [(select_series("penstock_disk_free_bytes"), "{{instance}}")]
            ),
            Panel(
                "Connections of workers in use",
                "short",
                [(select_series("penstock_pool_connections_in_use"), "{{process}} {{lane}}")],
            ),
            Panel(
                "Sessions of the database",
                "short",
                [
                    (f"max({select_series('penstock_database_connections')})", "in use"),
                    (f"max({select_series('penstock_database_connections_usable')})", "usable"),
                    (f"max({select_series('penstock_database_waiting_locks')})", "wait for a lock"),
                ],
            ),
            Panel(
                "Database",
                "bytes",
                [(f"max({select_series('penstock_database_size_bytes')})", "size")],
            ),
        ),
    ),
)


def render_dashboard() -> dict[str, Any]:
    """The dashboard as a document. Grafana asks for the source of data when it imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, charts in ROWS:
        place = {"h": 1, "w": _WIDTH * _ACROSS, "x": 0, "y": top}
        panels.append({"type": "row", "title": title, "gridPos": place, "collapsed": False})
        top += 1
        for i, chart in enumerate(charts):
            x, y = i % _ACROSS * _WIDTH, top + i // _ACROSS * _HEIGHT
            panels.append(_render_panel(chart, x, y))
        top += -(-len(charts) // _ACROSS) * _HEIGHT
    source = {"name": "datasource", "type": "datasource", "query": "prometheus"}
    return {
        "title": "Penstock",
        "uid": "penstock",
        "timezone": "browser",
        "refresh": "10s",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source]},
        "panels": [{**panel, "id": i + 1} for i, panel in enumerate(panels)],
    }


def _render_panel(chart: Panel, x: int, y: int) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "type": "timeseries",
        "title": chart.title,
        "datasource": source,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": chart.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + i), "datasource": source, "expr": query, "legendFormat": legend}
            for i, (query, legend) in enumerate(chart.queries)
        ],
    }
