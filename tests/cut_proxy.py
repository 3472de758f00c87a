"""A TCP port before a hub's, which cuts connections at random places."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator

from harness import free_port


class CutProxy:
    """Passes connections on. While it ``cuts``, each connection ends after a random number of bytes
    of its replies; ``count`` is how many have."""

    def __init__(self, target: int, chance: random.Random, most: int) -> None:
        self.port, self.cuts, self.count = free_port(), True, 0
        self._target, self._chance, self._most = target, chance, most
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The hub's address through the proxy."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self) -> None:
        """Serve until ``stop``."""
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    def wait(self) -> None:
        """Return once it serves."""
        assert self._ready.wait(30)

    def stop(self) -> None:
        """Stop serving."""
        assert self._loop is not None and self._stopping is not None, "it serves"
        self._loop.call_soon_threadsafe(self._stopping.set)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve_one(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_hub, to_hub = await asyncio.open_connection("127.0.0.1", self._target)
        asking = asyncio.ensure_future(self._ask(reader, to_hub))
        try:
            await self._answer(from_hub, writer)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            for end in (writer, to_hub):
                end.transport.abort()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._chance.randrange(self._most)
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                # Browsers keep connections: one that is there may be cut, too.
                cut = self.cuts and len(data) >= left
                writer.write(data[:left] if cut else data)
                await writer.drain()
                if cut:
                    self.count += 1
                    return
                left -= len(data) if self.cuts else 0


@contextlib.contextmanager
def cutting(target: int, chance: random.Random, most: int) -> Iterator[CutProxy]:
    """A proxy before the port ``target``, whose connections end before ``most`` bytes of reply."""
    proxy = CutProxy(target, chance, most)
    thread = threading.Thread(target=asyncio.run, args=(proxy.serve(),))
    thread.start()
    proxy.wait()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()
