"""Files of the hub's own services, in frames."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from penstockd.rpc.exchange import Exchange
from penstockd.rpc.frames import FRAME_BYTES, attach_file, http_body, show_file


def make_file_sender(
    exchange: Exchange, file_name: str, content_type: str, *, shown: bool = False
) -> Callable[[bytes], Awaitable[None]]:
    """A function that sends the next bytes of a file; the first call sends its headers, too.

    Browsers save the file, unless it is to be ``shown``.
    """
    begun = False
    place = show_file(file_name) if shown else attach_file(file_name)

    async def send(data: bytes) -> None:
        nonlocal begun
        if not begun:
            await exchange.send_headers({"content-disposition": place})
        for at in range(0, len(data) if begun else len(data) or 1, FRAME_BYTES):
            frame = http_body(data[at : at + FRAME_BYTES], "" if begun else content_type)
            begun = True
            await exchange.send(frame)

    return send
