"""The native half of the formats: a small WebAssembly module, and how to call it.

Encoding a row in Python costs more than reading it from the database, and holds the interpreter's
lock while unary calls wait. The kernel does it in C compiled to WebAssembly: one artifact for every
platform, confined to its own memory, called outside the lock. ``plan`` says what it encodes.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

from wasmtime import Engine, Func, Global, Instance, Memory, Module, Store

from penstockd.formats.errors import FormatError

DONE, FULL, END, MALFORMED = 0, 1, 2, -1  # kernel.h
LEFT, BLANK = 0, -1  # load.c: rows that are not for the kernel, lines that are no rows

_PAGE = 65536
_SLACK = 64  # bytes after a buffer that the kernel may touch
_ROOM = 1 << 20  # bytes of output that one call is given
_MOST = 512 << 20  # bytes of memory that one kernel may take


class Taken(NamedTuple):
    """What a call did: bytes consumed, its output, rows, the kernel's detail, its status."""

    consumed: int
    output: bytes
    rows: int
    detail: int
    status: int


class Loaded(NamedTuple):
    """New records: their keys, each followed by CELL, their rows, their entries of the change log.

    ``sizes`` has two int32 for each row of the input: the sizes of its row and of its entry; or
    LEFT and 0, or BLANK and 0.
    """

    keys: bytes
    rows: bytes
    entries: bytes
    sizes: bytes


@functools.cache
def _module() -> tuple[Engine, Module]:
    engine = Engine()
    return engine, Module(engine, resources.files(__name__).joinpath("rows.wasm").read_bytes())


def warm() -> None:
    """Compiles the kernel now, so that the first export or import need not wait for it."""
    _module()


class Kernel:
    """One instance of the module with memory of its own; used by one thread at a time.

    Its memory holds the plan, then the input of a call, then its output. FormatError if a row
    needs more memory than a kernel may take.
    """

    def __init__(self, plan: bytes = b"") -> None:
        engine, module = _module()
        self._store = Store(engine)
        self._exports = Instance(self._store, module, []).exports(self._store)
        memory, heap = self._exports["memory"], self._exports["__heap_base"]
        assert isinstance(memory, Memory) and isinstance(heap, Global)
        self._memory = memory
        self._results: int = self._function("results")(self._store)
        self._plan = _align(heap.value(self._store))
        self._in = _align(self._plan + len(plan) + _SLACK)
        self._write(self._plan, plan)

    def encode(self, data: bytes) -> list[Taken]:
        """Encodes the whole rows of COPY BINARY at the start of ``data``; the last ``status``
        says whether more is needed (DONE), the stream ended (END) or broke (MALFORMED)."""
        out, room = self._write(self._in, data), _ROOM
        taken: list[Taken] = []
        start, size = self._in, len(data)
        while True:
            self._require(out + room + _SLACK)
            step = self._call("encode", out, self._plan, start, size, out, room)
            taken.append(step)
            if step.status != FULL:
                return taken
            start, size = start + step.consumed, size - step.consumed
            if not step.rows:
                room = max(step.detail, 0) or _MOST

    def split_csv(self, data: bytes, final: bool, width: int) -> Taken:
        """Cuts the whole rows at the start of ``data`` into ``width`` cells; see ``split.c``."""
        out = self._write(self._in, data)
        self._require(out + 2 * len(data) + _SLACK)
        return self._call("split_csv", out, self._in, len(data), out, int(final), width)

    def split_json(self, data: bytes, final: bool, state: int) -> Taken:
        """Cuts the array in ``data`` into elements, one a line; see ``split.c``."""
        out = self._write(self._in, data)
        self._require(out + 2 * len(data) + _SLACK)
        return self._call("split_json", out, self._in, len(data), out, int(final), state)

    def load(self, cells: bytes, count: int, ordinal: int) -> Iterator[Loaded]:
        """Makes records of the ``count`` rows that ``split_csv`` gave; see ``load.c``.

        ``ordinal`` is that of the first entry of the log. The plan is ``copying.load_plan``'s.
        """
        index = self._write(self._in, cells)
        keys = _align(index + 4 * (3 + 2 * count))
        rows = _align(keys + len(cells) + _SLACK)
        room = 4 * len(cells) + _ROOM
        entries = rows + room + _SLACK
        self._require(entries + room + _SLACK)
        load, start, size = self._function("load"), self._in, len(cells)
        while size:
            status: int = load(
                *(self._store, self._plan, start, size, index, keys, rows, entries, room, ordinal)
            )
            base = self._address()
            consumed, _, taken, _ = (ctypes.c_int32 * 4).from_address(base + self._results)
            if status not in (DONE, FULL) or not taken:
                raise AssertionError("the kernel was given no whole row")  # split_csv gives these
            ends = (ctypes.c_int32 * 3).from_address(base + index)
            pairs = ctypes.string_at(base + index + 12, 8 * taken)
            yield Loaded(
                ctypes.string_at(base + keys, ends[2]),
                ctypes.string_at(base + rows, ends[0]),
                ctypes.string_at(base + entries, ends[1]),
                pairs,
            )
            start, size = start + consumed, size - consumed
            if size:
                ordinal += sum(n > 0 for n in memoryview(pairs).cast("i")[::2])

    def _call(self, name: str, out: int, *args: int) -> Taken:
        status: int = self._function(name)(self._store, *args)
        base = self._address()
        consumed, produced, rows, detail = (ctypes.c_int32 * 4).from_address(base + self._results)
        return Taken(consumed, ctypes.string_at(base + out, produced), rows, detail, status)

    def _function(self, name: str) -> Func:
        function = self._exports[name]
        assert isinstance(function, Func)
        return function

    def _write(self, at: int, data: bytes) -> int:
        """Puts ``data`` at an offset of the memory; returns the first free offset after it."""
        after = _align(at + len(data) + _SLACK)
        self._require(after)
        ctypes.memmove(self._address() + at, data, len(data))
        return after

    def _address(self) -> int:
        return ctypes.addressof(self._memory.data_ptr(self._store).contents)

    def _require(self, size: int) -> None:
        if size > _MOST:
            raise FormatError("a row is too large")
        have = self._memory.data_len(self._store)
        if size > have:
            self._memory.grow(self._store, -(-(size - have) // _PAGE))


def _align(offset: int) -> int:
    return (offset + 15) // 16 * 16
