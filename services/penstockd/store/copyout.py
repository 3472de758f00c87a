"""COPY … TO STDOUT, read by a thread from the connection's own socket.

PostgreSQL sends eight kilobytes at a time. For each, an event loop wakes up, reads, parses and
starts a task: that was half the cost of a large export, and unary calls waited for it. A thread
that waits in the kernel for 256 KiB takes a fifth of the time, outside the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import asyncpg

from penstockd.store.database import Connection

T = TypeVar("T")

#: How often a waiting thread checks whether it is still needed, in seconds.
TICK = 0.1
#: How long a read waits for more data, in microseconds.
_LINGER = 5_000
_NICE = 5
#: The first bytes, taken as they arrive so that the first rows do not wait for later ones.
_EAGER = 64 * 1024


class CopyOut:
    """One COPY on a connection that nobody else uses meanwhile.

    Only the thread calls ``receive`` and ``message``. Until ``done``, the thread must pass every
    message other than CopyData to ``message``.
    """

    def __init__(self, connection: Connection) -> None:
        self.done = False
        self._connection = connection
        self._transport: Any = connection._transport  # type: ignore[attr-defined]
        self._socket: Any = None
        self._readable = select.poll()
        self._stopped = threading.Event()
        self._received = 0
        self._error: Exception | None = None

    @staticmethod
    def possible(connection: Connection) -> bool:
        """Whether the connection's socket can be read without the driver, which TLS prevents."""
        transport = getattr(connection, "_transport", None)
        return (
            transport is not None
            and transport.get_extra_info("socket") is not None
            and transport.get_extra_info("ssl_object") is None
        )

    async def run(self, query: str, work: Callable[[], None]) -> None:
        """Start the COPY of a query, as BINARY, and run ``work`` in a thread until it has read it
        all.

        Raises what ``work`` raises, including the driver's errors. If it is not ``done`` by then,
        or the caller is cancelled, the connection must be thrown away.
        """
        self._transport.pause_reading()
        given: Any = self._transport.get_extra_info("socket")
        self._socket = socket.socket(fileno=os.dup(given.fileno()))
        ended = asyncio.get_running_loop().create_future()
        arguments = (query, work, asyncio.get_running_loop(), ended)
        threading.Thread(None, self._thread, "copyout", arguments, daemon=True).start()
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            self._stopped.set()
            await _wait_settled(ended)
            raise
        finally:
            if self.done and not self._transport.is_closing():
                self._transport.resume_reading()

    def receive(self, space: memoryview) -> int:
        """Wait for bytes and put them into ``space``; returns how many.

        Raises OSError if the connection is lost, and CopyStopped.
        """
        while True:
            self.check()
            if not self._readable.poll(TICK * 1000):
                continue
            flags = socket.MSG_WAITALL if self._received >= _EAGER else 0
            try:
                size: int = self._socket.recv_into(space, 0, flags)
            except BlockingIOError:
                continue
            if not size:
                raise ConnectionResetError("the database closed the connection")
            self._received += size
            return size

    def check(self) -> None:
        """Raise CopyStopped if nobody wants the rest, OSError if the connection was closed."""
        if self._stopped.is_set():
            raise CopyStopped
        if self._connection.is_closed():
            raise ConnectionAbortedError("the connection was given up")

    def message(self, kind: bytes, body: bytes) -> None:
        """Process a message that is not CopyData. Raises the driver's error once the server is
        done, if it reported one."""
        if kind == b"E":
            self._error = asyncpg.PostgresError.new(_parse_fields(body))
        elif kind == b"Z":
            self.done = True
            if self._error is not None:
                raise self._error

    def _thread(
        self,
        query: str,
        work: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        ended: asyncio.Future[None],
    ) -> None:
        error: BaseException | None = None
        try:
            step_back()
            with self._socket:
                self._begin(query)
                try:
                    work()
                finally:
                    os.set_blocking(self._socket.fileno(), False)
        except BaseException as exc:  # raised to the waiter in ``run``
            error = exc
        loop.call_soon_threadsafe(_end_future, ended, error)

    def _begin(self, query: str) -> None:
        # Both sockets share one open file, so this affects the driver's too; the driver is paused.
        os.set_blocking(self._socket.fileno(), True)
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, _LINGER)
        )
        self._readable.register(self._socket, select.POLLIN)
        text = f"COPY ({query}) TO STDOUT (FORMAT binary)".encode() + b"\0"
        self._socket.sendall(b"Q" + struct.pack(">i", len(text) + 4) + text)


def step_back() -> None:
    """Lower the calling thread's priority, so that interactive calls go first on a busy machine.
    Only Linux has priorities of threads."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


class CopyStopped(Exception):
    """The reader of a COPY has gone."""


def _parse_fields(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse, by the letters that the driver expects."""
    return {f[:1].decode(): f[1:].decode(errors="replace") for f in body.split(b"\0") if f}


def _end_future(ended: asyncio.Future[None], error: BaseException | None) -> None:
    if ended.done():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)


async def _wait_settled(future: asyncio.Future[None]) -> None:
    """Wait until it is done, ignoring cancellation."""
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()
