"""Prometheus as Debian packages it: its server on a hub's metrics, and its tool for rules."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from harness import eventually, free_port


def find_program(name: str) -> str:
    """The path of one of its programs."""
    found = shutil.which(name)
    assert found is not None, f"{name} is missing: install Debian's package prometheus"
    return found


class Prometheus:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **query: str) -> Any:
        """The data of a reply of its API."""
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(query)}", timeout=30) as reply:
            document = json.load(reply)
        assert document["status"] == "success", document
        return document["data"]

    def evaluate(self, query: str) -> list[tuple[dict[str, str], float]]:
        """The samples of a query now: labels and value."""
        found = self.ask("query", query=query)["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts = self.ask("alerts")["alerts"]
        return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}


@contextlib.contextmanager
def running_prometheus(folder: Path, target: int, rules: Any) -> Iterator[Prometheus]:
    """A server that scrapes a port of this machine each second, and evaluates rules as often."""
    (folder / "rules.json").write_text(json.dumps(rules))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.json")],
        "scrape_configs": [
            {"job_name": "penstock", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        ],
    }
    (folder / "prometheus.json").write_text(json.dumps(config))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                find_program("prometheus"),
                f"--config.file={folder / 'prometheus.json'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        server = Prometheus(port)

        def ready() -> bool:
            assert process.poll() is None, (folder / "prometheus.log").read_text()[-2000:]
            with contextlib.suppress(OSError), urlopen(f"{server.url}/-/ready", timeout=5) as reply:
                return bool(reply.status == 200)
            return False

        eventually(ready)
        yield server
    finally:
        process.terminate()
        process.wait()
