"""Consumers of a hub's feed that reconnect after every failure, each with a validator."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc
from google.protobuf import json_format
from grpc_status import rpc_status

from faults.validator import Broken, Fault, FeedValidator
from feeds import CATALOG, Told, number, told
from penstock.hub.v1 import changes_pb2
from penstock.hub.v1.changes_pb2_grpc import ChangesStub
from penstockd.store.log import Change
from penstockd.store.writer import Operation
from places import PLACES

# Records within Any can be parsed once these modules are loaded.
for _dataset in CATALOG:
    importlib.import_module(f"penstock.model.v1.{_dataset.name}_pb2")


def passing(error: grpc.RpcError) -> bool:
    """Whether a consumer reconnects after the error: the hub is away, or the stream was cut.

    A refusal by the hub itself has a status with details, and is not such an error.
    """
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it is a call, too
    return status is None or error.code() is grpc.StatusCode.UNAVAILABLE


def logged(event: Told) -> Change:
    """The entry of the log that an event of an unrestricted View corresponds to."""
    time = dt.datetime.fromtimestamp(event.time // 10**9, dt.UTC)
    return Change(
        event.sequence,
        event.transaction,
        event.dataset,
        event.key,
        Operation[event.operation],
        event.before,
        event.after,
        time,
    )


@dataclass
class Judge:
    """Judges all streams of one unrestricted consumer.

    ``cursor`` is the place from which the consumer continues. Events that are repeated after a
    reconnection are skipped and counted in ``repeated``; any other repetition is a fault.
    """

    validator: FeedValidator
    cursor: str
    repeated: int = 0
    interruptions: int = 0
    _until: int = 0  # events up to here may be repeated

    def again(self) -> None:
        """The consumer returns with its cursor, which the hub may accept or refuse."""
        self._until = self.validator.after

    def message(self, message: Any) -> None:
        """Judge a message of a stream."""
        self.changes(told(c) for c in message.changes)
        if message.HasField("checkpoint"):
            self.checkpoint(message.checkpoint.cursor)

    def changes(self, events: Iterable[Told]) -> None:
        """Judge changes, in the order of their arrival."""
        for event in events:
            if event.sequence <= self._until:
                self.repeated += 1
                if event.sequence <= number(self.cursor):
                    detail = f"{event.sequence} comes after the checkpoint {number(self.cursor)}"
                    self.validator.faults.append(Fault(Broken.CHECKPOINT, detail))
                continue
            self.validator.change(logged(event))

    def arrived(self, place: int) -> bool:
        """Whether everything up to a number has arrived, or there is a fault. Raises AssertionError
        on a fault."""
        told = number(self.cursor)
        assert told >= place or self.validator.faults, f"it is at {told}, not at {place}"
        return True

    def checkpoint(self, cursor: str) -> None:
        """Nothing at or below the cursor may follow."""
        place = PLACES.open(cursor)
        self.validator.checkpoint(place.number, place.mark)
        self.cursor = cursor


#: The HTTP errors of a hub that is away.
_PASSING = frozenset({502, 503, 504})


class Consumer:
    """Holds a stream over gRPC; subclasses override ``_messages``."""

    def __init__(self, port: int, api_key: str, judge: Judge) -> None:
        self.judge = judge
        self._port, self._key = port, api_key

    async def follow(self, going: asyncio.Event) -> None:
        """Reconnect again and again until ``going`` is cleared and everything up to then has
        arrived."""
        going_on = asyncio.create_task(self._follow())
        try:
            while going.is_set():
                await asyncio.wait({going_on}, timeout=0.1)
                if going_on.done():
                    going_on.result()
        finally:
            going_on.cancel()
            await asyncio.gather(going_on, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            self.judge.again()
            try:
                async for message in self._messages():
                    self.judge.message(message)
            except grpc.RpcError as error:
                if not passing(error):
                    raise
            except aiohttp.ClientResponseError as error:
                if error.status not in _PASSING:
                    raise
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            self.judge.interruptions += 1
            await asyncio.sleep(0.1)  # the hub is away: do not spin

    async def _messages(self) -> AsyncIterator[Any]:
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options=options) as channel:
            request = changes_pb2.WatchChangesRequest(
                cursor=self.judge.cursor, include_before=True, batch_size=50
            )
            metadata = (("x-api-key", self._key),)
            async for message in ChangesStub(channel).WatchChanges(request, metadata=metadata):
                yield message


class LineConsumer(Consumer):
    """The same over REST, line by line."""

    async def _messages(self) -> AsyncIterator[Any]:
        query = {"cursor": self.judge.cursor, "include_before": "true", "batch_size": "25"}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=30)
        async with (
            aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 22) as session,
            session.get(
                f"http://127.0.0.1:{self._port}/v1/changes:watch",
                params=query,
                headers={"x-api-key": self._key, "accept": "application/x-ndjson"},
            ) as reply,
        ):
            reply.raise_for_status()
            async for line in reply.content:
                if not line.endswith(b"\n"):
                    return  # cut off within a message
                yield json_format.Parse(line, changes_pb2.WatchChangesResponse())


class PollingConsumer(Consumer):
    """Polls page after page."""

    async def _messages(self) -> AsyncIterator[Any]:
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                query = {"cursor": self.judge.cursor, "include_before": "true", "wait": "5s"}
                async with session.get(
                    f"http://127.0.0.1:{self._port}/v1/changes",
                    params={**query, "page_size": "500"},
                    headers={"x-api-key": self._key},
                ) as reply:
                    reply.raise_for_status()
                    page = json_format.Parse(await reply.read(), changes_pb2.ListChangesResponse())
                self.judge.changes(told(c) for c in page.changes)
                self.judge.cursor = page.next_cursor  # may be within a transaction
                yield changes_pb2.WatchChangesResponse()
