"""Where a stream begins: what a call says in its parameters, and in the header of a browser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock.hub.v1 import changes_pb2
from penstockd.errors import CursorInvalid
from penstockd.feed.stream import Watch
from penstockd.rpc.feeds import watch_of


def watch(last_id: str = "", **said: Any) -> Watch:
    metadata = {"last-event-id": last_id} if last_id else {}
    exchange: Any = SimpleNamespace(metadata=metadata)
    return watch_of(changes_pb2.WatchChangesRequest(**said), exchange)


def test_the_last_id_goes_before_the_url() -> None:
    assert watch(cursor="c") == Watch("c")
    assert watch(snapshot=True, heartbeat_seconds=2) == Watch("", True, 2)
    assert watch("last~proof", cursor="c~p", snapshot=True) == Watch("last")
    assert watch("last", cursor="c") == Watch("last")


@pytest.mark.parametrize("cursor", ["c~proof", "c~", "~"])
def test_a_proof_is_no_part_of_a_url(cursor: str) -> None:
    with pytest.raises(CursorInvalid, match="before '~'"):
        watch(cursor=cursor)
