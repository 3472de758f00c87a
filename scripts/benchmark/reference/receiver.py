"""A receiver of webhooks that costs almost nothing: it accepts every POST, and counts.

A POST to /fail gets a 500, a POST to /hang no answer. The process prints its port. For each line
on standard input it prints the number of POSTs so far and, for those since the line before, the
time (seconds since 1970) by the key in the body.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import ClassVar, cast

_TAKEN = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_REFUSED = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"
_LENGTH, _KEY = b"content-length:", b'"key":"'


class Counter:
    count = 0
    times: ClassVar[dict[str, float]] = {}


class Connection(asyncio.Protocol):
    """One connection, kept alive."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not subclass asyncio's.
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
            self._data = rest[length:]
            if not head.startswith(b"POST /hang"):
                self._answer(head, rest[:length])

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"POST /fail"):
            self._transport.write(_REFUSED)
            return
        Counter.count += 1
        at = body.find(_KEY) + len(_KEY)
        Counter.times[body[at : body.find(b'"', at)].decode()] = time.time()
        self._transport.write(_TAKEN)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps([Counter.count, Counter.times]), flush=True)
        Counter.times = {}


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
