"""One record by key: the hub with token, View and durable audit beside bare web frameworks.

The load comes from ``h2load``.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from benchmark.database import database_url, load_customers, wait_until_quiet
from benchmark.processes import usage
from benchmark.sidecar import measure_scripts
from benchmark.table import Row
from harness import RunningHub, eventually, free_port
from penstock.api.v1 import customers_service_pb2, customers_service_pb2_grpc
from penstockd.node.sockets import sockets_folder

_CLIENTS = 32
_SECONDS = 4
_KEYS = 100


def measure(hub: RunningHub, rows: int, rounds: int) -> list[Row]:
    """All in turn, so that they meet the same machine; ratios are to Starlette with asyncpg."""
    load_customers(hub, rows)
    wait_until_quiet(hub)
    keys = list_keys(hub)
    authorization = f"authorization: Bearer {hub.token('admin')}"
    found: dict[str, list[float]] = {}
    cpu = ""

    def note(name: str, rate: float) -> None:
        found.setdefault(name, []).append(rate)

    for _ in range(rounds):
        with _reference(hub, "starlette_asyncpg") as url:
            note("starlette", load_rest(url, keys))
        with _reference(hub, "fastapi_sqlalchemy") as url:
            note("fastapi", load_rest(url, keys))
        with usage(hub) as used:
            note("rest", load_rest(hub.url, keys, authorization))
        cpu = used.text()
        note("grpc", load_grpc(hub, keys[0], authorization))
    best = {name: statistics.median(rates) for name, rates in found.items()}
    bare = best["starlette"]
    idle, busy = _latencies(hub, keys)
    return [
        Row("GET: Starlette + asyncpg, bare", bare, "calls/s"),
        Row("GET: FastAPI + SQLAlchemy, bare, ratio", best["fastapi"] / bare, ""),
        Row(
            "GET: hub over REST through Envoy, ratio",
            best["rest"] / bare,
            "",
            0.25,
            note=f"{best['rest']:,.0f} calls/s; {cpu}",
        ),
        Row(
            "GET: hub, straight gRPC to one worker, ratio",
            best["grpc"] / bare,
            "",
            0.36,
            note=f"{best['grpc']:,.0f} calls/s",
        ),
        Row("GET: hub over REST to FastAPI", best["rest"] / best["fastapi"], "", 1.0),
        Row("GET p99, idle", idle * 1000, "ms"),
        Row("GET p99 during bulk exports, to idle", busy / idle, "", 3, at_most=True),
        *measure_scripts(hub, keys, authorization, rounds),
    ]


def list_keys(hub: RunningHub, consumer: str = "admin") -> list[str]:
    """Keys of customers that a consumer may read."""
    reply = hub.get(f"/v1/customers?pageSize={_KEYS}&fields=customer_id", consumer)
    return [c["customerId"] for c in reply.json()["customers"]]


@contextlib.contextmanager
def _reference(hub: RunningHub, name: str) -> Iterator[str]:
    """A reference application under uvicorn, one process, with uvloop and httptools."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"benchmark.reference.{name}:app"]
    options = ["--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    quiet = ["--no-access-log", "--log-level", "warning"]
    scripts = str(Path(__file__).parent.parent)
    process = subprocess.Popen(
        [*command, *options, *quiet],
        env={**os.environ, "DATABASE": database_url(hub), "PYTHONPATH": scripts},
    )
    try:
        eventually(lambda: _answers(port), seconds=20)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/v1/customers/none")
        return connection.getresponse().status == 404
    except OSError:
        return False
    finally:
        connection.close()


def load_rest(url: str, keys: list[str], *headers: str) -> float:
    """Reads by key over HTTP/1.1, a second."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as uris:
        uris.write("".join(f"{url}/v1/customers/{key}\n" for key in keys))
        uris.flush()
        return _load("--h1", "-c", str(_CLIENTS), "-i", uris.name, headers=headers)


def load_grpc(hub: RunningHub, key: str, *headers: str) -> float:
    """Reads a second straight from one worker; a real client checks its answer once."""
    socket = min(sockets_folder(hub.data).glob("worker-*.sock"))
    request = customers_service_pb2.GetCustomerRequest(customer_id=key)
    metadata = [(name, value.strip()) for name, _, value in (h.partition(":") for h in headers)]
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        stub = customers_service_pb2_grpc.CustomersStub(channel)
        assert stub.GetCustomer(request, metadata=metadata).customer_id == key
    body = request.SerializeToString()
    with tempfile.NamedTemporaryFile("wb") as data:
        data.write(b"\0" + len(body).to_bytes(4, "big") + body)
        data.flush()
        return _load(
            *("-c", "4", "-m", str(_CLIENTS // 4), "-d", data.name, "-B", f"unix:{socket}"),
            "http://localhost/penstock.api.v1.Customers/GetCustomer",
            headers=[*headers, "content-type: application/grpc", "te: trailers"],
        )


def _load(*arguments: str, headers: list[str] | tuple[str, ...]) -> float:
    command = ["h2load", "-D", str(_SECONDS), "--warm-up-time=1"]
    for header in headers:
        command += ["-H", header]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done.stdout)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
    assert codes is not None and rate is not None, done.stdout
    assert codes.group(2, 3, 4) == ("0", "0", "0"), done.stdout
    return float(rate.group(1))


def _latencies(hub: RunningHub, keys: list[str]) -> tuple[float, float]:
    """The 99th percentile of single GETs in seconds, alone and beside a series of exports."""
    idle = _percentile(hub, keys)
    done = threading.Event()
    exporting = threading.Thread(target=_export_until, args=(hub, done))
    exporting.start()
    try:
        busy = _percentile(hub, keys)
    finally:
        done.set()
        exporting.join()
    return idle, busy


def _percentile(hub: RunningHub, keys: list[str]) -> float:
    place = urlsplit(hub.url)
    headers = {"authorization": f"Bearer {hub.token('admin')}"}
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    seconds = []
    for i in range(800):
        start = time.perf_counter()
        connection.request("GET", f"/v1/customers/{keys[i % len(keys)]}", headers=headers)
        reply = connection.getresponse()
        reply.read()
        seconds.append(time.perf_counter() - start)
        assert reply.status == 200
        # A caller's own pace: back to back, one connection would measure throughput.
        time.sleep(0.005)
    connection.close()
    return statistics.quantiles(seconds[50:], n=100)[98]


def _export_until(hub: RunningHub, done: threading.Event) -> None:
    headers = {"authorization": f"Bearer {hub.token('admin')}"}
    place = urlsplit(hub.url)
    while not done.is_set():
        connection = http.client.HTTPConnection(place.hostname or "", place.port)
        connection.request("GET", "/v1/customers:export?format=CSV", headers=headers)
        reply = connection.getresponse()
        while reply.read(1 << 20) and not done.is_set():
            pass
        connection.close()
