"""``python -m benchmark.slow_reader URL COUNT RATE``: GETs whose replies are read slowly.

Each of COUNT connections reads RATE bytes a second, or nothing at all if that is 0, and asks again
when its reply has ended. The environment variable TOKEN is the bearer token. Runs until killed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from urllib.parse import urlsplit

#: Seconds between two reads.
_PERIOD = 0.25
#: Bytes of a reply that the system buffers for a reader.
_BUFFER = 4096


async def main(url: str, count: int, rate: int) -> None:
    """Read until cancelled."""
    await asyncio.gather(*(_read_again(url, rate) for _ in range(count)))


async def _read_again(url: str, rate: int) -> None:
    place = urlsplit(url)
    head = (
        f"GET {place.path}?{place.query} HTTP/1.1\r\nhost: {place.netloc}\r\nconnection: close\r\n"
        f"authorization: Bearer {os.environ['TOKEN']}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    while True:
        with socket.socket() as made:
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            await loop.sock_connect(made, (place.hostname, place.port))
            await loop.sock_sendall(made, head.encode())
            await _take(made, rate)
        await asyncio.sleep(_PERIOD)


async def _take(made: socket.socket, rate: int) -> None:
    """Read at a rate until the reply ends; wait for ever if the rate is 0."""
    loop = asyncio.get_running_loop()
    if not rate:
        await loop.create_future()
    while True:
        left = int(rate * _PERIOD)
        while left > 0:
            try:
                some = await loop.sock_recv(made, left)
            except ConnectionError:
                return
            if not some:
                return
            left -= len(some)
        await asyncio.sleep(_PERIOD)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
