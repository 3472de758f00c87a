"""Calls the kernel, a small WebAssembly module that is the native half of the formats.

Encoding a row in Python costs more than reading it from the database, and holds the interpreter's
lock while unary calls wait. The kernel does it in C compiled to WebAssembly: one artifact for every
platform, confined to its own memory, called outside the lock. ``print_plan`` makes its plans.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from array import array
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any, NamedTuple, TypeAlias

from wasmtime import Engine, Func, Global, Instance, Memory, Module, Store

from penstockd.native.abi import (
    COLUMN_FILLED_WORDS,
    LOAD_INDEX_WORDS,
    RESULT_WORDS,
    ColumnFilled,
    LoadIndex,
    Result,
    Status,
)
from penstockd.native.errors import FormatError
from penstockd.native.keys import KeySet

_PAGE = 65536
_SLACK = 64  # bytes after a buffer that the kernel may touch
ROOM = 1 << 20  # bytes for the output of one call
_MOST = 512 << 20  # bytes of memory that one kernel may take
_KEYS = 16 << 20  # bytes for the keys of a kernel that encodes; see keys.c

#: Bytes of messages that ``unframe`` takes at once.
SPACE = 256 << 10
#: What the kernel copies from; a read-only memoryview is copied twice.
Data: TypeAlias = bytes | bytearray | memoryview


class CallResult(NamedTuple):
    """The result of a call: bytes consumed, output, rows, the kernel's detail, its status."""

    consumed: int
    output: bytes
    rows: int
    detail: int
    status: int


class Filled(NamedTuple):
    """Columns of ``rows`` rows; see ``columns.c``.

    For each column of the input: the addresses of its validity bits, its values' ends and its data,
    the data's size in bytes, and the number of NULLs. The addresses are the process's own, and
    valid until the kernel's next call.
    """

    consumed: int
    rows: int
    detail: int
    status: int
    columns: list[tuple[int, int, int, int, int]]


class Unframed(NamedTuple):
    """The result of ``unframe``: bytes consumed and produced, ``left`` for the next, its status."""

    consumed: int
    produced: int
    left: int
    status: int


class LoadedRows(NamedTuple):
    """New records: their keys, each followed by CELL, their rows, their entries of the change log.

    ``sizes`` has two int32 for each row of the input: the sizes of its row and its log entry, or
    LOAD_LEFT and 0, or LOAD_BLANK and 0.
    """

    keys: bytes
    rows: bytes
    entries: bytes
    sizes: bytes


@functools.cache
def _load_module() -> tuple[Engine, Module]:
    engine = Engine()
    return engine, Module(engine, resources.files(__package__).joinpath("rows.wasm").read_bytes())


def compile_ahead() -> None:
    """Compile the kernel now, so that the first export or import need not wait for it."""
    _load_module()


