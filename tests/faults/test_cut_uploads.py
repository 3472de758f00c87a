"""R15: an upload that breaks off is never taken for a complete one, however busy the worker is.

The event loop is blocked for 200 ms at a time, so that the end of an upload's messages and the
cancellation of its call come in one turn of the loop or in several.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody

from chance import SEED
from harness import eventually
from penstock.api.v1.customers_service_pb2 import ImportCustomersRequest
from penstock.hub.v1.upload_complete_pb2 import UploadComplete
from penstockd.errors import ImportTruncated
from penstockd.rpc.writes import GrpcUpload

UPLOADS = int(os.environ.get("PENSTOCK_CUT_UPLOADS", "60"))
FEW = 20
#: Uploads that run at one time.
AT_ONCE = 20
HOLD = 0.2
ROWS = b"customer_id,name\n" + b"".join(b"cut-%d,Name\n" % i for i in range(200))
CHANCE = random.Random(SEED)
METHOD = "/test.Uploads/Import"


async def by_operation(upload: GrpcUpload) -> None:
    """The hub's way."""
    await upload.confirm_whole()


async def by_the_end_of_the_pieces(upload: GrpcUpload) -> None:
    """gRPC's iterator: it ends in the same way whether or not the upload was cut off."""


class Receiver:
    """A gRPC server in a thread of its own, whose loop is blocked again and again."""

    def __init__(self, decide: Callable[[GrpcUpload], Any]) -> None:
        self.outcomes: Counter[str] = Counter()
        #: By the number of an upload: set as soon as all its pieces have arrived.
        self.read: dict[str, threading.Event] = defaultdict(threading.Event)
        self.port = 0
        self._decide = decide
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Receiver:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        server = grpc.aio.server()
        handler: Any = grpc.stream_unary_rpc_method_handler(
            self._receive, ImportCustomersRequest.FromString, None
        )
        generic = grpc.method_handlers_generic_handler("test.Uploads", {"Import": handler})
        server.add_generic_rpc_handlers((generic,))
        self.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        holding = asyncio.create_task(self._hold())
        self._ready.set()
        await self._stopping.wait()
        holding.cancel()
        await server.stop(0)

    async def _hold(self) -> None:
        """Leave the loop a few turns between two blocks of its time."""
        while True:
            time.sleep(HOLD)  # noqa: ASYNC251  # to hold the loop is what it is for
            for _ in range(8):
                await asyncio.sleep(0)

    async def _receive(self, requests: Any, context: Any) -> bytes:
        number = dict(context.invocation_metadata())["number"]
        exchange: Any = SimpleNamespace(  # no hub is needed
            context=context,
            metadata={},
            merges={},
            flush_headers=lambda: context.send_initial_metadata(()),
        )
        upload = GrpcUpload(requests, exchange)
        try:
            await upload.begun()
            size = 0
            async for data in upload.pieces():
                size += len(data)
                if size == len(ROWS):
                    self.read[number].set()
            await self._decide(upload)
        except ImportTruncated:
            self.outcomes["refused"] += 1
        except asyncio.CancelledError:
            self.outcomes["cancelled"] += 1
            raise
        except Exception:
            # A fault of the receiver itself must not leave its sender waiting.
            self.outcomes["failed"] += 1
            self.read[number].set()
            raise
        else:
            # The COMMIT that follows runs to its end in any case.
            self.outcomes["committed"] += 1
        return b""


def requests(cut: threading.Event | None) -> Iterator[Any]:
    """The pieces of a file, and the end marker; with ``cut`` the marker never comes."""
    middle = ROWS.index(b"\n", len(ROWS) // 2) + 1
    for piece in (ROWS[:middle], ROWS[middle:]):
        yield ImportCustomersRequest(file=HttpBody(data=piece))
    if cut is None:
        whole = UploadComplete(byte_count=len(ROWS), sha256=hashlib.sha256(ROWS).digest())
        yield ImportCustomersRequest(complete=whole)
    else:
        cut.wait()


def send(receiver: Receiver, *, cut: bool) -> None:
    """Send an upload; with ``cut`` it breaks off when the receiver has all its pieces."""
    number = uuid.uuid4().hex
    over = threading.Event()
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{receiver.port}", options) as channel:
        method: Any = channel.stream_unary(METHOD, ImportCustomersRequest.SerializeToString, None)
        pieces = requests(over if cut else None)
        call = method.future(pieces, timeout=300, metadata=(("number", number),))
        if not cut:
            call.result()
            return
        assert receiver.read[number].wait(300)
        threading.Event().wait(CHANCE.uniform(0, HOLD))  # anywhere within the block of the loop
        call.cancel()
        over.set()


def all_at_once(work: Callable[[], None], count: int) -> None:
    """Run ``work`` ``count`` times, AT_ONCE at a time."""
    left = iter(range(count))
    lock = threading.Lock()

    def worker() -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            work()

    threads = [threading.Thread(target=worker) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def outcomes(decide: Callable[[GrpcUpload], Any], count: int, *, cut: bool) -> Counter[str]:
    """The outcomes of ``count`` uploads."""
    with Receiver(decide) as receiver:
        all_at_once(lambda: send(receiver, cut=cut), count)
        eventually(lambda: sum(receiver.outcomes.values()) == count)
        return receiver.outcomes


def test_no_cut_upload_is_committed_while_the_loop_is_held() -> None:
    seen = outcomes(by_operation, UPLOADS, cut=True)
    assert seen["committed"] == seen["failed"] == 0, (seen, SEED)


def test_whole_uploads_are_committed_while_the_loop_is_held() -> None:
    assert outcomes(by_operation, FEW, cut=False) == {"committed": FEW}


def test_the_end_of_the_pieces_does_not_tell() -> None:
    """The negative control: by the end of the pieces alone, these uploads look complete."""
    seen = outcomes(by_the_end_of_the_pieces, FEW, cut=True)
    assert seen["committed"] and not seen["failed"], seen
