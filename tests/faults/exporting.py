"""Exports over REST that are cut off, resumed, and replayed from the log."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from google.protobuf import json_format
from google.protobuf.message import Message

from harness import PATIENCE, RunningHub
from penstockd.catalog import Catalog
from penstockd.store.cursor import read_after
from penstockd.store.database import Database
from penstockd.store.log import Change
from places import PLACES

#: Records by key.
Records = dict[str, Message]

_COPIES = """
DO $$
DECLARE columns text;
BEGIN
    SELECT string_agg(quote_ident(column_name), ', ') INTO columns FROM information_schema.columns
    WHERE table_schema = 'data' AND table_name = 'customers' AND column_name <> 'customer_id';
    EXECUTE format('INSERT INTO data.customers (customer_id, %s)
        SELECT ''copy-'' || n || ''-'' || customer_id, %s
        FROM data.customers, generate_series(1, %s) AS n WHERE customer_id LIKE ''c0%%''',
        columns, columns, {times});
END $$
"""


def multiply(hub: RunningHub, times: int) -> None:
    """Add ``times`` copies of each customer of the demo, without the log."""
    hub.sql(_COPIES.format(times=times))


@dataclass
class Got:
    """The received part of an export, or all of it."""

    receipt: str
    data: bytes
    status: int = 200

    @property
    def reason(self) -> str:
        """The reason in the ErrorInfo of an error."""
        return next(str(d["reason"]) for d in json.loads(self.data)["details"] if "reason" in d)


@contextlib.contextmanager
def begun(
    hub: RunningHub, until: int | None, consumer: str = "admin", **query: object
) -> Iterator[Got]:
    """An export of customers whose first bytes have arrived; the connection is cut at the end."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        path = "/v1/customers:export?" + urlencode({k: str(v) for k, v in query.items()})
        connection.request("GET", path, headers=dict(hub.metadata(consumer)))
        reply = connection.getresponse()
        data = bytearray()
        while until is None or len(data) < until:
            wanted = 1 << 16 if until is None else min(1 << 16, until - len(data))
            if not (chunk := reply.read(wanted)):
                break
            data += chunk
        yield Got(reply.getheader("penstock-receipt") or "", bytes(data), reply.status)


def export(
    hub: RunningHub, consumer: str = "admin", *, until: int | None = None, **query: object
) -> Got:
    """An export that is cut after ``until``, or complete without it."""
    with begun(hub, until, consumer, **query) as got:
        return got


def receipt(hub: RunningHub, receipt_id: str, consumer: str = "admin") -> dict[str, Any]:
    """The receipt of an export, over REST."""
    reply = hub.get(f"/v1/receipts/{receipt_id}", consumer)
    assert reply.status == 200, reply.text
    return dict(reply.json())


def stands_for(found: Mapping[str, Any], data: bytes) -> bool:
    """Whether a receipt belongs to a complete file."""
    return (found["state"], found["byteCount"], found["sha256"]) == (
        "COMPLETE",
        str(len(data)),
        hashlib.sha256(data).hexdigest(),
    )


def records(catalog: Catalog, data: bytes) -> Records:
    """The customers in an NDJSON export without an in-band receipt."""
    message = catalog["customers"].message_class
    found = {}
    for line in data.splitlines():
        record = json_format.Parse(line, message())
        found[str(getattr(record, "customer_id"))] = record  # noqa: B009  # of any dataset
    return found


async def changes_after(hub: RunningHub, cursor: str) -> list[Change]:
    """All changes after a receipt's cursor that have a number by now."""
    database = Database(hub.dsn, size=1)
    await database.open()
    try:
        async with database.connection() as connection:
            at, found = PLACES.open(cursor), list[Change]()
            while True:
                changes, following = await read_after(connection, at, 1000)
                found += changes
                if following == at:
                    return found
                at = following
    finally:
        await database.close()


def replayed(catalog: Catalog, start: Records, changes: list[Change]) -> Records:
    """The records after the changes are applied."""
    message, state = catalog["customers"].message_class, dict(start)
    for change in changes:
        if change.dataset != "customers":
            continue
        if change.after is None:
            state.pop(change.key, None)
        else:
            state[change.key] = message.FromString(change.after)
    return state


@contextlib.contextmanager
def between(port: int, alter: Callable[[int, bytes], bytes | None]) -> Iterator[str]:
    """The URL of a proxy in front of a loopback port.

    The hub's bytes pass through ``alter`` with the connection's number; None cuts it.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    open_sockets: list[socket.socket] = [listener]

    def forward(source: socket.socket, target: socket.socket, number: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                altered = data if number is None else alter(number, data)
                if altered is None:
                    break
                target.sendall(altered)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        number = 0
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                open_sockets.extend((client, server))
                for ends in ((client, server, None), (server, client, number)):
                    threading.Thread(target=forward, args=ends, daemon=True).start()
                number += 1

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for end in open_sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        thread.join(PATIENCE)
