"""A receiver of webhooks that costs next to nothing: answers 200 to every POST, and counts.

It prints its port, and for each line on standard input the count and, of the deliveries since the
line before, the seconds from ``timestamp`` in the body to their arrival.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
import time
from typing import cast

_REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_REFUSED = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"
_LENGTH = b"content-length:"


class Counter:
    count = 0
    delays: list[float] = []


class Connection(asyncio.Protocol):
    """One connection, kept alive."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport, self._data = cast(asyncio.Transport, transport), b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, mark, rest = self._data.partition(b"\r\n\r\n")
            if not mark:
                return
            at = head.lower().find(_LENGTH)
            length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
            if len(rest) < length:
                return
            self._taken(head, rest[:length])
            self._data = rest[length:]

    def _taken(self, head: bytes, body: bytes) -> None:
        failing = head.startswith(b"POST /fail")
        if not failing:
            Counter.count += 1
            at = body.find(b'"timestamp":"')
            if at >= 0:
                moment = dt.datetime.fromisoformat(body[at + 13 : body.find(b'"', at + 13)].decode())
                Counter.delays.append(time.time() - moment.timestamp())
        self._transport.write(_REFUSED if failing else _REPLY)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps({"count": Counter.count, "delays": Counter.delays}), flush=True)
        Counter.delays = []


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
