"""Times and durations, for the messages of all the hub's services."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from penstockd.errors import ValueInvalid


def time_of(message: Message, name: str) -> datetime | None:
    """An optional time. Raises ValueInvalid if it is out of range."""
    if not message.HasField(name):
        return None
    try:
        found: datetime = getattr(message, name).ToDatetime(UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueInvalid.of(name, "is not a valid time") from exc
    return found


def duration_of(message: Message, name: str, default: timedelta) -> timedelta:
    """An optional duration. Raises ValueInvalid if it is out of range."""
    if not message.HasField(name):
        return default
    try:
        found: timedelta = getattr(message, name).ToTimedelta()
    except (ValueError, OverflowError) as exc:
        raise ValueInvalid.of(name, "is not a valid duration") from exc
    return found


def make_timestamp(moment: datetime | None) -> Timestamp | None:
    """A time as a message; None stays None."""
    if moment is None:
        return None
    found = Timestamp()
    found.FromDatetime(moment)
    return found


def put_time(message: Message, name: str, moment: datetime | None) -> None:
    """Set a time of a message, if there is one."""
    if moment is not None:
        stamp = Timestamp()
        stamp.FromDatetime(moment)
        getattr(message, name).CopyFrom(stamp)
