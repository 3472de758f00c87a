"""A connection to PostgreSQL that can be cut: a TCP port on the loopback before its Unix socket.

A cut is silent: neither end learns that the other is gone, as when a network loses its state.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from harness import free_port


class Wire:
    """Connections through a port. Safe to use from any thread."""

    def __init__(self, socket: Path, port: int) -> None:
        self.port = port
        self.ready = threading.Event()
        self._socket = socket
        self._dead_before = 0
        self._numbers = itertools.count(1)
        self._newest = 0
        self._hangs = False
        self._streams: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def lose(self) -> None:
        """All current connections are dead for ever without notice; new ones work."""
        self._dead_before, self._hangs = self._newest + 1, False

    def hang(self) -> None:
        """The same, and new connections stay silent too, until ``lose`` or ``heal``."""
        self._dead_before, self._hangs = self._newest + 1, True

    def heal(self) -> None:
        """New connections work again; those that were cut stay dead."""
        self._hangs = False

    def stop(self) -> None:
        """Stop serving."""
        assert self._loop is not None and self._stopping is not None, "it serves"
        self._loop.call_soon_threadsafe(self._stopping.set)

    async def serve(self) -> None:
        """Serve until ``stop``."""
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.ready.set()
        await self._stopping.wait()
        server.close()
        for stream in list(self._streams):
            stream.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self._newest = next(self._numbers)
        self._streams.add(writer)
        if self._hangs:
            self._dead_before = max(self._dead_before, number + 1)
            return
        to_server, from_hub = await asyncio.open_unix_connection(str(self._socket))
        self._streams.add(from_hub)
        await asyncio.gather(
            self._pass_on(number, reader, from_hub), self._pass_on(number, to_server, writer)
        )

    async def _pass_on(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Copy bytes one way until the wire is cut: then both ends stay open, and nothing
        passes."""
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if number < self._dead_before:
                    return
                writer.write(data)
                await writer.drain()
        if number >= self._dead_before:
            self._streams.discard(writer)
            writer.close()


@contextlib.contextmanager
def wired(dsn: str) -> Iterator[tuple[str, Wire]]:
    """The URL of a wire to the database of ``dsn``, which names a Unix socket, and the wire itself.

    It runs in a thread of its own, so a blocking test does not delay it.
    """
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    socket = Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"
    wire = Wire(socket, free_port())
    thread = threading.Thread(target=asyncio.run, args=(wire.serve(),))
    thread.start()
    try:
        wire.ready.wait()
        user = parts.netloc.rpartition("@")[0]
        yield f"postgresql://{user}@127.0.0.1:{wire.port}{parts.path}", wire
    finally:
        wire.stop()
        thread.join()
