"""Bounds on texts that repeat what a caller sent."""

from __future__ import annotations


def shorten_text(text: str, most: int) -> str:
    """The text in at most ``most`` bytes of UTF-8: a longer text loses its middle."""
    if len(text) <= most // 4:
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= most:
        return data.decode()
    mark = " … "
    room = most - len(mark.encode())
    head, tail = data[: room - room // 4], data[-(room // 4) :]
    return head.decode("utf-8", "ignore") + mark + tail.decode("utf-8", "ignore")
