"""``penstock monitoring``: what Prometheus and Grafana need. Registered by ``cli``."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from penstock.client.cli.printing import print_outcome


def add_monitoring_commands(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        no_args_is_help=True, help="Files for Prometheus and Grafana, and the list of metrics."
    )
    group.callback()(_describe_group)
    group.command("metrics")(list_metrics)
    group.command("rules")(print_rules)
    group.command("dashboard")(print_dashboard)
    app.add_typer(group, name="monitoring")


def list_metrics() -> None:
    """List the metrics of a node: name, kind, source, labels and meaning."""
    from penstockd.observe.metrics import METRICS

    metrics = sorted(METRICS.values(), key=lambda metric: metric.name)
    document = [
        {
            "name": metric.name,
            "kind": metric.kind.value,
            "source": metric.source.value,
            "labels": list(metric.labels),
            "help": metric.help,
        }
        for metric in metrics
    ]
    print_outcome(
        {"metrics": document},
        [f"{m.name}{{{','.join(m.labels)}}} {m.kind.value}\n  {m.help}" for m in metrics],
    )


def print_rules(
    job: Annotated[
        str, typer.Option(help="The name of the scrape job in Prometheus.")
    ] = "penstock",
) -> None:
    """Print the alert rules as a rule file of Prometheus (YAML)."""
    from penstockd.observe.alerts import render_rules

    _print_document(render_rules(job))


def print_dashboard() -> None:
    """Print the dashboard for Grafana to import (JSON)."""
    from penstockd.observe.dashboards import render_dashboard

    _print_document(render_dashboard())


def _describe_group() -> None:
    """Keep the group a group, whatever number of commands it has."""


def _print_document(document: Any) -> None:
    """Write a file of JSON, which YAML contains, to standard output."""
    sys.stdout.buffer.write(json.dumps(document, indent=2).encode() + b"\n")
