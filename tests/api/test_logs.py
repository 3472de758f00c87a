"""The logs of a hub's processes: only JSON, in files of bounded size."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from harness import RunningHub, eventually, new_customer
from penstockd import up
from penstockd.config import Settings
from penstockd.node import supervisor
from penstockd.node.errors import FolderUnusable
from penstockd.node.postgres import EmbeddedPostgres

NOISE = """
import logging, threading, warnings
from penstockd.observe import set_up
set_up("test", "INFO", None)
logging.getLogger("library").warning("two\\nlines")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("library").exception("failed")
warnings.warn("old")
class Ending:
    def __del__(self):
        raise OSError("ignored")
ending = Ending()
del ending
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise ValueError("the end")
"""


def not_json(text: str) -> list[str]:
    """The lines that are not JSON objects."""
    wrong = []
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            wrong.append(line)
    return wrong


def test_all_that_a_process_writes_is_json() -> None:
    done = subprocess.run([sys.executable, "-c", NOISE], capture_output=True, check=False)
    text = done.stderr.decode()
    assert not_json(text) == []
    events = [json.loads(line)["event"] for line in text.splitlines()]
    assert events[:2] == ["two\nlines", "failed"]
    assert events[-3:] == ["error_ignored", "thread_failed", "process_failed"]
    # The control: without the setup, libraries log plain text.
    plain = NOISE.replace("set_up(", "str(")
    done = subprocess.run([sys.executable, "-c", plain], capture_output=True, check=False)
    assert not_json(done.stderr.decode())


def test_all_logs_of_a_running_hub_are_json(hub: RunningHub) -> None:
    hub.request("POST", "/v1/customers", consumer="admin", json_body=new_customer())
    logs = sorted(p for p in (hub.data / "log").iterdir())
    names = {path.name.partition(".")[0].partition("-")[0] for path in logs}
    assert {"worker", "keeper", "envoy", "access", "postgres"} <= names

    def whole() -> bool:
        # A line that is still being written has no end yet.
        texts = {p.name: p.read_text(errors="replace").rpartition("\n")[0] for p in logs}
        assert {name: not_json(text) for name, text in texts.items() if not_json(text)} == {}
        return True

    eventually(whole)


def test_a_cluster_of_a_newer_postgresql_is_refused_in_a_sentence(tmp_path: Path) -> None:
    cluster = tmp_path / "postgres"
    for version, advice in (("19", "or a newer one"), ("17", "dump it")):
        cluster.mkdir(exist_ok=True)
        (cluster / "PG_VERSION").write_text(f"{version}\n")
        with pytest.raises(FolderUnusable, match=f"PostgreSQL {version}, and this hub .*{advice}"):
            EmbeddedPostgres(tmp_path, tmp_path / "s").check_version()
        assert [p.name for p in cluster.iterdir()] == ["PG_VERSION"]


def test_too_few_open_files_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(max_connections=1000)
    for hard, missing in ((1_048_576, 0), (-1, 0), (1200, 0), (1024, 176)):
        monkeypatch.setattr(resource, "getrlimit", lambda what, hard=hard: (min(hard, 1024), hard))
        assert supervisor.missing_files(1000) == missing
        told = up.warn_few_files(settings)
        assert bool(told) is bool(missing)
    assert "'ulimit -n' allows 176 open files too few for 1000" in told[0]