class Kernel:
    """One instance of the module with its own memory; used by one thread at a time.

    Its memory holds the plan, then the input of a call, then its output. With a set of ``keys`` it
    adds those of the rows that it encodes, and keeps the latest between plan and input.
    FormatError if a row needs more memory than a kernel may take.
    """

    def __init__(self, plan: bytes = b"", keys: KeySet | None = None) -> None:
        engine, module = _load_module()
        self._store = Store(engine)
        self._exports = Instance(self._store, module, []).exports(self._store)
        memory, heap = self._exports["memory"], self._exports["__heap_base"]
        assert isinstance(memory, Memory) and isinstance(heap, Global)
        self._memory = memory
        self._results: int = self._function("results")(self._store)
        self._plan = _align_offset(heap.value(self._store))
        self.input_start = _align_offset(self._plan + len(plan) + _SLACK)
        self._write(self._plan, plan)
        # KeySet refers back to the kernel; a weak reference avoids a cycle that would hold its
        # memory until the next collection.
        self._keys = weakref.ref(keys) if keys is not None else None
        self._lock = threading.Lock()  # guards the keys: they are queried while rows are encoded
        if keys is not None:
            self._function("start_keys")(self._store, self.input_start)
            self.input_start += _KEYS
            keys.complete = self._complete_keys

    def count_losses(self, columns: int) -> list[int]:
        """For each of the first columns of a sheet, how many of its cells do not hold their values
        exactly."""
        with self._lock:
            start: int = self._function("count_losses")(self._store)
            return list(_read_words(self._address() + start, columns))

    def encode(self, *data: Data) -> list[CallResult]:
        """Encode the complete rows of COPY BINARY at the start of the concatenated ``data``.

        The last ``status`` is DONE if more data is needed, END if the stream ended, or MALFORMED.
        """
        with self._lock:
            return self._encode(data)

    def _encode(self, data: Sequence[Data]) -> list[CallResult]:
        size = sum(map(len, data))
        out, room = self._write(self.input_start, *data), ROOM
        taken: list[CallResult] = []
        start = self.input_start
        while True:
            self._require(out + room + _SLACK)
            step = self._call("encode", out, self._plan, start, size, out, room)
            taken.append(step)
            if step.status in (Status.END, Status.KEYS):
                self._code_keys()
            if step.status not in (Status.FULL, Status.KEYS):
                return taken
            start, size = start + step.consumed, size - step.consumed
            if step.status == Status.FULL and not step.rows:
                room = max(step.detail, 0) or _MOST

    def space(self) -> memoryview:
        """SPACE bytes of the memory for ``unframe`` to read, valid until the kernel's next call."""
        self._require(self.input_start + 2 * (SPACE + _SLACK))
        return self._view(self.input_start, SPACE)

    def unframe(self, start: int, size: int, have: int, left: int) -> Unframed:
        """Append the COPY stream in ``size`` bytes of ``space``, from ``start``, to the ``have``
        bytes of ``unframed``; see ``wire.c``."""
        unframe, out = self._function("unframe"), self.input_start + SPACE + _SLACK + have
        self._require(out + size + _SLACK)
        status: int = unframe(self._store, self.input_start + start, size, out, left)
        done = self._result()
        return Unframed(done.consumed, done.produced, done.detail, status)

    def unframed(self, start: int, size: int) -> memoryview:
        """Some of the bytes that ``unframe`` gathered, valid until its next call."""
        return self._view(self.input_start + SPACE + _SLACK + start, size)

    def columns(self, data: Sequence[Data], width: int) -> Iterator[Filled]:
        """Lay out the complete rows of COPY BINARY at the start of ``data`` as ``width`` columns.

        The parts of ``data`` are concatenated. The last ``status`` is as in ``encode``. The plan
        comes from ``column_plan.column_plan``.
        """
        size = sum(map(len, data))
        out = -(-self._write(self.input_start, *data) // 64) * 64
        self._require(out + 5 * size + 512 * width + _SLACK)
        columns, start = self._function("columns"), self.input_start
        while True:
            with self._lock:
                status: int = columns(self._store, self._plan, start, size, out)
                base, done = self._address(), self._result()
                if status in (Status.END, Status.KEYS):
                    self._code_keys()
            laid = memoryview(ctypes.string_at(base + out, 4 * COLUMN_FILLED_WORDS * width))
            words = iter(laid.cast("i"))
            places = map(ColumnFilled, *[words] * COLUMN_FILLED_WORDS)
            yield Filled(
                *(done.consumed, done.rows, done.detail, status),
                [(base + c.valid, base + c.ends, base + c.data, c.size, c.nulls) for c in places],
            )
            if status != Status.KEYS:
                return
            start, size = start + done.consumed, size - done.consumed

    def split_csv(
        self, data: bytes, final: bool, width: int, delimiter: bytes = b","
    ) -> CallResult:
        """Cut the complete rows at the start of ``data`` into ``width`` cells; see ``split.c``."""
        out = self._write(self.input_start, data)
        self._require(out + 2 * len(data) + _SLACK)
        arguments = (self.input_start, len(data), out, int(final), width, delimiter[0])
        return self._call("split_csv", out, *arguments)

    def split_json(self, data: bytes, final: bool, state: int) -> CallResult:
        """Cut the array in ``data`` into elements, one per line; see ``split.c``."""
        out = self._write(self.input_start, data)
        self._require(out + 2 * len(data) + _SLACK)
        return self._call("split_json", out, self.input_start, len(data), out, int(final), state)

    def messages(self, records: Sequence[bytes]) -> bytes | None:
        """Serialised records as cells, in the form of ``split_csv``; None if one is malformed.

        The plan comes from ``records.message_plan``; see ``records.c``.
        """
        sizes = array("i", map(len, records))
        index = self._write(self.input_start, b"".join(records))
        scratch = self._write(index, sizes.tobytes())
        out = _align_offset(scratch + 3 * max(sizes, default=0) + _SLACK)
        room = 2 * sum(sizes) + ROOM
        while True:
            self._require(out + room + _SLACK)
            arguments = (self._plan, self.input_start, index, len(records), scratch, out, room)
            taken = self._call("messages", out, *arguments)
            if taken.status != Status.FULL:
                return taken.output if taken.status == Status.DONE else None
            room *= 2

    def load(self, cells: bytes, count: int, ordinal: int) -> Iterator[LoadedRows]:
        """Make records of the ``count`` rows that ``split_csv`` returned; see ``load.c``.

        ``ordinal`` is that of the first log entry. The plan comes from ``load_plan.load_plan``.
        """
        index = self._write(self.input_start, cells)
        keys = _align_offset(index + 4 * (LOAD_INDEX_WORDS + 2 * count))
        rows = _align_offset(keys + len(cells) + _SLACK)
        room = 4 * len(cells) + ROOM
        entries = rows + room + _SLACK
        self._require(entries + room + _SLACK)
        load, start, size = self._function("load"), self.input_start, len(cells)
        while size:
            status: int = load(
                *(self._store, self._plan, start, size, index, keys, rows, entries, room, ordinal)
            )
            base, done = self._address(), self._result()
            if status not in (Status.DONE, Status.FULL) or not done.rows:
                raise AssertionError("the kernel was given no whole row")  # split_csv cuts those
            ends = LoadIndex(*_read_words(base + index, LOAD_INDEX_WORDS))
            pairs = ctypes.string_at(base + index + 4 * LOAD_INDEX_WORDS, 8 * done.rows)
            yield LoadedRows(
                ctypes.string_at(base + keys, ends.keys),
                ctypes.string_at(base + rows, ends.rows),
                ctypes.string_at(base + entries, ends.entries),
                pairs,
            )
            start, size = start + done.consumed, size - done.consumed
            if size:
                ordinal += sum(n > 0 for n in memoryview(pairs).cast("i")[::2])

    def _complete_keys(self) -> None:
        with self._lock:
            self._require(self.input_start)  # the keys' own room, if no row has come yet
            self._code_keys()

    def _code_keys(self) -> None:
        if self._keys is not None and (keys := self._keys()) is not None:
            start: int = self._function("code_keys")(self._store)
            done = self._result()
            keys.add(ctypes.string_at(self._address() + start, done.produced), done.rows)

    def _call(self, name: str, out: int, *args: int) -> CallResult:
        status: int = self._function(name)(self._store, *args)
        done = self._result()
        output = ctypes.string_at(self._address() + out, done.produced)
        return CallResult(done.consumed, output, done.rows, done.detail, status)

    def _result(self) -> Result:
        return Result(*_read_words(self._address() + self._results, RESULT_WORDS))

    def _function(self, name: str) -> Func:
        function = self._exports[name]
        assert isinstance(function, Func)
        return function

    def _write(self, at: int, *data: Data) -> int:
        """Write ``data`` at an offset of the memory; return the first free offset after it."""
        after = _align_offset(at + sum(map(len, data)) + _SLACK)
        self._require(after)
        address = self._address() + at
        for part in data:
            ctypes.memmove(address, _pointer_to(part), len(part))
            address += len(part)
        return after

    def _view(self, at: int, size: int) -> memoryview:
        return memoryview(_Window.from_address(self._address())).cast("B")[at : at + size]

    def _address(self) -> int:
        return ctypes.addressof(self._memory.data_ptr(self._store).contents)

    def _require(self, size: int) -> None:
        if size > _MOST:
            raise FormatError("a row is too large")
        have = self._memory.data_len(self._store)
        if size > have:
            self._memory.grow(self._store, -(-(size - have) // _PAGE))


#: A kernel's memory at its largest. One shared type: making one costs more than copying a piece.
_Window = ctypes.c_char * _MOST


def _pointer_to(data: Data) -> Any:
    if isinstance(data, bytes):
        return data
    if isinstance(data, memoryview) and data.readonly:
        return bytes(data)
    return ctypes.byref(ctypes.c_char.from_buffer(data)) if data else b""


def _read_words(address: int, count: int) -> Iterator[int]:
    return iter((ctypes.c_int32 * count).from_address(address))


def _align_offset(offset: int) -> int:
    return (offset + 15) // 16 * 16
